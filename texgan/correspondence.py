"""Where on the embedded model's chart the skin of another head lies.

Lips and lids touch; so points belong together that are near, look the same way, and go along with jaw and lids alike.
"""
from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from facemodel.closest import at_closest_points
from facemodel.mesh import vertex_normals
from facemodel.morphable import FLIP
from facemodel.registration import LOOSE, NORMAL_WEIGHT, SHARED_LANDMARKS, register

PART_WEIGHT = 12.0               # mm that moving fully with jaw or lid counts: keeps upper and lower apart
BEYOND, INSET = (5.0, 25.0), 0.85        # mm off the embedded surface; skin from within the chart's border
CHART_CENTRE = 0.5
NEIGHBOURS = 5                   # embedded vertices whose triangles are searched for the closest point


def _features(vertices, normals, jaw, blinks):
    """What tells which point belongs to which: place, normal, and how jaw and lids move it: (V, 8)."""
    share = lambda d: (d / np.abs(d).max())[:, None]
    return np.concatenate([vertices, NORMAL_WEIGHT / 2 * normals, PART_WEIGHT * share(jaw),
                           PART_WEIGHT * share(blinks)], axis=1)


def laid_over(raw, guide):
    """The embedded model's surface laid over another head: facemodel.registration.Registration.

    raw : RawModel, ICT-FaceKit; guide : MorphableModel, the embedded model
    """
    return register(guide, raw.vertices[:raw.triangles.max() + 1].astype(np.float64), raw.triangles,
                    {k: raw.landmarks[k] for k in SHARED_LANDMARKS}, iterations=14, stiffness=LOOSE)


def correspondence(raw, guide, moved, laid):
    """The embedded chart's coordinates at another head's skin.

    Parameters
    ----------
    raw : RawModel, ICT-FaceKit
    guide : MorphableModel, the embedded model
    moved : callable, name of a face unit -> (V, 3) displacement of raw's vertices
    laid : of `laid_over`

    Returns
    -------
    (V, 2) float64, v up; zero for vertices without skin
    """
    skin = np.unique(raw.triangles)
    vertices = raw.vertices[:skin.max() + 1].astype(np.float64)
    unit = lambda name: (guide.expression_basis[:, 1, guide.expression_names.index(name)]
                         * FLIP[1]).astype(np.float64)
    own = lambda name: moved(name)[:len(vertices), 1].astype(np.float64)
    blink = lambda f: f("eyeBlinkLeft") + f("eyeBlinkRight")
    query = _features(vertices, vertex_normals(vertices, raw.triangles), own("jawOpen"), blink(own))[skin]
    keys = _features(laid.vertices, laid.normals, unit("jawOpen"), blink(unit))
    allowed = (guide.regions["mouth_interior"] < 0.35) & (guide.regions["eyes"] < 0.35)
    solid = guide.triangles[allowed[guide.triangles].all(axis=1)]
    index = np.unique(solid)
    found = index[cKDTree(keys[index]).query(query, k=NEIGHBOURS)[1]]
    out = np.zeros((len(raw.vertices), 2))
    out[skin] = at_closest_points(vertices[skin], found, laid.vertices, solid, guide.uv)
    # neck and chest, beyond the embedded surface: plain skin from within the chart's border
    away = np.linalg.norm(laid.vertices[found[:, 0]] - vertices[skin], axis=1)
    share = np.interp(away, BEYOND, (1, INSET))[:, None]
    out[skin] = CHART_CENTRE + (out[skin] - CHART_CENTRE) * share
    return out


def carry_inwards(uv, polygons, known, inside, vertices):
    """Chart coordinates of the lining: those of the skin vertex that is nearest along the surface."""
    ends = np.concatenate([polygons[:, [k, (k + 1) % 4]] for k in range(4)])
    ends = ends[ends[:, 0] != ends[:, 1]]
    length = np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1) + 1e-6
    graph = coo_matrix((length, ends.T), (len(vertices),) * 2).tocsr()
    border = np.intersect1d(known, inside)
    _, _, source = dijkstra(graph, directed=False, indices=border, min_only=True, return_predecessors=True)
    beyond = np.setdiff1d(inside, known)
    out = uv.copy()
    out[beyond] = uv[np.maximum(source[beyond], 0)]
    return out
