"""Skins to train on: brows put in place, features lifted to theirs, spots moved about."""
import cv2
import numpy as np

from facemodel.atlas import build_atlas
from facemodel.camera import project
from fitting.detection import FaceDetector
from fitting.parameters import Frame, Shared
from tests.test_rendered import needs_ict
from texgan.skins import BENEATH, lifted, varied, with_brows_placed

SIZE = 256


def landmarks(stage, binding, size=SIZE):
    """The inner 51 landmarks on the chart, texels."""
    uv = np.einsum("pk,pkd->pd", binding.weights, stage.uv[binding.triangles])[:51]
    return uv * [size, -size] + [0, size]


def brows_on(stage, binding, outwards=0.0):
    """A speckled skin with brows drawn along their landmarks, moved outwards by texels."""
    speckles = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(SIZE, SIZE, 1)).astype(np.float32), (0, 0), 2)
    skin = np.float32([0.75, 0.55, 0.45]) * np.exp(0.05 * speckles / speckles.std())[..., None]
    at = landmarks(stage, binding)
    for half, way in ((at[:5], -outwards), (at[5:10], outwards)):
        cv2.polylines(skin, [np.round(8 * (half + [way, 0])).astype(np.int32)], False, (0.12, 0.08, 0.06), 4,
                      cv2.LINE_AA, 3)
    return skin


@needs_ict
def test_brows_that_lie_too_far_out_are_brought_to_their_landmarks(stage, binding):
    true, out = brows_on(stage, binding), brows_on(stage, binding, 6.0)
    placed = with_brows_placed(stage, binding, out, FaceDetector())
    dark = lambda skin: cv2.GaussianBlur((skin.mean(axis=2) < 0.35).astype(np.float32), (0, 0), 1)
    overlap = lambda a, b: np.minimum(dark(a), dark(b)).sum() / np.maximum(dark(a), dark(b)).sum()
    assert overlap(placed, true) > overlap(out, true) + 0.15
    changed = np.abs(placed - out).max(axis=2)
    x, y = np.round(landmarks(stage, binding)[BENEATH]).astype(int).T
    assert changed[y, x].mean() < 0.02 and changed[-40:].mean() < 0.02             # lids, nose and chin stay
    assert changed[y.min() - 50:y.min() - 30, 60:-60].mean() > 0.03                # the forehead goes with the brows


@needs_ict
def test_a_skin_without_a_face_keeps_its_brows(stage, binding):
    class Blind:
        detect = staticmethod(lambda _: [])

    skin = brows_on(stage, binding)
    assert with_brows_placed(stage, binding, skin, Blind()) is skin


@needs_ict
def test_a_varied_skin_keeps_its_features_in_place_and_moves_its_spots(stage, binding):
    size, rng = 512, np.random.default_rng(4)
    at = landmarks(stage, binding, size)
    spots = np.array([[x, y] for x in range(120, 400, 40) for y in range(120, 460, 40)], float)
    spots = spots[np.linalg.norm(spots[:, None] - at, axis=2).min(axis=1) > 40]

    def moves(points):
        """How far dots at some points are moved, in texels; each in a skin of its own."""
        away = []
        for x, y in np.round(points).astype(int):
            dotted = np.full((size, size, 3), 0.6, np.float32)
            cv2.circle(dotted, (int(x), int(y)), 4, (0.1, 0.1, 0.1), -1)
            dark = 0.6 - varied(stage, binding, dotted, dotted, np.random.default_rng(0)).mean(axis=2)
            dark[dark < 0.2] = 0
            i, j = np.nonzero(dark)
            away.append(np.linalg.norm([np.average(j, weights=dark[i, j]) - x, np.average(i, weights=dark[i, j]) - y]))
        return np.array(away)

    assert moves(at[[0, 9, 13, 19, 28, 31, 37]]).mean() < 2 < moves(spots[::4]).mean()
    light, dark = (np.clip(np.float32(level) + rng.normal(0, 0.02, (size, size, 3)), 0, 1).astype(np.float32)
                   for level in (0.7, 0.3))
    dark[:, :size // 2] *= 0.5                                             # its median is that of neither half
    mixed = varied(stage, binding, light, dark, np.random.default_rng(1))
    assert abs(np.median(mixed) - 0.7) < 0.2 and mixed.std() > 3 * light.std()


@needs_ict
def test_what_is_seen_at_a_landmark_is_lifted_to_where_the_head_has_it(stage, model):
    size, side, rng = 512, 600, np.random.default_rng(2)
    light = np.zeros((9, 3))
    light[0] = 1 / 0.282095                                                # shades by 1 everywhere
    fitted = (Shared(np.zeros(model.identity_count), np.zeros(model.albedo_count), 2600.0),
              Frame(np.zeros(model.expression_count), np.eye(3), np.array([0, 0, 1600.0]), light))
    seen = project(model.mean[model.landmarks] + [0, 0, 1600.0], 2600.0, (side / 2, side / 2))
    seen = seen + rng.normal(0, 4, seen.shape)                             # the fit is off
    chosen = np.array([17, 21, 24, 30, 36, 42, 48, 54])
    photo = np.full((side, side, 3), 160, np.uint8)
    for x, y in np.round(16 * seen[chosen]).astype(int):
        cv2.circle(photo, (int(x) - 8, int(y) - 8), 3 * 16, (20, 20, 20), -1, cv2.LINE_AA, 4)
    beyond = np.full((size, size, 3), 0.63, np.float32)
    skin = lifted(stage, model, build_atlas(model, size), photo, fitted, seen, beyond)
    wanted = stage.uv[stage.landmarks[chosen]] * [size, -size] + [0, size]
    dark = np.clip(0.5 - skin.mean(axis=2), 0, None)
    for x, y in wanted:
        near = np.s_[round(y) - 12:round(y) + 13, round(x) - 12:round(x) + 13]
        i, j = np.indices((25, 25)) + 0.5
        weight = dark[near]
        middle = np.array([(weight * j).sum(), (weight * i).sum()]) / weight.sum() + [round(x) - 12, round(y) - 12]
        assert np.linalg.norm(middle - [x, y]) < 3.0                       # 1.5 mm; the fit is off by 4 mm here
    assert abs(np.median(skin[150:350, 200:300]) - 160 / 255) < 0.01
