"""Left and right exchanged: which landmark is which other's mirror image, whose a mirrored head is, where on the chart.

The embedded model's chart is symmetric: u -> 1 - u is the other half of the face. Charts of other models, whose meshes
have no symmetric edges and some of them no symmetric mean, are not, by millimetres.
"""
from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from facemodel.atlas import uv_to_pixels
from facemodel.closest import at_closest_points
from facemodel.mesh import vertex_normals
from facemodel.rasterizer import interpolate, rasterize

# iBUG index of each of the 68 landmarks' partner on the other side
MIRROR = np.array([16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 27,
                   28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50,
                   49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65])
INNER = MIRROR[17:] - 17     # likewise among the 51 without the jaw
LOOKED_AT = 64               # texels per side of the chart that is tried
SYMMETRIC = 0.1              # mm that a texel may be off its partner's mirror image
NORMAL_WEIGHT = 4.0          # mm that a normal turned by one radian counts
PART_WEIGHT = 12.0           # mm that another part of the face counts
NEIGHBOURS = 3               # vertices whose triangles are searched for the mirrored point
SAMPLES, PASSES = 2000, 3    # vertices that the plane of symmetry is sought with, and how often


def mirrored_identity(model):
    """The matrix that turns a head's identity coefficients into those of its mirror image.

    Least squares over the control mesh, whose mean is symmetric: (n_id, n_id) float64. The embedded model's components
    are symmetric or change sign, but for pairs of like variance that mix, so that nothing is lost.

    model : facemodel.morphable.MorphableModel
    """
    mean, basis = model.control_mean.astype(np.float64), model.control_identity.astype(np.float64)
    partner = cKDTree(mean).query(mean * [-1, 1, 1])[1]
    image = basis[partner] * np.array([-1, 1, 1])[:, None]
    count = basis.shape[2]
    return np.linalg.lstsq(basis.reshape(-1, count), image.reshape(-1, count), rcond=None)[0]


def mirror_plane(points, partners):
    """The plane that mirrors points (N, 3) best onto their partners (N, 3): unit normal (3,), distance from the origin.

    Least squares: about the middle of all, the sum of squares is 4 n' S n and what n does not change, S = points' x
    partners.
    """
    middle = (points + partners).mean(axis=0) / 2
    s = (points - middle).T @ (partners - middle)
    normal = np.linalg.eigh(s + s.T)[1][:, 0]
    return normal, float(middle @ normal)


def mirror_image(points, plane):
    """Points (..., 3) mirrored at a plane of `mirror_plane`; directions, with a plane through the origin."""
    normal, distance = plane
    return points - 2 * (points @ normal - distance)[..., None] * normal


def chart_is_symmetric(model):
    """Whether u -> 1 - u of a model's chart is the other half of its face."""
    size = LOOKED_AT
    xy = uv_to_pixels(model.uv, size)
    raster = rasterize(xy, np.ones(len(xy), np.float32), model.triangles, size, size, cull_backfaces=False)
    both = raster.mask & raster.mask[:, ::-1]
    if not both.any():
        return False
    points = interpolate(model.mean, model.triangles, raster).astype(np.float64)
    here, there = points[both], points[:, ::-1][both]
    away = np.linalg.norm(mirror_image(here, mirror_plane(here, there)) - there, axis=1)
    return bool(away.max() < SYMMETRIC)


def mirrored_uv(model):
    """Where on a model's chart the mirror image of each vertex of its mean face lies.

    It is the surface's point that is closest to it, among those that look the same way and are of the same part, skin
    or mouth or eyes: lips and lids touch.

    model : facemodel.morphable.MorphableModel
    Returns (V, 2) float32, v up, or None where the chart is symmetric: u -> 1 - u
    """
    if chart_is_symmetric(model):
        return None
    vertices, marks = model.mean.astype(np.float64), model.mean[model.landmarks[17:]].astype(np.float64)
    normals = vertex_normals(vertices, model.triangles)
    parts = PART_WEIGHT * np.stack([model.regions[n] for n in ("mouth_interior", "eyes")], axis=1)
    tree = cKDTree(np.concatenate([vertices, NORMAL_WEIGHT * normals, parts], axis=1))

    def at_images(plane, rows, values):
        """Values (V, K) at the mirror images of vertices."""
        points, facing = mirror_image(vertices[rows], plane), mirror_image(normals[rows], (plane[0], 0.0))
        found = tree.query(np.concatenate([points, NORMAL_WEIGHT * facing, parts[rows]], axis=1), k=NEIGHBOURS)[1]
        return at_closest_points(points, found, vertices, model.triangles, values)

    plane = mirror_plane(marks, marks[INNER])
    face = np.flatnonzero(model.regions["face"] > 0.5)
    some = face[::max(1, len(face) // SAMPLES)]
    for _ in range(PASSES):
        image = at_images(plane, some, np.concatenate([vertices, normals], axis=1))
        plane = _better_plane(plane, vertices[some], image[:, :3], image[:, 3:])
    return at_images(plane, np.arange(len(vertices)), model.uv).astype(np.float32)


def _better_plane(plane, points, images, normals):
    """The plane whose mirror images of points (N, 3) are nearest to images (N, 3) along the normals (N, 3) there.

    One step of Gauss-Newton; across the normal nothing is asked, since the closest point is not the true one.
    """
    normal, distance = plane
    across = np.linalg.svd(normal[None])[2][1:]                    # (2, 3), the directions in which a normal can turn
    height, along = points @ normal - distance, normals @ normal
    turned = along[:, None] * (points @ across.T) + height[:, None] * (normals @ across.T)
    jacobian = 2 * np.concatenate([turned, -along[:, None]], axis=1)
    gap = (normals * (mirror_image(points, plane) - images)).sum(axis=1)
    step = np.linalg.lstsq(jacobian, gap, rcond=None)[0]
    normal = normal + step[:2] @ across
    length = np.linalg.norm(normal)
    return normal / length, float((distance + step[2]) / length)
