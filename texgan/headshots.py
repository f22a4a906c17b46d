"""Pictures of faces whose dense landmarks are known, to train fitting.dense_landmarks on.

Two kinds. Rendered ones show heads of ICT-FaceKit (texgan.rendered) in any pose and light: their points are exact, but
nobody wears hair. Turned ones are photos whose face was fitted, given the fit's depth, and seen by another camera, as
in X. Zhu et al., "Face alignment across large poses: a 3D solution", 2016, doi:10.1109/CVPR.2016.23: real hair, eyes
and beards, and points that are as good as the fit. Everything random is drawn from a numpy Generator.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from facemodel.camera import aimed, project, rotation_matrix, to_camera
from facemodel.mesh import vertex_normals
from facemodel.rasterizer import interpolate, rasterize
from fitting.dense_landmarks import SIZE as SEEN
from fitting.dense_landmarks import cut, middle, placement, uprighting
from texgan.lighting import FACE_HEIGHT, SIZE, draw_setup
from texgan.rendered import SCRIPT, photograph
from texgan.stage import SKIN

STORED = 176                     # pixels per side that are kept of a picture; the network will see SEEN of them
DRAWN = 288                      # pixels per side of a rendering, which is cut from
YAW, PITCH, ROLL = 40.0, 11.0, 10.0      # degrees: largest turn aside; usual turns up or down, and to the shoulder
PITCH_MOST = 28.0
FOCAL = (420.0, 2600.0)          # pixels, of a picture of texgan.lighting.SIZE
SHARE = (0.42, 0.56)             # of the picture's height that the face takes
OUTSIDE = 40.0                   # mm that not lying on the chart's point counts, when a triangle is looked for
INNER = 0.6                      # of texgan.stage.Stage.inner: triangles further in are no skin
SLIDING, MISFIT = 0.1, 0.5       # weight of distances along the surface over those off it; usual misfit of heads, mm
WORK, AROUND = 520, 2.2          # pixels of the square that a photo is turned in, and its side over the network's
STEP = 3                         # pixels between the points of a photo's relief
FADE = 60.0                      # pixels over which depth fades to the head's middle, off the face


@dataclass(frozen=True)
class Binding:
    """Where the dense landmarks lie on ICT-FaceKit: triangles (K, 3) int of its vertices, weights (K, 3)."""

    triangles: np.ndarray
    weights: np.ndarray

    def __call__(self, vertices):
        """The points (K, 3) on a head's vertices (V, 3), in whatever space."""
        return np.einsum("pk,pkd->pd", self.weights, vertices[self.triangles])


def bind(stage, model):
    """The Binding of the embedded model's dense landmarks to a Stage: same place in the chart, near in space."""
    skin = stage.triangles[stage.material == SKIN]
    skin = skin[(stage.inner[skin] < INNER).all(axis=1)]
    corners, centroids = stage.uv[skin].astype(np.float64), stage.mean[skin].mean(axis=1)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    flat = np.abs(area) < 1e-12
    triangles, weights = [], []
    for vertex in model.dense_landmarks:
        to = model.uv[vertex].astype(np.float64) - corners[:, 0]
        b = (to[:, 0] * second[:, 1] - to[:, 1] * second[:, 0]) / np.where(flat, 1, area)
        c = (first[:, 0] * to[:, 1] - first[:, 1] * to[:, 0]) / np.where(flat, 1, area)
        weight = np.stack([1 - b - c, b, c], axis=1)
        beyond = np.where(flat, 0.5, np.clip(-weight.min(axis=1), 0, 0.5))
        best = int((np.linalg.norm(centroids - stage.embedded[vertex], axis=1) + OUTSIDE * beyond).argmin())
        within = np.clip(weight[best], 0, None)
        triangles.append(skin[best])
        weights.append(within / within.sum())
    return Binding(np.array(triangles), np.array(weights))


def identity_of(model, points):
    """Identity coefficients (n_id,) of a head by its dense landmarks, which may slide over it: ridge regression.

    points : (K, 3) float64, model orientation, mm, where none of them is moved by an expression
    """
    dense = model.dense_landmarks
    n = vertex_normals(model.mean, model.triangles)[dense].astype(np.float64)
    slides = np.sqrt(SLIDING) * np.eye(3) + (1 - np.sqrt(SLIDING)) * n[:, :, None] * n[:, None, :]
    weighed = lambda x: np.einsum("pij,pj...->pi...", slides, x - x.mean(axis=0)).reshape(3 * len(dense), -1)
    basis = weighed(model.identity_basis[dense].astype(np.float64))
    away = weighed(points - model.mean[dense])[:, 0]
    return np.linalg.solve(basis.T @ basis + MISFIT ** 2 * np.eye(basis.shape[1]), basis.T @ away)


