"""What lies before a photo's face goes: hair, reflections, background, a smile's teeth; and what stays as it is."""
import cv2
import numpy as np
import pytest

from compositing.bare_face import (
    MIRRORED,
    forehead_and_temples,
    with_shut_mouth,
    without_background,
    without_hair,
    without_reflections,
)
from facemodel.atlas import build_atlas
from fitting.lift import Texture
from fitting.texture import albedo_texture, bare_lips, region_texture, skin_weight, weight_texture
from tests.synthetic import LARGE, drawn


@pytest.fixture(scope="module")
def chart(model):
    return build_atlas(model, LARGE)


def at(model, landmark):
    """Column and row of a landmark on the chart."""
    return np.round(model.uv[model.landmarks[landmark]] * [LARGE, -LARGE] + [0, LARGE]).astype(int)


def covered(texture, hair):
    """A Texture with dark hair where `hair` (S, S) bool says."""
    return Texture(np.where(hair[..., None], np.float32(0.1), texture.rgb), texture.validity)


def lock(model, chart, left, right):
    """A broad lock of hair between two columns, from the forehead down to the eyes' corner: (S, S) bool."""
    out = np.zeros((LARGE, LARGE), bool)
    out[np.nonzero(forehead_and_temples(model, chart) > 0.9)[0].min():at(model, 36)[1] - 6, left:right] = True
    eyes = np.maximum(region_texture(model, "eyes", chart), region_texture(model, "eyelids", chart))
    return out & (skin_weight(model, chart) + region_texture(model, "eyebrows", chart) > 0.5) & (eyes < 0.05)


@pytest.mark.parametrize("albedo", [0.15, 0.6])
def test_a_fringe_and_a_strand_are_filled_and_all_else_stays(model, chart, albedo):
    clean, forehead = drawn(model, albedo), forehead_and_temples(model, chart) > 0.9
    rows, columns = np.nonzero(forehead)
    top, left = rows.min(), int(np.percentile(columns, 30))
    rgb = clean.rgb.copy()
    rgb[top:top + 25, 200:300] *= 0.3                           # a fringe
    rgb[top + 25:top + 50, left:left + 5] *= 0.5                # a strand
    hair = (rgb != clean.rgb).any(axis=2) & forehead
    assert hair.sum() > 500
    out = without_hair(model, Texture(rgb, clean.validity), chart)
    assert np.abs(out.rgb - clean.rgb)[hair].mean() < 0.05 * albedo and out.validity[hair].max() < 0.1
    below = (forehead_and_temples(model, chart) == 0) & (cv2.dilate(np.uint8(hair), np.ones((31, 31))) == 0)
    assert (out.rgb[below] == rgb[below]).all() and (out.validity[below] == 1).all()


def test_hair_that_hangs_over_a_brow_goes_and_the_other_brow_stays(model, chart):
    clean, tail, inner = drawn(model), at(model, 17), at(model, 21)
    hair = lock(model, chart, tail[0] - 12, int(0.6 * tail[0] + 0.4 * inner[0]))
    brows = region_texture(model, "eyebrows", chart) > 0.3
    assert (hair & brows).sum() > 100
    out = without_hair(model, covered(clean, hair), chart)
    core = cv2.erode(hair.astype(np.uint8), np.ones((5, 5))) > 0
    assert np.quantile(out.validity[core & ~brows], 0.9) < 0.1 and out.validity[core & brows].mean() < 0.2
    assert np.quantile(out.rgb[core & ~brows].mean(axis=1), 0.1) > 0.8 * clean.rgb.mean(axis=2).max()
    others = brows & (np.arange(LARGE) > LARGE / 2)
    np.testing.assert_array_equal(out.rgb[others], clean.rgb[others])


def test_hair_that_touches_a_brow_leaves_it(model, chart):
    """A lock beside the brow, dark as it is: what is around the brow is skin."""
    clean, tail = drawn(model), at(model, 17)
    hair = lock(model, chart, tail[0] - 30, tail[0] + 2)
    out = without_hair(model, covered(clean, hair), chart)
    brow = (region_texture(model, "eyebrows", chart) > 0.5) & (cv2.dilate(np.uint8(hair), np.ones((21, 21))) == 0)
    assert brow.sum() > 500
    np.testing.assert_array_equal(out.rgb[brow], clean.rgb[brow])


def test_a_fringe_down_to_the_lids_goes_with_the_brows_under_it(model, chart):
    clean, both = drawn(model), at(model, 17)[0]
    fringe = lock(model, chart, both - 20, LARGE - both + 20)
    fringe |= forehead_and_temples(model, chart) > 0.5
    out = without_hair(model, covered(clean, fringe), chart)
    core = cv2.erode(fringe.astype(np.uint8), np.ones((5, 5))) > 0
    assert np.quantile(out.validity[core], 0.9) < 0.1
    assert np.quantile(out.rgb[core].mean(axis=1), 0.05) > 0.5 * clean.rgb.mean(axis=2).max()


