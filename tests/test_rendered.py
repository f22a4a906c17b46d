"""Performances of virtual people, on ICT-FaceKit where the user has it (DYNATEX_ICT, or shared/data/ict_facekit
beside the project)."""
from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from facemodel.atlas import build_atlas, to_texture
from facemodel.errors import InputError
from facemodel.morphable import load_model
from facemodel.readers import ict
from texgan import folds, shading
from texgan.rendered import SCRIPT, draw_actor, draw_setup, load_stage, perform
from texgan.stage import EYE_LEFT, SKIN, TOOTH

PLACES = (os.environ.get("DYNATEX_ICT", "none"), *(p / "shared/data/ict_facekit" for p in Path(__file__).parents))
ICT = next((Path(p) for p in PLACES if ict.find(p)), None)
needs_ict = pytest.mark.skipif(ICT is None, reason="ICT-FaceKit is not here: set DYNATEX_ICT to its folder or .npz")
WEIGHTS = dict(SCRIPT)


@pytest.fixture(scope="module")
def guide():
    return load_model()


@pytest.fixture(scope="module")
def skin(guide):
    """Blue skin: no other part of a head is blue."""
    atlas = build_atlas(guide, 128)
    colour = to_texture(np.tile([0.1, 0.2, 0.9], (guide.vertex_count, 1)), guide.triangles, atlas)
    return np.where(atlas.mask[..., None], colour, 0.5).astype(np.float32)


def play(stage, skin, *names, seed=3, size=192):
    rng = np.random.default_rng(seed)
    actor, setup = draw_actor(stage, rng, skin), draw_setup(rng)
    actor = type(actor)(**{**vars(actor), "resting": {}, "iris": np.float32([0, 1, 0, 0]),
                           "shades": np.float32([[.6, .3, .3], [.6, .3, .3], [.6, .3, .3], [.9, .9, .1]])})
    lights = {**vars(setup), "rotation": np.zeros(3), "shine": 0.0, "background": 0 * setup.background, "noise": 0.0,
              "lamps": setup.lamps[:0], "light": 0 * setup.light}
    lights["light"][0] = 1 / 0.282095
    return [perform(stage, actor, type(setup)(**lights), WEIGHTS[n], rng, size) / 255 for n in names]


def yellow(frame):
    """Pixels of teeth."""
    return ((frame[..., 0] > 0.3) & (frame[..., 1] > 0.8 * frame[..., 0]) & (frame[..., 2] < 0.4 * frame[..., 0])).sum()


def green(frame):
    """Pixels of irises."""
    return ((frame[..., 1] > 0.15) & (frame[..., 1] > 2 * frame[..., 0]) & (frame[..., 1] > 2 * frame[..., 2])).sum()


@needs_ict
def test_same_seed_same_bytes(stage, skin):
    def frames(seed):
        rng = np.random.default_rng(seed)
        actor, setup = draw_actor(stage, rng, skin), draw_setup(rng)
        return np.stack([perform(stage, actor, setup, WEIGHTS[n], rng, 96) for n in ("smile_wide", "brows_up")])
    assert np.array_equal(frames(1), frames(1))
    assert not np.array_equal(frames(1), frames(2))


@needs_ict
def test_landmarks_lie_at_the_same_place_of_the_chart(stage, guide):
    own, theirs = stage.uv[stage.landmarks], guide.uv[guide.landmarks]
    pairs = list(zip(range(36, 42), (45, 44, 43, 42, 47, 46))) + [(48, 54), (31, 35), (60, 64)]
    for left, right in pairs:
        np.testing.assert_allclose(own[left] * [-1, 1] + [1, 0], own[right], atol=0.004)
    distance = np.linalg.norm(own - theirs, axis=1)
    assert distance[[*range(27, 48), 51, 57, 62, 66]].max() < 0.02
    # the right side of the lip line and of the lids, which lie on each other's in no shape
    assert own[62, 1] > theirs[[62, 66], 1].mean() > own[66, 1]
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        assert own[upper, 1] > theirs[[upper, lower], 1].mean() > own[lower, 1]


