"""Pictures of the embedded model with known parameters."""
from __future__ import annotations

import numpy as np

from facemodel.atlas import build_atlas
from facemodel.camera import axis_angle, project, rotation_matrix, to_camera
from facemodel.light import ambient_light, shade
from facemodel.rasterizer import interpolate
from fitting.lift import Texture
from fitting.parameters import Frame, Shared
from fitting.solver import slide_jaw
from fitting.texture import pose, region_texture
from fitting.trackfile import Track
from fitting.views import make_view

SIZE = 512
LARGE = 512                  # of a drawn texture


def known_face(model, seed, size=SIZE):
    """A believable person, pose, expression and light: (Shared, Frame)."""
    rng = np.random.default_rng(seed)
    focal = 2.0 * size * rng.uniform(0.9, 1.1)
    identity = np.zeros(model.identity_count)
    identity[:30] = rng.normal(0, 0.7, 30)
    albedo = np.zeros(model.albedo_count)
    albedo[:20] = rng.normal(0, 0.6, 20)
    expression = np.zeros(model.expression_count)
    for name, value in (("jawOpen", rng.uniform(0, 0.3)), ("mouthSmileLeft", 0.5), ("mouthSmileRight", 0.5),
                        ("browInnerUp", rng.uniform(0, 0.6))):
        expression[model.expression_names.index(name)] = value
    rotation = rotation_matrix(rng.uniform(-1, 1, 3) * [0.12, 0.3, 0.08])
    light = ambient_light(0.75)
    light[1:4] += rng.normal(0, 0.12, (3, 1))
    distance = focal * 150 / (0.45 * size)
    return Shared(identity, albedo, focal), Frame(expression, rotation, np.array([4.0, -12.0, distance]), light)


def draw(model, shared, frame, size=SIZE, albedo=None):
    """The picture, (size, size, 3) uint8, before a grey ground; albedo (V, 3): other than the model's."""
    albedo = model.albedo(shared.albedo) if albedo is None else albedo
    posed = pose(model, model.shape(shared.identity, frame.expression), frame.rotation, frame.translation, shared.focal,
                 (size / 2, size / 2))
    raster = posed.raster(model, size, size)
    colour = interpolate(albedo * shade(posed.normals, frame.light), model.triangles, raster)
    colour[~raster.mask] = 0.35
    return np.round(255 * np.clip(colour, 0, 1)).astype(np.uint8)


def track_of(model, shared, frames, size=SIZE, landmarks=None):
    """The Track of pictures, as if fitted without error. landmarks : (F, 68, 2) pixels; default zeros"""
    stack = lambda name: np.stack([np.asarray(getattr(f, name), np.float32) for f in frames])
    count, nothing = len(frames), np.zeros(len(frames), np.float32)
    marks = np.zeros((count, 68, 2)) if landmarks is None else np.asarray(landmarks)
    return Track(model_name=model.name, model_hash=model.hash, image_size=np.array([size, size]),
                 frame_index=np.arange(count), status=np.array(["ok"] * count),
                 identity=np.float32(shared.identity), albedo=np.float32(shared.albedo),
                 expression=stack("expression"), expression_names=np.array(model.expression_names),
                 rotation=np.stack([axis_angle(f.rotation) for f in frames]).astype(np.float32),
                 translation=stack("translation"), focal=np.float32(shared.focal),
                 principal_point=np.float32([size / 2, size / 2]), light=stack("light"),
                 landmarks=marks.astype(np.float32), photometric_error=nothing, landmark_error=nothing,
                 confidence=nothing + 1)


def true_landmarks(model, shared, frame, size=SIZE):
    """(68, 2) projected landmarks, the jaw line on the outline."""
    vertices = model.shape(shared.identity, frame.expression)
    fixed = to_camera(vertices[model.landmarks], frame.rotation, frame.translation)
    xy = project(fixed, shared.focal, np.array([size / 2, size / 2]))
    view = make_view(model, np.zeros((size, size, 3), np.uint8), xy, 64.0)
    marks = slide_jaw(model, vertices, shared, frame, view)
    moved = to_camera(vertices[marks.vertices], frame.rotation, frame.translation)
    return project(moved, shared.focal, np.array([size / 2, size / 2]))


def drawn(model, skin=0.6):
    """A neutral texture of one skin colour with dark brows, LARGE texels per side: fitting.lift.Texture."""
    rgb = np.full((LARGE, LARGE, 3), skin, np.float32) * np.float32([1, 0.8, 0.7])
    brows = region_texture(model, "eyebrows", build_atlas(model, LARGE)) > 0.3
    rgb[brows] *= 0.3
    return Texture(rgb, np.ones((LARGE, LARGE), np.float32))