def test_blond_hair_beside_the_eye_goes_and_red_cheeks_stay(model, chart):
    """It is hardly darker than the skin: its colour tells, and that it comes down from the forehead."""
    clean, corner, blond = drawn(model), at(model, 36), np.float32([1.0, 0.8, 0.55])
    x = np.arange(LARGE)
    beside = (x > corner[0] - 45) & (x < corner[0] - 15) & (np.arange(LARGE) < at(model, 33)[1])[:, None]
    forehead, skin = forehead_and_temples(model, chart) > 0.9, skin_weight(model, chart) > 0.9
    rgb = clean.rgb.copy()
    rgb[beside & forehead] *= 0.5                               # in its own shadow
    hanging = beside & ~forehead & skin & (np.arange(LARGE) > corner[1] - 30)[:, None]
    rgb[hanging] *= blond
    cheek = (np.hypot(x - (LARGE - corner[0] + 20), (np.arange(LARGE) - at(model, 30)[1])[:, None]) < 12) & skin
    rgb[cheek] *= np.float32([1.0, 0.75, 0.75])
    out = without_hair(model, Texture(rgb, clean.validity), chart)
    core = cv2.erode(np.uint8(hanging), np.ones((7, 7))) > 0
    assert core.sum() > 500 and np.quantile(out.validity[core], 0.9) < 0.1
    np.testing.assert_array_equal(out.rgb[cheek], rgb[cheek])
    lonely = clean.rgb.copy()                                   # no hair anywhere else
    lonely[hanging] *= blond
    assert without_hair(model, Texture(lonely, clean.validity), chart).rgb is lonely


def test_a_hat_over_the_temples_goes_and_the_brow_beside_it_stays(model, chart):
    clean = drawn(model)
    tail, corner = (model.uv[model.landmarks[k]] * [LARGE, -LARGE] + [0, LARGE] for k in (17, 36))
    hat = np.zeros((LARGE, LARGE), bool)
    hat[int(tail[1]) - 30:int(corner[1]) - 12, int(tail[0]) - 45:int(tail[0]) - 20] = True
    hat &= skin_weight(model, chart) > 0.5
    assert hat.sum() > 300
    out = without_hair(model, Texture(np.where(hat[..., None], 0.2 * clean.rgb, clean.rgb), clean.validity), chart)
    assert np.abs(out.rgb - clean.rgb)[hat].mean() < 0.05
    brows = region_texture(model, "eyebrows", chart) > 0.5
    np.testing.assert_array_equal(out.rgb[brows], clean.rgb[brows])


def test_a_bare_forehead_with_folds_is_left_alone(model, chart):
    clean = drawn(model)
    rows, columns = np.nonzero(forehead_and_temples(model, chart) > 0.9)
    rgb = clean.rgb.copy()
    for row in (int(np.percentile(rows, p)) for p in (40, 60)):
        rgb[row:row + 4, columns.min():columns.max()] *= 0.8
    folded = Texture(rgb, clean.validity)
    assert without_hair(model, folded, chart) is folded


def test_dark_skin_that_shines_is_no_hair(model, chart):
    """Mottled all over, as much on the cheeks as on the forehead; a black fringe on it is hair still."""
    clean, forehead = drawn(model, 0.3), forehead_and_temples(model, chart) > 0.9
    noise = cv2.GaussianBlur(np.random.default_rng(1).normal(size=(LARGE, LARGE)).astype(np.float32), (0, 0), 3)
    mottled = Texture(clean.rgb * np.exp(0.07 * noise / noise.std())[..., None], clean.validity)
    out = without_hair(model, mottled, chart)
    assert (out.validity[forehead] < 0.5).mean() < 0.02
    rows, columns = np.nonzero(forehead)
    fringe = np.s_[rows.min():rows.min() + 25, int(columns.mean()) - 50:int(columns.mean()) + 50]
    rgb = mottled.rgb.copy()
    rgb[fringe] *= 0.25
    out = without_hair(model, Texture(rgb, clean.validity), chart)
    assert out.validity[fringe][forehead[fringe]].mean() < 0.1


@pytest.mark.parametrize("albedo", [0.15, 0.6])
def test_a_bright_rim_is_background_and_bright_spots_inside_are_not(model, chart, albedo):
    clean, y, x = drawn(model, albedo), *np.mgrid[:LARGE, :LARGE]
    inside = chart.mask & (np.hypot(x - LARGE / 2, y - 0.55 * LARGE) < 0.4 * LARGE)
    rim = inside & (cv2.erode(np.uint8(inside), np.ones((15, 15))) == 0)
    below, spot = rim & (y > at(model, 36)[1] + 6), np.hypot(x - at(model, 2)[0] - 60, y - at(model, 33)[1]) < 6
    lips, validity = region_texture(model, "lips", chart) > 0.5, np.float32(inside)
    rgb = clean.rgb.copy()
    rgb[rim] *= 1.8                                                           # above the eyes it is the hat's business
    rgb[spot | lips] *= 1.5
    assert below.sum() > 2000 and (spot & inside).any()
    out = without_background(model, Texture(rgb, validity), chart)
    assert np.quantile(out.validity[below], 0.95) < 0.1 and np.abs(out.rgb / clean.rgb - 1)[below].mean() < 0.15
    rest = inside & (cv2.dilate(np.uint8(below), np.ones((101, 101))) == 0)
    assert (rest & rim).any() and (rest & lips).any() and (rest & spot).any()
    np.testing.assert_array_equal(out.rgb[rest], rgb[rest])
    np.testing.assert_array_equal(out.validity[rest], validity[rest])
    plain = Texture(clean.rgb, validity)
    assert without_background(model, plain, chart) is plain


