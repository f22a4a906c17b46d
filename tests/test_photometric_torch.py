"""The photometric term in torch against the numba one, which has its own test against automatic differentiation."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from facemodel.camera import project, rotation_matrix, to_camera
from facemodel.light import ambient_light, sh_basis, sh_gradient
from facemodel.morphable import load_model
from fitting import energy
from fitting.energy import Samples
from fitting.parameters import Frame, Layout, Shared
from fitting.photometric import _sample_image, photometric
from fitting.photometric_torch import TorchPhotometric, sample_image, sh_basis_and_gradient
from fitting.solver import View, draw_samples
from tests.small_model import small_model
from tests.test_energy import BLOCKS, CENTRE, scene

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no NVIDIA GPU")
    return request.param


def weighted(scene):
    """test_energy's scene with samples of different importance: (..., vertices, albedo)."""
    model, shared, frame, image, samples = scene
    samples = replace(samples, weight=np.random.default_rng(0).uniform(0, 1, len(samples.weight)))
    return (model, shared, frame, image, samples, model.shape64(shared.identity, frame.expression),
            model.albedo64(shared.albedo))


def in_numba(model, shared, frame, image, samples, vertices, albedo, centre, layout, dtype, scale=1.0):
    """Residual, Jacobian, and the normal equations as the solver makes them, J^T W J and J^T W r in float64."""
    residual, jacobian = photometric(model, vertices, albedo, image, samples, shared, frame, centre, layout,
                                            dtype=dtype)
    w = scale * samples.weight * energy.robust_weights(residual) / samples.weight.sum()
    j, w = jacobian.astype(np.float64), np.repeat(w, 3)
    return residual, jacobian, (j * w[:, None]).T @ j, j.T @ (w * residual.ravel())


def assert_same_equations(found, hessian, gradient, tolerance):
    """Element by element, in the units that the diagonal gives each unknown."""
    unit = np.sqrt(np.diag(hessian))
    assert (unit > 0).all()
    np.testing.assert_allclose(found.hessian / np.outer(unit, unit), hessian / np.outer(unit, unit), atol=tolerance)
    np.testing.assert_allclose(found.gradient / unit, gradient / unit, atol=tolerance * np.abs(gradient / unit).max())
    assert found.hessian.dtype == found.gradient.dtype == np.float64


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("block", BLOCKS)
def test_jacobian_of_each_block(device, block, seed, dtype):
    model, shared, frame, image, samples, vertices, albedo = weighted(scene(seed))
    layout = Layout.build(model, [block])
    residual, jacobian, _, _ = in_numba(model, shared, frame, image, samples, vertices, albedo, CENTRE, layout,
                                        NUMPY[dtype])
    term = TorchPhotometric(model, device, dtype)
    found, found_jacobian = term.photometric(vertices, albedo, term.prepare(image, samples), shared, frame, CENTRE,
                                             layout)
    assert found.dtype == found_jacobian.dtype == dtype
    size = np.abs(jacobian).max()
    assert size > 1e-4
    np.testing.assert_allclose(found.cpu(), residual, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(found_jacobian.cpu(), jacobian, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * size)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])
@pytest.mark.parametrize("active", [BLOCKS, ("focal", "expression", "light"), ("identity", "rotation"), ("albedo",)])
def test_normal_equations(device, active, dtype):
    model, shared, frame, image, samples, vertices, albedo = weighted(scene(2))
    layout = Layout.build(model, active)
    residual, _, hessian, gradient = in_numba(model, shared, frame, image, samples, vertices, albedo, CENTRE, layout,
                                              NUMPY[dtype], scale=0.7)
    term = TorchPhotometric(model, device, dtype)
    found = term.normal_equations(vertices, albedo, term.prepare(image, samples), shared, frame, CENTRE, layout, 0.7)
    assert_same_equations(found, hessian, gradient, TOLERANCE[dtype])
    np.testing.assert_allclose(found.residual.cpu(), residual, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])
