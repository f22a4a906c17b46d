"""Borders, cutting and splitting on meshes small enough to count; normals of a sphere."""
import numpy as np
import pytest
import trimesh

from facemodel import mesh
from facemodel.mesh import vertex_normals


def grid(side=9, hole=False):
    """A flat square of side x side vertices, 2 mm apart, without its middle where `hole`."""
    y, x = np.mgrid[:side, :side] * 2.0
    vertices = np.stack([x, y, 0 * x], axis=2).reshape(-1, 3)
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, 1:].ravel(), index[1:, :-1].ravel()
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    middle = index[side // 2 - 1:side // 2 + 2, side // 2 - 1:side // 2 + 2] if hole else []
    return vertices, triangles[~np.isin(triangles, middle).any(axis=1)]


def test_borders_of_a_square_with_a_hole():
    vertices, triangles = grid(hole=True)
    outer, hole = mesh.border_loops(triangles)
    area = lambda loop: 0.5 * (vertices[loop, 0] * np.roll(vertices[loop, 1], -1)
                               - vertices[loop, 1] * np.roll(vertices[loop, 0], -1)).sum()
    assert area(outer) == pytest.approx(16 * 16) and len(outer) == 32
    assert area(hole) < 0                                   # the other way round


def test_cutting_out_leaves_one_clean_piece():
    vertices, triangles = grid()
    far = np.concatenate([vertices, vertices[:3] + 100])
    keep = np.ones(len(far), bool)
    keep[[0, 40]] = False
    fin = [[10, 11, 50]]                                    # a third triangle on an edge
    used, cut = mesh.cut_out(far, np.concatenate([triangles, fin, [[81, 82, 83]]]), keep)
    assert not np.isin([0, 40, 81, 82, 83], used).any()
    loops = mesh.border_loops(cut)                          # raises when borders touch
    assert len(loops) >= 2 and cut.max() == len(used) - 1
    with pytest.raises(ValueError):
        mesh.cut_out(far, triangles, np.zeros(len(far), bool))


def test_splitting_keeps_points_and_areas_and_smooths_by_loops_rule():
    vertices, triangles = grid(5)
    straight, smooth, fine = mesh.split(triangles, len(vertices))
    assert len(fine) == 4 * len(triangles) and straight.shape == smooth.shape
    np.testing.assert_allclose(straight.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(smooth.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal((straight @ vertices)[:25], vertices)
    p = straight @ vertices
    e, f = p[fine[:, 1]] - p[fine[:, 0]], p[fine[:, 2]] - p[fine[:, 0]]
    np.testing.assert_allclose(np.cross(e, f)[:, 2] / 2, 0.5)          # same orientation, a quarter of 2 mm^2
    raised = np.zeros(25)
    raised[12] = 1                                          # 6 neighbours: beta = 1/16 each
    out = smooth @ raised
    assert out[12] == pytest.approx(10 / 16)
    assert sorted(np.unique(out.round(6)))[-3:] == pytest.approx([1 / 8, 3 / 8, 10 / 16])
    np.testing.assert_allclose((smooth @ vertices)[12], vertices[12], atol=1e-6)


def test_normals_of_a_sphere_point_outwards():
    ball = trimesh.creation.icosphere(subdivisions=4, radius=70)
    v, t = np.asarray(ball.vertices) + [5, -3, 600], np.asarray(ball.faces)
    normals = vertex_normals(v, t)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    assert ((normals * (v - [5, -3, 600]) / 70).sum(1)).min() > np.cos(np.radians(0.5))
    np.testing.assert_allclose(vertex_normals(v, t[:, ::-1]), -normals, atol=1e-12)


def test_normals_weigh_triangles_by_area():
    v = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, -3]])
    t = np.array([[0, 1, 2], [0, 3, 1]])              # areas 0.5 and 1.5
    total = np.cross(v[1] - v[0], v[2] - v[0]) + np.cross(v[3] - v[0], v[1] - v[0])
    np.testing.assert_allclose(vertex_normals(v, t)[0], total / np.linalg.norm(total), atol=1e-7)
