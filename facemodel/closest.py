"""Closest points on a surface of triangles."""
from __future__ import annotations

import numpy as np

LATER = 0.3                  # mm that each next of the candidates has to be nearer by: the first agrees best


def at_closest_points(points, found, surface, triangles, values):
    """Values at the closest point on the triangles around some vertices, which are the candidates of each point.

    Parameters
    ----------
    points : (N, 3) float
    found : (N, k) int, for each point the vertices of the surface around which to look, the likeliest first
    surface : (V, 3) float, mm; triangles : (T, 3) int
    values : (V, K) float, of the surface's vertices

    Returns
    -------
    (N, K) float64, the first candidate's own where no triangle is around it
    """
    order = np.argsort(triangles.ravel(), kind="stable")
    start = np.searchsorted(triangles.ravel()[order], np.arange(len(surface) + 1))
    around, count = order // 3, np.diff(start)
    best, out = np.full(len(points), np.inf), values[found[:, 0]].astype(np.float64)
    for k in range(found.shape[1]):
        for step in range(int(count.max())):
            rows = np.flatnonzero(count[found[:, k]] > step)
            corners = triangles[around[start[found[rows, k]] + step]]
            weight = _barycentric(points[rows], surface[corners])
            distance = np.linalg.norm(np.einsum("nk,nkd->nd", weight, surface[corners]) - points[rows], axis=1)
            distance += LATER * k
            better = distance < best[rows]
            best[rows[better]] = distance[better]
            out[rows[better]] = np.einsum("nk,nkd->nd", weight, values[corners])[better]
    return out


def _barycentric(points, corners):
    """Weights (N, 3) of points (N, 3) projected into triangles (N, 3, 3), pulled back into them."""
    e1, e2, p = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    dot = lambda a, b: (a * b).sum(axis=1)
    a, b, c = dot(e1, e1), dot(e1, e2), dot(e2, e2)
    area = np.maximum(a * c - b * b, 1e-12)
    v, w = (c * dot(p, e1) - b * dot(p, e2)) / area, (a * dot(p, e2) - b * dot(p, e1)) / area
    weight = np.clip(np.stack([1 - v - w, v, w], axis=1), 0, None)
    return weight / weight.sum(axis=1, keepdims=True)
