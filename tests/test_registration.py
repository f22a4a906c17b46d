"""The embedded model laid over what it was made from, and what is carried over then."""
import numpy as np
import pytest

from facemodel.mesh import vertex_normals
from facemodel.morphable import FLIP
from facemodel.registration import carry_over, nearest_vertices, register, similarity


def test_similarity_gives_back_what_was_done():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(9, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    scale, rotation, translation = similarity(points, 1.3 * points @ turn.T + [1, 2, 3])
    assert scale == pytest.approx(1.3)
    np.testing.assert_allclose(rotation, turn, atol=1e-12)
    np.testing.assert_allclose(translation, [1, 2, 3], atol=1e-12)


def test_the_embedded_face_is_laid_over_a_moved_stranger(model):
    rng = np.random.default_rng(3)
    identity = np.zeros(model.identity_count)
    identity[:20] = rng.normal(0, 0.8, 20)
    turn = np.array([[0.995, -0.0998, 0], [0.0998, 0.995, 0], [0, 0, 1]])
    stranger = 1.1 * (model.shape(identity) * FLIP).astype(np.float64) @ turn.T + [10, -40, 25]
    marks = {k: int(model.landmarks[k]) for k in (30, 36, 39, 42, 45, 48, 54)}
    found = register(model, stranger, model.triangles, marks)
    face = (model.regions["face"] > 0.9) & (model.regions["mouth_interior"] < 0.1) & (model.regions["eyes"] < 0.1)
    away = np.linalg.norm(found.vertices - stranger, axis=1)[face]
    assert np.median(away) < 1.0 and np.percentile(away, 95) < 3.0
    marks = nearest_vertices(found, model.landmarks, stranger, model.triangles)
    assert np.linalg.norm(stranger[marks] - stranger[model.landmarks], axis=1)[17:].max() < 2.5
    nose = carry_over(found, model.regions["nose"], np.ones(model.vertex_count, bool), stranger,
                      vertex_normals(stranger, model.triangles))
    assert np.corrcoef(nose, model.regions["nose"])[0, 1] > 0.97
