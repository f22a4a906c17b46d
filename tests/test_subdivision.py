"""Catmull-Clark matrices against a plain loop over faces, and the properties that the scheme has."""
import numpy as np
import pytest

from facemodel.subdivision import catmull_clark, subdivide, triangulate, unique_edges

CUBE = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
CUBE_POINTS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


def grid(rows, columns, seed=0, flat=False):
    """An open sheet: vertices (V, 3), quads (Q, 4)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns].astype(float)
    z = 0.3 * x - 0.7 * y if flat else rng.normal(size=x.shape)
    index = np.arange(rows * columns).reshape(rows, columns)
    quads = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1).reshape(-1, 4)
    return np.stack([x, y, z], -1).reshape(-1, 3) + np.append(rng.normal(0, 0.1, 2), 0), quads


def plain(points, quads):
    """One step as the paper tells it: new points in the order moved vertices, edges (sorted), faces; no matrices."""
    faces = [[int(v) for v in q] for q in quads]
    face_points = [np.mean([points[v] for v in f], axis=0) for f in faces]
    owners = {}
    for n, f in enumerate(faces):
        for k in range(4):
            owners.setdefault(tuple(sorted((f[k], f[(k + 1) % 4]))), []).append(n)
    edge_points = {}
    for (a, b), own in sorted(owners.items()):
        ends = [points[a], points[b]]
        edge_points[a, b] = np.mean(ends if len(own) == 1 else ends + [face_points[n] for n in own], axis=0)
    moved = []
    for v, p in enumerate(points):
        edges = [e for e in owners if v in e]
        border = [e for e in edges if len(owners[e]) == 1]
        if border:
            others = [points[e[0] if e[1] == v else e[1]] for e in border]
            moved.append(0.75 * p + 0.125 * sum(others))
            continue
        n = len(edges)
        q = np.mean([face_points[k] for k, f in enumerate(faces) if v in f], axis=0)
        r = np.mean([(points[a] + points[b]) / 2 for a, b in edges], axis=0)
        moved.append((q + 2 * r + (n - 3) * p) / n)
    return np.array(moved + list(edge_points.values()) + face_points)


@pytest.mark.parametrize("points, quads", [(CUBE_POINTS, CUBE), grid(4, 5)], ids=["cube", "grid"])
def test_agrees_with_plain_loops_over_two_steps(points, quads):
    for _ in range(2):
        matrix, fine = catmull_clark(quads, len(points))
        expected = plain(points, quads)
        points, quads = matrix @ points, fine
        np.testing.assert_allclose(points, expected, atol=1e-12)


def test_corner_of_a_cube_tends_to_its_limit():
    """Limit of a vertex of valence n: (n^2 v + 4 sum of edge neighbours + sum of diagonal ones) / (n (n + 5))."""
    matrix, _ = subdivide(CUBE, 8, 5)
    corner = CUBE_POINTS[7]
    limit = (9 * corner + 4 * corner * (2 - 1) - corner) / 24         # neighbours flip one sign of three, diagonals two
    np.testing.assert_allclose((matrix @ CUBE_POINTS)[7], limit, atol=2e-4)


@pytest.mark.parametrize("points, quads, euler", [(CUBE_POINTS, CUBE, 2), (*grid(4, 5), 1)], ids=["cube", "grid"])
def test_counts(points, quads, euler):
    edges, face_edges = unique_edges(quads)
    assert face_edges.shape == quads.shape
    np.testing.assert_array_equal(np.sort(np.stack([quads, np.roll(quads, -1, 1)], -1), -1), edges[face_edges])
    matrix, fine = catmull_clark(quads, len(points))
    assert matrix.shape == (len(points) + len(edges) + len(quads), len(points))
    assert fine.shape == (4 * len(quads), 4) and fine.dtype == np.int32
    assert matrix.shape[0] - len(unique_edges(fine)[0]) + len(fine) == euler
    assert np.array_equal(np.unique(fine), np.arange(matrix.shape[0]))


@pytest.mark.parametrize("points, quads", [(CUBE_POINTS, CUBE), grid(4, 5)], ids=["cube", "grid"])
def test_rows_sum_to_one_and_are_not_negative(points, quads):
    matrix, _ = subdivide(quads, len(points), 3)
    np.testing.assert_allclose(np.asarray(matrix.sum(1)), 1, atol=1e-6)
    assert matrix.data.min() >= 0
    assert matrix.dtype == np.float32


def test_orientation_is_kept():
    matrix, fine = subdivide(CUBE, 8, 2)
    points = matrix @ CUBE_POINTS
    for quads, at in ((CUBE, CUBE_POINTS), (fine, points)):
        p = at[quads]
        normal = np.cross(p[:, 2] - p[:, 0], p[:, 3] - p[:, 1])
        assert ((normal * p.mean(1)).sum(1) > 0).all()
        a, b, c = np.moveaxis(at[triangulate(quads)], 1, 0)
        assert ((np.cross(b - a, c - a) * (a + b + c)).sum(1) > 0).all()


def test_a_plane_stays_a_plane_and_linear_maps_commute():
    points, quads = grid(5, 6, flat=True)
    matrix, _ = subdivide(quads, len(points), 2)
    fine = matrix.astype(float) @ points
    plane = np.array([-0.3, 0.7, 1])
    np.testing.assert_allclose(fine @ plane, points[0] @ plane, atol=1e-5)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    np.testing.assert_allclose(matrix @ (points @ turn + 4), fine @ turn + 4, atol=1e-5)


def test_triangles_cover_the_quads():
    np.testing.assert_array_equal(triangulate(np.array([[5, 6, 7, 8], [1, 2, 3, 4]])),
                                  [[5, 6, 7], [5, 7, 8], [1, 2, 3], [1, 3, 4]])


def test_three_quads_at_an_edge_are_refused():
    with pytest.raises(ValueError, match="more than two quads"):
        catmull_clark(np.array([[0, 1, 2, 3], [1, 0, 4, 5], [0, 1, 6, 7]]), 8)


def test_unused_vertices_stay_where_they_are():
    matrix, _ = catmull_clark(np.array([[0, 1, 2, 3]]), 5)
    np.testing.assert_array_equal(matrix[4].toarray(), [[0, 0, 0, 0, 1]])
