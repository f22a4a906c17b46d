"""How well a track's confidence tells what share of a face is seen: known covers laid over real clips.

    python -m tests.covered CLIP...

Of each clip the first 72 frames are tracked as they are and, four times, with a cover of one kind that comes and goes
from a side, over a fifth to four fifths of the face's width. What is seen of the face is counted in pixels of the mesh
that the free clip was tracked with. A clip takes about a minute.
"""
from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from facemodel import commands
from facemodel.camera import project, to_camera
from facemodel.morphable import load_model
from facemodel.rasterizer import rasterize
from fitting.detection import FaceDetector
from fitting.track import track_clip
from fitting.video_reader import read_frames
from tests.clips import write_clip

FRAMES, FREE, EACH, COVERED = 72, 16, 14, 10      # frames: in all, at the start, per cover, of them covered
SHARES = 0.2, 0.4, 0.6, 0.8                       # of the face's width
COLOURS = {"card": (120, 120, 125), "paper": (228, 228, 232), "cloth": (40, 60, 120), "skin": None}


def cover_share(t):
    """Share of the face's width that is covered in frame t, 0 where nothing is."""
    number, place = divmod(t - FREE, EACH)
    return SHARES[number] if t >= FREE and place < COVERED else 0.0


def covered(picture, landmarks, share, kind, rng):
    """A picture with a cover over `share` of its face: (H, W, 3) uint8, and where that is, (H, W) bool."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    width, height = high - low
    left, right = int(max(0, low[0] - 0.1 * width)), int(low[0] + share * width)
    top, bottom = int(max(0, low[1] - 0.35 * height)), int(min(len(picture), high[1] + 0.1 * height))
    nose = landmarks[[29, 31, 35]].astype(int)
    skin = np.median(picture[nose[0, 1], nose[1, 0] - 12:nose[2, 0] + 12], axis=0)
    y, x = np.mgrid[top:bottom, left:right]
    pattern = 1 + 0.06 * np.sin(y / 9) * np.cos(x / 13) + 0.25 * np.sin(x / 5) * (kind == "cloth")
    out, where = picture.copy(), np.zeros(picture.shape[:2], bool)
    paint = pattern[..., None] * (skin if COLOURS[kind] is None else COLOURS[kind]) + rng.normal(0, 2, (*y.shape, 3))
    out[top:bottom, left:right], where[top:bottom, left:right] = paint.clip(0, 255), True
    return out, where


def face_mask(model, track, t, shape):
    """Pixels that show the face in frame t of a track: (H, W) bool."""
    camera = to_camera(model.shape(track.identity, track.expression[t]), track.rotation[t], track.translation[t])
    xy = project(camera, track.focal, track.principal_point).astype(np.float32)
    return rasterize(xy, camera[:, 2].astype(np.float32), model.sampled_triangles, *shape).mask


def measure(model, detector, clip, folder):
    """Rows (kind, share seen, confidence, status) of every frame of a clip under each cover."""
    pictures = [frame.rgb for frame in read_frames(clip, FRAMES)]
    free = track_clip(model, write_clip(folder / "free.mp4", pictures), detector, progress=False).track
    rows, rng = [], np.random.default_rng(0)
    for kind in COLOURS:
        shown, seen = [], []
        for t, picture in enumerate(pictures):
            share = cover_share(t) if free.status[t] == "ok" else 0.0
            where = np.zeros(picture.shape[:2], bool)
            if share:
                picture, where = covered(picture, free.landmarks[t], share, kind, rng)
            mask = face_mask(model, free, t, picture.shape[:2])
            shown.append(picture)
            seen.append(1 - (mask & where).sum() / mask.sum())
        track = track_clip(model, write_clip(folder / "covered.mp4", shown), detector, progress=False).track
        rows += zip([kind] * len(shown), seen, track.confidence.tolist(), track.status.tolist())
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.covered", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="videos of one face")
    commands.add_model(parser)
    args = parser.parse_args(argv)
    model, detector, rows = load_model(args.model), FaceDetector(), []
    for clip in args.clips:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(model, detector, clip, Path(folder))
    for kind in COLOURS:
        both = np.array([(seen, told) for k, seen, told, status in rows
                         if k == kind and seen < 1 and status != "no_face"])
        away = both[:, 1] - both[:, 0]
        print(f"{kind}: {len(both)} covered frames with a face, confidence less share seen {away.mean():+.3f}, "
              f"absolute {np.abs(away).mean():.3f}")
    half = [status for _, seen, _, status in rows if seen < 0.5]
    free = [(told, status) for _, seen, told, status in rows if seen == 1]
    print(f"more than half covered: {len(half)} frames, {half.count('ok')} of them ok")
    print(f"free: {len(free)} frames, {sum(s == 'ok' for _, s in free)} ok, mean confidence "
          f"{np.mean([told for told, s in free if s != 'no_face']):.3f}")


if __name__ == "__main__":
    commands.run(main)
