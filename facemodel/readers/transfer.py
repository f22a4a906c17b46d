"""Lays the embedded model over another model's mean face and carries over what that lacks.

Similarity from landmarks (S. Umeyama, 1991, doi:10.1109/34.88573), then closest points: alternately the pose and the
embedded model's identity coefficients are solved for, so that noses meet noses. Everything here is in file orientation
(x to the subject's left, y up, z out of the face) and millimetres.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from facemodel.morphable import FLIP
from facemodel.readers.mesh import vertex_normals

NORMAL_WEIGHT = 8.0          # mm that a normal turned by one radian counts: keeps upper and lower lip apart
SAMPLES = 6000
FURTHEST = 12.0              # mm, closest points further away do not belong together


@dataclass(frozen=True)
class Registration:
    """The embedded model laid over another face.

    vertices : (V, 3) float64, the embedded surface in the other face's space
    normals : (V, 3) float64
    landmarks : (68,) int, of the embedded model
    distance : float, median distance of the other face's skin to the embedded surface, mm
    """

    vertices: np.ndarray
    normals: np.ndarray
    landmarks: np.ndarray
    distance: float


def similarity(source, target):
    """Scale, rotation (3, 3) and translation (3,) that bring (N, 3) points nearest to others: s R x + t."""
    a, b = source.mean(axis=0), target.mean(axis=0)
    u, s, vt = np.linalg.svd((target - b).T @ (source - a))
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = (s * sign).sum() / ((source - a) ** 2).sum()
    return scale, rotation, b - scale * rotation @ a


def register(guide, vertices, triangles, landmarks, iterations=14, modes=60, stiffness=0.03):
    """Fits the embedded model to a mean face.

    Parameters
    ----------
    guide : MorphableModel, the embedded model
    vertices, triangles : (V, 3) float, (T, 3) int, the other face
    landmarks : dict, iBUG index -> vertex of the other face; those of the jaw line are not used
    stiffness : float, mm^2, weight of the coefficients against squared distances

    Returns
    -------
    Registration

    Raises
    ------
    ValueError : when the faces cannot be laid over each other (median distance above 4 mm)
    """
    flip = FLIP.astype(np.float64)
    mean, basis = guide.mean * flip, guide.identity_basis[..., :modes] * flip[:, None]
    inner = [k for k in sorted(landmarks) if k >= 17]
    marks, points = guide.landmarks[inner], vertices[[landmarks[k] for k in inner]].astype(np.float64)
    allowed = np.flatnonzero((guide.regions["face"] > 0.5) & (guide.regions["mouth_interior"] < 0.1)
                             & (guide.regions["eyes"] < 0.1))
    normals = vertex_normals(vertices, triangles)
    scale, rotation, translation = similarity(mean[marks], points)
    shape, distance = mean, np.inf
    for i in range(iterations):
        placed = scale * shape @ rotation.T + translation
        facing = vertex_normals(placed, guide.triangles)[allowed]
        tree = cKDTree(np.concatenate([placed[allowed], NORMAL_WEIGHT * facing], axis=1))
        reach = placed[allowed]
        near = np.flatnonzero((np.abs(vertices - reach.mean(axis=0)) < np.ptp(reach, axis=0) / 2 + 15).all(axis=1))
        near = near[::max(1, len(near) // SAMPLES)]
        _, found = tree.query(np.concatenate([vertices[near], NORMAL_WEIGHT * normals[near]], axis=1))
        away = np.linalg.norm(vertices[near] - reach[found], axis=1)
        close = away < max(FURTHEST * (1.5 if i < 3 else 1), 1e-6)
        distance = float(np.median(away[close])) if close.sum() > 50 else np.inf
        if not np.isfinite(distance):
            break
        corner = np.concatenate([allowed[found[close]], marks])
        goal = np.concatenate([vertices[near[close]], points])
        weight = np.concatenate([np.ones(close.sum()), np.full(len(marks), 0.02 * close.sum() / len(marks))])
        if i >= 2:
            local = (goal - translation) @ rotation / scale - mean[corner]
            b = basis[corner].reshape(-1, basis.shape[2])
            w = np.repeat(weight, 3)[:, None]
            normal = (b * w).T @ b + stiffness * weight.sum() * np.eye(basis.shape[2])
            coefficients = np.linalg.solve(normal, (b * w).T @ local.ravel())
            shape = mean + basis @ np.clip(coefficients, -3, 3)
        scale, rotation, translation = similarity(shape[corner], goal)
    if not distance < 4:
        raise ValueError(f"the embedded face does not fit over it (median distance {distance:.1f} mm)")
    placed = scale * shape @ rotation.T + translation
    return Registration(placed, vertex_normals(placed, guide.triangles), guide.landmarks, distance)


def nearest_vertices(registration, which, vertices, triangles):
    """Vertices of the other face (V, 3) nearest to vertices `which` (N,) of the embedded one: (N,) int32."""
    normals = vertex_normals(vertices, triangles)
    tree = cKDTree(np.concatenate([vertices, NORMAL_WEIGHT / 2 * normals], axis=1))
    query = np.concatenate([registration.vertices[which], NORMAL_WEIGHT / 2 * registration.normals[which]], axis=1)
    return tree.query(query)[1].astype(np.int32)


def carry_over(registration, values, chosen, vertices, normals=None, neighbours=4):
    """Values of the embedded model's vertices on another face, by its nearest vertices.

    Parameters
    ----------
    values : (V_embedded, ...) float
    chosen : (V_embedded,) bool, vertices that may be asked
    vertices : (N, 3) float; normals : (N, 3), or None to go by distance only
    neighbours : int, how many are averaged

    Returns
    -------
    (N, ...) float32
    """
    index = np.flatnonzero(chosen)
    keys, query = registration.vertices[index], vertices
    if normals is not None:
        keys = np.concatenate([keys, NORMAL_WEIGHT * registration.normals[index]], axis=1)
        query = np.concatenate([vertices, NORMAL_WEIGHT * normals], axis=1)
    distance, found = cKDTree(keys).query(query, k=neighbours)
    weight = 1 / (distance + 0.3)
    weight /= weight.sum(axis=1, keepdims=True)
    flat = values.reshape(len(values), -1)
    out = np.zeros((len(vertices), flat.shape[1]), np.float32)
    for k in range(neighbours):
        out += weight[:, k, None].astype(np.float32) * flat[index[found[:, k]]]
    return out.reshape(-1, *values.shape[1:])
