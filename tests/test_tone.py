"""The tone match and the blend on colours whose answers are known."""
import numpy as np
import pytest

from compositing import seam
from compositing.tone import (
    AUTO_COLOUR,
    AUTO_SHARE,
    LARGEST,
    LIPS_KEEP,
    LOCAL,
    MEMORY,
    SHADE,
    WHITE,
    ToneMatch,
    least_eyes,
)
from fitting.lift import Texture

SIDE = 60
GRID = np.stack(np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE)), axis=-1).reshape(-1, 2)
OUTER = np.abs(GRID - 0.5).max(axis=1) > 0.4
ALL = np.ones(len(GRID), bool)
MIDDLE = np.abs(GRID - 0.5).max(axis=1) < 0.1
RIM = ~OUTER & (np.abs(GRID - 0.5).max(axis=1) > 0.38)
TARGET = np.full((len(GRID), 3), 0.4)
RATIO = np.array([1.3, 1.1, 0.9])


def match(keep, skin=None):
    return ToneMatch(GRID, ~OUTER if skin is None else skin, OUTER, keep)


def test_source_tone_takes_the_constant_ratio_everywhere():
    gain = match("source").gain(TARGET * RATIO, TARGET, ALL)
    assert np.allclose(gain[~OUTER], RATIO, atol=1e-3)


GREY = np.log(RATIO).mean()
COLOUR = np.log(RATIO) - GREY
AUTO = AUTO_SHARE * GREY + COLOUR * min(AUTO_SHARE, AUTO_COLOUR / np.linalg.norm(COLOUR))


@pytest.mark.parametrize("keep, kept", [("target", np.log(RATIO)), ("auto", AUTO)])
def test_own_tone_stays_inside_and_the_border_meets_the_source(keep, kept):
    gain = match(keep).gain(TARGET * RATIO, TARGET, ALL)
    assert np.allclose(np.log(gain[MIDDLE]), np.log(RATIO) - kept, atol=1e-3)
    assert np.allclose(np.log(gain[RIM]), np.log(RATIO), atol=0.3 * np.abs(kept).max() + 1e-3)


def test_a_slope_is_followed_and_pores_are_not():
    """Closed form: a straight slope passes a symmetric blur as it is; a fine checkerboard of mean 0 leaves nothing."""
    slope = np.exp(0.3 * (GRID[:, :1] - 0.5)) * np.ones(3)
    pores = np.exp(0.1 * np.where(np.arange(len(GRID)) % 2, 1, -1)[:, None])
    gain = match("source").gain(TARGET * slope, TARGET * pores, ALL)
    assert np.abs(np.log(gain[MIDDLE] / slope[MIDDLE])).max() < 0.02


def test_a_beard_is_not_made_skin_and_the_border_is():
    """The target's lower half is half as bright: light would not do that inside, and at the border it has to meet."""
    beard = GRID[:, 1] > 0.55
    target = np.where(beard[:, None], 0.5 * TARGET, TARGET)
    gain = np.log(match("source").gain(TARGET, target, ALL))[:, 0]
    chin, brow = beard & MIDDLE & (GRID[:, 1] > 0.58), ~beard & MIDDLE & (GRID[:, 1] < 0.45)
    middle = np.log(2) * beard[~OUTER].mean()
    assert np.abs(gain[chin] - middle).max() < LOCAL and np.abs(gain[brow] - middle).max() < LOCAL
    assert np.abs(gain[RIM & beard & (GRID[:, 1] > 0.7)] - np.log(2)).max() < 0.1


@pytest.mark.parametrize("depth", [0.5, 0.25])
def test_a_beard_where_beards_grow_is_not_bleached_at_the_border(depth):
    """The target's lower half is darker; where a beard may grow that says nothing, and all gets the upper half's."""
    beard = GRID[:, 1] > 0.55
    target = np.where(beard[:, None], depth * TARGET, TARGET)
    tone = ToneMatch(GRID, ~OUTER, OUTER, "source", beard=beard)
    gain = np.log(tone.gain(TARGET * RATIO, target, ALL)).mean(axis=1)
    assert np.abs(gain[~OUTER] - np.log(RATIO).mean()).max() < 0.05
    paler = np.where(beard[:, None], TARGET / 0.7, TARGET)                   # the source's beard is met as ever
    one, other = (ToneMatch(GRID, ~OUTER, OUTER, "source", beard=b).gain(TARGET, paler, ALL) for b in (beard, None))
    assert np.allclose(one, other, rtol=1e-3)


def test_a_few_dark_hairs_do_not_darken_the_face():
    source = TARGET.copy()
    source[::12] *= 0.2
    plain_mean = np.log(source[~OUTER] / 0.4).mean()
    gain = np.log(match("source").gain(source, TARGET, ALL)[MIDDLE])
    assert plain_mean < -0.1 and np.abs(gain).max() < 0.01


