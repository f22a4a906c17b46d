"""How real heads vary: the statistics of identity, measured on a second model's heads by registering ours to them.

MakeHuman's targets say what a head can do, not how often heads do it, and its mean is an artist's. Heads drawn from a
model made of scans (ICT-FaceKit, MIT) are registered with the basis of the random draws; what is kept are the mean and
the covariance of the coefficients, so the surface and its modes stay MakeHuman's.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from facemodel.camera import rotation_matrix

# landmarks on which the two models' markups agree: eye corners and lids, ridge and base of the nose, lips, chin
SHARED_LANDMARKS = np.r_[27:31, 33, 36:48, 48, 51, 54, 57, 8]
RADIUS = 105.0           # mm around the nose tip
NEAR = 2.0               # mm, beyond which a distance counts less
LANDMARK_WEIGHT = 0.1    # of the landmarks' mean square against the surface's
PRIOR = 0.004            # mm^2, weight of the mean square distance of a coefficient of one standard deviation


@dataclass(frozen=True)
class Heads:
    """Heads of one topology, file axes (y up, z out of the face), millimetres.

    mean : (V, 3) float64
    basis : (V, 3, K) float64, change per standard deviation
    landmarks : (68,) int, iBUG order
    """

    mean: np.ndarray
    basis: np.ndarray
    landmarks: np.ndarray

    def draw(self, count, seed):
        """(count, V, 3) random heads; coefficients are clipped at 2.2 standard deviations."""
        rng = np.random.default_rng(seed)
        for _ in range(count):
            yield self.mean + self.basis @ np.clip(rng.normal(size=self.basis.shape[2]), -2.2, 2.2)


@dataclass(frozen=True)
class Template:
    """The surface that is registered.

    mean : (V, 3), basis : (V, 3, K), triangles : (T, 3), landmarks : (68,) int; mm, file axes
    """

    mean: np.ndarray
    basis: np.ndarray
    triangles: np.ndarray
    landmarks: np.ndarray


def _normals(vertices, triangles):
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, triangles[:, k], face)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _rigid(source, target):
    """Rotation and translation (3, 3), (3,) with target ~ source @ r.T + t (least squares)."""
    a, b = source.mean(axis=0), target.mean(axis=0)
    u, _, vt = np.linalg.svd((target - b).T @ (source - a))
    r = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    return r, b - r @ a


def register(template, points, landmarks, iterations=12):
    """Fits the template to a head: point to plane from the head's points, damped by the coefficients' prior.

    Parameters
    ----------
    template : Template
    points : (N, 3) float, of the head's skin
    landmarks : (68, 3) float, of the head

    Returns
    -------
    coefficients : (K,), rotation : (3, 3), translation : (3,) template to head; median distance in mm
    """
    count = template.basis.shape[2]
    marks = template.landmarks[SHARED_LANDMARKS]
    coefficients = np.zeros(count)
    vertices = template.mean
    r, t = _rigid(vertices[marks], landmarks[SHARED_LANDMARKS])
    for _ in range(iterations):
        normals = _normals(vertices, template.triangles)
        local = (points - t) @ r
        _, near = cKDTree(vertices).query(local)
        normal, gap = normals[near], local - vertices[near]
        distance = (gap * normal).sum(axis=1)
        weight = np.sqrt(1 / (1 + (distance / NEAR) ** 2) / len(points))[:, None]
        turn = np.cross(vertices[near], normal)
        rows = np.concatenate([np.einsum("na,nak->nk", normal, template.basis[near]), turn, normal], axis=1) * weight
        right = distance * weight[:, 0]
        goal = ((landmarks[SHARED_LANDMARKS] - t) @ r - vertices[marks]).ravel()
        x, y, z = vertices[marks].T
        zero = np.zeros_like(x)
        cross = np.stack([np.stack([zero, z, -y], 1), np.stack([-z, zero, x], 1), np.stack([y, -x, zero], 1)], 1)
        moved = np.concatenate([template.basis[marks].reshape(-1, count), cross.reshape(-1, 3),
                                np.tile(np.eye(3), (len(marks), 1))], axis=1)
        share = np.sqrt(LANDMARK_WEIGHT / len(marks))
        rows, right = np.concatenate([rows, moved * share]), np.concatenate([right, goal * share])
        hessian, gradient = rows.T @ rows, rows.T @ right
        prior = np.r_[np.full(count, PRIOR), np.zeros(6)]
        gradient[:count] -= PRIOR * coefficients
        step = np.linalg.solve(hessian + np.diag(prior + 1e-9), gradient)
        coefficients = coefficients + step[:count]
        vertices = template.mean + template.basis @ coefficients
        turned = rotation_matrix(step[count:count + 3])
        r, t = r @ turned, r @ step[count + 3:] + t
    return coefficients, r, t, float(np.median(np.abs(distance)))


def skin_points(vertices, triangles, landmarks, limit=4000):
    """Points of a head that a camera in front could see, near the nose tip: (N, 3)."""
    tip = vertices[landmarks[30]]
    seen = (np.linalg.norm(vertices - tip, axis=1) < RADIUS) & (_normals(vertices, triangles)[:, 2] > 0.1)
    chosen = np.flatnonzero(seen)
    return vertices[chosen[np.linspace(0, len(chosen) - 1, min(limit, len(chosen))).astype(int)]]
