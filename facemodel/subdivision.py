"""Catmull-Clark subdivision as a sparse matrix.

A control mesh of quadrilaterals becomes a finer one by a linear map of its vertices, so every linear quantity on the
control mesh (positions, blendshapes, texture coordinates) is refined by one matrix product.

E. Catmull, J. Clark, "Recursively generated B-spline surfaces on arbitrary topological meshes", 1978,
doi:10.1016/0010-4485(78)90110-0; boundary rules after H. Biermann et al., 2000, doi:10.1145/344779.344841.
"""
from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def unique_edges(quads):
    """Undirected edges of a quad mesh.

    Returns
    -------
    edges : (E, 2) int64, lower vertex first
    face_edges : (Q, 4) int64, edge between corner k and k + 1 of each quad
    """
    directed = np.stack([quads, np.roll(quads, -1, axis=1)], axis=-1).reshape(-1, 2)
    edges, inverse = np.unique(np.sort(directed, axis=1), axis=0, return_inverse=True)
    return edges, inverse.reshape(quads.shape)


def catmull_clark(quads, vertex_count):
    """One step of subdivision.

    Parameters
    ----------
    quads : (Q, 4) int, an edge belongs to one quad (boundary) or two
    vertex_count : int, vertices of the mesh

    Returns
    -------
    matrix : (V', V) csr float64; rows are the moved control vertices, then one per edge, then one per quad
    quads : (4 Q, 4) int32, same orientation

    Raises
    ------
    ValueError : when an edge belongs to more than two quads
    """
    quads = np.asarray(quads)
    edges, face_edges = unique_edges(quads)
    n_v, n_e, n_q = vertex_count, len(edges), len(quads)
    faces_of_edge = np.bincount(face_edges.ravel(), minlength=n_e)
    if faces_of_edge.max() > 2:
        raise ValueError("not a surface: an edge belongs to more than two quads")
    border = faces_of_edge == 1

    rows = np.repeat(np.arange(n_q), 4)
    face_points = sp.csr_matrix((np.full(4 * n_q, 0.25), (rows, quads.ravel())), shape=(n_q, n_v))
    ends = sp.csr_matrix((np.full(2 * n_e, 0.5), (np.repeat(np.arange(n_e), 2), edges.ravel())), shape=(n_e, n_v))
    edge_faces = sp.csr_matrix((np.full(4 * n_q, 0.5), (face_edges.ravel(), rows)), shape=(n_e, n_q))
    inner = sp.diags((~border).astype(float))
    edge_points = inner @ (0.5 * ends + 0.5 * (edge_faces @ face_points)) + sp.diags(border.astype(float)) @ ends

    # inner vertices: (Q + 2 R + (n - 3) S) / n with n edges at the vertex
    incident = sp.csr_matrix((np.ones(2 * n_e), (edges.ravel(), np.repeat(np.arange(n_e), 2))), shape=(n_v, n_e))
    touching = sp.csr_matrix((np.ones(4 * n_q), (quads.ravel(), rows)), shape=(n_v, n_q))
    degree = np.maximum(np.asarray(incident.sum(1)).ravel(), 1)
    faces = np.maximum(np.asarray(touching.sum(1)).ravel(), 1)
    average_face = sp.diags(1 / faces) @ touching @ face_points
    average_edge = sp.diags(1 / degree) @ incident @ ends
    moved = (sp.diags(1 / degree) @ average_face + sp.diags(2 / degree) @ average_edge
             + sp.diags((degree - 3) / degree))
    on_border = np.asarray((incident @ sp.diags(border.astype(float))).sum(1)).ravel() > 0
    border_moved = 0.5 * sp.identity(n_v) + 0.25 * (incident @ sp.diags(border.astype(float)) @ ends)
    used = np.asarray(incident.sum(1)).ravel() > 0
    choose = lambda condition: sp.diags(condition.astype(float))
    vertex_points = choose(~on_border & used) @ moved + choose(on_border) @ border_moved + choose(~used)

    matrix = sp.vstack([vertex_points, edge_points, face_points]).tocsr()
    matrix.eliminate_zeros()
    e, f = n_v + face_edges, n_v + n_e + np.arange(n_q)
    fine = np.stack([np.stack([quads[:, k], e[:, k], f, e[:, k - 1]], axis=1) for k in range(4)], axis=1)
    return matrix, fine.reshape(-1, 4).astype(np.int32)


def subdivide(quads, vertex_count, levels):
    """Several steps in one matrix: (V', V) csr float32 and the fine quads (4^levels Q, 4) int32."""
    matrix = sp.identity(vertex_count, format="csr")
    for _ in range(levels):
        step, quads = catmull_clark(quads, matrix.shape[0])
        matrix = step @ matrix
    return matrix.astype(np.float32).tocsr(), quads


def triangulate(quads):
    """(Q, 4) quads -> (2 Q, 3) int32 triangles with the same orientation."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], axis=1).reshape(-1, 3).astype(np.int32)
