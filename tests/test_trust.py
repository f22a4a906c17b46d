"""The trust map: what lies before the face loses its weight, and only there, and gets it back."""
from dataclasses import replace

import numpy as np
import pytest

from fitting.energy import Samples
from fitting.trust import EXPLAINED, FOREIGN, GRID, LEAST_NOISE, LEAST_WEIGHT, Trust

NOISE = 0.03


@pytest.fixture(scope="module")
def samples(model):
    """As many as a frame has, evenly spread over the surface that the colour term looks at."""
    rng = np.random.default_rng(0)
    a, b, c = np.moveaxis(model.mean[model.sampled_triangles], 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(model.sampled_index, 3000, p=area / area.sum())
    return Samples(chosen, rng.dirichlet([1, 1, 1], 3000).astype(np.float32), np.ones(3000, np.float32))


def residuals(model, samples, covered=None):
    """Noise of the usual size; ten times as much where the mask `covered` (V,) says."""
    out = np.random.default_rng(0).normal(0, NOISE, (len(samples.triangle), 3)).astype(np.float32)
    if covered is not None:
        out[covered[model.triangles[samples.triangle]].any(axis=1)] = 10 * NOISE
    return out


def on_the_cheek(model, reach):
    """(V,) bool, a square of the chart: half its side is `reach`."""
    middle = model.uv[model.landmarks[[31, 48, 3]]].mean(axis=0)
    return abs(model.uv - middle).max(axis=1) < reach


@pytest.fixture(scope="module")
def cheek(model):
    """(V,) bool, where a hand lies."""
    return on_the_cheek(model, 0.06)


@pytest.fixture(scope="module")
def middle(model):
    """(V,) bool, well under the hand."""
    return on_the_cheek(model, 0.02) & (model.sampling_weight > 0.5)


def test_explained_falls_from_noise_to_foreign(model):
    trust = Trust.start(model, NOISE)
    size = NOISE * np.array([0, EXPLAINED, (EXPLAINED + FOREIGN) / 2, FOREIGN, 50])
    np.testing.assert_allclose(trust.explained(np.repeat(size[:, None], 3, axis=1)), [1, 1, 0.5, 0, 0], atol=1e-6)
    # the size is that over the channels: (3 a, 0, 0) is as large as sqrt(3) (a, a, a)
    a = NOISE * (EXPLAINED + FOREIGN) / 2
    assert trust.explained(np.array([[np.sqrt(3) * a, 0, 0]]))[0] == pytest.approx(0.5)


def test_the_start_trusts_everything(model):
    np.testing.assert_array_equal(Trust.start(model, NOISE).weights(model), model.sampling_weight)
    assert Trust.start(model, 0.0).noise == LEAST_NOISE and Trust.start(model, 0.07).noise == 0.07


def test_cells_are_those_of_the_chart(model):
    trust = Trust.start(model, NOISE)
    for vertex in model.landmarks[[8, 30, 36, 45]]:
        u, v = model.uv[vertex]
        assert divmod(trust.cell[vertex], GRID) == (int((1 - v) * GRID), int(u * GRID))


def test_a_usual_frame_changes_hardly_anything(model, samples):
    trust = Trust.start(model, NOISE)
    for _ in range(3):
        trust = trust.after(model, samples, residuals(model, samples))
    np.testing.assert_allclose(trust.weights(model), model.sampling_weight, atol=0.01)


def test_a_covered_patch_loses_its_weight_within_two_frames_and_regains_it(model, samples, cheek, middle):
    seen = model.sampling_weight > 0.5
    inside = seen & cheek
    reach = 3 / GRID                                    # a cell and the blur over its neighbours
    near = (abs(model.uv[:, None] - model.uv[inside][None, ::5]).max(axis=2) < reach).any(axis=1)
    assert inside.sum() > 100 and (seen & ~near).sum() > 1000
    share = lambda t: t.weights(model)[inside].mean() / model.sampling_weight[inside].mean()
    trust = Trust.start(model, NOISE)
    for _ in range(2):
        trust = trust.after(model, samples, residuals(model, samples, cheek))
    assert share(trust) < 0.5
    assert (trust.weights(model)[middle] <= 2 * LEAST_WEIGHT * model.sampling_weight[middle]).all()
    np.testing.assert_allclose(trust.weights(model)[~near], model.sampling_weight[~near], atol=0.01)
    for _ in range(10):
        trust = trust.after(model, samples, residuals(model, samples, cheek))
    for _ in range(3):
        trust = trust.after(model, samples, residuals(model, samples))
    assert share(trust) > 0.95


def test_what_is_not_seen_keeps_its_past(model, samples, cheek, middle):
    """A frame that shows only what is not the cheek says nothing about the cheek."""
    covered = Trust.start(model, NOISE)
    for _ in range(4):
        covered = covered.after(model, samples, residuals(model, samples, cheek))
    away = ~cheek[model.triangles[samples.triangle]].any(axis=1)
    part = Samples(samples.triangle[away], samples.barycentric[away], samples.weight[away])
    later = covered.after(model, part, residuals(model, part))
    assert middle.sum() > 10
    np.testing.assert_array_equal(later.weights(model)[middle], covered.weights(model)[middle])


def test_weight_of_samples_counts(model, samples, cheek, middle):
    """Samples that hardly count cannot take a cell's trust."""
    light = replace(samples, weight=np.where(cheek[model.triangles[samples.triangle]].any(axis=1), 1e-3, 1)
                    .astype(np.float32))
    trust = Trust.start(model, NOISE)
    for _ in range(3):
        trust = trust.after(model, light, residuals(model, light, cheek))
    np.testing.assert_allclose(trust.weights(model)[middle], model.sampling_weight[middle], rtol=1e-5)
