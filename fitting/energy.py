"""The energy of equations 3 to 6: its constants, the landmark term and the robust norm (the colour term's residuals
are in fitting.photometric).

Units: colour residuals are averaged over the samples, landmark residuals are divided by the face's size, so that the
paper's weights mean the same at every resolution.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitting.parameters import TRANSLATION_UNIT

W_COLOUR, W_LANDMARK, W_REGULARISER = 1.0, 10.0, 2.5e-5      # section 4
ROBUST_EPSILON = 0.01        # below this colour distance the l2,1 norm is taken as quadratic
BLENDSHAPE_SIGMA = 0.35      # standard deviation of an expression coefficient in [0, 1] in equation 6


def expression_sigma(model):
    """Standard deviation of expression coefficients in equation 6, which is 1 where they may be negative."""
    return 1.0 if model.expression_range[0] < 0 else BLENDSHAPE_SIGMA


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


@dataclass(frozen=True)
class Pose:
    """How a head is turned, as seen along the ray to it.

    rotation : (3, 3) float64, model to the camera after that was aimed at `centre` (facemodel.camera.aimed)
    centre : (2,) float64 pixels
    sigma : float, radians, how far such rotations are usually off about each axis
    """

    rotation: np.ndarray
    centre: np.ndarray
    sigma: float


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
