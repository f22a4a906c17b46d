"""The UV chart: one disc without overlaps, with more room where more happens.

A Tutte embedding on a convex outline is free of overlaps for any positive weights (W. T. Tutte, 1963,
doi:10.1112/plms/s3-13.1.743). The weights are then adapted so that every region gets the area that it should have,
dividing them by the local stretch (S. Yoshizawa et al., 2004, doi:10.1109/SMI.2004.1314508); since they stay positive,
the embedding stays free of overlaps.
"""
from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

from facemodel.build.surface import boundary_loops
from facemodel.subdivision import triangulate, unique_edges


def outline(angles, exponent=5.0, margin=0.004):
    """Points of a superellipse that fills the unit square, strictly convex: (N,) radians -> (N, 2)."""
    c, s = np.cos(angles), np.sin(angles)
    radius = (np.abs(c) ** exponent + np.abs(s) ** exponent) ** (-1 / exponent)
    return 0.5 + (0.5 - margin) * radius[:, None] * np.stack([c, s], axis=1)


def _areas(points, triangles):
    e, f = (points[triangles[:, k]] - points[triangles[:, 0]] for k in (1, 2))
    if points.shape[1] == 2:
        return (e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]) / 2
    return np.linalg.norm(np.cross(e, f), axis=1) / 2


def chart_importance(region):
    """Texture area per surface area, per vertex: most for mouth and eyes, little for the back of the head."""
    importance = 0.10 + 1.1 * region["face"] + 0.1 * region["ears"]
    for name, least in (("nose", 1.8), ("eyelids", 2.7), ("lips", 2.8), ("mouth_interior", 6.5), ("eyes", 17.0)):
        importance = np.maximum(importance, least * region[name])
    return importance


def embed(positions, faces, importance, iterations=80):
    """Texture coordinates of a disc.

    Parameters
    ----------
    positions : (V, 3) float, the surface in millimetres, mouth and eyes open
    faces : (Q, 4) or (Q, 3) int, quads or triangles with one boundary loop, whose lowest front point is mapped to the
        middle of the lower side
    importance : (V,) float > 0, wanted texture area per surface area
    iterations : int, steps of adaptation

    Returns
    -------
    (V, 2) float64 in [0, 1], v up, counter-clockwise faces stay counter-clockwise

    Raises
    ------
    ValueError : when the surface is no disc or the result overlaps
    """
    loops = boundary_loops(faces)
    if len(loops) != 1:
        raise ValueError(f"a chart needs a disc; this surface has {len(loops)} borders")
    triangles = faces if faces.shape[1] == 3 else triangulate(faces)
    loop = loops[0]
    low = positions[loop, 1] <= positions[loop, 1].mean()
    loop = np.roll(loop, -int(np.argmax(positions[loop, 2] - 1e3 * np.abs(positions[loop, 0]) - 1e9 * ~low)))
    length = np.linalg.norm(np.diff(positions[np.append(loop, loop[0])], axis=0), axis=1)
    travelled = np.concatenate([[0], np.cumsum(length)[:-1]]) / length.sum()
    uv = np.zeros((len(positions), 2))
    uv[loop] = outline(-np.pi / 2 + 2 * np.pi * travelled)

    inner = np.setdiff1d(np.arange(len(positions)), loop)
    edges = unique_edges(faces)[0]           # of quads without diagonals, which would tell left from right
    weight = 1 / np.linalg.norm(positions[edges[:, 0]] - positions[edges[:, 1]], axis=1).clip(0.2)
    surface = _areas(positions, triangles)
    wanted = surface.clip(0.05) * importance[triangles].mean(axis=1)
    wanted /= wanted.sum()
    corners = sp.csr_matrix((np.ones(triangles.size), (triangles.ravel(), np.repeat(np.arange(len(triangles)), 3))),
                            shape=(len(positions), len(triangles)))
    best = None
    for _ in range(iterations):
        w = sp.coo_matrix((np.tile(weight, 2), (edges.T.ravel(), edges[:, ::-1].T.ravel())),
                          shape=(len(positions),) * 2).tocsr()
        laplacian = (sp.diags(np.asarray(w.sum(1)).ravel()) - w).tocsr()
        uv[inner] = spsolve(laplacian[inner][:, inner].tocsc(), -laplacian[inner][:, loop] @ uv[loop])
        area = _areas(uv, triangles)
        if area.min() <= 0:
            break
        density = np.log((corners @ area) / (corners @ wanted))       # > 0: more room than wanted
        error = np.sqrt(np.average((density - density.mean()) ** 2, weights=corners @ wanted))
        if best is None or error < best[0]:
            best = (error, uv.copy())
        # an edge in a region with too much room pulls harder
        weight = weight * np.exp(0.2 * np.clip(density[edges].mean(axis=1), -2, 2))
        weight /= weight.mean()
        weight = weight.clip(1e-4)
    if best is None:
        raise ValueError("the chart overlaps")
    return best[1]


def texels(uv, grid, size=256):
    """Width and height in texels, at size x size, of the box around a grid of vertices (rows, columns)."""
    p = uv[grid] * size
    return np.ptp(p[..., 0]), np.ptp(p[..., 1])
