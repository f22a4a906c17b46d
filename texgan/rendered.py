"""Performances of virtual people, to train the texture generator on.

An actor is a head of ICT-FaceKit with a skin, eyes and teeth of its own; all actors play the same SCRIPT, so that frame
k of one belongs to frame k of any other. Everything random is drawn from a numpy Generator that is passed in.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from facemodel.camera import project, rotation_matrix, to_camera
from facemodel.light import C0, sh_basis
from facemodel.morphable import FLIP
from facemodel.rasterizer import rasterize
from texgan import shading
from texgan.folds import Folds, compression, draw_folds
from texgan.stage import OPENING

SIZE, SUPERSAMPLE = 512, 2
IDENTITY_SIGMA = 0.75            # of the model's standard deviations
FACE_HEIGHT = 150.0              # mm, chin to the hair, of which the picture's share is drawn
FACE_CENTRE = (0.0, 8.0, 60.0)   # mm, file orientation: what the camera looks at
LOBE = np.array([np.pi] + [2 * np.pi / 3] * 3 + [np.pi / 4] * 5)      # clamped cosine (Ramamoorthi, Hanrahan 2001)
GAZE = np.radians([32.0, 25.0, 28.0])      # full look sideways, up and down
EASY = np.radians(22.0)          # how far the eyes turn to look into the camera
LID_GAP = 0.35                   # mm, that lids stay clear of the eyeball
IRISES = np.array([(.28, .17, .10), (.36, .46, .56), (.22, .14, .09), (.38, .40, .27), (.16, .10, .07),
                   (.40, .46, .48)], np.float32)
WHITE = np.array([0.90, 0.86, 0.76], np.float32)
BOTH = ("Left", "Right")

SCRIPT = (
    ("neutral", {}),
    ("blink_half", {"eyeBlink": 0.5}),
    ("blink", {"eyeBlink": 1.0}),
    ("wink", {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.7, "mouthSmileLeft": 0.35}),
    ("smile_closed", {"mouthSmile": 0.75, "cheekSquint": 0.5, "eyeSquint": 0.25}),
    ("smile", {"mouthSmile": 0.7, "mouthUpperUp": 0.3, "jawOpen": 0.06, "mouthLowerDown": 0.15, "cheekSquint": 0.4}),
    ("smile_wide", {"mouthSmile": 1.0, "mouthUpperUp": 0.45, "jawOpen": 0.12, "mouthLowerDown": 0.3,
                    "cheekSquint": 0.8, "eyeSquint": 0.4}),
    ("laugh", {"mouthSmile": 0.9, "mouthUpperUp": 0.5, "jawOpen": 0.45, "mouthLowerDown": 0.3, "cheekSquint": 0.9,
               "eyeSquint": 0.7}),
    ("jaw_small", {"jawOpen": 0.2}),
    ("jaw_medium", {"jawOpen": 0.45}),
    ("jaw_wide", {"jawOpen": 0.9, "browInnerUp": 0.2}),
    ("oo", {"mouthPucker": 0.6, "mouthFunnel": 0.4, "jawOpen": 0.15}),
    ("ee", {"mouthStretch": 0.5, "mouthSmile": 0.3, "mouthLowerDown": 0.5, "mouthUpperUp": 0.25, "jawOpen": 0.06}),
    ("f", {"mouthRollLower": 0.6, "mouthUpperUp": 0.35, "jawOpen": 0.05}),
    ("m", {"mouthPress": 0.6, "mouthRollLower": 0.4, "mouthRollUpper": 0.4}),
    ("pucker", {"mouthPucker": 1.0}),
    ("funnel", {"mouthFunnel": 0.9, "jawOpen": 0.3}),
    ("brows_up", {"browInnerUp": 1.0, "browOuterUp": 1.0, "eyeWide": 0.3}),
    ("angry", {"browDown": 1.0, "eyeSquint": 0.4, "mouthPress": 0.4, "noseSneer": 0.3}),
    ("surprise", {"browInnerUp": 0.9, "browOuterUp": 0.9, "eyeWide": 0.9, "jawOpen": 0.5}),
    ("disgust", {"noseSneer": 1.0, "mouthUpperUp": 0.6, "browDown": 0.6, "eyeSquint": 0.5, "mouthShrugLower": 0.3}),
    ("grimace", {"mouthStretch": 0.9, "mouthLowerDown": 0.8, "mouthUpperUp": 0.5, "jawOpen": 0.08,
                 "eyeSquint": 0.5}),
    ("lopsided", {"mouthSmileLeft": 0.8, "mouthLeft": 0.4, "browOuterUpLeft": 0.6, "eyeSquintRight": 0.3}),
    ("cheek_puff", {"cheekPuff": 1.0, "mouthPress": 0.2}),
    ("squint", {"eyeSquint": 1.0, "cheekSquint": 0.8, "browDown": 0.4}),
    ("look_left", {"eyeLookOutLeft": 0.8, "eyeLookInRight": 0.8}),
    ("look_right", {"eyeLookInLeft": 0.8, "eyeLookOutRight": 0.8}),
    ("look_up", {"eyeLookUp": 0.8, "browInnerUp": 0.3}),
    ("look_down", {"eyeLookDown": 0.8}),
    ("frown", {"mouthFrown": 0.9, "mouthShrugLower": 0.6, "browInnerUp": 0.6, "browDown": 0.3}),
)


@dataclass(frozen=True)
class Actor:
    """A virtual person.

    neutral : (V, 3) float32, file orientation, mm
    skin : (S, S, 3) float32, albedo in the embedded chart
    shades : (4, 3) float32, albedo of mucous membrane, gums, tongue, teeth
    iris : (4,) float32, albedo and a phase of its pattern
    folds : texgan.folds.Folds, where the skin creases and how readily
    resting : dict, weights that the face has at rest, added to every expression
    """

    neutral: np.ndarray
    skin: np.ndarray
    shades: np.ndarray
    iris: np.ndarray
    folds: Folds
    resting: dict


@dataclass(frozen=True)
class Setup:
    """A place where a performance is filmed.

    light : (9, 3) float32, spherical harmonics in camera space
    lamps : (L, 6) float32, directions to the lamps (camera space) and their colours
    focal : float, pixels; distance : float, mm; rotation : (3,) radians, base pose (axis-angle, camera space)
    background : (SIZE, SIZE, 3) float32
    shine : float, strength of the skin's speculars; noise : float, standard deviation of the sensor's noise
    """

    light: np.ndarray
    lamps: np.ndarray
    focal: float
    distance: float
    rotation: np.ndarray
    background: np.ndarray
    shine: float
    noise: float


def draw_actor(stage, rng, skin, age=None):
    """A person with the given skin.

    Parameters
    ----------
    rng : numpy Generator
    skin : (S, S, 3) float32, complete albedo texture in the embedded chart
    age : float in [0, 1], how readily the skin folds; default drawn

    Returns
    -------
    Actor
    """
    coefficients = np.clip(rng.normal(size=len(stage.identity)), -2, 2) * IDENTITY_SIGMA
    neutral = stage.mean + np.tensordot(coefficients.astype(np.float32), stage.identity, 1)
    skin = np.ascontiguousarray(skin, np.float32)
    lips = np.median(skin_at(stage, skin, stage.landmarks[[49, 50, 51, 52, 53, 55, 56, 57, 58, 59]]), axis=0)
    red = np.float32([1.0, 0.62, 0.60]) * max(float(lips.mean()), 0.22) * 1.05
    shades = np.stack([0.5 * lips * [0.95, 0.75, 0.75] + 0.5 * red * [0.9, 0.72, 0.72],
                       0.45 * red + 0.55 * np.float32([0.68, 0.40, 0.39]),
                       0.35 * red + 0.65 * np.float32([0.70, 0.42, 0.41]),
                       WHITE * rng.uniform(0.86, 1.02) * [1, 1, rng.uniform(0.9, 1.06)]])
    shades *= rng.normal(1, 0.04, (4, 1))
    dark = float(np.median(skin_at(stage, skin, stage.landmarks[[29, 30, 31, 35]]).mean(axis=1))) < 0.42
    iris = IRISES[rng.choice([0, 2, 4])] if dark else IRISES[rng.integers(len(IRISES))]
    iris = np.append(iris * rng.uniform(0.85, 1.15), rng.uniform(0, 6))
    age = rng.uniform(0.15, 1.0) if age is None else age
    resting = {"eyeSquint": rng.uniform(0, 0.15), "eyeBlink": rng.uniform(0, 0.12)}
    return Actor(neutral.astype(np.float32), skin, shades.astype(np.float32), iris.astype(np.float32),
                 draw_folds(stage, neutral, rng, age), resting)


def skin_at(stage, skin, vertices):
    """A skin's colours at vertices (N,): (N, 3)."""
    size = len(skin)
    at = np.clip((stage.uv[vertices] * [1, -1] + [0, 1]) * size, 0, size - 1).astype(int)
    return skin[at[:, 1], at[:, 0]]


