"""Statistics of heads against numpy, and a head of the model laid over itself."""
from dataclasses import replace

import numpy as np
import pytest

from facemodel.build.population import OWN_SHARE, OWN_SPREAD, draw_heads, lay_over, statistics
from facemodel.morphable import FLIP
from facemodel.registration import SHARED_LANDMARKS

MIRROR = np.array([1, 0, 3, 2, 4, 6, 5])                         # the fifth of seven vertices lies in the middle


def heads(seed, count=6, modes=4):
    """Shapes (N, 7, 3), own components (7, 3, K) and weights that are alike on both sides."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.1, 1, 7)
    weight = (weight + weight[MIRROR]) / 2
    return rng.normal(50, 10, (1, 7, 3)) + rng.normal(0, 3, (count, 7, 3)), rng.normal(0, 2, (7, 3, modes)), weight


def by_hand(shapes, own, weight):
    """Mean and covariance (21, 21) of heads and mirror images that lie centred, mixed with the model's own."""
    both = [s for s in shapes] + [s[MIRROR] * [-1, 1, 1] for s in shapes]
    both = np.array([s - np.average(s, axis=0, weights=weight) for s in both])
    own = own.reshape(21, -1) * OWN_SPREAD
    return both.mean(axis=0), (1 - OWN_SHARE) * np.cov(both.reshape(len(both), -1).T) + OWN_SHARE * own @ own.T


@pytest.mark.parametrize("seed", range(3))
def test_all_components_together_are_the_covariance(seed):
    shapes, own, weight = heads(seed)
    mean, basis = statistics(shapes, own, MIRROR, weight, 16)    # 6 heads, their mirror images and 4 components
    wanted, covariance = by_hand(shapes, own, weight)
    np.testing.assert_allclose(mean, wanted, atol=1e-10)
    flat = basis.reshape(21, -1)
    np.testing.assert_allclose(flat @ flat.T, covariance, atol=1e-9 * np.abs(covariance).max())


@pytest.mark.parametrize("seed", range(3))
def test_few_components_are_the_principal_ones(seed):
    """Eigenvectors of the weighted covariance, strongest first, each as long as its standard deviation."""
    shapes, own, weight = heads(seed)
    _, basis = statistics(shapes, own, MIRROR, weight, 5)
    root = np.sqrt(np.repeat(weight, 3))
    values, vectors = np.linalg.eigh(by_hand(shapes, own, weight)[1] * np.outer(root, root))
    found = basis.reshape(21, 5) * root[:, None]
    np.testing.assert_allclose(found.T @ found, np.diag(values[::-1][:5]), atol=1e-9 * values[-1])
    along = np.abs((found / np.linalg.norm(found, axis=0) * vectors[:, ::-1][:, :5]).sum(axis=0))
    np.testing.assert_allclose(along, 1, atol=1e-9)


def test_the_mean_is_alike_on_both_sides_and_does_not_depend_on_where_heads_stand():
    shapes, own, weight = heads(0)
    mean, basis = statistics(shapes, own, MIRROR, weight, 5)
    np.testing.assert_allclose(mean[MIRROR] * [-1, 1, 1], mean, atol=1e-10)
    assert np.abs(mean[:, 0]).max() > 0.5
    moved = shapes + np.random.default_rng(1).normal(0, 100, (len(shapes), 1, 3))
    again, same = statistics(moved, own, MIRROR, weight, 5)
    np.testing.assert_allclose(again, mean, atol=1e-10)
    np.testing.assert_allclose(np.abs(same), np.abs(basis), atol=1e-8)


def test_heads_are_drawn_within_bounds_and_the_same_each_time(model):
    small = replace(model, control_identity=model.control_identity[..., :2])
    a, b = (list(draw_heads(small, 12, seed)) for seed in (3, 3))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a[0], next(draw_heads(small, 1, 4)))
    centred = np.array(a) * FLIP - model.mean
    coefficients = np.linalg.lstsq(small.identity_basis.reshape(-1, 2), centred.reshape(12, -1).T, rcond=None)[0]
    assert 0.3 < coefficients.std() < 2 and np.abs(coefficients).max() <= 2.2 + 1e-4


def test_a_head_of_the_model_is_laid_over_itself(model):
    """Moved, turned and made larger; the landmarks only say where to begin."""
    small = replace(model, control_identity=model.control_identity[..., :6])
    control = small.neutral([1.0, -0.8, 0.6, 0.5, -0.5, 0.4])
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    place = lambda points: 1.08 * (points * FLIP) @ turn.T + [10, -5, 30]
    found, distance = lay_over(place(small.refine @ control), small, model.triangles,
                               {k: model.landmarks[k] for k in SHARED_LANDMARKS})
    face = (model.refine.T @ model.regions["face"]) / model.refine.sum(axis=0).A1 > 0.5
    away = np.linalg.norm(found - place(control), axis=1)[face]
    begin = np.linalg.norm(control - small.control_mean, axis=1)[face]
    assert distance < 0.2 and np.median(away) < 0.3 < np.median(begin)
