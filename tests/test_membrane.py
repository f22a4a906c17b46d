"""Sheets over holes: flat, without folds, behind lips and on eyeballs."""
import numpy as np
import pytest

from facemodel import membrane, mesh
from tests.test_mesh import grid


def test_a_membrane_closes_a_hole_without_folds():
    vertices, triangles = grid(15, hole=True)
    loop = mesh.border_loops(triangles)[1][::-1]
    sheet = membrane.close_hole(loop, vertices)
    np.testing.assert_allclose(sheet.weights.sum(1), 1)
    assert sheet.weights.min() >= -1e-12
    added = membrane.follow(sheet, vertices)
    index = np.concatenate([loop, len(vertices) + np.arange(len(added))])
    closed = np.concatenate([triangles, index[sheet.triangles]])
    assert len(mesh.border_loops(closed)) == 1
    p = np.concatenate([vertices, added])
    area = np.cross(p[closed[:, 1]] - p[closed[:, 0]], p[closed[:, 2]] - p[closed[:, 0]])[:, 2] / 2
    assert area.min() > 0 and area.sum() == pytest.approx(28 ** 2)
    deep = membrane.recede(sheet, added, 9.0)
    assert 7 < -deep[:, 2].min() <= 9 and np.abs(deep[:, :2] - added[:, :2]).max() == 0


def test_eyeballs_bulge_and_spheres_are_found():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 3))
    points = 12 * points / np.linalg.norm(points, axis=1, keepdims=True) + [1, 2, 3]
    centre, radius = membrane.fit_sphere(points)
    np.testing.assert_allclose([*centre, radius], [1, 2, 3, 12])
    moved = membrane.bulge(np.array([[1, 2, 0.0], [1, 2, 40], [50, 2, 5]]), centre, radius, behind=0)
    np.testing.assert_allclose(moved[:, 2], [15, 40, 5])
