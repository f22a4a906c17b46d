"""How well what lies before a face is found, by hand-drawn outlines; and how much is found where nothing is.

    python -m tests.occlusion_labels [CLIPS...] [--videos DIR [--cut]] [--tracks DIR] [--sheet DIR]

occlusion_labels.json holds outlines in pixels: `areas` of a hand, and of glasses `closed` and open `lines`. Of areas
recall, precision and IoU are printed inside the face; of lines how much of their length is within 2 pixels of what was
found, and how much of what was found inside the face is within 4 pixels of them. Clips without labels are ordinary
ones: of every frame the share of the face that is kept is measured. FRAMES frames are looked at, from FIRST on, from
which the labels count; --cut says that the videos begin there. The clips lie outside the repository.
"""
from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np

from compositing.key_frames import pictures_of, spread_frames
from compositing.occlusion import Occlusion, OcclusionDetector, wears_glasses
from facemodel.morphable import load_model
from fitting.span import parse_edge, resolve_span
from fitting.texture import pose
from fitting.video_reader import VideoReader
from tests import clips

LABELS = Path(__file__).with_name("occlusion_labels.json")
FRAMES = 160
ORDINARY = ("grin_512", "speech_700", "expressions_512", "address_720p", "mouth_wide_480", "dim_844",
            "three_quarter_720p", "extreme_480")
FIRST = {"stress_hand_roll_pexels": 60, "glasses_blink_512": 200, "address_720p": 200, "expressions_512": 120,
         "mouth_wide_480": 40, "extreme_480": 300}           # frame that is looked at first, else 0


def face_area(model, track, t):
    """Pixels of frame t that the face covers, as far as something could be painted there: (H, W) bool."""
    posed = pose(model, model.shape(track.identity, track.expression[t]), track.rotation[t], track.translation[t],
                 track.focal, track.principal_point)
    inside = (model.regions["face"] > 0.25)[model.triangles].all(axis=1)
    out = np.zeros(tuple(int(x) for x in track.image_size), np.uint8)
    corners = np.round(posed.xy[model.triangles[inside]]).astype(np.int32)
    for triangle in corners:
        cv2.fillConvexPoly(out, triangle, 1)
    return out.astype(bool)


def labelled(shape, label):
    """(areas, lines): (H, W) bool, what is inside the areas, and the lines, a pixel wide."""
    areas, lines = (np.zeros(shape, np.uint8) for _ in range(2))
    for points in label.get("areas", ()):
        cv2.fillPoly(areas, [np.round(points).astype(np.int32)], 1)
    for key, closed in (("closed", True), ("lines", False)):
        for points in label.get(key, ()):
            cv2.polylines(lines, [np.round(np.array(points) - 0.5).astype(np.int32)], closed, 1)
    return areas.astype(bool), lines.astype(bool)


def measure(model, path, track, detector, labels, sheet=None):
    """Rows of figures of one clip: dict."""
    glasses = wears_glasses(model, track, pictures_of(path, track, spread_frames(track)), detector)
    occlusion, kept, scores, pictures, seconds = Occlusion(model, track, detector, glasses), [], [], [], 0.0
    wanted = labels or {str(i): {} for i in np.linspace(0, len(track) - 1, 12).astype(int)}
    with VideoReader(path) as reader:
        for frame in reader:
            t = frame.index - int(track.frame_index[0])
            if not 0 <= t < len(track):
                continue
            if track.status[t] != "ok":
                occlusion.reset()
                continue
            image, begin = frame.rgb, time.process_time()
            thing, rim = occlusion.keep(image, t)
            seconds += time.process_time() - begin
            face = face_area(model, track, t)
            none = np.ones(face.shape, np.float32)
            covered = 1 - np.minimum(*(none if x is None else x for x in (thing, rim)))
            kept.append(float(covered[face].sum() / face.sum()))
            if str(t) in wanted:
                areas, lines = labelled(face.shape, wanted[str(t)])
                pictures.append(_shown(image, covered, face, areas))
                if areas.any():
                    found, true = (covered > 0.5) & face, areas & face
                    scores.append(((found & true).sum(), true.sum(), found.sum(), (found | true).sum()))
                elif lines.any():
                    near = lambda m, r: cv2.dilate(m.astype(np.uint8), cv2.getStructuringElement(
                        cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1))).astype(bool)
                    found = (covered > 0.5) & face
                    scores.append(((lines & face & near(covered > 0.5, 2)).sum(), (lines & face).sum(),
                                   (found & near(lines, 4)).sum(), found.sum()))
    row = {"glasses": glasses, "kept_median": float(np.median(kept)), "kept_max": float(np.max(kept)),
           "ms_per_frame": 1000 * seconds / max(len(kept), 1)}
    if scores:
        a, b, c, d = np.sum(scores, axis=0)
        row |= {"recall": a / b} | ({"precision": a / c, "iou": a / d} if areas.any() else {"precision": c / max(d, 1)})
    if sheet is not None:
        columns = pictures[:len(pictures) // 4 * 4] if len(pictures) > 4 else pictures
        rows = [np.concatenate(columns[i:i + 4], axis=1) for i in range(0, len(columns), 4)]
        cv2.imwrite(str(Path(sheet) / f"{path.stem}.png"), np.concatenate(rows)[..., ::-1])
    return row


def _shown(image, covered, face, areas):
    rows, columns = np.flatnonzero(face.any(axis=1)), np.flatnonzero(face.any(axis=0))
    out = image.astype(np.float32)
    out += 0.6 * covered[..., None] * (np.float32([255, 0, 0]) - out)
    edge = cv2.morphologyEx(face.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(bool)
    out[edge] = 0.5 * out[edge] + [0, 64, 128]
    if areas.any():
        edge = cv2.morphologyEx(areas.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)).astype(bool)
        out[edge] = [0, 255, 0]
    crop = out[max(rows[0] - 20, 0):rows[-1] + 20, max(columns[0] - 20, 0):columns[-1] + 20]
    return cv2.resize(crop, (480, 480), interpolation=cv2.INTER_AREA).astype(np.uint8)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.occlusion_labels", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    labels = json.loads(LABELS.read_text())
    parser.add_argument("clips", nargs="*", default=[*(Path(name).stem for name in labels), *ORDINARY])
    parser.add_argument("--videos", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data/videos")
    parser.add_argument("--cut", action="store_true")
    parser.add_argument("--tracks", type=Path, help="folder of NAME.npz, read where they exist, else written")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--sheet", type=Path, help="folder for pictures of what was found")
    args = parser.parse_args(argv)
    model, detector = load_model("commons"), OcclusionDetector(args.weights)
    for name in args.clips:
        path = args.videos / f"{name}.mp4"
        if not path.is_file():
            print(f"{path}: no such file, left out")
            continue
        first = 0 if args.cut else FIRST.get(name, 0)
        span = resolve_span(path, parse_edge(f"{first}f", "--start"), parse_edge(f"{first + FRAMES}f", "--end"))
        track = clips.known_track(model, path, args.tracks and args.tracks / f"{name}.npz", span=span)
        row = measure(model, path, track, detector, labels.get(path.name), args.sheet)
        print(f"{name:26}", ", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
              flush=True)


if __name__ == "__main__":
    main()
