"""The colour term of the energy (equation 4): residuals at samples of the surface and their analytic Jacobian.

A sample is a triangle and barycentric coordinates, taken from a rasterised view and held fixed while the energy is
linearised. Its residual is the image at the sample's projection minus albedo times shading; the Jacobian runs through
the projection (image gradient) and through the triangle's normal (shading). One compiled loop does it all: the scalar
part of a sample in double precision, the long columns (identity, albedo, expression) in the precision of the output.
"""
from __future__ import annotations

import numpy as np
from numba import njit, prange

from facemodel.light import C0, C1, C2, C3, C4
from fitting.parameters import TRANSLATION_UNIT

IDENTITY, ALBEDO, FOCAL, EXPRESSION, ROTATION, TRANSLATION, LIGHT = range(7)
CHUNK = 64                   # samples that a thread takes at once
_BLOCKS = ("identity", "albedo", "focal", "expression", "rotation", "translation", "light")


@njit(cache=True, fastmath=True, inline="always")
def _cubic(t, weight, slope):
    """Catmull-Rom weights of the samples at -1, 0, 1, 2 for a position t in [0, 1), and their derivatives."""
    weight[0] = ((-0.5 * t + 1.0) * t - 0.5) * t
    weight[1] = (1.5 * t - 2.5) * t * t + 1.0
    weight[2] = ((-1.5 * t + 2.0) * t + 0.5) * t
    weight[3] = (0.5 * t - 0.5) * t * t
    slope[0] = (-1.5 * t + 2.0) * t - 0.5
    slope[1] = (4.5 * t - 5.0) * t
    slope[2] = (-4.5 * t + 4.0) * t + 0.5
    slope[3] = (1.5 * t - 1.0) * t


@njit(cache=True, fastmath=True)
def _sample_image(image, u, v, weights, colour, gradient):
    """Catmull-Rom sample of image (H, W, 3) at pixel (u, v), and the derivative of the interpolant (3, 2).

    Samples are drawn at pixel centres, just where a bilinear interpolant has a kink and its one-sided slope misleads
    the solver; this interpolant has a continuous slope, the central difference there.
    """
    height, width = image.shape[:2]
    x = min(max(u - 0.5, 1.0), width - 2.001)
    y = min(max(v - 0.5, 1.0), height - 2.001)
    j, i = int(x), int(y)
    wx, dx, wy, dy = weights[0], weights[1], weights[2], weights[3]
    _cubic(x - j, wx, dx)
    _cubic(y - i, wy, dy)
    for c in range(3):
        value, along_x, along_y = 0.0, 0.0, 0.0
        for a in range(4):
            row, slope = 0.0, 0.0
            for b in range(4):
                p = image[i - 1 + a, j - 1 + b, c]
                row += wx[b] * p
                slope += dx[b] * p
            value += wy[a] * row
            along_x += wy[a] * slope
            along_y += dy[a] * row
        colour[c] = value
        gradient[c, 0] = along_x
        gradient[c, 1] = along_y


@njit(cache=True, fastmath=True, inline="always")
def _basis(x, y, z, out):
    """facemodel.light.sh_basis of one normal."""
    out[0], out[1], out[2], out[3] = C0, C1 * y, C1 * z, C1 * x
    out[4], out[5], out[6] = C2 * x * y, C2 * y * z, C3 * (3.0 * z * z - 1.0)
    out[7], out[8] = C2 * x * z, C4 * (x * x - y * y)


@njit(cache=True, fastmath=True, inline="always")
def _bend(x, y, z, light, c, scale, out):
    """scale times the derivative of channel c's shading by the unit normal's components."""
    out[0] = scale * (C1 * light[3, c] + C2 * (y * light[4, c] + z * light[7, c]) + 2.0 * C4 * x * light[8, c])
    out[1] = scale * (C1 * light[1, c] + C2 * (x * light[4, c] + z * light[5, c]) - 2.0 * C4 * y * light[8, c])
    out[2] = scale * (C1 * light[2, c] + C2 * (y * light[5, c] + x * light[7, c]) + 6.0 * C3 * z * light[6, c])


@njit(cache=True, fastmath=True, inline="always")
def _cross(a, b, out):
    out[0] = a[1] * b[2] - a[2] * b[1]
    out[1] = a[2] * b[0] - a[0] * b[2]
    out[2] = a[0] * b[1] - a[1] * b[0]


