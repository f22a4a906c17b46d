"""Second-order spherical-harmonic light.

Shading of a Lambertian surface under distant light is close to quadratic in the normal (R. Ramamoorthi, P. Hanrahan,
2001, doi:10.1145/383259.383317): shading = basis(n) @ light with 9 coefficients per colour channel. The cosine lobe is
part of the coefficients. Colour = albedo * shading.
"""
from __future__ import annotations

import numpy as np

C0, C1, C2, C3, C4 = 0.282095, 0.488603, 1.092548, 0.315392, 0.546274


def sh_basis(normals):
    """Real spherical harmonics of unit normals: (..., 3) -> (..., 9).

    Order: 1, y, z, x, xy, yz, 3 z^2 - 1, xz, x^2 - y^2.
    """
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    return np.stack([np.full_like(x, C0), C1 * y, C1 * z, C1 * x, C2 * x * y, C2 * y * z, C3 * (3 * z * z - 1),
                     C2 * x * z, C4 * (x * x - y * y)], axis=-1)


def sh_gradient(normals):
    """Derivative of sh_basis by the normal's components, taken as independent: (..., 3) -> (..., 9, 3)."""
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    zero, one = np.zeros_like(x), np.ones_like(x)
    rows = [(zero, zero, zero), (zero, C1 * one, zero), (zero, zero, C1 * one), (C1 * one, zero, zero),
            (C2 * y, C2 * x, zero), (zero, C2 * z, C2 * y), (zero, zero, 6 * C3 * z), (C2 * z, zero, C2 * x),
            (2 * C4 * x, -2 * C4 * y, zero)]
    return np.stack([np.stack(r, axis=-1) for r in rows], axis=-2)


def shade(normals, light):
    """Shading of unit normals (N, 3) under light (9, 3) -> (N, 3), not below 0.02 so that it can be divided out."""
    return np.maximum(sh_basis(normals) @ np.asarray(light, normals.dtype), 0.02)


def ambient_light(level=0.8):
    """Light from everywhere: (9, 3) float64 that shades every normal with `level`."""
    light = np.zeros((9, 3))
    light[0] = level / C0
    return light
