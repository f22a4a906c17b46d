"""Every Jacobian block of the energy against automatic differentiation in float64."""
import numpy as np
import pytest
import torch

from facemodel.camera import rotation_matrix
from fitting import energy
from fitting.energy import Landmarks, Samples
from fitting.parameters import TRANSLATION_UNIT, Frame, Layout, Shared
from fitting.photometric import photometric
from tests.small_model import small_model

BLOCKS = ("identity", "albedo", "focal", "expression", "rotation", "translation", "light")
CENTRE = np.array([30.0, 26.0])


def scene(seed):
    """A bumpy sheet of 12 x 12 vertices before a smooth random image, float64 throughout."""
    rng = np.random.default_rng(seed)
    model = small_model(rng)
    shared = Shared(rng.normal(size=model.identity_count), rng.normal(size=model.albedo_count), 80.0)
    light = rng.normal(0, 0.3, (9, 3))
    light[0] += 2
    frame = Frame(rng.uniform(0, 1, model.expression_count), rotation_matrix(rng.normal(0, 0.2, 3)),
                  np.array([2.0, -3.0, 120.0]), light)
    i, j = np.mgrid[:52, :60]
    image = np.stack([0.5 + 0.3 * np.sin(0.2 * i + 0.13 * j + c) for c in range(3)], axis=2)
    bary = rng.dirichlet([1, 1, 1], 40)
    samples = Samples(rng.integers(0, len(model.triangles), 40).astype(np.int32), bary, np.ones(40))
    return model, shared, frame, image, samples


def torch_rotation(w):
    zero = torch.zeros((), dtype=w.dtype)
    rows = [zero, -w[2], w[1], w[2], zero, -w[0], -w[1], w[0], zero]
    return torch.linalg.matrix_exp(torch.stack(rows).reshape(3, 3))


def torch_basis(n):
    x, y, z = n.unbind(-1)
    return torch.stack([torch.full_like(x, 0.282095), 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y,
                        1.092548 * y * z, 0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y)], -1)


def torch_bicubic(image, xy):
    """Catmull-Rom interpolation, from the convolution kernel with a = -1/2 (R. Keys, 1981)."""
    def kernel(d):
        d = d.abs()
        near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
        return torch.where(d < 1, near, torch.where(d < 2, far, torch.zeros_like(d)))

    x, y = xy[:, 0] - 0.5, xy[:, 1] - 0.5
    j, i = x.detach().floor().long(), y.detach().floor().long()
    out = 0
    for a in range(-1, 3):
        for b in range(-1, 3):
            out = out + (kernel(y - (i + a)) * kernel(x - (j + b)))[:, None] * image[i + a, j + b]
    return out


def pose(model, shared, frame, layout, step):
    """Vertices (V, 3), rotation, translation, focal length after an increment, in torch."""
    t = lambda a: torch.as_tensor(np.asarray(a, np.float64))
    vertices = (t(model.mean) + t(model.identity_basis) @ (t(shared.identity) + step[layout["identity"]])
                + t(model.expression_basis) @ (t(frame.expression) + step[layout["expression"]]))
    rotation = torch_rotation(step[layout["rotation"]]) @ t(frame.rotation)
    translation = t(frame.translation) + TRANSLATION_UNIT * step[layout["translation"]]
    return vertices, rotation, translation, shared.focal * torch.exp(step[layout["focal"]][0])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("block", BLOCKS)