@needs_ict
def test_teeth_show_through_an_open_mouth_only(stage, skin):
    neutral, smile, jaw = play(stage, skin, "neutral", "smile_wide", "jaw_medium")
    assert yellow(neutral) <= 2
    assert yellow(smile) > 60
    assert yellow(jaw) > 5


@needs_ict
def test_blink_hides_the_iris(stage, skin):
    neutral, half, shut = play(stage, skin, "neutral", "blink_half", "blink")
    assert green(neutral) > 25
    assert 0 < green(half) < 0.8 * green(neutral)
    assert green(shut) == 0


@needs_ict
def test_raised_brows_fold_the_forehead_and_nothing_else_does(stage, skin):
    actor = draw_actor(stage, np.random.default_rng(0), skin, age=1.0)
    vertices = lambda name: actor.neutral + np.tensordot(stage.weights(WEIGHTS[name]), stage.expression, 1)
    forehead = np.flatnonzero((stage.mean[:, 1] > stage.mean[stage.landmarks[19], 1] + 12) & (stage.mean[:, 2] > 70))
    pressed = {n: folds.compression(actor.folds, vertices(n))[forehead, 0].max()
               for n in ("neutral", "brows_up", "smile_wide")}
    assert pressed["neutral"] == 0 and pressed["brows_up"] > 0.3 > pressed["smile_wide"]


@needs_ict
def test_every_part_is_drawn_and_named_expressions_exist(stage):
    assert set(range(SKIN, EYE_LEFT + 2)) == set(np.unique(stage.material))
    assert len({n for n, _ in SCRIPT}) == len(SCRIPT) and SCRIPT[0] == ("neutral", {})
    for _, weights in SCRIPT:
        assert (stage.weights(weights) != 0).sum() >= len(weights)
    with pytest.raises(ValueError, match="mouthSmirk"):
        stage.weights({"mouthSmirk": 1})
    assert (stage.material == TOOTH).sum() > 5000


def test_no_model_is_said_in_one_line(tmp_path, guide):
    with pytest.raises(InputError, match="holds no ICT-FaceKit"):
        load_stage(tmp_path, guide)


def test_openness_is_the_form_factor_of_the_opening():
    """Over the middle of a disc of radius r at depth d the form factor is r^2 / (r^2 + d^2)."""
    turn = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    rim = np.stack([10 * np.cos(turn), 10 * np.sin(turn), 0 * turn], axis=1).astype(np.float32)
    depth = np.array([1.0, 5, 10, 30])
    points = np.stack([0 * depth, 0 * depth, -depth], axis=1).astype(np.float32)
    np.testing.assert_allclose(shading.openness(points, rim), 100 / (100 + depth ** 2), rtol=1e-3)


def test_shortening_is_that_across_the_fold():
    """A square whose folds run along x: pressed together by a third along y, stretched along x."""
    square = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    triangles = np.int32([[0, 1, 2], [0, 2, 3]])
    across = np.float32([[[-1, 1], [0, 0]], [[0, 1], [0, 0]]])              # +y in terms of the edges
    creased = folds.Folds(np.zeros((8, 8, 2), np.float32), np.float32([0, 0, 1]), 1.0, triangles, np.arange(4), across)
    np.testing.assert_allclose(folds.shortening(creased, square), 0, atol=1e-6)
    moved = square * np.float32([1.5, 2 / 3, 1])
    np.testing.assert_allclose(folds.shortening(creased, moved)[:, 0], 1 / 3, atol=1e-6)


def test_a_lid_in_the_eyeball_is_put_before_it():
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(900, 3))
    ball = (12 * ball / np.linalg.norm(ball, axis=1, keepdims=True)).astype(np.float32)
    lids = np.float32([[0, 3, 10], [0, 0, 13], [0, 2, -5]])
    shading.push_out(lids, np.arange(3), np.zeros(3, np.float32), ball, np.float32(0.3))
    np.testing.assert_allclose(np.linalg.norm(lids, axis=1), [12.3, 13, np.hypot(2, 5)], rtol=1e-5)
    np.testing.assert_allclose(lids[0, 1] / lids[0, 2], 0.3, rtol=1e-5)
