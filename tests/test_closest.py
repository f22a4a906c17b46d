"""Closest points on a surface: against all its triangles, densely sampled."""
import numpy as np
from scipy.spatial import cKDTree

from facemodel.closest import at_closest_points
from tests.small_model import small_model


def test_values_are_those_of_the_closest_point():
    rng = np.random.default_rng(0)
    sheet = small_model(rng)
    corners = sheet.mean[sheet.triangles]
    inside = np.abs(corners.mean(axis=1)[:, :2]).max(axis=1) < 20
    some = rng.dirichlet([1, 1, 1], (inside.sum(), 2))
    points = np.einsum("tnk,tkd->tnd", some, corners[inside]).reshape(-1, 3) + rng.normal(0, 0.4, (2 * inside.sum(), 3))
    found = cKDTree(sheet.mean).query(points, k=3)[1]
    nearest = at_closest_points(points, found, sheet.mean, sheet.triangles, sheet.mean)
    grid = np.array([(a, b, 40 - a - b) for a in range(41) for b in range(41 - a)]) / 40
    dense = cKDTree(np.einsum("nk,tkd->tnd", grid, corners).reshape(-1, 3))
    truth = dense.query(points)[0]
    assert np.linalg.norm(nearest - points, axis=1).max() < 2
    np.testing.assert_allclose(np.linalg.norm(nearest - points, axis=1), truth, atol=0.15)
    assert dense.query(nearest)[0].max() < 0.1                              # and it lies on the surface
    linear = at_closest_points(points, found, sheet.mean, sheet.triangles, sheet.mean @ [[1.0], [-2], [3]])
    np.testing.assert_allclose(linear, nearest @ [[1.0], [-2], [3]], atol=1e-9)
