"""Triangle meshes: borders, pieces, normals, orientation, and cutting a clean disc-like surface out of a larger one."""
from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numba import njit
from scipy.sparse.csgraph import connected_components


def directed_edges(triangles):
    """(3 T, 2) int64, the edges of every triangle in its own direction."""
    t = np.asarray(triangles, np.int64)
    return np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]])


def undirected_edges(triangles):
    """(E, 2) int64, each edge once, lower vertex first."""
    return np.unique(np.sort(directed_edges(triangles), axis=1), axis=0)


def border_edges(triangles):
    """(B, 2) int64, directed edges that have no triangle on their other side."""
    e = directed_edges(triangles)
    size = int(e.max()) + 1
    forward, backward = e[:, 0] * size + e[:, 1], e[:, 1] * size + e[:, 0]
    return e[~np.isin(forward, backward)]


def closed_loops(follower):
    """Loops of vertices, each an int array: follower maps every vertex to the next one; it is used up."""
    loops = []
    while follower:
        start, at = next(iter(follower.items()))
        del follower[start]
        loop = [start]
        while at != start:
            loop.append(at)
            at = follower.pop(at)
        loops.append(np.array(loop))
    return loops


def border_loops(triangles):
    """Closed loops of border vertices in the direction of the triangles along them, the one with most vertices first.

    Raises
    ------
    ValueError : when a border touches itself in a vertex
    """
    follower = {}
    for a, b in border_edges(triangles).tolist():
        if a in follower:
            raise ValueError(f"two borders meet in vertex {a}")
        follower[a] = b
    return sorted(closed_loops(follower), key=len, reverse=True)


@njit(cache=True, nogil=True)
def vertex_normals(vertices, triangles):
    """Unit normals, weighted by the area of the adjacent triangles.

    Parameters
    ----------
    vertices : (V, 3) float32 or float64
    triangles : (T, 3) int

    Returns
    -------
    (V, 3) of the vertices' type, pointing outwards for triangles that are counter-clockwise seen from outside; zero
    where a vertex has no triangle
    """
    out = np.zeros_like(vertices)
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x, y, z = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        ux, uy, uz = vertices[b, 0] - x, vertices[b, 1] - y, vertices[b, 2] - z
        vx, vy, vz = vertices[c, 0] - x, vertices[c, 1] - y, vertices[c, 2] - z
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            out[k, 0] += nx
            out[k, 1] += ny
            out[k, 2] += nz
    for k in range(len(out)):
        length = np.sqrt(out[k, 0] * out[k, 0] + out[k, 1] * out[k, 1] + out[k, 2] * out[k, 2])
        if length > 0:
            for j in range(3):
                out[k, j] /= length
    return out


def largest_piece(triangles):
    """The triangles of the piece that has most of them; pieces hang together by edges."""
    owner = np.tile(np.arange(len(triangles)), 3)
    edges = np.sort(directed_edges(triangles), axis=1)
    key = edges[:, 0] * (int(edges.max()) + 1) + edges[:, 1]
    order = np.argsort(key, kind="stable")
    same = key[order][1:] == key[order][:-1]
    pairs = owner[order][:-1][same], owner[order][1:][same]
    n = len(triangles)
    label = connected_components(sp.coo_matrix((np.ones(len(pairs[0])), pairs), (n, n)), directed=False)[1]
    return triangles[label == np.bincount(label).argmax()]


def _without_knots(triangles):
    """Leaves out triangles until no edge has three and no border touches itself."""
    while True:
        e = np.sort(directed_edges(triangles), axis=1)
        edges, inverse, count = np.unique(e, axis=0, return_inverse=True, return_counts=True)
        bad_edge = (count > 2)[inverse.ravel()].reshape(3, -1).any(axis=0)
        starts = np.bincount(border_edges(triangles)[:, 0], minlength=int(triangles.max()) + 1)
        bad = bad_edge | (starts > 1)[triangles].any(axis=1)
        if not bad.any():
            return triangles
        triangles = largest_piece(triangles[~bad])