def draw_setup(rng):
    """Light, camera, pose and background: Setup."""
    ambient = rng.uniform(0.42, 0.62)
    warm = rng.normal(0, 0.05)
    tint = np.array([1 + warm, 1, 1 - warm])
    key = rng.uniform(0.3, 0.62)
    side = rng.uniform(-70, 70)
    lamps = [_lamp(side, rng.uniform(5, 50), key * tint)]
    if rng.random() < 0.7:
        lamps.append(_lamp(-side + rng.normal(0, 20), rng.uniform(-5, 30), rng.uniform(0.08, 0.25) * (2 - tint)))
    lamps = np.array(lamps)
    light = np.zeros((9, 3))
    light[0] = ambient / C0 * (2 - tint) ** 0.5
    for lamp in lamps:
        light += (LOBE * sh_basis(lamp[:3]))[:, None] * lamp[3:]
    light *= rng.uniform(0.82, 1.0) / (sh_basis(np.array([0.0, 0, -1])) @ light).mean()
    focal = rng.uniform(900, 2400)
    distance = focal * FACE_HEIGHT / (rng.uniform(0.45, 0.65) * SIZE)
    rotation = np.radians(rng.normal(0, 1, 3) * [4, 7, 3])
    return Setup(light.astype(np.float32), lamps.astype(np.float32), focal, distance, rotation, _background(rng),
                 rng.uniform(0.02, 0.09), rng.uniform(0.002, 0.008))


