"""A dark skin's colours on a paler head: how far they are drawn together, and what stays as it is."""
import numpy as np
import pytest

from compositing.complexion import SLOPE, SPREAD, drawn_together, skin_colour
from facemodel.atlas import build_atlas
from fitting.lift import Texture
from fitting.texture import region_texture, skin_weight

SIZE = 256


@pytest.fixture(scope="module")
def skin(model):
    return skin_weight(model, build_atlas(model, SIZE))


def person(brightness, spread, seed=0):
    """A neutral texture of patches of known brightness and spread of colour."""
    rng = np.random.default_rng(seed)
    patches = rng.normal(0, 1, (SIZE // 16, SIZE // 16, 3)).repeat(16, axis=0).repeat(16, axis=1)
    tint = patches - patches.mean(axis=2, keepdims=True)
    tint *= spread / np.sqrt(np.square(tint).sum(axis=2).mean())
    grey = brightness + 0.05 * rng.normal(size=(SIZE, SIZE, 1))
    rgb = np.exp(grey + tint + np.array([0.25, 0.0, -0.25]))
    return Texture(rgb.astype(np.float32), np.ones((SIZE, SIZE), np.float32))


def test_a_skin_s_brightness_and_spread_are_measured(skin):
    brightness, spread = skin_colour(person(-0.7, 0.09), skin)
    assert abs(brightness + 0.7) < 0.02 and 0.07 < spread < 0.095           # borders of patches are blurred
    assert skin_colour(Texture(person(-0.7, 0.1).rgb, np.zeros((SIZE, SIZE), np.float32)), skin) is None


def test_a_dark_skin_s_colours_become_as_even_as_a_pale_one_s(model, skin):
    dark, pale = person(-0.7, 0.1), person(-0.3, 0.04, seed=1)
    out = drawn_together(model, dark, pale)
    usual = SPREAD * np.exp(SLOPE * (skin_colour(pale, skin)[0] + 0.4))
    assert skin_colour(out, skin)[1] == pytest.approx(usual, rel=0.1)          # it fades where the face ends
    light = lambda texture: np.log(texture.rgb).mean(axis=2)
    np.testing.assert_allclose(light(out), light(dark), atol=2e-3)            # what is light and dark stays
    regions = build_atlas(model, SIZE)
    for name in ("eyes", "mouth_interior"):
        inside = region_texture(model, name, regions) > 0.999
        np.testing.assert_allclose(out.rgb[inside], dark.rgb[inside], rtol=1e-3)


def test_others_are_left_alone(model):
    """A paler target, one as even as the source's tone asks for, and sources that show nothing."""
    dark, pale = person(-0.7, 0.1), person(-0.3, 0.04)
    assert drawn_together(model, pale, dark) is pale
    even = person(-0.5, 0.01)
    assert drawn_together(model, even, pale) is even
    unseen = Texture(pale.rgb, np.zeros((SIZE, SIZE), np.float32))
    assert drawn_together(model, dark, unseen) is dark and drawn_together(model, unseen, pale) is unseen