def test_photometric_jacobian(block, seed):
    model, shared, frame, image, samples = scene(seed)
    layout = Layout.build(model, BLOCKS)
    residual, jacobian = photometric(model, model.shape64(shared.identity, frame.expression),
                                            model.albedo64(shared.albedo), image, samples, shared, frame, CENTRE,
                                            layout, dtype=np.float64)
    t = lambda a: torch.as_tensor(np.asarray(a, np.float64))
    corner = torch.as_tensor(model.triangles[samples.triangle]).long()

    def colours(step):
        vertices, rotation, translation, focal = pose(model, shared, frame, layout, step)
        corners = vertices[corner]
        camera = (t(samples.barycentric)[:, :, None] * corners).sum(1) @ rotation.T + translation
        xy = focal * camera[:, :2] / camera[:, 2:] + t(CENTRE)
        normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal = normal / normal.norm(dim=1, keepdim=True) @ rotation.T
        light = t(frame.light) + step[layout["light"]].reshape(9, 3)
        albedo = t(model.albedo_mean) + t(model.albedo_basis) @ (t(shared.albedo) + step[layout["albedo"]])
        base = (t(samples.barycentric)[:, :, None] * albedo[corner]).sum(1)
        return torch_bicubic(t(image), xy) - base * (torch_basis(normal) @ light)

    zero = torch.zeros(layout.size, dtype=torch.float64)
    truth = torch.autograd.functional.jacobian(colours, zero).numpy().reshape(-1, layout.size)
    np.testing.assert_allclose(residual, colours(zero).numpy(), atol=1e-10)
    columns = layout[block]
    assert np.abs(truth[:, columns]).max() > 1e-4
    np.testing.assert_allclose(jacobian[:, columns], truth[:, columns], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b not in ("albedo", "light")])
def test_landmark_jacobian(block):
    model, shared, frame, _, _ = scene(3)
    layout = Layout.build(model, BLOCKS)
    rng = np.random.default_rng(0)
    marks = Landmarks(rng.integers(0, model.vertex_count, 9), rng.uniform(0, 50, (9, 2)), np.ones(9), 17.0)
    residual, jacobian = energy.landmark_term(model, model.shape64(shared.identity, frame.expression), marks, shared,
                                              frame, CENTRE, layout)

    def project(step):
        vertices, rotation, translation, focal = pose(model, shared, frame, layout, step)
        camera = vertices[torch.as_tensor(marks.vertices)] @ rotation.T + translation
        return (focal * camera[:, :2] / camera[:, 2:] + torch.as_tensor(CENTRE - marks.target)) / marks.face_size

    zero = torch.zeros(layout.size, dtype=torch.float64)
    truth = torch.autograd.functional.jacobian(project, zero).numpy().reshape(-1, layout.size)
    np.testing.assert_allclose(residual, project(zero).numpy(), atol=1e-10)
    np.testing.assert_allclose(jacobian[:, layout[block]], truth[:, layout[block]], rtol=1e-7, atol=1e-10)


def test_photometric_central_differences():
    """The same Jacobian, by moving the parameters themselves through the solver's own update."""
    from fitting.parameters import advance_frame, advance_shared
    model, shared, frame, image, samples = scene(2)
    layout = Layout.build(model, BLOCKS)

    def residual(step):
        s = advance_shared(shared, step, layout)
        f = advance_frame(frame, step[layout.shared_size:], layout)
        r, _ = photometric(model, model.shape64(s.identity, f.expression), model.albedo64(s.albedo), image,
                                  samples, s, f, CENTRE, dtype=np.float64)
        return r.ravel()

    _, jacobian = photometric(model, model.shape64(shared.identity, frame.expression),
                                     model.albedo64(shared.albedo), image, samples, shared, frame, CENTRE, layout,
                                     dtype=np.float64)
    for column in range(layout.size):
        step = np.zeros(layout.size)
        step[column] = 1e-6
        numeric = (residual(step) - residual(-step)) / 2e-6
        np.testing.assert_allclose(jacobian[:, column], numeric, rtol=1e-4, atol=1e-6)


def test_robust_weights_are_the_irls_weights_of_the_norm():
    """Weight times residual is the gradient of the norm, and of what replaces it near zero."""
    residual = np.array([[0.3, -0.1, 0.2], [0.0, 0.05, 0.0], [0.002, 0.003, -0.001]])
    weight = np.array([1.0, 2.0, 0.5])
    r = torch.tensor(residual, requires_grad=True)
    r[:2].norm(dim=1).sum().backward()
    weighted = energy.robust_weights(residual)[:, None] * residual
    np.testing.assert_allclose(weighted[:2], r.grad.numpy()[:2], rtol=1e-12)
    gradient = weight[:, None] * energy.robust_weights(residual)[:, None] * residual / weight.sum()
    for n, c in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[n, c] = 1e-7
        numeric = energy.colour_energy(residual + step, weight) - energy.colour_energy(residual - step, weight)
        assert gradient[n, c] == pytest.approx(numeric / 2e-7, abs=1e-6)
