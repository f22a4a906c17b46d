"""Rotations and the pinhole camera.

Camera space has x right, y down, z forward (OpenCV); X_cam = R X_model + t in millimetres; square pixels.
"""
from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def skew(v):
    """Cross-product matrices: (..., 3) -> (..., 3, 3) with skew(a) @ b = a x b."""
    v = np.asarray(v)
    zero = np.zeros_like(v[..., 0])
    return np.stack([np.stack([zero, -v[..., 2], v[..., 1]], -1), np.stack([v[..., 2], zero, -v[..., 0]], -1),
                     np.stack([-v[..., 1], v[..., 0], zero], -1)], -2)


def rotation_matrix(axis_angle):
    """Rodrigues' formula: (3,) radians -> (3, 3) float64."""
    v = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(v)
    k = skew(v)
    if angle < 1e-8:
        return np.eye(3) + k + k @ k / 2
    return np.eye(3) + np.sin(angle) / angle * k + (1 - np.cos(angle)) / angle ** 2 * (k @ k)


def axis_angle(matrix):
    """Inverse of rotation_matrix: (3, 3) -> (3,) float64 with angle in [0, pi]."""
    return Rotation.from_matrix(matrix).as_rotvec()


def to_camera(vertices_model, rotation, translation):
    """(V, 3) model space -> (V, 3) camera space, millimetres; rotation is axis-angle (3,) or a matrix (3, 3)."""
    rotation = np.asarray(rotation)
    matrix = rotation if rotation.ndim == 2 else rotation_matrix(rotation)
    return vertices_model @ matrix.T.astype(vertices_model.dtype) + np.asarray(translation, vertices_model.dtype)


def project(vertices_camera, focal, principal_point):
    """(V, 3) camera space -> (V, 2) pixels."""
    return focal * vertices_camera[:, :2] / vertices_camera[:, 2:] + np.asarray(principal_point, vertices_camera.dtype)


def aimed(pixel, focal, principal_point):
    """The rotation (3, 3) from a camera that was turned, by the shortest way, to aim at a pixel (2,), to this one."""
    ray = np.append((np.asarray(pixel, np.float64) - principal_point) / focal, 1)
    ray /= np.linalg.norm(ray)
    axis = np.array([-ray[1], ray[0], 0])                    # optical axis x ray
    sine = np.linalg.norm(axis)
    return rotation_matrix(axis * (np.arctan2(sine, ray[2]) / sine)) if sine > 1e-12 else np.eye(3)


def default_focal(height, width):
    """Focal length in pixels that a picture is taken to have before it is fitted: twice its shorter side."""
    return 2.0 * min(height, width)
