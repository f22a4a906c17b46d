"""Grain measured and drawn: against noise of known strength on a moving picture."""
import cv2
import numpy as np
import pytest

from compositing.grain import OPPONENT, TILE, Grain, grain_of, split_bands
from compositing.sharpness import SharpnessMatch

SIZE = 240
LANDMARKS = np.float32([[120 + 80 * np.cos(a), 120 + 80 * np.sin(a)] for a in np.linspace(0, 2 * np.pi, 68)])


def skin():
    """A smooth texture with pores: (SIZE + 60, SIZE + 60, 3) float64 in [0, 255]."""
    rng = np.random.default_rng(0)
    blur = lambda sigma, depth: depth * (lambda x: x / x.std())(
        cv2.GaussianBlur(rng.normal(size=(SIZE + 60, SIZE + 60)), (0, 0), sigma))
    return np.repeat((140 + blur(12, 15) + blur(1.2, 3))[..., None], 3, axis=2) * [1, 0.8, 0.7]


def noise(rng, sigma, soft):
    """Grain of a standard deviation per channel, blurred by `soft` pixels: (SIZE, SIZE, 3)."""
    drawn = rng.normal(size=(SIZE, SIZE, 3))
    drawn = cv2.GaussianBlur(drawn, (0, 0), soft) if soft else drawn
    return sigma * drawn / drawn.std()


def pairs(sigma, soft=0.0, same=(1, 1, 1)):
    """Pictures that move by 1.4 and 0.6 pixels a frame. same : of the noise, its mixture in the channels"""
    rng, texture, out = np.random.default_rng(1), skin(), []
    for k in range(4):
        two = []
        for t in (k + 1, k):
            x, y = np.meshgrid(np.arange(SIZE) + 1.4 * t, np.arange(SIZE) + 0.6 * t)
            moved = cv2.remap(texture, np.float32(x), np.float32(y), cv2.INTER_CUBIC)
            grain = noise(rng, sigma, soft) if same == (1, 1, 1) else noise(rng, sigma, soft)[..., :1] * same
            two.append(np.clip(np.round(moved + grain), 0, 255).astype(np.uint8))
        out.append((*two, LANDMARKS))
    return out


@pytest.mark.parametrize("sigma, soft", [(3, 0), (7, 0), (4, 0.8), (4, 1.2)])
def test_grain_is_as_strong_as_the_video_s_in_every_band(sigma, soft):
    grain = grain_of(pairs(sigma, soft))
    truth = split_bands(noise(np.random.default_rng(9), sigma, soft) / 255)
    drawn = split_bands(grain.drawn(3, SIZE, SIZE))
    inside = np.s_[20:-20, 20:-20]
    for band, own in zip(truth, drawn):
        spread, its = (x[inside].std(axis=(0, 1)) for x in (band, own))
        if spread.max() > 2 / 255:                         # what is fainter may be taken for an error of the flow
            np.testing.assert_allclose(its, spread, rtol=0.15)
        assert (its < 1.2 * spread + 0.4 / 255).all()


def test_grey_grain_has_no_colour():
    grain = grain_of(pairs(5, same=(1.0, 1.0, 1.001)))
    spread = (grain.drawn(0, SIZE, SIZE) @ OPPONENT.T).std(axis=(0, 1)) * 255
    assert spread[0] == pytest.approx(5 * np.sqrt(3), rel=0.15) and spread[1:].max() < 0.5


def test_a_clean_video_has_none_and_nor_has_one_without_a_face():
    assert grain_of(pairs(0)) is None and grain_of([]) is None
    assert grain_of([(*pictures, LANDMARKS / 40) for *pictures, _ in pairs(5)[:1]]) is None       # too small a face
    assert Grain.of(np.zeros((3, 3))) is None


def test_one_moving_pair_does_not_count():
    """A face that turns in one pair of six differs by much that is no grain."""
    calm = pairs(4)
    shaken = (calm[0][0], np.ascontiguousarray(calm[0][1][::-1]), LANDMARKS)
    np.testing.assert_allclose(grain_of([*calm, shaken]).strength[0], grain_of(calm).strength[0], rtol=0.1)


def test_a_frame_s_grain_is_its_own_and_always_the_same():
    grain = Grain.of(np.full((3, 3), 4 / 255))
    first = grain.drawn(7, 50, 60)
    assert first.shape == (50, 60, 3) and first.dtype == np.float32
    np.testing.assert_array_equal(first, Grain.of(np.full((3, 3), 4 / 255)).drawn(7, 50, 60))
    other = grain.drawn(8, 50, 60)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.1
    large = grain.drawn(7, TILE + 9, 30)
    np.testing.assert_array_equal(large[:9], large[TILE:])
    assert np.abs(large.mean()) < 0.2 / 255


def test_a_grainy_frame_is_as_soft_as_it_would_be_without():
    """Frame and rendering are of one picture, the frame soft and grainy: grain is not taken for sharpness."""
    rng = np.random.default_rng(3)
    sharp = cv2.GaussianBlur(rng.normal(0.5, 0.2, (160, 160)).astype(np.float32), (0, 0), 0.7)
    soft = cv2.GaussianBlur(sharp, (0, 0), 0.9)
    grain = Grain.of(np.full((3, 3), 8 / 255))
    rgb = lambda grey: np.repeat(grey[..., None], 3, axis=2)
    inside = np.pad(np.ones((120, 120), bool), 20)
    blurs = []
    for frame, known in ((rgb(soft), None), (rgb(soft) + grain.drawn(1, 160, 160), grain),
                         (rgb(soft) + grain.drawn(1, 160, 160), None)):
        match = SharpnessMatch(known)
        match(frame, rgb(sharp), inside)
        blurs.append(match.state()["blur"])
    assert blurs[0] == pytest.approx(0.9, abs=0.12) and blurs[1] == pytest.approx(blurs[0], abs=0.15)
    assert blurs[2] < 0.6 * blurs[0]