def test_energy(device, dtype):
    """Robust and quadratic part: some samples' colours are set to fall below epsilon."""
    model, shared, frame, image, samples, vertices, albedo = weighted(scene(3))
    residual, _ = photometric(model, vertices, albedo, image, samples, shared, frame, CENTRE, dtype=np.float64)
    term = TorchPhotometric(model, device, dtype)
    prepared = term.prepare(image, samples)
    for scale in (1.0, 0.02):                           # image and albedo scaled: residuals shrink with them
        r = scale * residual
        assert (np.linalg.norm(r, axis=1) < energy.ROBUST_EPSILON).any() == (scale < 1)
        found = term.energy(vertices, scale * albedo, replace(prepared, image=scale * prepared.image), shared, frame,
                            CENTRE)
        assert found == pytest.approx(energy.colour_energy(r, samples.weight), rel=TOLERANCE[dtype])


def test_samples_at_the_border_of_the_picture():
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, (9, 12, 3))
    xy = np.concatenate([rng.uniform(-3, 15, (60, 2)), [[12.0, 9.0], [0, 0], [10.5, 7.5], [1.5, 1.5], [10.499, 7.499]]])
    colour, gradient = np.empty((len(xy), 3)), np.empty((len(xy), 3, 2))
    for n, (u, v) in enumerate(xy):
        _sample_image(image, u, v, np.empty((4, 4)), colour[n], gradient[n])
    found = sample_image(torch.as_tensor(image), torch.as_tensor(xy))
    np.testing.assert_allclose(found[0], colour, atol=1e-12)
    np.testing.assert_allclose(found[1], gradient, atol=1e-12)
    sample_image(torch.rand(20000, 4, 3), torch.full((1, 2), 1e6))       # float32 can't resolve the last cell's end


def test_spherical_harmonics():
    normals = np.random.default_rng(0).normal(size=(20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    basis, gradient = sh_basis_and_gradient(torch.as_tensor(normals))
    np.testing.assert_allclose(basis, sh_basis(normals), atol=1e-15)
    np.testing.assert_allclose(gradient, sh_gradient(normals), atol=1e-15)


def test_embedded_model_in_float32(device):
    """The solver's own case: the face at 200 pixels, a few thousand samples, every unknown."""
    model, size = load_model(), 200
    rng = np.random.default_rng(0)
    light = ambient_light(0.8)
    light[1:] += rng.normal(0, 0.1, (8, 3))
    shared = Shared(rng.normal(0, 1, model.identity_count), rng.normal(0, 1, model.albedo_count), 2.0 * size)
    frame = Frame(rng.uniform(0, 0.4, model.expression_count), rotation_matrix([0.1, -0.3, 0.05]),
                  np.array([4.0, -12.0, 640.0]), light)
    i, j = np.mgrid[:size, :size]
    image = np.stack([0.5 + 0.3 * np.sin(0.08 * i + 0.05 * j + c) for c in range(3)], axis=2).astype(np.float32)
    centre = np.array([size / 2, size / 2])
    vertices, albedo = model.shape(shared.identity, frame.expression), model.albedo(shared.albedo)
    camera = to_camera(vertices, frame.rotation, frame.translation)
    assert np.ptp(project(camera, shared.focal, centre), axis=0).min() > 80
    samples = draw_samples(model, vertices, shared, frame, View(image, 1.0, np.zeros(2), centre, None), 3000)
    assert isinstance(samples, Samples) and len(samples.triangle) > 2000
    layout = Layout.build(model, BLOCKS)
    _, _, hessian, gradient = in_numba(model, shared, frame, image, samples, vertices, albedo, centre, layout,
                                       np.float32)
    term = TorchPhotometric(model, device)
    found = term.normal_equations(vertices, albedo, term.prepare(image, samples), shared, frame, centre, layout)
    used = np.diag(hessian) > 1e-12                     # some expressions move nothing that is seen
    assert used.mean() > 0.9
    assert_same_equations(replace(found, hessian=found.hessian[np.ix_(used, used)], gradient=found.gradient[used]),
                          hessian[np.ix_(used, used)], gradient[used], 1e-4)


def test_two_runs_give_the_same_bytes():
    model = small_model(np.random.default_rng(5))
    _, shared, frame, image, samples, vertices, albedo = weighted(scene(5))
    layout = Layout.build(model, BLOCKS)

    def once():
        term = TorchPhotometric(model)
        e = term.normal_equations(vertices, albedo, term.prepare(image, samples), shared, frame, CENTRE, layout)
        return e.hessian.tobytes() + e.gradient.tobytes()

    assert once() == once()