def framed(picture, points):
    """What is kept of a picture with points (K, 2): (STORED, STORED, 3) uint8, and the points in it, float32."""
    way = _kept(points)
    return cut(picture, way, STORED), (points @ way[:, :2].T + way[:, 2]).astype(np.float32)


def _kept(points):
    """The way (2, 3) from a picture into what is kept of it."""
    way = placement(points, SEEN)
    way[:, 2] += (STORED - SEEN) / 2
    return way


def draw_pose(rng):
    """A rotation (3, 3) of a head, model orientation to camera."""
    roll, pitch = np.radians(rng.normal(0, ROLL)), np.radians(np.clip(rng.normal(0, PITCH), -PITCH_MOST, PITCH_MOST))
    yaw = np.radians(rng.uniform(-YAW, YAW))
    return rotation_matrix([0, 0, roll]) @ rotation_matrix([pitch, 0, 0]) @ rotation_matrix([0, yaw, 0])


def draw_expression(rng):
    """Weights by name: none, one of the script's expressions more or less strongly, or two of them mixed."""
    weights = {} if rng.random() < 0.35 else dict(SCRIPT[rng.integers(len(SCRIPT))][1])
    gain = rng.uniform(0.4, 1.1) if rng.random() < 0.5 else 1.0
    weights = {name: gain * value for name, value in weights.items()}
    if rng.random() < 0.35:
        for name, value in SCRIPT[rng.integers(len(SCRIPT))][1].items():
            weights[name] = min(1.0, weights.get(name, 0) + 0.5 * value)
    return weights


def _background(rng, setup, scenes):
    """The setup's smooth background, or a piece of a photo, sharp or not: (SIZE, SIZE, 3) float32."""
    if not len(scenes) or rng.random() < 0.45:
        return setup.background
    scene = scenes[rng.integers(len(scenes))]
    side = int(min(scene.shape[:2]) * rng.uniform(0.25, 0.9))
    y, x = (rng.integers(n - side + 1) for n in scene.shape[:2])
    piece = cv2.resize(scene[y:y + side, x:x + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    piece = piece[::rng.choice([-1, 1]), ::rng.choice([-1, 1])]
    return cv2.GaussianBlur(np.ascontiguousarray(piece), (0, 0), rng.uniform(0.5, 6)).astype(np.float32) / 255


def rendered(stage, binding, actor, rng, scenes=()):
    """A picture of an actor in a random pose, light and expression, as `framed` gives it, and the head's turn.

    Parameters
    ----------
    stage : texgan.stage.Stage; binding : Binding; actor : texgan.actors.Actor
    scenes : list of (H, W, 3) uint8, what may be seen behind

    Returns
    -------
    (STORED, STORED, 3) uint8, (K, 2) float32 pixels, and the head's rotation (3, 3) float32 to a camera that aims at
    the face and stands upright as the picture does
    """
    setup = draw_setup(rng)
    focal = np.exp(rng.uniform(*np.log(FOCAL)))
    distance = focal * FACE_HEIGHT / (rng.uniform(*SHARE) * SIZE)
    light = setup.light.copy()
    if rng.random() < 0.4:
        light[1:] *= rng.uniform(0.5, 1.6)
    setup = replace(setup, focal=focal, light=light, background=_background(rng, setup, scenes))
    translation = np.array([*rng.normal(0, 8, 2), distance])
    rotation, focal, centre = draw_pose(rng), focal * DRAWN / SIZE, np.full(2, DRAWN / 2)
    picture, camera = photograph(stage, actor, setup, draw_expression(rng), rotation, translation, rng, DRAWN)
    points = project(binding(camera.astype(np.float64)), focal, centre)
    turn = uprighting(_kept(points)) @ aimed(middle(points), focal, centre).T @ rotation
    return *framed(picture, points), turn.astype(np.float32)


@dataclass(frozen=True)
class Relief:
    """A photo with depth, to be seen by other cameras.

    picture : (WORK, WORK, 3) uint8; grid : (N, 3) float32, points of it in camera space, mm; at : (N, 2) float32, their
    pixels; triangles : (T, 3) int32; points : (K, 3) float64, dense landmarks in camera space
    pivot : (3,) mm, the head's middle; focal : float, pixels; centre : (2,), principal point
    """

    picture: np.ndarray
    grid: np.ndarray
    at: np.ndarray
    triangles: np.ndarray
    points: np.ndarray
    pivot: np.ndarray
    focal: float
    centre: np.ndarray


def relief(model, image, shared, frame):
    """The Relief of a photo that was fitted (fitting.fit.fit_frames).

    Depth is the fitted surface's; off the face it fades to that of the head's middle.
    """
    height, width = image.shape[:2]
    camera = to_camera(model.shape(shared.identity, frame.expression), frame.rotation, frame.translation)
    principal = np.array([width / 2, height / 2])
    way = placement(project(camera[model.landmarks], shared.focal, principal), WORK / AROUND)
    way[:, 2] += WORK * (1 - 1 / AROUND) / 2
    scale = np.sqrt(np.linalg.det(way[:, :2]))
    upright = np.eye(3)
    upright[:2, :2] = way[:, :2] / scale
    camera = camera @ upright.T.astype(np.float32)
    focal, centre = shared.focal * scale, way[:, :2] @ principal + way[:, 2]
    raster = rasterize(project(camera, focal, centre), camera[:, 2], model.triangles, WORK, WORK, False)
    inside = cv2.erode((raster.triangle >= 0).astype(np.uint8), np.ones((3, 3))) > 0
    distance, label = cv2.distanceTransformWithLabels((~inside).astype(np.uint8), cv2.DIST_L2, 5,
                                                      labelType=cv2.DIST_LABEL_PIXEL)
    rim = np.zeros(label.max() + 1, np.float32)
    rim[label[inside]] = raster.depth[inside]
    share = np.clip(distance / FADE, 0, 1)
    off = cv2.GaussianBlur(rim[label] * (1 - share) + camera[:, 2].mean() * share, (0, 0), 6)
    depth = cv2.GaussianBlur(np.where(inside, raster.depth, off).astype(np.float32), (0, 0), 1)
    along = np.arange(0, WORK + 1, STEP)
    x, y = np.meshgrid(along, along)
    z = depth[y.clip(0, WORK - 1), x.clip(0, WORK - 1)]
    grid = np.stack([(x - centre[0]) / focal * z, (y - centre[1]) / focal * z, z], axis=-1).reshape(-1, 3)
    index = np.arange(x.size).reshape(x.shape)
    a, b, c, d = (index[i, j].ravel() for i in (slice(-1), slice(1, None)) for j in (slice(-1), slice(1, None)))
    triangles = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)]).astype(np.int32)
    return Relief(cut(image, way, WORK), grid.astype(np.float32), np.stack([x, y], axis=-1).reshape(-1, 2).astype(
        np.float32), triangles, camera[model.dense_landmarks].astype(np.float64), camera.mean(axis=0).astype(
        np.float64), float(focal), centre)