def test_unseen_skin_takes_the_mean_and_nothing_seen_changes_nothing():
    half = GRID[:, 0] < 0.5
    gain = match("source").gain(TARGET * RATIO, TARGET, half)
    assert np.allclose(gain[~OUTER & ~half], RATIO, atol=1e-2)
    assert np.array_equal(match("auto").gain(TARGET * RATIO, TARGET, ~ALL), np.ones((len(GRID), 3)))
    assert match("source").gain(TARGET * 2.4, TARGET / 20, ALL).max() <= np.exp(LARGEST) * 1.001


def test_time_is_smoothed_until_it_is_reset_and_a_state_goes_on():
    tone = match("source")
    tone.gain(TARGET, TARGET, ALL)
    state = tone.state()
    second = tone.gain(TARGET * 1.2, TARGET, ALL)
    assert np.allclose(np.log(second[MIDDLE]), (1 - MEMORY) * np.log(1.2), atol=1e-3)
    again = match("source")
    again.restore(state)
    assert np.array_equal(again.gain(TARGET * 1.2, TARGET, ALL), second)
    tone.reset()
    assert np.allclose(tone.gain(TARGET * 1.2, TARGET, ALL)[MIDDLE], 1.2, atol=1e-3)


def test_an_unknown_tone():
    with pytest.raises(ValueError, match="keep is 'mine'.*source, auto, target"):
        match("mine")


def test_the_blend_is_linear_in_light():
    frame = np.full((2, 3, 3), 0.2, np.float32)
    face = type("Rendering", (), {"rgb": np.full((2, 3, 3), 0.8, np.float32)})
    alpha = np.float32([[0, 0.25, 1], [0.5, 0.75, 0]])
    out = seam.composite(frame, face, alpha)
    assert np.array_equal(out[0, 0], frame[0, 0]) and np.array_equal(out[0, 2], face.rgb[0, 2])
    light = 0.2 ** 2.2 + alpha * (0.8 ** 2.2 - 0.2 ** 2.2)
    assert np.allclose(out[..., 0] ** 2.2, light, atol=1e-5)


def test_reach_draws_the_seam_out_to_where_the_pictures_differ():
    """A strip of vertices, target at one end, source at the other; the pictures differ by hair on the last third.

    That is left to the source, unless it is where beards grow and the target's.
    """
    from compositing.graph_cut import SeamLabeller
    count, hair = 30, np.arange(30) >= 20
    source = np.full((count, 3), 0.5)
    target = np.where(hair[:, None], 0.1, source)
    edges = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)
    skin = np.zeros(count, bool)
    price = seam.reach(source, target, skin)
    assert np.allclose(price[~hair], seam.REACH) and np.allclose(price[hair], -seam.REACH)

    def labels(price):
        labeller = SeamLabeller(edges, cost="between")
        labeller.push(source, target, np.arange(count) == 29, np.arange(count) == 0, cost_source=price)
        return labeller.flush()[0]

    assert np.array_equal(labels(price), np.arange(count) < 19)               # where both ends of the cut edge agree
    beard = seam.reach(source, target, ~skin)
    assert np.allclose(beard, seam.REACH) and beard[hair].sum() > 0 > price[hair].sum()
    assert np.array_equal(seam.reach(target, source, ~skin), price)           # the source's own beard is left to it
    sure = np.arange(count) >= 15
    whole = seam.reach(source, target, ~skin, sure)
    assert (whole[sure] == seam.BEARD_REACH).all() and np.array_equal(whole[~sure], beard[~sure])
    assert labels(whole).sum() == count - 1                                   # a beard is shown as far as it goes


def test_beards_grow_below_the_nose(model):
    beard = seam.beard_region(model)
    place = model.mean[model.coarse_index]
    at = lambda landmark: beard[np.linalg.norm(place - model.mean[model.landmarks[landmark]], axis=1).argmin()]
    assert all(at(k) for k in (8, 48, 51, 54, 57)) and not any(at(k) for k in (0, 16, 27, 30, 36, 45))