@njit(cache=True, fastmath=True)
def _add_columns(rows, first, factor, corners, basis):
    """rows (3, columns) += sum over corners and axes of factor (3 channels, corners, axes) times basis (V, 3, K)."""
    count = basis.shape[2]
    # windows of the rows, since an index that might be negative keeps the loop from being vectorised
    r0, r1, r2 = rows[0, first:first + count], rows[1, first:first + count], rows[2, first:first + count]
    for corner in range(3):
        f, g, h = factor[0, corner], factor[1, corner], factor[2, corner]
        fx, fy, fz, gx, gy, gz, hx, hy, hz = f[0], f[1], f[2], g[0], g[1], g[2], h[0], h[1], h[2]
        bx, by, bz = basis[corners[corner], 0], basis[corners[corner], 1], basis[corners[corner], 2]
        for k in range(count):
            x, y, z = bx[k], by[k], bz[k]
            r0[k] += fx * x + fy * y + fz * z
            r1[k] += gx * x + gy * y + gz * z
            r2[k] += hx * x + hy * y + hz * z


@njit(cache=True, fastmath=True, nogil=True)
def _evaluate(first, last, vertices, triangles, triangle, barycentric, albedo, image, rotation, translation, focal,
              centre, light, columns, identity_basis, albedo_basis, expression_basis, residual, jacobian):
    """Fills residual (N, 3) and, unless it is empty, jacobian (3 N, columns) for the samples from first to last.

    columns[block] is -1 for absent ones.
    """
    wanted = jacobian.shape[0] > 0
    point, turned, normal, n_camera = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    e1, e2, base, shading, colour = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    gradient, weights, basis = np.empty((3, 2)), np.empty((4, 4)), np.empty(9)
    through, bend, a, b = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    position, tangent = np.empty(3), np.empty(3)
    factor, shade = np.empty((3, 3, 3), jacobian.dtype), np.empty(3, jacobian.dtype)
    for n in range(first, last):
        corners = triangles[triangle[n]]
        for k in range(3):
            v0, v1, v2 = vertices[corners[0], k], vertices[corners[1], k], vertices[corners[2], k]
            point[k] = barycentric[n, 0] * v0 + barycentric[n, 1] * v1 + barycentric[n, 2] * v2
            e1[k], e2[k] = v1 - v0, v2 - v0
            base[k] = (barycentric[n, 0] * albedo[corners[0], k] + barycentric[n, 1] * albedo[corners[1], k]
                       + barycentric[n, 2] * albedo[corners[2], k])
        _cross(e1, e2, normal)
        length = np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2) + 1e-12
        for k in range(3):
            normal[k] /= length
        for k in range(3):
            turned[k] = rotation[k, 0] * point[0] + rotation[k, 1] * point[1] + rotation[k, 2] * point[2]
            n_camera[k] = rotation[k, 0] * normal[0] + rotation[k, 1] * normal[1] + rotation[k, 2] * normal[2]
        x, y, z = turned[0] + translation[0], turned[1] + translation[1], turned[2] + translation[2]
        scale = focal / z
        _sample_image(image, scale * x + centre[0], scale * y + centre[1], weights, colour, gradient)
        _basis(n_camera[0], n_camera[1], n_camera[2], basis)
        for c in range(3):
            s = 0.0
            for k in range(9):
                s += basis[k] * light[k, c]
            shading[c] = s
            residual[n, c] = colour[c] - base[c] * s
        if not wanted:
            continue

        rows = jacobian[3 * n:3 * n + 3]
        rows[:] = 0
        for c in range(3):
            row = rows[c]
            # image through the projection: d colour / d camera position
            through[0], through[1] = gradient[c, 0] * scale, gradient[c, 1] * scale
            through[2] = -(through[0] * x + through[1] * y) / z
            # model through the normal: d colour / d unit normal, camera space
            _bend(n_camera[0], n_camera[1], n_camera[2], light, c, base[c], bend)
            if columns[ROTATION] >= 0:
                # d(exp(w) v) / dw = -[v]x, so g . dv = (v x g) . w
                _cross(turned, through, a)
                _cross(n_camera, bend, b)
                for k in range(3):
                    row[columns[ROTATION] + k] = a[k] - b[k]
            if columns[TRANSLATION] >= 0:
                for k in range(3):
                    row[columns[TRANSLATION] + k] = through[k] * TRANSLATION_UNIT
            if columns[FOCAL] >= 0:                        # by the focal length's logarithm
                row[columns[FOCAL]] = gradient[c, 0] * scale * x + gradient[c, 1] * scale * y
            if columns[LIGHT] >= 0:
                for k in range(9):
                    row[columns[LIGHT] + 3 * k + c] = -base[c] * basis[k]
            if columns[ALBEDO] >= 0:
                for corner in range(3):
                    shade[corner] = -shading[c] * barycentric[n, corner]
                b0, b1, b2 = (albedo_basis[corners[0], c], albedo_basis[corners[1], c],
                              albedo_basis[corners[2], c])
                own = row[columns[ALBEDO]:columns[ALBEDO] + b0.shape[0]]
                for k in range(b0.shape[0]):
                    own[k] = shade[0] * b0[k] + shade[1] * b1[k] + shade[2] * b2[k]
            if columns[IDENTITY] >= 0 or columns[EXPRESSION] >= 0:
                # d(n/|n|) = (I - n n^T) dn / |n| with dn = de1 x e2 + e1 x de2, model space
                for k in range(3):
                    position[k] = (rotation[0, k] * through[0] + rotation[1, k] * through[1]
                                   + rotation[2, k] * through[2])
                    tangent[k] = rotation[0, k] * bend[0] + rotation[1, k] * bend[1] + rotation[2, k] * bend[2]
                along = tangent[0] * normal[0] + tangent[1] * normal[1] + tangent[2] * normal[2]
                for k in range(3):
                    tangent[k] = (tangent[k] - along * normal[k]) / length
                _cross(e2, tangent, a)                     # factor of the second corner's displacement
                _cross(tangent, e1, b)                     # factor of the third corner's
                for k in range(3):
                    factor[c, 0, k] = barycentric[n, 0] * position[k] + a[k] + b[k]
                    factor[c, 1, k] = barycentric[n, 1] * position[k] - a[k]
                    factor[c, 2, k] = barycentric[n, 2] * position[k] - b[k]
        if columns[IDENTITY] >= 0:
            _add_columns(rows, columns[IDENTITY], factor, corners, identity_basis)
        if columns[EXPRESSION] >= 0:
            _add_columns(rows, columns[EXPRESSION], factor, corners, expression_basis)


