"""The two seam costs and lambda of eq. 10 compared on real clips. Not part of the tests.

    python -m tests.seam_sweep CLIP.mp4... --target PHOTO.jpg [--tracks FOLDER] [--frames 60]

A table per clip, one line per cost and lambda, over the vertices of the face that could be either:

    seam        mean difference between source and rendering at the ends of the edges that the seam crosses, of 255;
                what the blend has to hide
    edges       mean difference along those edges within each picture, of 255; what the seam cuts through
    changes     vertices that change their label, in thousandths per frame
    pops        mean over all vertices and frames of what such a change does to the picture, of 255 (times 1000)
    share       of the vertices that show the target
    ms          of the seam stage per frame
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from compositing.compositor import Compositor
from compositing.graph_cut import COSTS
from compositing.report import StageTimer
from compositing.target import reduced, target_from_photo, texture_size_for
from facemodel.morphable import load_model
from fitting.detection import FaceDetector
from fitting.fit import fit_image
from fitting.images import read_image
from fitting.video_reader import VideoReader
from tests import clips

SMOOTHNESS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


class Recorder:
    """A SeamLabeller that remembers what it was given and what it answered."""

    def __init__(self, labeller):
        self._labeller, self.given, self.labels = labeller, [], []

    def push(self, source, target, hard_source, hard_target, **options):
        self.given.append((source, target, ~(hard_source | hard_target), options["reset"]))
        return self._kept(self._labeller.push(source, target, hard_source, hard_target, **options))

    def flush(self):
        return self._kept(self._labeller.flush())

    def _kept(self, labels):
        labels = list(labels)
        self.labels += labels
        return labels


def figures(recorder, edges):
    """seam, edges, changes, pops, share of one run; see the module's docstring."""
    u, v = edges.T
    seams, within, changes, pops, shares, before = [], [], [], [], [], None
    distance = lambda a, b: np.linalg.norm(a - b, axis=-1) / np.sqrt(3) * 255
    for (source, target, free, reset), label in zip(recorder.given, recorder.labels, strict=True):
        crossed = (label[u] != label[v]) & (free[u] | free[v])
        if crossed.any():
            a, b = u[crossed], v[crossed]
            seams.append((distance(source[a], target[a]) + distance(source[b], target[b])).mean() / 2)
            within.append((distance(source[a], source[b]) + distance(target[a], target[b])).mean() / 2)
        shares.append(label[free].mean())
        if before is not None and not reset:
            changed = (label != before[0]) & free & before[1]
            changes.append(1000 * changed[free].mean())
            pops.append(1000 * (distance(source, target) * changed)[free].mean())
        before = label, free
    return [float(np.mean(x)) for x in (seams, within, changes, pops, shares)]


def sweep(model, clip, track, person, count):
    """Prints a clip's table."""
    person = reduced(person, texture_size_for(model, track))
    print(f"{clip.stem:24s}{'lambda':>9s}{'seam':>8s}{'edges':>8s}{'changes':>9s}{'pops':>8s}{'share':>8s}{'ms':>8s}")
    for cost in COSTS:
        for smoothness in SMOOTHNESS:
            timer = StageTimer()
            compositor = Compositor(model, track, person, cost=cost, smoothness=smoothness, timer=timer)
            compositor._labeller = recorder = Recorder(compositor._labeller)
            with VideoReader(clip) as reader:
                for frame in reader:
                    if frame.index == count:
                        break
                    for _ in compositor.push(frame):
                        pass
                for _ in compositor.flush():
                    pass
            values = figures(recorder, model.coarse_edges)
            milliseconds = 1000 * timer.seconds["seam"] / len(recorder.labels)
            print(f"{cost:24s}{smoothness:9g}" + "".join(f"{x:{w}.{d}f}" for x, w, d in zip(
                [*values, milliseconds], (8, 8, 9, 8, 8, 8), (2, 2, 2, 1, 3, 0))), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--tracks", type=Path, help="folder of NAME.npz: read if there, else written")
    parser.add_argument("--frames", type=int, default=60)
    args = parser.parse_args()
    model, detector = load_model(), FaceDetector()
    image = read_image(args.target)
    person = target_from_photo(model, image, fit_image(model, image, detector, "largest", args.target)[0])
    for clip in args.clips:
        track = clips.known_track(model, clip, args.tracks and args.tracks / f"{clip.stem}.npz")
        sweep(model, clip, track, person, args.frames)


if __name__ == "__main__":
    main()
