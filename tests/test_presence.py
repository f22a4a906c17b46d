"""Fading, masks and the match of sharpness."""
import cv2
import numpy as np
import pytest

from compositing.presence import FADE, Mask, presence
from compositing.sharpness import (
    BLURS,
    FAINTEST_EDGES,
    MEMORY,
    SharpnessMatch,
    _blurred,
    _least_blur,
    detail,
    usual_detail,
)
from facemodel.errors import InputError
from fitting.video_reader import Span
from tests import clips


def test_the_target_fades_beside_lost_frames_and_not_at_the_ends():
    status = np.array(["ok"] * 12 + ["lost"] + ["ok"] * 3 + ["no_face"] + ["ok"] * 12)
    weight = presence(status, fade=4)
    step = lambda k: np.float32(3 * (k / 5) ** 2 - 2 * (k / 5) ** 3)
    assert np.allclose(weight[:8], 1) and np.allclose(weight[-8:], 1)
    assert np.allclose(weight[8:13], [step(4), step(3), step(2), step(1), 0])
    assert np.allclose(weight[13:17], [step(1), step(2), step(1), 0])         # a short run never shows the target whole
    assert np.array_equal(weight == 0, status != "ok")
    assert np.array_equal(presence(np.array(["ok"] * 3)), np.ones(3))
    assert np.array_equal(presence(np.array(["lost"] * 3)), np.zeros(3))
    assert 1 <= FADE <= 12


def test_fading_is_by_the_nearest_lost_frame_in_hours_of_video_too():
    status = np.where(np.random.default_rng(0).random(300) < 0.1, "lost", "ok")
    lost = np.flatnonzero(status == "lost")
    x = np.clip(np.abs(np.arange(300)[:, None] - lost).min(axis=1) / 7, 0, 1)
    assert np.allclose(presence(status, fade=6), 3 * x ** 2 - 2 * x ** 3)
    long = np.repeat(["ok", "lost"], 100_000)                    # every frame against every other would be 80 GB
    assert presence(long)[:100_000 - FADE].all() and not presence(long)[100_000:].any()


def drawn_mask(path, count, size=(64, 96)):
    """Frames whose left `4 * index` columns are white."""
    pictures = [np.zeros((*size, 3), np.uint8) for _ in range(count)]
    for i, picture in enumerate(pictures):
        picture[:, :4 * i] = 255
    return clips.write_clip(path, pictures)


def test_a_mask_is_read_frame_by_frame(tmp_path):
    path = drawn_mask(tmp_path / "mask.mp4", 6)
    with Mask(path, path) as mask:
        for index in (1, 2, 5):                                  # frames in between may be left out
            keep = mask.keep(index)
            assert keep.shape == (64, 96) and keep.dtype == np.float32
            assert np.all(keep[:, :4 * index - 2] == 0) and np.all(keep[:, 4 * index + 2:] == 1)
            assert np.array_equal(mask.keep(index), keep)        # for another face
        with pytest.raises(InputError, match="--mask.*mask.mp4: can't be read up to frame 6.*--end"):
            mask.keep(6)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])             # Matroska does not say how many frames there are
def test_a_mask_that_ends_too_early_is_told_before_any_work(tmp_path, suffix):
    source, path = drawn_mask(tmp_path / f"a{suffix}", 6), drawn_mask(tmp_path / f"b{suffix}", 5)
    with pytest.raises(InputError, match=f"b{suffix}: has 5 frames, .*a{suffix} 6 up to .*--end"):
        Mask(path, source)
    with pytest.raises(InputError, match="has 5 frames, .* 6 up to"):
        Mask(path, source, Span(2, 6))
    Mask(path, source, Span(2, 5))
    Mask(source, path)


def test_a_mask_of_another_size(tmp_path):
    path, other = drawn_mask(tmp_path / "a.mp4", 2), drawn_mask(tmp_path / "b.mp4", 2, (64, 64))
    with pytest.raises(InputError, match="a.mp4: is 96 x 64, but .*b.mp4 is 64 x 64; export"):
        Mask(path, other)
    with pytest.raises(InputError, match="none.mp4"):
        Mask(tmp_path / "none.mp4", path)


NOISE = cv2.GaussianBlur(np.random.default_rng(3).normal(0.5, 0.2, (160, 160)).astype(np.float32), (0, 0), 0.7)
INSIDE = np.pad(np.ones((120, 120), bool), 20)
rgb = lambda grey: np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize("sigma", [0.5, 0.9])
def test_a_rendering_gets_the_blur_of_the_frame(sigma):
    """Frame and rendering are of one picture, the frame blurred, of the same contrast or of half."""
    for contrast in (1.0, 0.5):
        frame = 0.5 + contrast * (cv2.GaussianBlur(NOISE, (0, 0), sigma) - 0.5)
        match = SharpnessMatch()
        out = match(rgb(frame), rgb(NOISE), INSIDE)
        assert match.state()["blur"] == pytest.approx(sigma, abs=0.12)
        if contrast == 1:
            assert detail(out[..., 0], INSIDE)[1] == pytest.approx(detail(frame, INSIDE)[1], rel=0.2)


