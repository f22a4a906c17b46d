"""A photo's skin made ready for another head: shine, light and colours, and what stays as it is."""
import cv2
import numpy as np
import pytest

from compositing.complexion import (
    BEYOND,
    HALVES_DIFFER,
    IN_BEARDS,
    LIGHT,
    LIGHT_PART,
    LIGHT_SLOPE,
    MARK,
    MOST,
    MOST_LIGHT,
    SHADOW,
    evenly_coloured,
    evenly_lit,
    evenly_shaded,
    skin_colour,
    suited_to,
    usual_spread,
    without_shine,
)
from facemodel.atlas import build_atlas, to_texture
from fitting.lift import Texture
from fitting.texture import albedo_texture, region_texture, skin_weight, weight_texture
from fitting.yuv import LUMINANCE
from tests.synthetic import LARGE, drawn

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
    out = suited_to(model, dark, pale)
    usual = usual_spread(skin_colour(pale, skin)[0])
    assert skin_colour(out, skin)[1] == pytest.approx(usual, rel=0.1)          # it fades where the face ends
    regions = build_atlas(model, SIZE)
    for name in ("eyes", "mouth_interior"):
        inside = region_texture(model, name, regions) > 0.999
        np.testing.assert_allclose(out.rgb[inside], dark.rgb[inside], rtol=1e-3)


def test_colours_are_drawn_together_little_by_little(model):
    """A source that is hardly paler hardly changes anything, outliers neither."""
    dark = person(-0.5, 0.1)
    dark.rgb[100:120, 100:120] *= np.float32([1.3, 1.0, 0.75])
    out = suited_to(model, dark, person(-0.499, 0.1))
    assert 0 < np.abs(np.log(out.rgb) - np.log(dark.rgb)).max() < 0.03


def test_a_dark_skin_is_as_even_as_the_paler_head_s(model, skin):
    """What is darker than on the mean face fades by the law's ratio, what is lighter less, a beard by MARK at most."""
    atlas, rng = build_atlas(model, SIZE), np.random.default_rng(0)
    seen, mean = np.ones((SIZE, SIZE), np.float32), albedo_texture(model, None, atlas)
    level = lambda brightness: np.exp(brightness - np.log(np.maximum(mean, 0.02))[skin > 0.5].mean())
    blotches = cv2.GaussianBlur(rng.normal(size=(SIZE, SIZE)).astype(np.float32), (0, 0), 6)
    blotches *= 0.08 / blotches.std()
    dark = Texture(np.float32(mean * level(-0.8) * np.exp(blotches)[..., None]), seen)
    pale = Texture(np.float32(mean * level(-0.4)), seen)
    inner = cv2.erode((skin > 0.99).astype(np.uint8), np.ones((9, 9))) > 0
    away = lambda t: (np.log(t.rgb) - np.log(mean)).mean(axis=2)[inner]
    before, after = (a - np.median(a) for a in (away(dark), away(suited_to(model, dark, pale))))
    wanted = np.exp(LIGHT_SLOPE * (skin_colour(pale, skin)[0] - skin_colour(dark, skin)[0]))
    for part, ratio in ((before < 0, wanted), (before > 0, 1 - LIGHT_PART * (1 - wanted))):
        assert (before * after)[part].sum() / np.square(before[part]).sum() == pytest.approx(ratio, abs=0.06)
    rows, columns = np.nonzero(inner)
    beard = np.s_[rows.max() - 40:rows.max() - 20, columns.min():columns.max()]
    bearded = dark.rgb.copy()
    bearded[beard] *= 0.2
    change = np.log(suited_to(model, Texture(bearded, seen), pale).rgb) - np.log(bearded)
    assert np.abs(change[beard][inner[beard]]).max() < 1.5 * MARK


def test_pink_lips_of_a_dark_skin_are_no_brighter_than_lips_are(model):
    atlas = build_atlas(model, SIZE)
    lips = region_texture(model, "lips", atlas) * region_texture(model, "face", atlas)
    dark, pale = person(-0.8, 0.05), person(-0.3, 0.04)
    lower = (np.arange(SIZE) > np.average(np.arange(SIZE), weights=lips.sum(axis=1)))[:, None]
    dark.rgb[(lips > 0.3) & lower] *= 1.8
    varies = lambda t: np.log(t.rgb[lips > 0.9]).mean(axis=1).std()
    assert varies(dark) > 0.25
    assert varies(suited_to(model, dark, pale)) < 0.6 * varies(dark)