def turned(relief, rng, still=False):
    """A Relief seen by a random camera, or by its own (`still`), as `framed` gives it."""
    rotation, focal = np.eye(3), relief.focal
    if not still:
        pitch = np.radians(np.clip(rng.normal(0, 9), -20, 20))
        rotation = (rotation_matrix([pitch, 0, 0]) @ rotation_matrix([0, np.radians(rng.uniform(-34, 34)), 0])
                    @ rotation_matrix([0, 0, np.radians(rng.normal(0, 6))]))
        focal = np.exp(rng.uniform(np.log(600), np.log(3000)))
    away = np.array([0, 0, focal / relief.focal * relief.pivot[2]])
    seen = lambda x: (x - relief.pivot) @ rotation.T + away
    centre, large = (WORK / 2, WORK / 2), 2 * STORED
    points = project(seen(relief.points), focal, centre)
    way = 2 * placement(points, SEEN)
    way[:, 2] += STORED - SEEN
    camera = seen(relief.grid)
    xy = (project(camera, focal, centre) @ way[:, :2].T + way[:, 2]).astype(np.float32)
    raster = rasterize(xy, camera[:, 2].astype(np.float32), relief.triangles, large, large, False)
    source = interpolate(relief.at, relief.triangles, raster).astype(np.float32) - np.float32(0.5)
    picture = cv2.remap(relief.picture, source[..., 0], source[..., 1], cv2.INTER_LINEAR,
                        borderMode=cv2.BORDER_REPLICATE)
    bare = rng.integers(0, 255, 3) if rng.random() < 0.5 else relief.picture[5, 5]
    picture[~raster.mask] = bare
    small = cv2.resize(picture, (STORED, STORED), interpolation=cv2.INTER_AREA)
    return small, ((points @ way[:, :2].T + way[:, 2]) / 2).astype(np.float32)