def test_eyes_lips_and_mouth_get_their_own():
    """Skin twice as bright, whites of the eyes a fifth brighter, the mouth's inside darker and redder, lips a third
    brighter; irises and glints, the darkest third and a few, say nothing. As long as the mouth is shut it is taken for
    an eye."""
    eyes = (np.abs(GRID - [0.35, 0.4]).max(axis=1) < 0.05).astype(np.float32)
    mouth = (np.abs(GRID - [0.5, 0.76]).max(axis=1) < 0.1).astype(np.float32)
    lips = (np.abs(GRID - [0.5, 0.6]).max(axis=1) < 0.04).astype(np.float32)
    target, white, dark = TARGET.copy(), np.array([1.25, 1.2, 1.15]), np.array([0.9, 0.7, 0.7])
    target[eyes > 0] = 0.6
    source = target * np.where(eyes[:, None] > 0, white, np.where(mouth[:, None] > 0, dark, 2.0))
    source[lips > 0] = target[lips > 0] * 1.333
    iris = np.flatnonzero(eyes)[::3]
    target[iris], source[iris] = 0.1, 0.3
    target[iris[:1]], source[iris[:1]] = 1.0, 1.0
    skin = ~OUTER & (eyes + mouth + lips == 0)
    tone = ToneMatch(GRID, skin, OUTER, "source", eyes, mouth, lips)
    gain = tone.gain(source, target, mouth == 0)
    assert np.allclose(gain[eyes + mouth > 0], white, rtol=0.02)
    gain = tone.gain(source, target, ALL)
    assert np.allclose(gain[eyes > 0], white, rtol=0.02) and np.allclose(gain[mouth > 0], dark, rtol=0.02)
    assert np.allclose(gain[skin], 2.0, rtol=0.02)
    assert np.allclose(gain[lips > 0], 1.333 / np.exp(LIPS_KEEP), rtol=0.02)
    rims = (mouth > 0) & (GRID[:, 1] > 0.83)                  # of a mouth all but closed only lips are seen
    assert 12 <= rims.sum() < 0.2 * (mouth > 0).sum()
    pressed = tone.gain(np.where(rims[:, None], 0.2, source), target, (mouth == 0) | rims)
    assert np.allclose(pressed[mouth > 0], 0.2 / 0.4, rtol=0.02)
    again = tone.gain(source, target, ALL)
    assert np.allclose(again[mouth > 0], dark, rtol=0.02)
    slit = (eyes == 0) | (np.cumsum(eyes) < 0.4 * eyes.sum())                        # one frame of a blink
    assert (slit & (eyes > 0)).sum() >= 12
    closed = tone.gain(np.where(eyes[:, None] > 0, 0.05, source), target, slit)
    assert np.abs(np.log(closed / gain))[eyes > 0].max() < 0.1


def test_a_first_look_at_narrowed_eyes_is_soon_outweighed():
    """What shades the rest of the target's eyes made the whites glow when they opened, for the next hundred frames."""
    eyes = (np.abs(GRID - [0.35, 0.4]).max(axis=1) < 0.08).astype(np.float32)
    slit = (eyes == 0) | (np.cumsum(eyes) < 0.45 * eyes.sum())
    tone = ToneMatch(GRID, ~OUTER & (eyes == 0), OUTER, "source", eyes)
    glowing = tone.gain(TARGET * np.where(eyes[:, None] > 0, 2.0, 1.0), TARGET, slit)
    assert np.allclose(glowing[eyes > 0], 2.0, rtol=1e-3)
    for _ in range(3):
        gain = tone.gain(TARGET, TARGET, ALL)
    assert gain[eyes > 0].max() < 1.06
    other = ToneMatch(GRID, ~OUTER & (eyes == 0), OUTER, "source", eyes)
    other.restore(tone.state())
    assert np.array_equal(other.gain(TARGET, TARGET, slit), tone.gain(TARGET, TARGET, slit))


def test_lids_are_not_taken_for_the_white_of_wide_eyes():
    """A narrow-eyed source shows skin where the target's eyes are: they get no darker than the fitted light says."""
    eyes = (np.abs(GRID - [0.35, 0.4]).max(axis=1) < 0.05).astype(np.float32)
    target, lids = np.where(eyes[:, None] > 0, 0.9, 0.5) * np.ones(3), np.array([0.6, 0.4, 0.35])
    source = np.where(eyes[:, None] > 0, lids, 0.5)
    least = np.log([0.9, 0.8, 0.7])
    gain = ToneMatch(GRID, ~OUTER & (eyes == 0), OUTER, "source", eyes, least_eyes=least).gain(source, target, ALL)
    assert np.allclose(gain[eyes > 0], [0.9, 0.8, 0.7], rtol=1e-3)
    brighter = np.where(eyes[:, None] > 0, 0.95, 0.5) * np.ones(3)
    gain = ToneMatch(GRID, ~OUTER & (eyes == 0), OUTER, "source", eyes, least_eyes=least).gain(brighter, target, ALL)
    assert np.allclose(gain[eyes > 0], 0.95 / 0.9, rtol=1e-3)


@pytest.mark.parametrize("white, least", [((0.9, 0.9, 0.9), np.log(np.array(WHITE) / 0.9) - SHADE),
                                          ((0.6, 0.6, 0.6), [-SHADE] * 3)])       # shaded on its own head already
def test_the_least_that_eyes_get_is_a_usual_white(white, least):
    rgb, eyes = np.full((32, 32, 3), 0.5, np.float32), np.zeros((32, 32), np.float32)
    eyes[8:24, 8:24] = 1
    rgb[8:24, 8:24], rgb[8:24, 8:16] = white, 0.2
    rgb[10, 18:22] = 1.2                                                          # a glint
    texture = Texture(rgb, np.ones((32, 32), np.float32))
    assert np.allclose(least_eyes(texture, eyes), least, atol=0.01)
    hidden = Texture(rgb, np.zeros((32, 32), np.float32))                         # closed, or behind dark glasses
    assert np.array_equal(least_eyes(hidden, eyes), np.full(3, -LARGEST, np.float32))
