"""Left and right exchanged."""
from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from facemodel.symmetry import INNER, MIRROR, mirrored_identity


def test_landmarks_have_partners_on_the_other_side(model):
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(68))
    np.testing.assert_array_equal(INNER[INNER], np.arange(51))
    places = model.mean[model.landmarks]
    np.testing.assert_allclose(places[MIRROR] * [-1, 1, 1], places, atol=1.5)


def test_a_mirrored_head_is_the_mirror_image(model):
    identity = np.random.default_rng(3).normal(0, 1, model.identity_count)
    partner = cKDTree(model.mean).query(model.mean * np.float32([-1, 1, 1]))[1]
    matrix = mirrored_identity(model)
    image = model.shape(identity)[partner] * np.float32([-1, 1, 1])
    away = np.linalg.norm(model.shape(matrix @ identity) - image, axis=1)
    other = np.linalg.norm(model.shape(identity) - image, axis=1)
    assert away.max() < 0.05 and other.max() > 0.5
    np.testing.assert_allclose(matrix @ matrix, np.eye(len(matrix)), atol=0.02)
