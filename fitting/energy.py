"""The energy of equations 3 to 6 and its Jacobians.

Photometric residuals live at samples of the surface: a triangle and barycentric coordinates, taken from a rasterised
view and held fixed while the energy is linearised. A sample's residual is the image at the sample's projection minus
albedo times shading; its Jacobian runs through the projection (image gradient) and through the triangle's normal
(shading). Units: colour residuals are averaged over the samples, landmark residuals are divided by the face's size, so
that the paper's weights mean the same at every resolution.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from facemodel.light import sh_basis, sh_gradient
from fitting.parameters import TRANSLATION_UNIT

W_COLOUR, W_LANDMARK, W_REGULARISER = 1.0, 10.0, 2.5e-5      # section 4
ROBUST_EPSILON = 0.01        # below this colour distance the l2,1 norm is taken as quadratic
EXPRESSION_SIGMA = 0.35      # default standard deviation of a blendshape in [0, 1] in equation 6


@dataclass(frozen=True)
class Samples:
    """Points of the surface that the photometric term looks at.

    triangle : (N,) int32
    barycentric : (N, 3) float
    weight : (N,) float >= 0, importance of each sample
    """

    triangle: np.ndarray
    barycentric: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Landmarks:
    """Detected landmarks and the vertices that they belong to.

    vertices : (K,) int
    target : (K, 2) float64 pixels
    weight : (K,) float64 >= 0
    face_size : float, pixels, divides the residuals
    """

    vertices: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    face_size: float


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


@njit(cache=True, parallel=True, fastmath=True)
def _sample_image(image, xy, colour, gradient):
    """Catmull-Rom samples of image (H, W, 3) at xy (N, 2) and the derivative of the interpolant (N, 3, 2).

    Samples are drawn at pixel centres, just where a bilinear interpolant has a kink and its one-sided slope misleads
    the solver; this interpolant has a continuous slope, the central difference there.
    """
    height, width = image.shape[:2]
    for n in prange(xy.shape[0]):
        x = min(max(xy[n, 0] - 0.5, 1.0), width - 2.001)
        y = min(max(xy[n, 1] - 0.5, 1.0), height - 2.001)
        j, i = int(x), int(y)
        wx, dx, wy, dy = np.empty(4), np.empty(4), np.empty(4), np.empty(4)
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
            colour[n, c] = value
            gradient[n, c, 0] = along_x
            gradient[n, c, 1] = along_y


@njit(cache=True, parallel=True, fastmath=True)
def _geometry(vertices, triangles, triangle, bary, points, normals, lengths, edges):
    """Position, unit normal, length of the unnormalised normal and the two edges of each sample, model space."""
    for n in prange(triangle.shape[0]):
        t = triangle[n]
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        for k in range(3):
            points[n, k] = bary[n, 0] * vertices[a, k] + bary[n, 1] * vertices[b, k] + bary[n, 2] * vertices[c, k]
            edges[n, 0, k] = vertices[b, k] - vertices[a, k]
            edges[n, 1, k] = vertices[c, k] - vertices[a, k]
        x = edges[n, 0, 1] * edges[n, 1, 2] - edges[n, 0, 2] * edges[n, 1, 1]
        y = edges[n, 0, 2] * edges[n, 1, 0] - edges[n, 0, 0] * edges[n, 1, 2]
        z = edges[n, 0, 0] * edges[n, 1, 1] - edges[n, 0, 1] * edges[n, 1, 0]
        length = np.sqrt(x * x + y * y + z * z) + 1e-12
        normals[n, 0], normals[n, 1], normals[n, 2], lengths[n] = x / length, y / length, z / length, length


@njit(cache=True, parallel=True, fastmath=True)
def _vertex_albedo(albedo, triangles, triangle, bary, out):
    for n in prange(triangle.shape[0]):
        t = triangle[n]
        for k in range(3):
            out[n, k] = (bary[n, 0] * albedo[triangles[t, 0], k] + bary[n, 1] * albedo[triangles[t, 1], k]
                         + bary[n, 2] * albedo[triangles[t, 2], k])


@njit(cache=True, parallel=True, fastmath=True)
def _shape_columns(jacobian, first, basis, triangles, triangle, per_corner):
    """Adds sum over corners and axes of per_corner (N, 3 channels, 3 corners, 3 axes) times basis (V, 3, K)."""
    count = basis.shape[2]
    for n in prange(triangle.shape[0]):
        t = triangle[n]
        for channel in range(3):
            row = jacobian[3 * n + channel]
            for k in range(count):
                row[first + k] = 0
            for corner in range(3):
                v = triangles[t, corner]
                for axis in range(3):
                    factor = per_corner[n, channel, corner, axis]
                    for k in range(count):
                        row[first + k] += factor * basis[v, axis, k]


@njit(cache=True, parallel=True, fastmath=True)
def _albedo_columns(jacobian, first, basis, triangles, triangle, bary, shading):
    """-shading * interpolated basis, per channel."""
    count = basis.shape[2]
    for n in prange(triangle.shape[0]):
        t = triangle[n]
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        for channel in range(3):
            row = jacobian[3 * n + channel]
            w0, w1, w2 = (-shading[n, channel] * bary[n, 0], -shading[n, channel] * bary[n, 1],
                          -shading[n, channel] * bary[n, 2])
            for k in range(count):
                row[first + k] = w0 * basis[a, channel, k] + w1 * basis[b, channel, k] + w2 * basis[c, channel, k]


def photometric(model, vertices, albedo, image, samples, shared, frame, principal_point, layout=None, dtype=np.float32):
    """Colour residuals of equation 4 and, if asked for, their Jacobian.

    Parameters
    ----------
    model : MorphableModel
    vertices : (V, 3) float, model.shape(identity, expression)
    albedo : (V, 3) float, model.albedo(albedo)
    image : (H, W, 3) float in [0, 1]
    samples : Samples
    shared, frame : fitting.parameters.Shared, Frame
    principal_point : (2,) float pixels
    layout : Layout, optional

    Returns
    -------
    residual : (N, 3), image minus model
    jacobian : (3 N, layout.size) or None; row 3 n + c is channel c of sample n
    """
    n = len(samples.triangle)
    triangle, bary = samples.triangle, np.ascontiguousarray(samples.barycentric, dtype)
    points, normals = np.empty((n, 3), dtype), np.empty((n, 3), dtype)
    lengths, edges, base = np.empty(n, dtype), np.empty((n, 2, 3), dtype), np.empty((n, 3), dtype)
    _geometry(vertices.astype(dtype, copy=False), model.triangles, triangle, bary, points, normals, lengths, edges)
    _vertex_albedo(albedo.astype(dtype, copy=False), model.triangles, triangle, bary, base)

    rotation, light = frame.rotation.astype(dtype), frame.light.astype(dtype)
    turned = points @ rotation.T
    camera = turned + frame.translation.astype(dtype)
    depth = camera[:, 2]
    focal = dtype(shared.focal)
    xy = focal * camera[:, :2] / depth[:, None] + np.asarray(principal_point, dtype)
    colour, gradient = np.empty((n, 3), dtype), np.empty((n, 3, 2), dtype)
    _sample_image(image, xy, colour, gradient)
    normals_camera = normals @ rotation.T
    basis = sh_basis(normals_camera)
    shading = basis @ light
    residual = colour - base * shading
    if layout is None:
        return residual, None

    jacobian = np.zeros((3 * n, layout.size), dtype)
    blocks = jacobian.reshape(n, 3, layout.size)
    # image through the projection: d colour / d camera position, (N, 3 channels, 3 axes)
    through = np.empty((n, 3, 3), dtype)
    through[..., :2] = gradient * (focal / depth)[:, None, None]
    through[..., 2] = -(through[..., :2] * (camera[:, None, :2] / depth[:, None, None])).sum(axis=2)
    # model through the normal: d colour / d unit normal, (N, 3 channels, 3 axes), camera space
    bend = base[:, :, None] * np.einsum("nka,kc->nca", sh_gradient(normals_camera), light)

    if "rotation" in layout:
        # d(exp(w) v) / dw = -[v]x, so g . dv = (v x g) . w
        blocks[:, :, layout["rotation"]] = (np.cross(turned[:, None], through)
                                            - np.cross(normals_camera[:, None], bend))
    if "translation" in layout:
        blocks[:, :, layout["translation"]] = through * dtype(TRANSLATION_UNIT)
    if "focal" in layout:
        offset = xy - np.asarray(principal_point, dtype)          # d xy / d log f
        blocks[:, :, layout["focal"]] = (gradient * offset[:, None]).sum(axis=2, keepdims=True)
    if "light" in layout:
        part = np.zeros((n, 3, 9, 3), dtype)
        for c in range(3):
            part[:, c, :, c] = -base[:, c, None] * basis
        blocks[:, :, layout["light"]] = part.reshape(n, 3, 27)
    if "albedo" in layout:
        _albedo_columns(jacobian, layout["albedo"].start, model.albedo_basis, model.triangles, triangle, bary, shading)
    if "identity" in layout or "expression" in layout:
        # d(n/|n|) = (I - n n^T) dn / |n| with dn = de1 x e2 + e1 x de2
        bend_model = bend @ rotation
        tangent = (bend_model - (bend_model * normals[:, None]).sum(axis=2, keepdims=True) * normals[:, None])
        tangent /= lengths[:, None, None]
        first = np.cross(edges[:, None, 1], tangent)              # factor of the second corner's displacement
        second = np.cross(tangent, edges[:, None, 0])             # factor of the third corner's
        position = through @ rotation
        per_corner = bary[:, None, :, None] * position[:, :, None, :]
        per_corner[:, :, 1] -= first
        per_corner[:, :, 2] -= second
        per_corner[:, :, 0] += first + second
        per_corner = np.ascontiguousarray(per_corner)
        for name, vectors in (("identity", "identity_basis"), ("expression", "expression_basis")):
            if name in layout:
                _shape_columns(jacobian, layout[name].start, getattr(model, vectors), model.triangles, triangle,
                               per_corner)
    return residual, jacobian


def landmark_term(model, vertices, landmarks, shared, frame, principal_point, layout=None):
    """Landmark residuals of equation 5 over the face's size, and their Jacobian (float64).

    Returns
    -------
    residual : (K, 2), projection minus detection, divided by face_size
    jacobian : (2 K, layout.size) or None
    """
    points = vertices[landmarks.vertices].astype(np.float64)
    turned = points @ frame.rotation.T
    camera = turned + frame.translation
    xy = shared.focal * camera[:, :2] / camera[:, 2:] + principal_point
    residual = (xy - landmarks.target) / landmarks.face_size
    if layout is None:
        return residual, None
    k = len(points)
    jacobian = np.zeros((k, 2, layout.size))
    through = np.zeros((k, 2, 3))
    scale = shared.focal / camera[:, 2] / landmarks.face_size
    through[:, 0, 0] = through[:, 1, 1] = scale
    through[:, :, 2] = -scale[:, None] * camera[:, :2] / camera[:, 2:]
    if "rotation" in layout:
        jacobian[:, :, layout["rotation"]] = np.cross(turned[:, None], through)
    if "translation" in layout:
        jacobian[:, :, layout["translation"]] = through * TRANSLATION_UNIT
    if "focal" in layout:
        jacobian[:, :, layout["focal"]] = ((xy - principal_point) / landmarks.face_size)[:, :, None]
    model_space = through @ frame.rotation
    for name, vectors in (("identity", "identity_basis"), ("expression", "expression_basis")):
        if name in layout:
            jacobian[:, :, layout[name]] = model_space @ getattr(model, vectors)[landmarks.vertices].astype(np.float64)
    return residual, jacobian.reshape(2 * k, layout.size)


def robust_weights(residual, epsilon=ROBUST_EPSILON):
    """IRLS weights of the l2,1 norm: 1 / max(|r|, epsilon) per sample; residual (N, 3) -> (N,)."""
    return 1 / np.maximum(np.sqrt((residual * residual).sum(axis=1)), epsilon)


def colour_energy(residual, weight, epsilon=ROBUST_EPSILON):
    """Equation 4 with sample weights: weighted mean of the colour distances, quadratic below epsilon."""
    distance = np.sqrt((residual.astype(np.float64) ** 2).sum(axis=1))
    distance = np.where(distance < epsilon, distance ** 2 / (2 * epsilon) + epsilon / 2, distance)
    return float((weight * distance).sum() / max(weight.sum(), 1e-9))


def landmark_energy(residual, weight):
    """Equation 5 with landmark weights."""
    return float((weight * (residual ** 2).sum(axis=1)).sum() / max(weight.sum(), 1e-9))