def test_a_smile_is_shut_and_its_teeth_on_the_lips_go(model, chart):
    mean = albedo_texture(model, None, chart)
    inside = region_texture(model, "mouth_interior", chart) > 0.5
    lips = weight_texture(model, bare_lips(model), chart) > 0.6
    wider = lambda k: cv2.dilate(np.uint8(inside), np.ones((k, k))) > 0
    above = (np.arange(LARGE) < np.nonzero(inside)[0].mean())[:, None]
    bitten, gloss = wider(9) & ~inside & above, np.zeros_like(inside)
    row, column = (int(np.median(k)) for k in np.nonzero(lips & ~above & ~wider(13)))
    gloss[row - 1:row + 2, column - 4:column + 5] = True
    gloss &= lips
    rgb = mean.copy()
    rgb[inside | bitten], rgb[gloss] = 0.9, 0.85
    smile = Texture(rgb, np.ones((LARGE, LARGE), np.float32))
    out = with_shut_mouth(model, smile, chart)
    assert bitten.sum() > 100 and gloss.any()
    for gone in (bitten, inside):
        assert np.abs(out.rgb - mean)[gone].mean() < 0.05 and out.validity[gone].max() == 0
    for kept in (gloss, ~wider(31)):
        np.testing.assert_array_equal(out.rgb[kept], rgb[kept])
    shut = Texture(rgb, np.float32(~inside))
    assert with_shut_mouth(model, shut, chart) is shut


def test_teeth_on_the_lips_that_do_not_touch_the_inside_go_and_so_do_dark_corners(model, chart):
    """Under yellow light, in which teeth are redder than skin is by day; further out the lips stay as they are."""
    inside = region_texture(model, "mouth_interior", chart) > 0.5
    mean, lips = albedo_texture(model, None, chart), weight_texture(model, bare_lips(model), chart) > 0.7
    wider = lambda width: cv2.dilate(np.uint8(inside), np.ones((width, width))) > 0
    row, column = np.indices(inside.shape)
    upper = row < np.nonzero(inside)[0].mean()
    ring = wider(13) & ~wider(7) & (region_texture(model, "lips", chart) > 0.5)
    teeth, corner = ring & upper & lips & (column % 12 > 3), ring & ~upper & (column < np.nonzero(inside)[1].min() + 12)
    assert min(teeth.sum(), corner.sum()) > 50
    rgb = mean * np.float32([1.2, 0.9, 0.6])
    clean = rgb.copy()
    rgb[teeth | inside], rgb[corner] = np.float32([1.15, 0.85, 0.5]), 0.3 * rgb[corner]
    out = with_shut_mouth(model, Texture(rgb, np.ones((LARGE, LARGE), np.float32)), chart)
    for gone in (teeth, corner):
        assert np.abs(out.rgb - clean)[gone].mean() < 0.3 * np.abs(rgb - clean)[gone].mean()
    kept = lips & ~wider(41)
    np.testing.assert_array_equal(out.rgb[kept], rgb[kept])


def test_what_lenses_mirror_becomes_skin_and_all_else_stays(model, chart):
    clean = Texture(0.8 * albedo_texture(model, None, chart), np.ones((LARGE, LARGE), np.float32))
    x, y = model.uv[model.landmarks[[36, 41]]].mean(axis=0) * [LARGE, -LARGE] + [0, LARGE]
    spot, cheek = np.zeros((2, LARGE, LARGE), bool)
    spot[int(y) + 14:int(y) + 26, int(x) - 8:int(x) + 8] = True
    cheek[int(y) + 100:int(y) + 112, int(x) - 8:int(x) + 8] = True
    assert (skin_weight(model, chart)[spot | cheek] > 0.4).all()
    rgb = np.where((spot | cheek)[..., None], np.float32(1.0), clean.rgb)                     # white
    out = without_reflections(model, Texture(rgb, clean.validity), chart).rgb
    inner = cv2.erode(spot.astype(np.uint8), np.ones((7, 7))) > 0
    luminance = lambda a: float(np.log(a[inner].mean(axis=1)).mean())
    assert luminance(out) < luminance(clean.rgb) + MIRRORED + 0.1 < luminance(rgb)
    ratio = out[inner].mean(axis=0) / clean.rgb[inner].mean(axis=0)
    assert ratio.max() / ratio.min() < 1.05                                                   # of the skin's tint
    np.testing.assert_array_equal(out[cheek], rgb[cheek])
    away = cv2.dilate(spot.astype(np.uint8), np.ones((25, 25))) == 0
    np.testing.assert_array_equal(out[away], rgb[away])
