"""Which face of a video gets whose: --pair 1=a.jpg --pair 2=virtual:7."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compositing.report import passed_ranges
from compositing.virtual import check_seed
from facemodel.errors import InputError
from fitting.follow import Follower
from fitting.video_reader import WHOLE, VideoReader, check_file

VIRTUAL = "virtual:"


@dataclass(frozen=True)
class Pair:
    """A face of the video and who shall be seen in its place.

    face : str, as fitting.fit.choose_face takes it
    target : path of a photo, or None with `virtual`
    virtual : int seed of a face of nobody, or None
    """

    face: str = "largest"
    target: Path | None = None
    virtual: int | None = None

    @property
    def name(self):
        """Short, for file names and lists."""
        return f"virtual{self.virtual}" if self.target is None else Path(self.target).stem


def parse_pairs(texts):
    """Pairs from what a user wrote after --pair, in the order of their numbers.

    Raises
    ------
    InputError : no number, the same number twice, a photo that is not there

    >>> parse_pairs(["2=virtual:7", "1=virtual:3"])[0]
    Pair(face='1', target=None, virtual=3)
    """
    found = {}
    for text in texts:
        number, sign, name = text.partition("=")
        number = number.strip()
        if not (sign and name and number.isascii() and number.isdecimal() and int(number) > 0):
            raise InputError(f"--pair {text}: give a face's number, counted from the left, and a photo: 1=a.jpg, or "
                             f"1={VIRTUAL}7 for a face of nobody")
        number = int(number)
        if number in found:
            raise InputError(f"--pair {text}: face {number} has got {found[number].name} already; give each face one "
                             "target")
        if name.startswith(VIRTUAL):
            seed = name[len(VIRTUAL):]
            if not (seed.isascii() and seed.isdecimal()):
                raise InputError(f"--pair {text}: give a whole number after {VIRTUAL}, as in {number}={VIRTUAL}7")
            check_seed(int(seed), "--pair N=virtual:")
            found[number] = Pair(str(number), virtual=int(seed))
        else:
            found[number] = Pair(str(number), target=check_file(Path(name), "photo"))
    return [found[number] for number in sorted(found)]


def check_faces(source, detector, pairs, span=WHOLE):
    """Raises InputError when the first frame of a span that shows a face lacks one of the pairs' numbers.

    It looks as fitting.follow does, so that hours of tracking one face do not end with the next one's number.
    """
    follower = Follower(detector, max((pair.face for pair in pairs), key=int), source)
    with VideoReader(source, span) as reader:
        for frame in reader:
            follower.step(frame.rgb)
            if follower.face_count:
                return


def report_of_faces(report, rows, replaced):
    """The report of a run with several faces.

    Parameters
    ----------
    report : dict, of compositing.report.build_report for any of them; what holds for all is taken from it
    rows : list of (Pair, SHA-256 or words of its target, dict that build_report gave for this face alone)
    replaced : (F, K) bool, frames of the span that show the target in face k's place

    Returns
    -------
    dict with `faces`, a list of one dict per face; `replaced` and `passed_through` count frames that show any of them
    """
    own = ("replaced", "passed_through", "median_photometric_error", "median_landmark_error", "mean_covered",
           "per_frame")
    any_of_them = np.asarray(replaced).any(axis=1)
    faces = [{"face": pair.face, "target": str(pair.target) if pair.virtual is None else digest,
              "target_sha256": digest, **{k: single[k] for k in own}} for pair, digest, single in rows]
    shared = {k: v for k, v in report.items() if k not in own}
    return {**shared, "replaced": int(any_of_them.sum()),
            "passed_through": passed_ranges(any_of_them, report["span"][0]), "faces": faces}
