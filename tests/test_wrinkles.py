"""Folds of the source on the target: their depth and place, once, and nothing where a texture has only slipped."""
import cv2
import numpy as np
import pytest

from compositing.wrinkles import LIGHT, WrinkleTransfer
from facemodel.atlas import build_atlas
from fitting.lift import Texture
from fitting.texture import region_texture

SIZE, LARGE = 512, 1024
DEPTH, HALF = 0.2, 3.0       # of log albedo, texels at SIZE


@pytest.fixture(scope="module")
def atlas(model):
    return build_atlas(model, SIZE)


@pytest.fixture(scope="module")
def cheek(model):
    """A place on the cheek of the chart at SIZE: x, y."""
    return np.median(model.uv[model.landmarks[[1, 31]]], axis=0) * [SIZE, -SIZE] + [0, SIZE]


def skin(size, colour=(0.6, 0.45, 0.38), grain=0.02, seed=0):
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32), (0, 0), 1.0)
    return (np.float32(colour) * np.exp(grain * noise / noise.std())[..., None]).astype(np.float32)


def seen(rgb, validity=1.0):
    return Texture(rgb, np.full(rgb.shape[:2], validity, np.float32))


def line(place, depth=DEPTH):
    """Log of the ratio that a fold along y makes, 30 texels long: (SIZE, SIZE) float32."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) + 0.5
    across, along = x - place[0], np.abs(y - place[1])
    return (-depth * np.exp(-0.5 * (across / HALF) ** 2) * np.clip((30 - along) / 6, 0, 1)).astype(np.float32)


def drawn(model, source, lifted, target, made=None):
    """Log of what is multiplied onto a target's texture: (LARGE, LARGE) float32."""
    made = target.copy() if made is None else made.copy()
    before = made.copy()
    WrinkleTransfer(model, seen(source), seen(target)).draw(made, lifted)
    return np.log(made / before).mean(axis=2)


def lit(rgb, log):
    return (rgb * np.exp(cv2.resize(log, rgb.shape[1::-1]))[..., None]).astype(np.float32)


def at(place):
    x, y = (int(round(2 * float(v))) for v in place)
    return np.s_[y - 10:y + 10, x - 2:x + 2]


def test_a_fold_goes_onto_the_target_and_only_there(model, cheek):
    source, target = skin(SIZE), skin(LARGE, (0.35, 0.25, 0.2), seed=1)
    gain = drawn(model, source, seen(lit(source, line(cheek))), target)
    assert -DEPTH < gain[at(cheek)].mean() < -0.6 * DEPTH
    away = np.abs(cv2.resize(line(cheek), (LARGE, LARGE))) < 1e-4
    assert np.abs(gain[away]).max() < 0.1 * DEPTH and np.abs(gain[away]).mean() < 0.002


def test_what_gets_lighter_does_so_less(model, cheek):
    source, target = skin(SIZE), skin(LARGE, seed=1)
    darker = drawn(model, source, seen(lit(source, line(cheek))), target)[at(cheek)].mean()
    lighter = drawn(model, source, seen(lit(source, -line(cheek))), target)[at(cheek)].mean()
    assert lighter == pytest.approx(-LIGHT * darker, rel=0.15)


def test_a_fold_that_the_method_has_drawn_is_not_drawn_again(model, cheek):
    source, target = skin(SIZE), skin(LARGE, seed=1)
    lifted = seen(lit(source, line(cheek)))
    alone = drawn(model, source, lifted, target)[at(cheek)].mean()
    half = drawn(model, source, lifted, target, lit(target, line(cheek, DEPTH / 2)))[at(cheek)].mean()
    whole = drawn(model, source, lifted, target, lit(target, line(cheek)))[at(cheek)].mean()
    assert half == pytest.approx(alone / 2, rel=0.2) and abs(whole) < 0.1 * DEPTH


def test_a_texture_that_slips_makes_no_folds(model, cheek):
    """A mole half a texel off: the plain ratio would show its edges."""
    source, target = skin(SIZE, grain=0.0), skin(LARGE, grain=0.0)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) + 0.5
    mole = -1.0 * np.exp(-0.5 * ((x - cheek[0]) ** 2 + (y - cheek[1]) ** 2) / 2.5 ** 2)
    source = lit(source, mole.astype(np.float32))
    off = cv2.warpAffine(source, np.float32([[1, 0, 0.5], [0, 1, 0]]), (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
    ratio = np.abs(np.log(off / source)).max()
    assert ratio > 0.1
    assert np.abs(drawn(model, source, seen(off), target)).max() < 0.1 * ratio


def test_light_and_noise_are_no_folds(model):
    source, target = skin(SIZE), skin(LARGE, seed=1)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE
    other = lit(source, 0.4 * x - 0.3 * y)
    noisy = other + np.random.default_rng(2).normal(scale=0.01, size=other.shape).astype(np.float32)
    assert np.abs(drawn(model, source, seen(other), target)).max() < 0.01
    assert np.abs(drawn(model, source, seen(noisy), target)).max() < 0.01


def test_features_and_what_is_not_seen_stay(model, atlas, cheek):
    source, target = skin(SIZE), skin(LARGE, seed=1)
    everywhere = np.zeros((SIZE, SIZE), np.float32)
    everywhere[:, ::16] = -0.5
    lifted = lit(source, cv2.GaussianBlur(everywhere, (0, 0), 1.5))
    gain = cv2.resize(drawn(model, source, seen(lifted), target), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    for name in ("lips", "eyes", "mouth_interior", "eyelids"):
        assert np.abs(gain[region_texture(model, name, atlas) > 0.9]).max() < 1e-4, name
    assert not drawn(model, source, seen(lifted, 0.0), target).any()
    hidden = seen(lit(source, line(cheek)))
    hidden.validity[:, :] = (np.abs(line(cheek)) < 0.01)             # a hand, say
    assert np.abs(drawn(model, source, hidden, target)).max() < 0.1 * DEPTH


def test_a_source_that_never_showed_skin_draws_nothing(model):
    source, target = skin(SIZE), skin(LARGE, seed=1)
    made = target.copy()
    WrinkleTransfer(model, seen(source, 0.0), seen(target)).draw(made, seen(source))
    assert np.array_equal(made, target)
