"""Pores where skin was hidden: as strong and as broad as those that are seen, everything else untouched."""
import cv2
import numpy as np
import pytest

from compositing.complexion import PORES
from compositing.pores import with_pores
from facemodel.atlas import build_atlas, to_texture
from fitting.lift import Texture
from fitting.texture import region_texture, skin_weight

SIZE = 512


@pytest.fixture(scope="module")
def atlas(model):
    return build_atlas(model, SIZE)


def speckled(sigma=1.2, depth=0.06):
    noise = cv2.GaussianBlur(np.random.default_rng(3).normal(size=(SIZE, SIZE)).astype(np.float32), (0, 0), sigma)
    return (np.float32([0.7, 0.5, 0.4]) * np.exp(depth * noise / noise.std())[..., None]).astype(np.float32)


def hole_in(model, atlas):
    """The middle of the forehead: (SIZE, SIZE) bool, symmetric."""
    x, y = np.median(model.uv[model.landmarks[[21, 22]]], axis=0) * [SIZE, -SIZE] + [0, SIZE - 60]
    hole = np.zeros((SIZE, SIZE), np.uint8)
    cv2.circle(hole, (round(float(x)), round(float(y))), 32, 1, -1)
    return (hole | hole[:, ::-1]).astype(bool) & (skin_weight(model, atlas) > 0.9)


def fine(rgb):
    log = np.log(np.maximum(rgb, 0.02))
    return log - cv2.GaussianBlur(log, (0, 0), PORES * SIZE)


def test_hidden_skin_gets_pores_like_those_that_are_seen(model, atlas):
    true, hole = speckled(), hole_in(model, atlas)
    assert hole.sum() > 1500
    smooth = np.where(hole[..., None], cv2.GaussianBlur(true, (0, 0), 20), true)
    texture = Texture(smooth, (~hole).astype(np.float32))
    done = with_pores(model, texture, atlas)
    inside = cv2.erode(hole.astype(np.uint8), np.ones((9, 9))) > 0
    assert 0.8 < fine(done.rgb)[inside].std() / fine(true)[inside].std() < 1.25
    step = lambda rgb: np.diff(fine(rgb)[..., 0], axis=1)[inside[:, 1:]].std() / fine(rgb)[..., 0][inside].std()
    assert step(done.rgb) == pytest.approx(step(true), rel=0.25)                    # as fine, not only as strong
    assert np.abs(done.rgb[inside].mean(axis=0) - true[inside].mean(axis=0)).max() < 0.02
    face = region_texture(model, "face", atlas) > 0
    assert np.array_equal(done.rgb[~hole & face], smooth[~hole & face]) and done.validity is texture.validity
    assert np.array_equal(with_pores(model, texture, atlas).rgb, done.rgb)


def test_features_that_are_not_seen_get_no_pores(model, atlas):
    regions = {name: region_texture(model, name, atlas) for name in ("eyebrows", "eyes", "mouth_interior", "lips")}
    unseen = np.max(list(regions.values()), axis=0) > 0
    texture = Texture(speckled(), (~unseen).astype(np.float32))
    done = with_pores(model, texture, atlas)
    assert not np.array_equal(done.rgb, texture.rgb)                                # the skin beside them
    for name, region in regions.items():
        np.testing.assert_array_equal(done.rgb[region > 0.9], texture.rgb[region > 0.9], name)


def test_a_beard_is_no_usual_skin(model, atlas):
    true, hole = speckled(), hole_in(model, atlas)
    chin = np.arange(SIZE)[:, None] > 0.72 * SIZE
    bearded = np.where(chin[..., None], speckled(1.2, 0.5), true)
    done = with_pores(model, Texture(bearded, (~hole).astype(np.float32)), atlas)
    assert fine(done.rgb)[hole].std() < 2 * fine(true)[hole].std()


def test_nothing_is_done_where_all_or_nothing_is_seen(model, atlas):
    whole = Texture(speckled(), np.ones((SIZE, SIZE), np.float32))
    assert with_pores(model, whole, atlas) is whole
    unseen = Texture(speckled(), np.zeros((SIZE, SIZE), np.float32))
    assert with_pores(model, unseen, atlas) is unseen


def test_what_the_other_half_shows_needs_no_pores(model, lopsided):
    """One half of a face is seen, to a millimetre beyond its middle, on a chart whose halves are no mirror images."""
    chart = build_atlas(lopsided, SIZE)
    seen = np.float32(to_texture(model.mean, model.triangles, chart)[..., 0] > -1)
    half = Texture(speckled(), seen)
    assert with_pores(lopsided, half, chart) is half
