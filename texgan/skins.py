"""Skins of people who were photographed, made ready to train fitting.dense_landmarks on.

They lie on the embedded model's chart: as fits left them there, with brows put where the landmarks have them, or lifted
from photos anew with all features in place and the hair on. They are mixed and moved about, so that heads are not told
by their skins.
"""
from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from facemodel.camera import project, rotation_matrix
from facemodel.rasterizer import interpolate, rasterize
from fitting.texture import extract, fill, log_albedo, pose, texel_shading
from texgan.actors import draw_actor
from texgan.lighting import FACE_HEIGHT, SIZE, draw_setup
from texgan.rendered import photograph
from texgan.stage import SKIN

BROWS, BENEATH = slice(0, 10), slice(10, 31)    # of the dense landmarks; nose and lids hold what is below the brows
FOCAL, SHARE = 2600.0, 0.42      # pixels of a camera far away, and how much of its picture's height the face takes
GLANCES = ((0, 0), (6, 0), (-6, 0), (0, 6), (0, -6))      # degrees of yaw and pitch at which brows are looked for
NEAREST, SMOOTHING = 3, 1e-4     # of the embedded vertices around a landmark; of the way in a photo
DARK, PALEST = 0.35, 1.6  # of the usual light: too dark; over the brightness of the skin beyond: a mistake
STRIDE = 8                       # texels between the points at which a way is worked out
ROUNDS = 3                       # of looking and moving
MIXED, WANDERING = 4, 8          # cells of the chart, each way, in which skins are mixed, and moved about
CLEAR, STRAYS, WANDERS = 0.05, 0.0015, 0.009     # of the chart's side: around landmarks, and moves there and elsewhere


def with_brows_placed(stage, binding, skin, detector):
    """A skin whose brows lie where the landmarks have them.

    A fit of a photo holds to the shape of brows but little, so that their tails come to lie some 5 mm out on the chart
    (a fifth of their length): a network that learned from such skins would take shorter brows for another head. They
    are looked for on the mean head and moved with the skin around them, some times over, since what the detector sees
    goes with them but half of the way; lids, nose and all that is far off stay.

    Parameters
    ----------
    skin : (S, S, 3) float32, albedo in the embedded chart, S a multiple of STRIDE
    detector : fitting.detection.FaceDetector

    Returns
    -------
    (S, S, 3) float32; the skin itself where the detector sees no face
    """
    size = len(skin)
    known = _landmarks_on_chart(stage, binding, size)
    fixed, way, out = known[BENEATH], np.zeros((size, size, 2), np.float32), skin
    for _ in range(ROUNDS):
        seen = _brows_on_chart(stage, out, detector)
        if seen is None:
            return skin
        away = _texels(seen, size) - known[BROWS]
        move = _way(size, np.concatenate([known[BROWS], fixed]), np.concatenate([away, np.zeros_like(fixed)]))
        way = move + _moved(way, move)
        out = _moved(skin, way)
    return out


def lifted(stage, model, atlas, photo, fitted, landmarks, beyond):
    """A photo's skin as a head of ICT-FaceKit wears it: features where its landmarks are, hair and shadows left on.

    What the fit leaves between the head's landmarks, where the chart's way puts them, and those that are seen in the
    photo is warped away in the photo.

    Parameters
    ----------
    model, atlas : the embedded model, facemodel.atlas.Atlas of its chart
    photo : (H, W, 3) uint8
    fitted : (Shared, Frame), its fit (fitting.fit.fit_frames)
    landmarks : (68, 2) pixels, where the head's are seen in it, nan for those that are not or slide along an outline
    beyond : (S, S, 3) float32, a skin for what the photo does not show

    Returns
    -------
    (S, S, 3) float32, albedo in the embedded chart
    """
    shared, frame = fitted
    height, width = photo.shape[:2]
    posed = pose(model, model.shape(shared.identity, frame.expression), frame.rotation, frame.translation, shared.focal,
                 np.array([width / 2, height / 2]))
    places = stage.mean[stage.landmarks]
    distance, near = cKDTree(stage.embedded).query(places, NEAREST)
    weight = 1 / (distance + 0.1)
    at = np.einsum("lk,lkd->ld", weight / weight.sum(axis=1, keepdims=True), posed.xy[near])
    rim, known = _rim(1) * [width, height], ~np.isnan(landmarks).any(axis=1)
    spline = RBFInterpolator(np.concatenate([at[known], rim]) / width,
                             np.concatenate([(landmarks - at)[known], np.zeros_like(rim)]), kernel="thin_plate_spline",
                             smoothing=SMOOTHING)
    posed = replace(posed, xy=(posed.xy + spline(posed.xy / width)).astype(np.float32))
    texture, validity = extract(photo, posed, frame.light, model, atlas)
    if not (validity > 0.5).any():
        return beyond
    # under the jaw and behind it little light falls, and what falls short of it is taken for a pale skin
    shading = texel_shading(posed, frame.light, model, atlas).mean(axis=2)
    lit = np.clip((shading / np.median(shading[validity > 0.5]) - DARK) / DARK, 0, 1)
    pale = texture.mean(axis=2) / np.maximum(beyond.mean(axis=2), 0.02)
    lit *= np.clip((PALEST - pale) / (PALEST - 1) * 2, 0, 1)
    return fill(texture, validity * cv2.GaussianBlur(lit, (0, 0), atlas.size / 256), model, atlas, beyond)


