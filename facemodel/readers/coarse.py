"""A coarser graph over a surface that is no subdivision surface."""
from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import dijkstra

from facemodel.mesh import undirected_edges

ENOUGH = 16_000              # a surface with so many vertices or fewer is its own graph


def _spread(edges, n):
    """Vertices chosen greedily in the order of their index, no two of them neighbours, none far from one of them."""
    neighbours = sp.coo_matrix((np.ones(2 * len(edges), bool), (edges.T.ravel(), edges[:, ::-1].T.ravel())), (n, n))
    neighbours = neighbours.tocsr()
    free, chosen = np.ones(n, bool), []
    for v in range(n):
        if free[v]:
            chosen.append(v)
            free[neighbours.indices[neighbours.indptr[v]:neighbours.indptr[v + 1]]] = False
    return np.array(chosen)


def coarse_graph(vertices, triangles, enough=ENOUGH):
    """A graph with a quarter to a third of a surface's vertices.

    Nodes are surface vertices of which no two are neighbours. Every other vertex belongs to the node nearest along the
    surface; nodes are joined where their territories touch. A surface with `enough` vertices or fewer is its own graph.

    Parameters
    ----------
    vertices : (V, 3) float; triangles : (T, 3) int, one piece

    Returns
    -------
    index : (V1,) int32, vertex of each node
    edges : (E, 2) int32 between nodes
    refine : (V, V1) csr float32, rows sum to 1, exact at the nodes: values of the nodes to the surface
    """
    edges = undirected_edges(triangles)
    n = len(vertices)
    if n <= enough:
        return np.arange(n, dtype=np.int32), edges.astype(np.int32), sp.identity(n, np.float32, "csr")
    index = _spread(edges, n)
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1).clip(1e-6)
    graph = sp.coo_matrix((np.tile(length, 2), (edges.T.ravel(), edges[:, ::-1].T.ravel())), (n, n)).tocsr()
    _, _, owner = dijkstra(graph, indices=index, return_predecessors=True, min_only=True)
    node = np.full(n, -1)
    node[index] = np.arange(len(index))
    territory = node[owner]
    between = np.sort(territory[edges], axis=1)
    joined = np.unique(between[between[:, 0] != between[:, 1]], axis=0)
    belongs = sp.csr_matrix((np.ones(n), (np.arange(n), territory)), (n, len(index)))
    around = graph.copy()
    around.data[:] = 1
    around = around + sp.identity(n)
    smooth = sp.diags(1 / np.asarray(around.sum(1)).ravel()) @ around @ belongs
    fixed = np.zeros(n)
    fixed[index] = 1
    refine = sp.diags(1 - fixed) @ smooth + sp.diags(fixed) @ belongs
    return index.astype(np.int32), joined.astype(np.int32), refine.tocsr().astype(np.float32)