def test_others_are_left_alone(model):
    """A paler target, and sources that show nothing."""
    dark, pale = person(-0.7, 0.1), person(-0.3, 0.04)
    assert suited_to(model, pale, dark) is pale
    unseen = Texture(pale.rgb, np.zeros((SIZE, SIZE), np.float32))
    assert suited_to(model, dark, unseen) is dark and suited_to(model, unseen, pale) is unseen


def test_a_skin_of_too_many_colours_has_as_many_as_a_skin_has(model, skin):
    atlas, lamps = build_atlas(model, SIZE), person(-0.4, 0.2)
    out = evenly_coloured(model, lamps, atlas)
    usual = usual_spread(skin_colour(lamps, skin)[0])
    assert skin_colour(lamps, skin)[1] > BEYOND * usual
    assert skin_colour(out, skin)[1] == pytest.approx(usual, rel=0.1)
    a_little = person(-0.4, 1.6 * usual)
    assert usual < skin_colour(evenly_coloured(model, a_little, atlas), skin)[1] < MOST * usual
    skin_only = skin > 0.99
    light = lambda texture: np.log(texture.rgb @ LUMINANCE)[skin_only]
    np.testing.assert_allclose(light(out), light(lamps), atol=2e-3)            # what is light and dark stays
    usual = person(-0.4, 0.05)
    assert evenly_coloured(model, usual, atlas) is usual


def test_colours_that_lost_a_channel_in_the_dark_do_not_get_darker(model, skin):
    """Blue falls to nothing in a photo's shadows: as dark as the channels' logarithms say it is not."""
    lamps = person(-0.4, 0.2)
    lost = cv2.resize(np.random.default_rng(1).random((32, 32)), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST) < 0.2
    lamps.rgb[lost, 2] = 0.01
    out = evenly_coloured(model, lamps, build_atlas(model, SIZE))
    inside = lost & (skin > 0.99)
    luminance = lambda texture: texture.rgb[inside] @ LUMINANCE
    assert inside.sum() > 1000 and np.abs(np.log(luminance(out) / luminance(lamps))).max() < 0.02
    assert np.log(out.rgb[inside, 2] / out.rgb[inside, 1]).min() > -0.6


@pytest.fixture(scope="module")
def waves(model):
    """Light and dark from place to place, broader than pores: (SIZE, SIZE), of standard deviation 1 on bare skin."""
    noise = np.random.default_rng(3).normal(size=(SIZE, SIZE)).astype(np.float32)
    broad = cv2.GaussianBlur(noise, (0, 0), SIZE * 0.03)
    return broad / broad.std()


def lit(model, waves, amount):
    """The mean face as a photo whose light the fit did not explain shows it."""
    usual = albedo_texture(model, None, build_atlas(model, SIZE))
    return Texture(usual * np.exp(amount * waves)[..., None], np.ones((SIZE, SIZE), np.float32))


def test_hard_light_is_drawn_in_to_what_skins_have(model, skin, waves):
    atlas = build_atlas(model, SIZE)
    nose = weight_texture(model, np.float32(model.mean[:, 1] < model.mean[model.landmarks[33], 1]), atlas)
    away = lambda texture: np.log((texture.rgb @ LUMINANCE) / (lit(model, waves, 0).rgb @ LUMINANCE))
    bare = (skin > 0.99) & (nose > 0.99)
    middle = np.median(np.log(lit(model, waves, 0.2).rgb @ LUMINANCE)[bare])
    most = MOST_LIGHT * LIGHT * np.exp(LIGHT_SLOPE * (middle + 0.4))
    hard = lit(model, waves, 0.2)
    out = evenly_shaded(model, hard, atlas)
    assert away(hard)[bare].std() > 2.2 * most
    assert 0.8 * most < away(out)[bare].std() < 1.2 * most
    assert np.corrcoef(away(out)[bare], away(hard)[bare])[0, 1] > 0.95           # what was dark stays dark, a little
    soft = lit(model, waves, 0.4 * most)
    assert evenly_shaded(model, soft, atlas) is soft
    unseen = Texture(hard.rgb, np.zeros((SIZE, SIZE), np.float32))
    assert evenly_shaded(model, unseen, atlas) is unseen


def test_beards_in_hard_light_stay(model, skin, waves):
    atlas, hard = build_atlas(model, SIZE), lit(model, waves, 0.2)
    chin = model.mean[model.landmarks[8]]
    near = np.float32(np.linalg.norm(model.mean - chin, axis=1) < 25)
    beard = (weight_texture(model, near, atlas) > 0.5) & (skin > 0.99)
    hard.rgb[beard] *= 0.2
    change = np.log(evenly_shaded(model, hard, atlas).rgb[beard] / hard.rgb[beard])
    assert beard.sum() > 500 and np.abs(np.median(change)) < IN_BEARDS * SHADOW