def cut_out(vertices, triangles, keep):
    """The largest clean piece of a mesh.

    Parameters
    ----------
    vertices : (V, 3) float
    triangles : (T, 3) int
    keep : (V,) bool, triangles with any other vertex are left out

    Returns
    -------
    used : (V',) int, vertices of the piece, ascending
    triangles : (T', 3) int32 into `used`; no edge has more than two, no border touches itself
    """
    t = np.asarray(triangles, np.int64)
    proper = (t[:, 0] != t[:, 1]) & (t[:, 1] != t[:, 2]) & (t[:, 2] != t[:, 0]) & keep[t].all(axis=1)
    if not proper.any():
        raise ValueError("nothing is left of the surface")
    t = _without_knots(largest_piece(t[proper]))
    used = np.unique(t)
    new = np.full(len(vertices), -1, np.int64)
    new[used] = np.arange(len(used))
    return used, new[t].astype(np.int32)


def face_outwards(vertices, triangles, front):
    """Triangles turned so that those at the `front` vertices (V,) bool look along +z (file orientation)."""
    normal = vertex_normals(vertices, triangles)[front]
    return triangles if normal[:, 2].mean() > 0 else np.ascontiguousarray(triangles[:, ::-1])


def split(triangles, count):
    """Splits every triangle in four at its edges' middles.

    Parameters
    ----------
    triangles : (T, 3) int; count : int, vertices of the mesh

    Returns
    -------
    straight : (V', V) csr float32, old vertices first and where they were, then one in the middle of every edge
    smooth : (V', V) csr float32, the same vertices by the rules of C. Loop, "Smooth Subdivision Surfaces Based on
        Triangles", 1987; border vertices keep 3/4 of themselves and take 1/8 of either neighbour along the border
    triangles : (4 T, 3) int32
    """
    edges, which = np.unique(np.sort(directed_edges(triangles), axis=1), axis=0, return_inverse=True)
    which = which.reshape(3, -1).T                                       # (T, 3): edges 01, 12, 20
    n, e = count, len(edges)
    ends = sp.csr_matrix((np.full(2 * e, 0.5), (np.repeat(np.arange(e), 2), edges.ravel())), (e, n))
    straight = sp.vstack([sp.identity(n), ends]).tocsr()
    opposite = sp.csr_matrix((np.ones(3 * len(triangles)), (which.ravel(), triangles[:, [2, 0, 1]].ravel())), (e, n))
    inner = np.asarray(opposite.sum(1)).ravel() == 2
    middle = sp.diags(np.where(inner, 0.75, 1.0)) @ ends + sp.diags(np.where(inner, 0.125, 0.0)) @ opposite
    around = sp.csr_matrix((np.ones(2 * e), (edges.ravel(), edges[:, ::-1].ravel())), (n, n))
    degree = np.maximum(np.asarray(around.sum(1)).ravel(), 1)
    share = (0.625 - (0.375 + 0.25 * np.cos(2 * np.pi / degree)) ** 2)
    moved = sp.diags(1 - share) + sp.diags(share / degree) @ around
    rim = edges[~inner]
    along = sp.csr_matrix((np.ones(2 * len(rim)), (rim.ravel(), rim[:, ::-1].ravel())), (n, n))
    border = np.bincount(rim.ravel(), minlength=n) > 0
    moved = sp.diags((~border).astype(float)) @ moved + sp.diags(np.where(border, 0.75, 0)) + 0.125 * along
    smooth = sp.vstack([moved, middle]).tocsr()
    a, b, c = np.asarray(triangles, np.int64).T
    ab, bc, ca = (n + which).T
    fine = np.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], axis=1).reshape(-1, 3)
    return straight.astype(np.float32), smooth.astype(np.float32), fine.astype(np.int32)
