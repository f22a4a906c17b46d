"""Performances of virtual people, to train the texture generator on.

An actor is a head of ICT-FaceKit with a skin, eyes and teeth of its own; all actors play the same SCRIPT, so that frame
k of one belongs to frame k of any other. Everything random is drawn from a numpy Generator that is passed in.
"""
from __future__ import annotations

import cv2
import numpy as np

from facemodel.camera import project, rotation_matrix, to_camera
from facemodel.mesh import vertex_normals
from facemodel.morphable import FLIP
from facemodel.rasterizer import rasterize
from texgan import shading
from texgan.actors import Actor, draw_actor
from texgan.folds import compression
from texgan.lighting import SIZE, Setup, draw_setup
from texgan.stage import OPENING, Stage, load_stage

__all__ = ["SCRIPT", "SIZE", "Actor", "Setup", "Stage", "draw_actor", "draw_setup", "load_stage", "perform"]
SUPERSAMPLE = 2                  # texgan.shading.shade_pixels is made for this
FACE_CENTRE = (0.0, 8.0, 60.0)   # mm, file orientation: what the camera looks at
GAZE = np.radians([32.0, 26.0])  # full look sideways, up or down
EASY = np.radians(16.0)          # how far the eyes turn to look into the camera
LID_GAP = 0.35                   # mm, that lids stay clear of the eyeball
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
    ("disgust", {"noseSneer": 1.0, "mouthUpperUp": 0.35, "browDown": 0.6, "eyeSquint": 0.5}),
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


def expressed(stage, actor, weights, gaze=((0, 0), (0, 0))):
    """An actor with an expression.

    Parameters
    ----------
    weights : dict, expression -> weight
    gaze : (2, 2) float, radians, where left and right eye look to begin with (yaw to the subject's left, pitch
        upwards); the weights' look is added, and the lids go along

    Returns
    -------
    vertices : (V, 3) float32, file orientation; gaze : (2, 2) radians
    """
    w = stage.weights(weights)
    for name, value in actor.resting.items():
        w = np.clip(w + stage.weights({name: value}) * (w < 0.5), 0, 1)
    turned = np.array([_look(stage, w, k, gaze[k]) for k in (0, 1)])
    for side, gain in zip(BOTH, actor.blink):
        w[stage.expression_names.index(f"eyeBlink{side}")] *= gain
    vertices = actor.neutral.copy()
    for k in np.flatnonzero(w):
        vertices += w[k] * stage.expression[k]
    return vertices, turned


def _look(stage, w, eye, begin):
    """Adds a gaze to begin with (yaw, pitch) to one eye's weights, in place; what it then is: (2,) radians."""
    of = lambda direction: stage.expression_names.index(f"eyeLook{direction}{BOTH[eye]}")
    out = np.zeros(2)
    for axis, (plus, minus) in enumerate((("In", "Out") if eye else ("Out", "In"), ("Up", "Down"))):
        plus, minus = of(plus), of(minus)
        share = float(np.clip(w[plus] - w[minus] + begin[axis] / GAZE[axis], -1, 1))
        w[plus], w[minus] = max(share, 0), max(-share, 0)
        out[axis] = share * GAZE[axis]
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
    out[inside] = 0.1 + 0.9 * shading.openness(vertices[inside], rim) ** 0.5
    for k in (0, 1):
        gap = shading.nearest_distance(vertices[stage.balls[k]], vertices[stage.margins[k]])
        out[stage.balls[k]] = 1 - 0.5 * np.exp(-gap / 1.8)
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
    rotation = rotation_matrix(setup.rotation + np.radians(rng.normal(0, 1, 3) * [1.5, 2.0, 1.0]))
    translation = rng.normal(0, 1, 3) * [3, 3, 5] + [0, 0, setup.distance]
    return photograph(stage, actor, setup, weights, rotation, translation, rng, size)[0]


def photograph(stage, actor, setup, weights, rotation, translation, rng, size=SIZE):
    """A picture of an actor in a given pose.

    Parameters
    ----------
    rotation, translation : (3, 3), (3,) mm, centred actor in model orientation to camera; not those of the setup

    Returns
    -------
    (size, size, 3) uint8, and the vertices (V, 3) float32 in camera space, mm
    """
    vertices, gaze = expressed(stage, actor, weights, _at_camera(stage, rotation, translation))
    rest = place_eyes(stage, vertices, gaze)
    centred = (vertices - np.float32(FACE_CENTRE)) * FLIP
    camera = to_camera(centred, rotation, translation).astype(np.float32)
    large = size * SUPERSAMPLE
    focal = setup.focal * large / SIZE
    xy = project(camera, focal, (large / 2, large / 2))
    raster = rasterize(xy, camera[:, 2], stage.triangles, large, large)
    moving = np.empty((len(vertices), shading.MOVING), np.float32)
    moving[:, :3] = vertex_normals(camera, stage.triangles)
    moving[:, 3] = light_inside(stage, vertices)
    moving[:, 4:] = compression(actor.folds, vertices)
    static = stage.static.copy()
    static[:, 2:5] += rest
    picture = setup.background.copy() if size == SIZE else cv2.resize(setup.background, (size, size))
    arrays = stage.triangles, stage.material, raster.triangle, raster.barycentric
    heights = np.zeros((large, large), np.float32)
    if moving[:, 4:].max() > 0.01:
        shading.fold_heights(*arrays, static, moving, actor.folds.grooves, actor.folds.plane, heights)
    shading.shade_pixels(*arrays, raster.depth, focal, large / 2, static, moving, actor.skin, actor.shades, actor.iris,
                         setup.light, setup.lamps, setup.shine, heights, picture)
    picture += rng.standard_normal(picture.shape, np.float32) * np.float32(setup.noise)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8), camera