def test_a_shadow_on_one_half_goes_and_moles_stay(model):
    atlas = build_atlas(model, SIZE)
    plain = np.full((SIZE, SIZE, 3), 0.5, np.float32) * np.float32([1.1, 0.9, 0.8])
    plain[150:154, 90:94] *= 0.5                                                       # a mole
    side = np.where(np.arange(SIZE) < SIZE / 2, 0.75, 1.0)[None, :, None] * np.float32([1.0, 0.97, 0.93])
    seen = np.ones((SIZE, SIZE), np.float32)
    out = evenly_lit(model, Texture(plain * side.astype(np.float32), seen), atlas).rgb
    skin = skin_weight(model, atlas) > 0.95
    halves = lambda a: np.array([np.median(np.log(a[skin & half]), axis=0) for half in
                                 (np.arange(SIZE)[None] < 0.4 * SIZE, np.arange(SIZE)[None] > 0.6 * SIZE)])
    before, after = halves(plain * side), halves(out)
    assert np.abs(before[0] - before[1]).max() > 0.25
    assert np.abs(after[0] - after[1]).max() < 2 * HALVES_DIFFER + 0.02
    around = out[144:148, 90:94].mean()
    assert out[151:153, 91:93].mean() < 0.6 * around
    one_half = np.where(np.arange(SIZE)[None] < SIZE / 2, np.float32(0), seen)
    alone = Texture(plain * side.astype(np.float32), one_half)                         # nothing to compare with
    np.testing.assert_allclose(evenly_lit(model, alone, atlas).rgb[:, :110], alone.rgb[:, :110], atol=1e-5)


def test_what_both_halves_of_a_face_have_is_no_shadow(model, lopsided):
    """Dark cheeks, on a chart whose halves are no mirror images."""
    atlas = build_atlas(lopsided, SIZE)
    x = to_texture(model.mean, model.triangles, atlas)[..., 0]
    rgb = np.where((np.abs(x) > 25)[..., None], np.float32(0.2), np.float32(0.6)) * np.float32([1.1, 0.9, 0.8])
    out = evenly_lit(lopsided, Texture(rgb, np.ones((SIZE, SIZE), np.float32)), atlas).rgb
    assert np.abs(np.log(out / rgb))[skin_weight(lopsided, atlas) > 0.9].max() < 0.02


@pytest.fixture(scope="module")
def chart(model):
    return build_atlas(model, LARGE)


def test_skin_shines_between_the_hairs_of_brows_too(model, chart):
    brows = region_texture(model, "eyebrows", chart) > 0.9
    rgb, skin = drawn(model, 0.3).rgb, skin_weight(model, chart) > 0.99
    spots = np.random.default_rng(0).random((LARGE, LARGE)) < 0.02
    for place in (brows, skin):
        rgb[spots & place] = 0.9
    out = without_shine(model, Texture(rgb, np.ones((LARGE, LARGE), np.float32)), chart).rgb
    assert out[spots & brows].mean() < 0.75 * 0.9 and out[spots & skin].mean() < 0.75 * 0.9


def test_shine_is_taken_off_and_is_white(model, chart):
    """Dark skin under white highlights, some of them sharp: what is left is the skin's own colour, nearly."""
    clean = drawn(model, 0.3)
    skin = skin_weight(model, chart) > 0.99
    rng = np.random.default_rng(0)
    shine = np.zeros((LARGE, LARGE), np.float32)
    rows, columns = np.nonzero(skin)
    for k in rng.integers(len(rows), size=40):
        cv2.circle(shine, (int(columns[k]), int(rows[k])), 5, 0.3, -1)
    shine = cv2.GaussianBlur(shine, (0, 0), 2) * skin
    rgb = clean.rgb + shine[..., None]
    out = without_shine(model, Texture(rgb, clean.validity), chart).rgb
    spots = shine > 0.2
    assert np.abs(out - clean.rgb)[spots].mean() < 0.45 * np.abs(rgb - clean.rgb)[spots].mean()
    hue = lambda a: (a[..., 0] - a[..., 2])[spots].mean()       # white light takes none of it along
    assert hue(out) == pytest.approx(hue(clean.rgb), rel=0.05)
    assert (out == rgb)[skin_weight(model, chart) == 0].all()


def test_matt_skin_is_left_alone(model, chart):
    matt = drawn(model)
    matt.rgb[:] *= 1 + 0.05 * np.sin(np.arange(LARGE) / 3)[:, None, None].astype(np.float32)
    assert without_shine(model, matt, chart) is matt