def _lamp(azimuth, elevation, colour):
    """Direction to a lamp (degrees from the camera, up), in camera space, and its colour: (6,)."""
    a, e = np.radians([azimuth, elevation])
    return np.array([np.sin(a) * np.cos(e), -np.sin(e), -np.cos(a) * np.cos(e), *colour])


def _background(rng):
    """A smooth picture: large patches of colour, some with a grain of smaller ones: (SIZE, SIZE, 3) float32."""
    out = np.zeros((SIZE, SIZE, 3), np.float32)
    for cells, strength in ((2, 0.25), (5, 0.12), (17, rng.choice([0.0, 0.06]))):
        patches = rng.normal(size=(cells, cells, 1)) + 0.35 * rng.normal(size=(cells, cells, 3))
        out += strength * cv2.resize(patches.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return np.clip(out + rng.uniform(0.2, 0.8), 0.02, 0.98).astype(np.float32)


def expressed(stage, actor, weights):
    """An actor's vertices (V, 3) with an expression by name, file orientation, and the gaze (2, 2): yaw, pitch."""
    w = stage.weights(weights)
    for name, value in actor.resting.items():
        w = np.clip(w + stage.weights({name: value}) * (w < 0.5), 0, 1)
    vertices = actor.neutral.copy()
    for k in np.flatnonzero(w):
        vertices += w[k] * stage.expression[k]
    return vertices, _gaze(stage, w)


def _gaze(stage, w):
    """Yaw towards the subject's left and pitch upwards of left and right eye: (2, 2) radians."""
    of = lambda name: w[stage.expression_names.index(name)]
    out = np.zeros((2, 2))
    for k, side in enumerate(BOTH):
        outwards = of(f"eyeLookOut{side}") - of(f"eyeLookIn{side}")
        out[k] = [GAZE[0] * outwards * (1, -1)[k], GAZE[1] * of(f"eyeLookUp{side}") - GAZE[2] * of(f"eyeLookDown{side}")]
    return out


def _towards(yaw, pitch):
    """Rotation (3, 3) of +z to a direction that is turned to the subject's left and up."""
    return rotation_matrix([0, yaw, 0]) @ rotation_matrix([-pitch, 0, 0])


def _angles(direction):
    """Yaw and pitch of a direction (3,), radians; the inverse of _towards."""
    x, y, z = direction / np.linalg.norm(direction)
    return np.array([np.arctan2(x, z), np.arcsin(y)])


def _at_camera(stage, rotation, translation):
    """Yaw and pitch (2, 2) with which each eye looks into the camera, as far as eyes turn easily."""
    camera = (-rotation.T @ translation) * FLIP + FACE_CENTRE
    return np.clip([_angles(camera - c) for c in stage.centres], -EASY, EASY)


def place_eyes(stage, vertices, gaze):
    """Turns the eyeballs, in place, and keeps the lids in front of them.

    Returns
    -------
    (V, 3) float32, eyeball vertices in the eye's own frame, mm, z along the gaze; zero elsewhere
    """
    rest = np.zeros_like(vertices)
    for k in (0, 1):
        ball = stage.balls[k]
        shift = (vertices[ball] - stage.mean[ball]).mean(axis=0)
        centre = stage.centres[k] + shift
        rest[ball] = (vertices[ball] - centre) @ _towards(*_angles(stage.axes[k])).astype(np.float32)
        vertices[ball] = rest[ball] @ _towards(*gaze[k]).T.astype(np.float32) + centre
        shading.push_out(vertices, stage.lids[k], centre, vertices[ball], np.float32(LID_GAP))
    return rest


def light_inside(stage, vertices):
    """Light that gets to each vertex, in [0, 1]: less inside the mouth and under the lids.

    Parameters
    ----------
    vertices : (V, 3) float32

    Returns
    -------
    (V,) float32
    """
    out = np.ones(len(vertices), np.float32)
    inside, rim = stage.inside, vertices[stage.landmarks[list(OPENING)]]
    out[inside] = 0.06 + 0.94 * shading.openness(vertices[inside], rim) ** 0.6
    for k in (0, 1):
        gap = shading.nearest(vertices[stage.balls[k]], vertices[stage.margins[k]])
        out[stage.balls[k]] = 1 - 0.5 * np.exp(-gap / 2.2)
    return out


def perform(stage, actor, setup, weights, rng, size=SIZE):
    """One frame of a performance.

    Parameters
    ----------
    stage : Stage
    actor : Actor
    setup : Setup
    weights : dict, expression -> weight, as in SCRIPT
    rng : numpy Generator, for the frame's pose and the sensor's noise
    size : int, pixels per side

    Returns
    -------
    (size, size, 3) uint8
    """
    vertices, gaze = expressed(stage, actor, weights)
    rotation = rotation_matrix(setup.rotation + np.radians(rng.normal(0, 1, 3) * [1.5, 2.0, 1.0]))
    translation = rng.normal(0, 1, 3) * [3, 3, 5] + [0, 0, setup.distance]
    rest = place_eyes(stage, vertices, gaze + _at_camera(stage, rotation, translation))
    centred = (vertices - np.float32(FACE_CENTRE)) * FLIP
    camera = to_camera(centred, rotation, translation).astype(np.float32)
    large = size * SUPERSAMPLE
    focal = setup.focal * large / SIZE
    xy = project(camera, focal, (large / 2, large / 2))
    raster = rasterize(xy, camera[:, 2], stage.triangles, large, large)
    moving = np.empty((len(vertices), shading.MOVING), np.float32)
    moving[:, :3] = shading.vertex_normals(camera, stage.triangles)
    moving[:, 3] = light_inside(stage, vertices)
    moving[:, 4:] = compression(actor.folds, vertices)
    static = stage.static.copy()
    static[:, 2:5] += rest
    picture = setup.background.copy() if size == SIZE else cv2.resize(setup.background, (size, size))
    arrays = stage.triangles, stage.material, raster.triangle, raster.barycentric
    heights = np.zeros((large, large), np.float32)
    shading.fold_heights(*arrays, static, moving, actor.folds.grooves, actor.folds.plane, heights)
    shading.shade_pixels(*arrays, raster.depth, focal, large / 2, static, moving, actor.skin, actor.shades, actor.iris,
                         setup.light, setup.lamps, setup.shine, heights, picture)
    picture += rng.standard_normal(picture.shape, np.float32) * np.float32(setup.noise)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
