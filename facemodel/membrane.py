"""Closes a hole of a surface by a sheet whose vertices are fixed weighted means of the hole's rim.

The sheet of the mouth hangs behind the lips, that of an eye lies on the eyeball, as in the embedded model; so the
inside of the mouth and the eyes are texels of the same chart as the skin (section 5.4 of the paper).
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import Delaunay

ASPECT = 2.0                 # width over height of the ellipse that a hole is unrolled to
RECESS = 9.0                 # mm that the middle of the mouth's sheet lies behind the lips


@dataclass(frozen=True)
class Membrane:
    """A sheet across a hole.

    loop : (N,) int, vertices of the rim
    weights : (M, N) float64, rows sum to 1: new vertices as means of the rim's
    triangles : (K, 3) int, 0..N-1 the rim in the order of `loop`, N..N+M-1 new vertices; counter-clockwise from outside
    depth : (M,) float64 in [0, 1], 0 at the rim, 1 in the middle
    """

    loop: np.ndarray
    weights: np.ndarray
    triangles: np.ndarray
    depth: np.ndarray


def _unroll(rim):
    """Places a rim (N, 3) on an ellipse by its length above and below its outermost points in x: (N, 2)."""
    n = len(rim)
    left, right = int(np.argmin(rim[:, 0])), int(np.argmax(rim[:, 0]))
    forward = (left + np.arange((right - left) % n + 1)) % n
    back = (right + np.arange((left - right) % n + 1)) % n
    angle = np.zeros(n)
    forward_on_top = rim[forward, 1].mean() >= rim[back, 1].mean()
    ends = {True: (np.pi, 0.0), False: (-np.pi, 0.0)}[bool(forward_on_top)]
    for chain, (a, b) in ((forward, ends), (back, (0.0, -ends[0]))):
        # uneven edges would crowd the ellipse's points; half way between equal and true lengths
        step = np.linalg.norm(np.diff(rim[chain], axis=0), axis=1)
        step = step / step.sum() + 1 / len(step)
        angle[chain] = a + (b - a) * np.concatenate([[0], np.cumsum(step)]) / step.sum()
    return np.stack([ASPECT * np.cos(angle), np.sin(angle)], axis=1)


def close_hole(loop, vertices):
    """The sheet across a hole.

    Parameters
    ----------
    loop : (N,) int, the hole's rim, N >= 3
    vertices : (V, 3) float, x to the right and y up as seen from outside

    Returns
    -------
    Membrane, about as fine as its rim
    """
    rim = _unroll(vertices[loop])
    n = len(loop)
    step = np.linalg.norm(rim - np.roll(rim, -1, axis=0), axis=1).mean()
    y, x = np.meshgrid(np.arange(-1, 1, step * 0.87), np.arange(-ASPECT, ASPECT, step), indexing="ij")
    x = x + (np.arange(len(x)) % 2)[:, None] * step / 2
    inside = np.stack([x.ravel(), y.ravel()], axis=1)
    radius = np.hypot(inside[:, 0] / ASPECT, inside[:, 1])
    inside = inside[radius < 1 - 0.6 * step]
    if len(inside) == 0:
        inside = np.zeros((1, 2))
    points = np.concatenate([rim, inside])
    triangles = Delaunay(points).simplices
    a, b, c = (points[triangles[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    triangles = np.where((area < 0)[:, None], triangles[:, ::-1], triangles)[np.abs(area) > 1e-12]
    adjacency = np.zeros((len(points), len(points)))
    for i, j in ((0, 1), (1, 2), (2, 0)):
        adjacency[triangles[:, i], triangles[:, j]] = adjacency[triangles[:, j], triangles[:, i]] = 1
    laplacian = np.diag(adjacency.sum(1)) - adjacency
    weights = np.linalg.solve(laplacian[n:, n:], -laplacian[n:, :n])
    depth = np.sqrt(np.clip(1 - (inside[:, 0] / ASPECT) ** 2 - inside[:, 1] ** 2, 0, 1))
    return Membrane(np.asarray(loop), weights, triangles, depth)


def follow(membrane, values):
    """Values of the new vertices as means of the rim's: (V, ...) -> (M, ...)."""
    rim = values[membrane.loop]
    return (membrane.weights @ rim.reshape(len(rim), -1)).reshape(-1, *rim.shape[1:])


def recede(membrane, points, recess=RECESS):
    """Pushes a sheet's points (M, 3) into the mouth, along -z, by at most `recess` mm."""
    return points - recess * membrane.depth[:, None] * [0, 0, 1]


def bulge(points, centre, radius, behind=0.3):
    """Moves points (..., 3) along z onto the front of an eyeball, where that lies further out; mm."""
    height = radius ** 2 - ((points[..., :2] - centre[:2]) ** 2).sum(axis=-1)
    front = centre[2] + np.sqrt(np.maximum(height, 0)) - behind
    out = points.copy()
    out[..., 2] = np.where(height > 0, np.maximum(front, points[..., 2]), points[..., 2])
    return out


def fit_sphere(points):
    """Centre (3,) and radius of the sphere nearest to points (N, 3), by linear least squares."""
    solution = np.linalg.lstsq(np.concatenate([2 * points, np.ones((len(points), 1))], axis=1),
                               (points ** 2).sum(axis=1), rcond=None)[0]
    centre = solution[:3]
    return centre, float(np.sqrt(solution[3] + centre @ centre))