@pytest.mark.parametrize("contrast", [0.95, 0.8, 0.4])
def test_a_rendering_with_stronger_edges_comes_down_to_the_frame_s(contrast):
    """By a quarter at most; the frame has the same amount of coarse detail, so that it is no softer."""
    lines = np.abs(np.sin(np.arange(160) / 4.1)) > 0.97
    edges = np.where(lines, 0.4, 0).astype(np.float32) * np.ones((160, 1), np.float32)
    frame = rgb(0.3 + contrast * edges)
    match = SharpnessMatch()
    out = match(frame, rgb(0.3 + edges), INSIDE)
    assert match.state()["edges"] == pytest.approx(max(contrast, FAINTEST_EDGES), abs=0.03)
    fall = np.sqrt(detail(out[..., 0], INSIDE)[0] / detail(0.3 + edges, INSIDE)[0])
    assert fall == pytest.approx(max(contrast, FAINTEST_EDGES), abs=0.06)
    assert match.state()["blur"] < 0.2


def test_smooth_but_less_contrast_is_not_blurred_further():
    """The frame has strong coarse detail beside the fine: its share is small, but there is more of it than rendered."""
    coarse = cv2.GaussianBlur(np.random.default_rng(4).normal(0, 8, NOISE.shape).astype(np.float32), (0, 0), 3)
    frame, rendered = rgb(NOISE + coarse), rgb(0.9 * NOISE)
    assert detail(frame[..., 0], INSIDE)[1] < detail(rendered[..., 0], INSIDE)[1]
    assert SharpnessMatch()(frame, rendered, INSIDE) is rendered


def test_pores_become_as_faint_as_the_frame_s_and_edges_stay():
    edge = 0.3 + 0.4 * (np.arange(160) > 80) * np.ones((160, 1))
    pores = lambda depth: (edge + depth * (NOISE - NOISE.mean())).astype(np.float32)
    frame, rendered = pores(0.04), pores(0.06)
    out = SharpnessMatch()(rgb(frame), rgb(rendered), INSIDE)[..., 0]
    assert usual_detail(out, INSIDE) == pytest.approx(usual_detail(frame, INSIDE), rel=0.1)
    step = lambda grey: np.median(grey[20:-20, 82] - grey[20:-20, 79])
    assert step(out) == pytest.approx(step(rendered), rel=0.03)
    half = SharpnessMatch()(rgb(pores(0.001)), rgb(rendered), INSIDE)[..., 0]         # never waxen
    assert usual_detail(half, INSIDE) > 0.4 * usual_detail(rendered, INSIDE)


def test_a_soft_rendering_is_left_as_it_is_and_little_evidence_changes_nothing():
    soft = rgb(cv2.GaussianBlur(NOISE, (0, 0), 1.0))
    assert SharpnessMatch()(rgb(NOISE), soft, INSIDE) is soft
    few = np.zeros_like(INSIDE)
    few[:10, :10] = True
    sharp = rgb(NOISE)
    assert SharpnessMatch()(soft, sharp, few) is sharp


def test_sharpness_remembers():
    soft, sharp = rgb(cv2.GaussianBlur(NOISE, (0, 0), 1.0)), rgb(NOISE)
    match, again = SharpnessMatch(), SharpnessMatch()
    match(soft, sharp, INSIDE)
    first = match.state()
    match(sharp, sharp, INSIDE)
    assert match.state()["blur"] == pytest.approx(MEMORY * first["blur"])
    again.restore(first)
    again(sharp, sharp, INSIDE)
    assert again.state() == match.state()
    match.reset()
    match(sharp, sharp, INSIDE)
    assert match.state() == {"blur": 0, "contrast": 1, "edges": 1}


def test_a_black_frame_says_nothing_of_pores():
    match, rendered = SharpnessMatch(), rgb(0.5 + 0.06 * (NOISE - NOISE.mean()))
    match(np.zeros_like(rendered), rendered, INSIDE)
    assert match.state()["contrast"] is None and match.state()["edges"] is None


def test_the_least_blur_is_that_of_all_of_them_tried():
    """Stopping at the first blur that is enough changes nothing."""
    picture, inside = cv2.GaussianBlur(NOISE, (0, 0), 0.6), INSIDE
    for share in (1.2, 0.9, 0.5, 0.1, 0.001):
        wanted = detail(picture, inside) * share
        every = np.minimum.accumulate([detail(_blurred(picture, sigma), inside) for sigma in BLURS])
        least = min(float(np.interp(-wanted[k], -every[:, k], BLURS)) for k in range(2))
        assert _least_blur(picture, inside, wanted) == least