def varied(stage, binding, skin, other, rng):
    """A skin that nobody has: here and there another's, and moved about between the features.

    A network that has seen a skin on many heads knows where on a head its spots are, and reads the head's shape off
    them; on another's skin that is no help.

    Parameters
    ----------
    skin, other : (S, S, 3) float32, albedo in the embedded chart, S a multiple of STRIDE

    Returns
    -------
    (S, S, 3) float32
    """
    size = len(skin)
    share = cv2.resize(rng.normal(0, 1, (MIXED, MIXED)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    share = 1 / (1 + np.exp(-4 * (share + rng.normal())))[..., None]
    log, log_other = log_albedo(skin), log_albedo(other)
    log_other += np.median(log - log_other, axis=(0, 1))
    known = _landmarks_on_chart(stage, binding, size)
    grid = (np.mgrid[:WANDERING, :WANDERING] + 0.5).reshape(2, -1).T * (size / WANDERING)
    grid = grid[cKDTree(known).query(grid)[0] > CLEAR * size]
    away = np.concatenate([rng.normal(0, STRAYS * size, (len(known), 2)), rng.normal(0, WANDERS * size, grid.shape)])
    way = _way(size, np.concatenate([known, grid]), away)
    return _moved(np.exp(log + share * (log_other - log)).astype(np.float32), way)


def _texels(uv, size):
    """Chart coordinates (N, 2), v up, in texels."""
    return uv * [size, -size] + [0, size]


def _landmarks_on_chart(stage, binding, size):
    """Where the inner 51 landmarks lie on the chart: (51, 2) texels."""
    uv = stage.uv[binding.triangles[:51]]
    return _texels(np.einsum("pk,pkd->pd", binding.weights[:51], uv), size)


def _rim(size):
    """Points around the chart: (32, 2) texels."""
    edge = np.linspace(0, size, 9)
    return np.array([[x, y] for x in edge for y in edge if min(x, y) == 0 or max(x, y) == size])


def _way(size, at, away):
    """A smooth way, `away` (N, 2) texels at points `at` (N, 2), 0 at the rim: (size, size, 2) float32."""
    rim = _rim(size)
    grid = (np.mgrid[:size // STRIDE, :size // STRIDE] + 0.5)[::-1].reshape(2, -1).T * STRIDE
    spline = RBFInterpolator(np.concatenate([at, rim]) / size, np.concatenate([away, np.zeros_like(rim)]),
                             kernel="thin_plate_spline")
    way = spline(grid / size).reshape(size // STRIDE, size // STRIDE, 2)
    return cv2.resize(way.astype(np.float32), (size, size))


def _moved(skin, way):
    """A skin whose texels are those that lie a way (S, S, 2) off."""
    y, x = np.mgrid[:len(skin), :len(skin)].astype(np.float32)
    return cv2.remap(skin, x + way[..., 0], y + way[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)


def _brows_on_chart(stage, skin, detector):
    """Where on the chart brows are seen on the mean head in a skin: (10, 2), v up; None where no face is seen."""
    rng, found = np.random.default_rng(0), []
    actor = draw_actor(stage, rng, skin, sigma=0.0)
    focal, centre = FOCAL, np.full(2, SIZE / 2)
    away = np.array([0, 0, focal * FACE_HEIGHT / (SHARE * SIZE)])
    triangles = stage.triangles[stage.material == SKIN]
    for yaw, pitch in np.radians(GLANCES):
        rotation = rotation_matrix([pitch, 0, 0]) @ rotation_matrix([0, yaw, 0])
        picture, camera = photograph(stage, actor, replace(draw_setup(rng), focal=focal), {}, rotation, away, rng)
        for face in detector.detect(picture)[:1]:
            raster = rasterize(project(camera, focal, centre), camera[:, 2], triangles, SIZE, SIZE)
            x, y = np.floor(detector.landmarks(picture, face.box)[17:27]).astype(int).clip(0, SIZE - 1).T
            if raster.mask[y, x].all():
                found.append(interpolate(stage.uv, triangles, raster)[y, x])
    return np.median(found, axis=0) if found else None
