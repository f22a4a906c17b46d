"""Smoothing that knows the whole clip and how sure each frame is of each of its unknowns.

A frame's fit is the minimum of an energy; the energy's Hessian says in which directions the picture holds it. Smoothing
minimises the frames' quadratic models together with the second differences over time of expression, rotation and
translation:

    sum_t (x_t - fit_t)^T H_t (x_t - fit_t) / (2 T)  +  sum_t,k rho((x_t-1,k - 2 x_t,k + x_t+1,k) / a_k)

What a picture does not tell (units that undo each other, depth against size) becomes steady; what it does tell (blinks,
plosives) stays. rho is Cauchy's, so that a real jump is not paid for by its neighbours. The problem is symmetric in
time: nothing lags. It is solved in runs of trusted frames, so nothing leaks across a loss.
"""
from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from fitting.parameters import TRANSLATION_UNIT

LIGHT_SIGMA = 4.0                 # frames
TEMPERATURE = 3e-4                # of the energy, T above
# a: second differences per frame squared that are usual, of expression, rotation (radians), translation (metres)
EXPRESSION_BEND, ROTATION_BEND, TRANSLATION_BEND = 0.02, 0.001, 0.0003
CHUNK, MARGIN = 240, 20           # frames solved at once, and how far they look into their neighbours
REWEIGHTINGS = 5


def runs(mask):
    """Slices of consecutive True in (F,) bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(mask, int), [0]])))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2])]


def marginal(hessian, kept):
    """Hessian of the first `kept` unknowns when the others follow freely: (n, n) -> (kept, kept) (Schur complement)."""
    rest = hessian[kept:, kept:] + 1e-12 * np.eye(len(hessian) - kept)
    return hessian[:kept, :kept] - hessian[:kept, kept:] @ np.linalg.solve(rest, hessian[kept:, :kept])


def smooth_states(states, hessians, bend, temperature=TEMPERATURE, reweightings=REWEIGHTINGS):
    """Minimises the energy above.

    Parameters
    ----------
    states : (F, n) float64, the frames' fits
    hessians : (F, n, n) float, positive semi-definite
    bend : (n,) float, the scale a of second differences
    temperature : float

    Returns
    -------
    (F, n) float64
    """
    frames, n = states.shape
    if frames < 3:
        return states
    data = np.asarray(hessians, np.float64) / temperature
    band = np.zeros((2 * n + 1, frames * n))
    for d in range(n):
        diagonal = np.zeros((frames, n))
        diagonal[:, :n - d] = np.diagonal(data, -d, 1, 2)
        band[d] = diagonal.ravel()
    band[0] += 1e-9 * band[0].max()
    x = states
    for _ in range(reweightings):
        second = (x[2:] - 2 * x[1:-1] + x[:-2]) / bend
        weight = 1 / (1 + second ** 2) / bend ** 2
        full = band.copy()
        main = np.zeros((frames, n))
        main[:-2] += weight
        main[1:-1] += 4 * weight
        main[2:] += weight
        full[0] += main.ravel()
        first = np.zeros((frames, n))
        first[:-2] -= 2 * weight
        first[1:-1] -= 2 * weight
        full[n] += first.ravel()
        full[2 * n, :(frames - 2) * n] += weight.ravel()
        right = np.einsum("fij,fj->fi", data, states) + 1e-9 * band[0].max() * states
        x = solveh_banded(full, right.ravel(), lower=True, overwrite_ab=True, check_finite=False).reshape(frames, n)
    return x


def smooth_run(expression, rotation, translation, hessians, expression_range):
    """Smooths consecutive frames.

    Parameters
    ----------
    expression : (F, n_exp), rotation : (F, 3) axis-angle, translation : (F, 3) mm
    hessians : (F, n_exp + 6, n_exp + 6), by expression, rotation in camera space and translation in metres
    expression_range : (2,), kept

    Returns
    -------
    expression, rotation, translation
    """
    turns = Rotation.from_rotvec(rotation)
    mean = turns.mean()
    states = np.concatenate([expression, (turns * mean.inv()).as_rotvec(), translation / TRANSLATION_UNIT], axis=1)
    count, (low, high) = expression.shape[1], expression_range
    bend = np.r_[np.full(count, EXPRESSION_BEND * (high - min(0, low))), np.full(3, ROTATION_BEND),
                 np.full(3, TRANSLATION_BEND)]
    out = smooth_states(states, hessians, bend)
    turned = (Rotation.from_rotvec(out[:, count:count + 3]) * mean).as_rotvec()
    return out[:, :count].clip(low, high), turned, out[:, count + 3:] * TRANSLATION_UNIT


class RunSmoother:
    """Smooths a stream of frames; holds no more than CHUNK + 2 MARGIN of them, however long the clip."""

    def __init__(self, expression_range):
        self._range = expression_range
        self._frames, self._done = [], 0

    def push(self, key, expression, rotation, translation, hessian):
        """Takes the next frame of a run; yields (key, expression, rotation, translation) of frames that are ready."""
        self._frames.append((key, expression, rotation, translation, hessian))
        if len(self._frames) - self._done >= CHUNK + MARGIN:
            yield from self._solve(self._done + CHUNK)
            drop = max(0, self._done - MARGIN)
            self._frames, self._done = self._frames[drop:], self._done - drop

    def state(self):
        """The frames that it holds, as plain data (see fitting.checkpoint)."""
        return {"frames": [list(frame) for frame in self._frames], "done": self._done}

    def restore(self, state):
        """Goes on from a state."""
        self._frames, self._done = [tuple(frame) for frame in state["frames"]], state["done"]

    def flush(self):
        """Ends the run: yields the frames that are left."""
        if self._frames:
            yield from self._solve(len(self._frames))
        self._frames, self._done = [], 0

    def _solve(self, end):
        keys, *columns = zip(*self._frames)
        smoothed = smooth_run(*(np.stack(c) for c in columns), self._range)
        yield from list(zip(keys, *smoothed))[self._done:end]
        self._done = end


def smooth_light(light, mask):
    """Light (F, 9, 3) smoothed within runs of True in `mask` (F,)."""
    out = light.copy()
    for run in runs(mask):
        out[run] = gaussian_filter1d(light[run].astype(np.float64), LIGHT_SIGMA, axis=0, mode="nearest")
    return out
