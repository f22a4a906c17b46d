"""Memory and disk against the number of frames, on a small clip that is played over and over. Not part of the tests.

    python -m tests.long_run 20000 --folder /tmp/long                     tracks and composites, one table
    python -m tests.long_run 20000 --folder /tmp/long --stage track       only one of the two; they can run side by side

The clip is the demo's face at 160 x 160, forwards and backwards. Tracking looks at a tenth of the usual samples and one
box for landmarks, compositing keeps the photo's texture (`--texture static`): that makes the run several times shorter
and does not change what is kept from frame to frame. `--texture gan` takes the generator. The table, FOLDER/STAGE.csv,
has a line every EVERY frames: stage, frames done, resident memory in MB, work folder in MB.
"""
from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np

import compositing.replace
import fitting.follow
import fitting.track
from compositing.replace import replace_face
from compositing.workdir import WorkDir
from facemodel.morphable import load_model
from fitting.detection import FaceDetector
from fitting.span import PER_FRAME
from fitting.trackfile import Track, file_hash, load_track, save_track
from tests import clips

SIDE, WINDOW = 160, np.s_[20:350, 125:455]          # pixels; where the demo clip shows its face
ROUND = 142                                         # frames: the demo clip's 72, then back
EVERY = 500            # frames


def resident_mb() -> float:
    """Resident memory of this process in MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def folder_mb(folder: Path) -> float:
    """Size of the files in a folder in MB."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def looped_clip(path: Path, count: int) -> Path:
    """A clip of `count` frames, SIDE pixels square, without a jump where it begins anew."""
    small = [cv2.resize(p[WINDOW], (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in clips.demo_frames(72)]
    small += small[-2:0:-1]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "18", "preset": "ultrafast"})
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        for index in range(count):
            container.mux(video.encode(av.VideoFrame.from_ndarray(small[index % ROUND], "rgb24")))
        container.mux(video.encode(None))
    return path


def looped_track(track: Track, count: int, source: Path) -> Track:
    """The track of a looped clip of `count` frames from that of one ROUND of it."""
    rows = np.arange(count) % ROUND
    parts = {name: getattr(track, name)[rows] for name in PER_FRAME} | {"frame_index": np.arange(count)}
    return replace(track, **parts, source_sha256=file_hash(source))


class Watch:
    """Takes the place of a progress bar and writes the table."""

    def __init__(self, table: Path, work: Path, total, name, unit="frame", show=True):
        self._table, self._work, self._name, self._count = table, work, name, 0

    def update(self, count=1, frame=None):
        """Counts frames as done."""
        self._count += count
        if self._count % EVERY == 0:
            with self._table.open("a") as file:
                print(self._name, self._count, f"{resident_mb():.1f}", f"{folder_mb(self._work):.2f}", sep=",",
                      file=file)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--stage", choices=("all", "track", "composite"), default="all")
    parser.add_argument("--texture", default="static")
    args = parser.parse_args(argv)
    args.folder.mkdir(exist_ok=True)
    table, work = args.folder / f"{args.stage}.csv", args.folder / f"{args.stage}.work"
    table.write_text("stage,frames,resident_mb,work_mb\n")
    fitting.track.FRAME_SETTINGS = replace(fitting.track.FRAME_SETTINGS, samples=300)
    fitting.track.progress_bar = compositing.replace.progress_bar = partial(Watch, table, work)
    model, detector = load_model(), FaceDetector()
    detector.landmarks = lambda image, box, jitter=1: FaceDetector.landmarks(detector, image, box, 1)
    clip = looped_clip(args.folder / f"{args.stage}.mp4", args.frames)
    known = None
    if args.stage == "composite":
        one = looped_clip(args.folder / "round.mp4", ROUND)
        known = args.folder / "composite.npz"
        save_track(looped_track(fitting.track.track_clip(model, one, detector, progress=False).track, args.frames,
                                clip), known)
        load_track(known, model)
    with WorkDir(work) as folder:
        if args.stage == "track":
            fitting.track.track_clip(model, clip, detector, folder=work / "tracking_0")
            folder.finish()
        else:
            report = replace_face(clip, None, args.folder / "out.mp4", virtual=3, texture=args.texture, model=model,
                                  detector=detector, track_path=known, work=folder)
            print({k: report[k] for k in ("frames", "replaced", "milliseconds_per_frame", "peak_memory_mb")})
    print(f"in the end {resident_mb():.0f} MB; see {table}")


if __name__ == "__main__":
    main()