@njit(cache=True, parallel=True, fastmath=True)
def _evaluate_parallel(count, vertices, triangles, triangle, barycentric, albedo, image, rotation, translation, focal,
                       centre, light, columns, identity_basis, albedo_basis, expression_basis, residual, jacobian):
    """_evaluate of all `count` samples, on all of numba's threads."""
    for block in prange((count + CHUNK - 1) // CHUNK):
        _evaluate(block * CHUNK, min((block + 1) * CHUNK, count), vertices, triangles, triangle, barycentric, albedo,
                  image, rotation, translation, focal, centre, light, columns, identity_basis, albedo_basis,
                  expression_basis, residual, jacobian)


def photometric(model, vertices, albedo, image, samples, shared, frame, principal_point, layout=None, dtype=np.float32,
                parallel=True):
    """Colour residuals of equation 4 and, if asked for, their Jacobian.

    Parameters
    ----------
    model : MorphableModel
    vertices : (V, 3) float, model.shape(identity, expression); only the samples' corners are read
    albedo : (V, 3) float, model.albedo(albedo); only the samples' corners are read
    image : (H, W, 3) float in [0, 1]
    samples : fitting.energy.Samples
    shared, frame : fitting.parameters.Shared, Frame
    principal_point : (2,) float pixels
    layout : Layout, optional
    dtype : precision of what is returned
    parallel : bool, use all of numba's threads; not where several threads call this at once

    Returns
    -------
    residual : (N, 3), image minus model
    jacobian : (3 N, layout.size) or None; row 3 n + c is channel c of sample n
    """
    n = len(samples.triangle)
    residual = np.empty((n, 3), dtype)
    jacobian = np.empty((0 if layout is None else 3 * n, 0 if layout is None else layout.size), dtype)
    columns = np.full(len(_BLOCKS), -1)
    if layout is not None:
        for k, name in enumerate(_BLOCKS):
            if name in layout:
                columns[k] = layout[name].start
    basis = lambda b: np.asarray(b, dtype)
    arguments = (
        vertices, model.triangles, samples.triangle, samples.barycentric, albedo, image, frame.rotation,
        np.asarray(frame.translation, np.float64), float(shared.focal), np.asarray(principal_point, np.float64),
        np.asarray(frame.light, np.float64), columns, basis(model.identity_basis), basis(model.albedo_basis),
        basis(model.expression_basis), residual, jacobian)
    if parallel:
        _evaluate_parallel(n, *arguments)
    else:
        _evaluate(0, n, *arguments)
    return residual, None if layout is None else jacobian
