"""Dynamic time warping (Sakoe & Chiba 1978, doi:10.1109/TASSP.1978.1163055) and the smooth map of time made from it."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from facemodel.errors import InputError

STEP_PENALTY = 0.05     # of a step along one sequence only, over the mean distance: plateaus are crossed diagonally
MAX_STRETCH = 12.0      # how many times faster or slower than the other one a performance may be, at any moment
MAX_RATIO = 6.0         # and as a whole
MAX_CELLS = 20_000_000  # of the table of distances; the library takes 28 bytes for each


@dataclass(frozen=True)
class Warp:
    """The moment of B for every moment of A: lines between knots, and on at the same speed before and after them.

    a, b : (K,) float64, both strictly increasing, on the clocks of A and B (seconds, or frames)
    """

    a: np.ndarray
    b: np.ndarray

    def __call__(self, moments):
        """float64, as `moments`; strictly increasing in them."""
        moments = np.asarray(moments, np.float64)
        beyond = moments - np.clip(moments, self.a[0], self.a[-1])
        return np.interp(moments, self.a, self.b) + beyond

    def covers(self, moments):
        """bool, as `moments`: whether they lie between the first and the last knot."""
        moments = np.asarray(moments)
        return (moments >= self.a[0]) & (moments <= self.a[-1])


@dataclass(frozen=True)
class Match:
    """Two sequences laid over each other.

    path : (P, 2) int, rows and columns of the table of distances, from one corner to the other
    knots : (K, 2) float64, the same path without jumps, strictly increasing, in rows and columns
    cost : float, mean distance along the path over the mean of all pairs: 0 for equals, about 1 by chance
    confidence : (N,) float64 in [0, 1] for each row: one minus its distance to the column that the knots put it beside,
    over the mean
    """

    path: np.ndarray
    knots: np.ndarray
    cost: float
    confidence: np.ndarray


def library():
    """librosa, loaded when it is needed; raises InputError where it is missing."""
    try:
        import librosa
    except ImportError as error:
        raise InputError('texgan.align needs librosa, which is missing; pip install -e ".[data]"') from error
    return librosa


def shortest_path(distance, penalty=0.0):
    """The path of least summed distance from the first pair to the last, symmetric in the two sequences.

    Parameters
    ----------
    distance : (N, M) float, >= 0
    penalty : added for each step that goes along one sequence only

    Returns
    -------
    (P, 2) int, rows and columns; each step adds (1, 1), (0, 1) or (1, 0)
    """
    steps = np.array([0.0, penalty, penalty])
    _, path = library().sequence.dtw(C=np.ascontiguousarray(distance, np.float64), weights_add=steps,
                                     weights_mul=np.ones(3))
    return path[::-1].astype(np.int64)


def smooth_path(path, sigma, max_stretch=MAX_STRETCH):
    """A path of DTW without its stairs: strictly increasing, steep nowhere.

    It is looked at from the diagonal, as v = j - i over u = i + j, where either sequence weighs the same. A function
    with |dv/du| <= s is one whose slope dj/di lies between 1/k and k, s = (k - 1)/(k + 1). The path is replaced by the
    nearest such function (in the largest deviation: the mean of its two Lipschitz envelopes) and then by its Gaussian
    average, which keeps the bound. So a pause that only one of the two makes is run through in haste, without a jump.

    Parameters
    ----------
    path : (P, 2) int, as from shortest_path
    sigma : standard deviation of the average, in steps of either sequence
    max_stretch : k > 1

    Returns
    -------
    (K, 2) float64, K = N + M - 1
    """
    u = np.arange(path[0].sum(), path[-1].sum() + 1)
    v = np.interp(u, path.sum(axis=1), np.subtract(path[:, 1], path[:, 0]))
    slope = (max_stretch - 1) / (max_stretch + 1)
    v = (_upper_envelope(v, slope) - _upper_envelope(-v, slope)) / 2
    if sigma > 0 and len(v) > 1:
        # odd reflection continues a straight path straight on
        margin = int(8 * sigma) + 1
        padded = np.pad(v, margin, mode="reflect", reflect_type="odd")
        v = gaussian_filter1d(padded, 2 * sigma, truncate=3.5)[margin:-margin]
    return np.stack([u - v, u + v], axis=1) / 2


def _upper_envelope(v, slope):
    """The least function above v (K,) whose steps are at most `slope`."""
    ramp = slope * np.arange(len(v))
    ahead = np.maximum.accumulate(v + ramp) - ramp
    behind = np.maximum.accumulate((v - ramp)[::-1])[::-1] + ramp
    return np.maximum(ahead, behind)


def match(distance, sigma, penalty=STEP_PENALTY):
    """Lays two sequences over each other.

    Parameters
    ----------
    distance : (N, M) float, >= 0, of every element of one to every element of the other
    sigma : smoothing in elements, see smooth_path
    penalty : see STEP_PENALTY

    Returns
    -------
    Match
    """
    distance = distance / max(distance.mean(), np.finfo(float).tiny)
    path = shortest_path(distance, penalty)
    knots = smooth_path(path, sigma)
    rows = np.arange(len(distance))
    columns = np.rint(np.interp(rows, *knots.T)).clip(0, distance.shape[1] - 1).astype(np.int64)
    off = distance[rows, columns]
    confidence = np.clip(1 - (gaussian_filter1d(off, sigma) if sigma > 0 else off), 0, 1)
    return Match(path, knots, float(distance[path[:, 0], path[:, 1]].mean()), confidence)


def check_size(rows, columns, names, remedy):
    """Raises InputError when a table of rows x columns distances would not fit into memory, or is far from square."""
    if rows * columns > MAX_CELLS:
        raise InputError(f"{names[0]} and {names[1]} are too long to be aligned in one go; {remedy}")
    if max(rows, columns) > MAX_RATIO * min(rows, columns):
        longer, shorter = names if rows > columns else names[::-1]
        raise InputError(f"{longer} is more than {MAX_RATIO:g} times as long as {shorter}, so they do not show the "
                         f"same performance; {remedy}")
