"""Hair over the forehead of a photo, and shine on its skin: taken away, and nothing else is."""
import cv2
import numpy as np
import pytest

from compositing.complexion import above_brows, without_hair, without_shine
from facemodel.atlas import build_atlas
from facemodel.morphable import load_model
from fitting.lift import Texture
from fitting.texture import region_texture, skin_weight

SIZE = 512


@pytest.fixture(scope="module")
def model():
    return load_model("commons")


@pytest.fixture(scope="module")
def atlas(model):
    return build_atlas(model, SIZE)


def drawn(model, skin=0.6):
    """A face of one skin colour with dark brows: Texture."""
    rgb = np.full((SIZE, SIZE, 3), skin, np.float32) * np.float32([1, 0.8, 0.7])
    brows = region_texture(model, "eyebrows", build_atlas(model, SIZE)) > 0.3
    rgb[brows] *= 0.3
    return Texture(rgb, np.ones((SIZE, SIZE), np.float32))


@pytest.mark.parametrize("skin", [0.15, 0.6])
def test_a_fringe_and_a_strand_are_filled_and_all_else_stays(model, atlas, skin):
    clean, forehead = drawn(model, skin), above_brows(model, atlas) > 0.9
    rows, columns = np.nonzero(forehead)
    top, left = rows.min(), int(np.percentile(columns, 30))
    rgb = clean.rgb.copy()
    rgb[top:top + 25, 200:300] *= 0.3                           # a fringe
    rgb[top + 25:top + 50, left:left + 5] *= 0.5                # a strand
    hair = (rgb != clean.rgb).any(axis=2) & forehead
    assert hair.sum() > 500
    out = without_hair(model, Texture(rgb, clean.validity), atlas)
    assert np.abs(out.rgb - clean.rgb)[hair].mean() < 0.05 * skin and out.validity[hair].max() < 0.1
    below = above_brows(model, atlas) == 0
    assert (out.rgb[below] == rgb[below]).all() and (out.validity[below] == 1).all()


def test_a_bare_forehead_with_folds_is_left_alone(model, atlas):
    clean = drawn(model)
    rows, columns = np.nonzero(above_brows(model, atlas) > 0.9)
    rgb = clean.rgb.copy()
    for row in (int(np.percentile(rows, p)) for p in (40, 60)):
        rgb[row:row + 4, columns.min():columns.max()] *= 0.8
    folded = Texture(rgb, clean.validity)
    assert without_hair(model, folded, atlas) is folded


def test_shine_is_taken_off_and_is_white(model, atlas):
    """Dark skin under white highlights, some of them sharp: what is left is the skin's own colour, nearly."""
    clean = drawn(model, 0.3)
    skin = skin_weight(model, atlas) > 0.99
    rng = np.random.default_rng(0)
    shine = np.zeros((SIZE, SIZE), np.float32)
    rows, columns = np.nonzero(skin)
    for k in rng.integers(len(rows), size=40):
        cv2.circle(shine, (int(columns[k]), int(rows[k])), 5, 0.3, -1)
    shine = cv2.GaussianBlur(shine, (0, 0), 2) * skin
    rgb = clean.rgb + shine[..., None]
    out = without_shine(model, Texture(rgb, clean.validity), atlas).rgb
    spots = shine > 0.2
    assert np.abs(out - clean.rgb)[spots].mean() < 0.45 * np.abs(rgb - clean.rgb)[spots].mean()
    hue = lambda a: (a[..., 0] - a[..., 2])[spots].mean()       # white light takes none of it along
    assert hue(out) == pytest.approx(hue(clean.rgb), rel=0.05)
    assert (out == rgb)[skin_weight(model, atlas) == 0].all()


def test_matt_skin_is_left_alone(model, atlas):
    matt = drawn(model)
    matt.rgb[:] *= 1 + 0.05 * np.sin(np.arange(SIZE) / 3)[:, None, None].astype(np.float32)
    assert without_shine(model, matt, atlas) is matt
