"""How steadily a track sits on a face: jitter of its points and lag behind the landmarks."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facemodel.camera import project, to_camera
from fitting.detection import RIGID, eye_distance
from fitting.smoothing import runs

STILL = 0.02             # of the eye distance per frame: a head that moves less is still
FURTHEST_LAG = 3         # frames


@dataclass(frozen=True)
class Steadiness:
    """How steady a track is.

    jitter : float, RMS length of the second differences of projected nose and eye corners on a still head, over sqrt(6)
        (that of white noise is its standard deviation), in % of the eye distance; nan where the head is never still
    still : int, frames that it was measured on
    lag : float, frames by which mouth and lids of the model come after those of the landmarks; nan without movement
    """

    jitter: float
    still: int
    lag: float


def fixed_landmarks(model, track):
    """The model's landmarks in every frame, those of the jaw always the same vertices: (F, 68, 2) pixels."""
    out = np.empty((len(track), 68, 2))
    for t in range(len(track)):
        vertices = model.shape(track.identity, track.expression[t], model.landmarks)[model.landmarks]
        out[t] = project(to_camera(vertices, track.rotation[t], track.translation[t]), track.focal,
                         track.principal_point)
    return out


def openings(points):
    """Opening of mouth and eyes in % of the eye distance: (F, 68, 2) -> (F, 2)."""
    gap = lambda a, b: np.linalg.norm(points[:, a] - points[:, b], axis=-1).mean(axis=-1)
    eyes = np.linalg.norm(points[:, 36] - points[:, 45], axis=-1)
    return 100 * np.stack([gap([61, 62, 63], [67, 66, 65]), gap([37, 38, 43, 44], [41, 40, 47, 46])], axis=1
                          ) / eyes[:, None]


def lag(curve, reference, furthest=FURTHEST_LAG):
    """Frames by which a curve (F,) comes after a reference (F,): peak of their correlation, by a parabola.

    nan where the reference hardly changes or the curve does not follow it.
    """
    a, b = np.diff(curve), np.diff(reference)
    if len(a) < 4 * furthest or b.std() < 1e-6 or a.std() < 1e-6:
        return np.nan
    core = slice(furthest, len(a) - furthest)
    shifts = np.arange(-furthest, furthest + 1)
    value = np.array([np.corrcoef(a[furthest + s:len(a) - furthest + s], b[core])[0, 1] for s in shifts])
    k = int(np.argmax(value))
    if value[k] < 0.3 or k in (0, len(value) - 1):
        return np.nan
    bend = value[k - 1] - 2 * value[k] + value[k + 1]
    return float(shifts[k] + 0.5 * (value[k - 1] - value[k + 1]) / bend)


def steadiness(model, track):
    """Steadiness of a track (its trusted frames)."""
    points = fixed_landmarks(model, track)
    squares, lags, weights = [], [], []
    for run in runs(track.status == "ok"):
        here, there = points[run], track.landmarks[run].astype(np.float64)
        if len(here) < 5:
            continue
        size = np.median([eye_distance(p) for p in there])
        centre = here[:, RIGID].mean(axis=1)
        speed = np.linalg.norm(centre[2:] - centre[:-2], axis=1) / 2 / size
        bend = (here[2:] - 2 * here[1:-1] + here[:-2])[:, RIGID] / np.sqrt(6) / size
        squares.append((bend[speed < STILL] ** 2).sum(axis=2))
        for a, b in zip(openings(here).T, openings(there).T):
            lags.append(lag(a, b))
            weights.append(np.diff(b).std() * len(b))
    squares = np.concatenate(squares) if squares else np.zeros((0, len(RIGID)))
    lags, weights = np.array(lags), np.array(weights)
    known = np.isfinite(lags)
    return Steadiness(
        jitter=float(100 * np.sqrt(squares.mean())) if len(squares) else np.nan, still=len(squares),
        lag=float(np.average(lags[known], weights=weights[known])) if known.any() else np.nan)
