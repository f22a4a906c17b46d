"""Points that were placed by hand in a photo: WebMorph's template of 189 points (.tem), as 68 landmarks.

L. DeBruine, B. Jones, "Face Research Lab London Set", 2017, doi:10.6084/m9.figshare.5047666, has them beside its
photos. They mark the same corners, wings and lines as iBUG's 68 landmarks, which along brows and lower lip are spaced
otherwise: the usual difference is added.
"""
from __future__ import annotations

import numpy as np

from facemodel.errors import InputError
from facemodel.symmetry import MIRROR

COUNT = 189
# iBUG index: points of the template, averaged
POINTS = {8: [129], 17: [71], 18: [72], 19: [73], 20: [74], 21: [75, 76], 22: [77, 78], 23: [79], 24: [80], 25: [81],
          26: [82], 31: [64], 33: [55], 35: [69], 36: [18], 39: [22], 42: [23], 45: [27], 48: [87], 49: [88], 50: [89],
          51: [90], 52: [91], 53: [92], 54: [93], 55: [108], 56: [107], 57: [106], 58: [105], 59: [104]}
# and along lines of the template, ends included: lids, and where the lips meet
LINES = {(36, 37, 38, 39): [18, 19, 20, 21, 22], (36, 41, 40, 39): [18, 28, 29, 30, 22],
         (42, 43, 44, 45): [23, 24, 25, 26, 27], (42, 47, 46, 45): [23, 31, 32, 33, 27],
         (48, 60, 61, 62, 63, 64, 54): [87, 94, 95, 96, 97, 98, 93],
         (48, 67, 66, 65, 54): [87, 99, 100, 101, 102, 103, 93]}
# what iBUG's points are off in the subject's right half, % of the distance of the outer eye corners, to the left and
# down
SHIFT = {17: (-1.2, -1.7), 18: (1.8, -1.1), 19: (5.5, -0.3), 20: (6.7, 1.0), 21: (2.5, -3.7), 58: (3.5, 0.5),
         59: (2.7, 1.6)}


def landmarks_by_hand(path, spacing):
    """The iBUG landmarks that points placed by hand tell.

    Parameters
    ----------
    path : file of the template's points, in pixels of the photo beside it
    spacing : (68, 2) landmarks of a usual face: points along a line are as far along it as there

    Returns
    -------
    (68, 2) float64 pixels, nan for the nose's bridge, two points of its base, and the jaw without the chin

    Raises
    ------
    InputError : when the file is none of these
    """
    try:
        lines = path.read_text().split("\n")
        placed = np.array([[float(v) for v in line.split()[:2]] for line in lines[1:COUNT + 1]])
        if int(lines[0]) != COUNT or placed.shape != (COUNT, 2):
            raise ValueError("another template")
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path}: no points of WebMorph's {COUNT}-point template; delete the file to have the "
                         "detector place them") from error
    out = np.full((68, 2), np.nan)
    for k, points in POINTS.items():
        out[k] = placed[points].mean(axis=0)
    across = (placed[27] - placed[18]) / 100
    down = np.array([-across[1], across[0]])
    for k, (x, y) in SHIFT.items():
        out[k] += x * across + y * down
        out[MIRROR[k]] += -x * across + y * down
    for marks, points in LINES.items():
        share = _lengths(np.asarray(spacing)[list(marks)])
        along = _lengths(placed[points])
        for k, s in list(zip(marks, share / share[-1]))[1:-1]:
            out[k] = [np.interp(s * along[-1], along, placed[points, c]) for c in (0, 1)]
    return out


def _lengths(line):
    """How far along a line (n, 2) its points are."""
    return np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
