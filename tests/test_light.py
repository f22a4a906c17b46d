"""Spherical harmonics by quadrature and in closed form."""
import numpy as np
import pytest
import torch

from facemodel.light import C0, ambient_light, sh_basis, sh_gradient, shade


def sphere_quadrature(polar=12, around=24):
    """Directions (N, 3) and weights (N,) that integrate polynomials up to degree 2 polar - 1 over the sphere."""
    z, weight = np.polynomial.legendre.leggauss(polar)
    angle = 2 * np.pi * np.arange(around) / around
    r = np.sqrt(1 - z ** 2)[:, None]
    points = np.stack([r * np.cos(angle), r * np.sin(angle), np.broadcast_to(z[:, None], (polar, around))], -1)
    return points.reshape(-1, 3), np.repeat(weight * 2 * np.pi / around, around)


def random_normals(seed, count=40):
    n = np.random.default_rng(seed).normal(size=(count, 3))
    return n / np.linalg.norm(n, axis=1, keepdims=True)


def test_basis_is_orthonormal():
    points, weight = sphere_quadrature()
    basis = sh_basis(points)
    np.testing.assert_allclose((basis * weight[:, None]).T @ basis, np.eye(9), atol=5e-6)


def test_gradient_against_automatic_differentiation_and_differences():
    normals = np.random.default_rng(0).normal(size=(20, 3))          # also off the sphere: components are independent
    x = torch.tensor(normals)

    def basis(n):
        a, b, c = n
        return torch.stack([0 * a + 0.282095, 0.488603 * b, 0.488603 * c, 0.488603 * a, 1.092548 * a * b,
                            1.092548 * b * c, 0.315392 * (3 * c * c - 1), 1.092548 * a * c, 0.546274 * (a * a - b * b)])

    expected = torch.stack([torch.autograd.functional.jacobian(basis, n) for n in x]).numpy()
    gradient = sh_gradient(normals)
    assert gradient.shape == (20, 9, 3)
    np.testing.assert_allclose(gradient, expected, atol=1e-12)
    for k in range(3):
        step = 1e-5 * np.eye(3)[k]
        np.testing.assert_allclose(gradient[..., k], (sh_basis(normals + step) - sh_basis(normals - step)) / 2e-5,
                                   atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_lambertian_surface_under_a_lamp(seed):
    """Cosine lobe (pi, 2 pi / 3, pi / 4): the second order of max(n.l, 0) is 1/4 + c/2 + 5/32 (3 c^2 - 1)."""
    toward = random_normals(seed, 1)[0]
    lobe = np.repeat([np.pi, 2 * np.pi / 3, np.pi / 4], [1, 3, 5])
    light = np.repeat((lobe * sh_basis(toward) / np.pi)[:, None], 3, axis=1) * np.pi
    points, weight = sphere_quadrature(24, 48)
    c = points @ toward
    shading = sh_basis(points) @ light
    np.testing.assert_allclose(shading[:, 0], 0.25 + c / 2 + 5 / 32 * (3 * c ** 2 - 1), atol=5e-6)
    error, true = shading[:, 0] - np.maximum(c, 0), np.maximum(c, 0)
    assert np.abs(error).max() < 3 / 32 + 1e-4
    assert (weight * error ** 2).sum() / (weight * true ** 2).sum() < 0.01      # Ramamoorthi & Hanrahan: 99.2 % is kept
    np.testing.assert_allclose(shade(points, light)[true > 0.3], shading[true > 0.3])
    assert shade(points, light).min() >= 0.02


def test_ambient_light_shades_all_normals_alike():
    for level in (0.8, 0.3):
        np.testing.assert_allclose(shade(random_normals(1), ambient_light(level)), level, atol=1e-12)
    assert ambient_light(1.0)[0, 0] == 1 / C0
