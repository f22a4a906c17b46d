"""Lays the embedded model over another head, such as another model's mean face, and carries over what that lacks.

Similarity from landmarks (S. Umeyama, 1991, doi:10.1109/34.88573), then closest points with the embedded model's
identity coefficients free, so that noses meet noses. Everything here is in file orientation (x to the subject's left,
y up, z out of the face) and millimetres.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from facemodel.camera import rotation_matrix
from facemodel.mesh import vertex_normals
from facemodel.morphable import FLIP

NORMAL_WEIGHT = 8.0          # mm that a normal turned by one radian counts: keeps upper and lower lip apart
SAMPLES = 6000
MISFIT = 4.0                 # mm, largest median distance of two faces that are laid over each other
SIZES = (0.75, 1.35)         # of a mean head over the embedded one
FURTHEST = 8.0               # mm, closest points further away do not belong together
TANGENTIAL = 0.05            # weight of distance across the normal; along it it is 1
USUAL = 1.5                  # mm, a distance along the normal from which a pair counts less
RIM = 0.8                    # of the region 'face': vertices below it have no partners
HOLD = 0.1                   # weight of all landmarks
LOOSE = 0.003                # mm^2, stiffness for somebody's head, which may lie further from the mean than a mean face
# landmarks on which the embedded model's markup and ICT-FaceKit's agree: ridge and base of the nose, eyes, corners and
# middle of the lips
SHARED_LANDMARKS = (27, 28, 29, 30, 33, *range(36, 48), 48, 51, 54, 57)


@dataclass(frozen=True)
class Registration:
    """The embedded model laid over another face.

    vertices : (V, 3) float64, the embedded surface in the other face's space
    normals : (V, 3) float64
    landmarks : (68,) int, of the embedded model
    distance : float, median distance of the other face's skin to the embedded surface, mm
    coefficients : (modes,) identity, standard deviations
    scale, rotation, translation : embedded model (file orientation) to the other face's space: s R x + t
    """

    vertices: np.ndarray
    normals: np.ndarray
    landmarks: np.ndarray
    distance: float
    coefficients: np.ndarray
    scale: float
    rotation: np.ndarray
    translation: np.ndarray


def similarity(source, target):
    """Scale, rotation (3, 3) and translation (3,) that bring (N, 3) points nearest to others: s R x + t."""
    a, b = source.mean(axis=0), target.mean(axis=0)
    u, s, vt = np.linalg.svd((target - b).T @ (source - a))
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = (s * sign).sum() / ((source - a) ** 2).sum()
    return scale, rotation, b - scale * rotation @ a


def register(guide, vertices, triangles, landmarks, iterations=20, modes=80, stiffness=0.02, hold=HOLD):
    """Fits the embedded model to a mean face: similarity from landmarks, then Gauss-Newton on closest points.

    Every step looks up the embedded vertex nearest to each sample of the other face, in position and normal, and solves
    for pose, size and identity coefficients together. Distances count fully along the normal and little across, so that
    the surfaces may slide over each other (Y. Chen, G. Medioni, 1992, doi:10.1016/0262-8856(92)90066-C).

    Parameters
    ----------
    guide : MorphableModel, the embedded model
    vertices, triangles : (V, 3) float, (T, 3) int, the other face
    landmarks : dict, iBUG index -> vertex of the other face; those of the jaw line are not used
    stiffness : float, mm^2, mean squared distance that a coefficient of one standard deviation is worth
    hold : float, weight of all landmarks against all closest points

    Returns
    -------
    Registration

    Raises
    ------
    ValueError : when the faces cannot be laid over each other, or differ in size by more than heads do
    """
    flip = FLIP.astype(np.float64)
    mean, basis = guide.mean * flip, guide.identity_basis[..., :modes] * flip[:, None]
    inner = [k for k in sorted(landmarks) if k >= 17]
    marks, points = guide.landmarks[inner], vertices[[landmarks[k] for k in inner]].astype(np.float64)
    allowed = np.flatnonzero((guide.regions["face"] > 0.5) & (guide.regions["mouth_interior"] < 0.1)
                             & (guide.regions["eyes"] < 0.1))
    normals = vertex_normals(vertices.astype(np.float64), triangles)
    scale, rotation, translation = similarity(mean[marks], points)
    coefficients, distance = np.zeros(basis.shape[2]), np.inf
    for i in range(iterations + 1):
        placed = scale * (mean + basis @ coefficients) @ rotation.T + translation
        facing = vertex_normals(placed, guide.triangles)
        if i == iterations:
            break
        close, corner, distance = _pairs(placed, facing, allowed, vertices, normals, FURTHEST * (1.5 if i < 3 else 1))
        within = guide.regions["face"][corner] > RIM           # beyond the rim every sample's nearest vertex is on it
        close, corner = close[within], corner[within]
        if len(close) < 50:
            raise ValueError("the embedded face does not fit over it")
        goal = np.concatenate([vertices[close], points])
        corner = np.concatenate([corner, marks])
        n = facing[corner]
        metric = TANGENTIAL * np.eye(3) + (1 - TANGENTIAL) * n[:, :, None] * n[:, None, :]
        gap = ((vertices[close] - placed[corner[:len(close)]]) * n[:len(close)]).sum(axis=1)
        metric[:len(close)] /= (1 + (gap / USUAL) ** 2)[:, None, None]        # nostrils have no counterpart
        metric[len(close):] = hold * len(close) / len(marks) * np.eye(3)
        p = placed[corner] - translation
        turned = np.zeros((len(p), 3, 3))
        for axis in range(3):
            turned[:, :, axis] = np.cross(np.eye(3)[axis], p)
        free = basis.shape[2] if i >= 2 else 0
        shape = scale * np.einsum("ij,njk->nik", rotation, basis[corner][..., :free])
        jacobian = np.concatenate([turned, p[:, :, None], np.tile(np.eye(3), (len(p), 1, 1)), shape], axis=2)
        weighted = np.einsum("nji,njk->nik", jacobian, metric)
        normal = np.einsum("nik,nkj->ij", weighted, jacobian, optimize=True)
        right = np.einsum("nik,nk->i", weighted, goal - placed[corner])
        spring = stiffness * len(close)
        normal[7:, 7:] += spring * np.eye(free)
        right[7:] -= spring * coefficients[:free]
        step = np.linalg.solve(normal + 1e-9 * np.trace(normal) * np.eye(len(normal)) / len(normal), right)
        rotation = rotation_matrix(step[:3]) @ rotation
        scale, translation = scale * (1 + step[3]), translation + step[4:7]
        coefficients[:free] += step[7:]
    if not SIZES[0] < scale < SIZES[1]:
        raise ValueError(f"it is {scale:.2g} times as large as a head in millimetres; are its units right?")
    if not distance < MISFIT:
        raise ValueError(f"the embedded face does not fit over it (median distance {distance:.1f} mm)")
    return Registration(placed, facing, guide.landmarks, distance, coefficients, float(scale), rotation, translation)


def _pairs(placed, facing, allowed, vertices, normals, furthest):
    """Samples of the other face (N,) near the embedded one, their vertices there (N,), and the median distance.

    The distance is of all samples within the embedded face's box, those without a partner among them.
    """
    reach = placed[allowed]
    tree = cKDTree(np.concatenate([reach, NORMAL_WEIGHT * facing[allowed]], axis=1))
    low, high = reach.min(axis=0) - furthest, reach.max(axis=0) + furthest
    near = np.flatnonzero(((vertices > low) & (vertices < high)).all(axis=1))
    near = near[::max(1, len(near) // SAMPLES)]
    found = allowed[tree.query(np.concatenate([vertices[near], NORMAL_WEIGHT * normals[near]], axis=1))[1]]
    away = np.linalg.norm(vertices[near] - placed[found], axis=1)
    good = (away < furthest) & ((facing[found] * normals[near]).sum(axis=1) > 0.5)
    return near[good], found[good], float(np.median(np.where(good, away, furthest))) if len(near) else np.inf


def nearest_vertices(registration, which, vertices, triangles):
    """Vertices of the other face (V, 3) nearest to vertices `which` (N,) of the embedded one: (N,) int32."""
    normals = vertex_normals(vertices.astype(np.float64), triangles)
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
