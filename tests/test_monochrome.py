"""Pictures without colours: how they are known, toned, and given colours."""
import cv2
import numpy as np
import pytest

import compositing.animate
import compositing.replace
from compositing.monochrome import coloured, toning_of
from facemodel.atlas import build_atlas
from fitting.images import read_image
from fitting.lift import Texture
from fitting.texture import albedo_texture, region_texture
from fitting.yuv import LUMINANCE
from tests import clips
from tests.quick import quick_fits

FACE = np.array([[20, 20], [100, 110]], float).repeat(34, axis=0)             # landmarks: only their extent counts
GREY = np.linspace(0, 1, 101)


def slopes(seed=0):
    """A picture (128, 128, 3) in [0, 1] with all kinds of colours."""
    return cv2.GaussianBlur(np.random.default_rng(seed).uniform(0, 1, (128, 128, 3)), (0, 0), 3) * 3 % 1


def bytes_of(rgb):
    return np.round(255 * rgb).clip(0, 255).astype(np.uint8)


def sepia(luminance):
    """A tone that is black in the shadows and pale in the lights, of the luminance that is given."""
    away = 0.5 * luminance * (1 - 0.6 * luminance)
    tint = np.array([0.6, 0.0, -1.0])
    return luminance[..., None] + away[..., None] * (tint - tint @ LUMINANCE)


def test_black_and_white_is_known_and_stays_so():
    grey = bytes_of(np.repeat((slopes() @ LUMINANCE)[..., None], 3, axis=2))
    toning = toning_of([grey], [FACE])
    colour = slopes(1).astype(np.float32)
    np.testing.assert_allclose(toning(colour), np.repeat((colour @ LUMINANCE)[..., None], 3, axis=2), atol=2e-3)


def test_a_tone_is_learned_from_the_face_and_laid_over_colours():
    noise = np.random.default_rng(0).normal(0, 0.004, (128, 128, 3))
    toning = toning_of([bytes_of(sepia(slopes() @ LUMINANCE) + noise)], [FACE])
    out = toning(slopes(1).astype(np.float32))
    np.testing.assert_allclose(out, sepia(slopes(1) @ LUMINANCE), atol=0.03)
    np.testing.assert_allclose(out @ LUMINANCE, slopes(1) @ LUMINANCE, atol=5e-3)
    assert (toning(np.zeros((1, 3), np.float32)) == 0).all()


def test_colours_are_no_tone():
    """Those of a photo, as it is, dark or pale; and half of a clip in black and white makes it no such clip."""
    person = read_image(clips.DEMO.with_name("nobody.png"))
    rows, columns = person.shape[:2]
    face = FACE * [columns / 128, rows / 128]
    for picture in (person, person // 5, 255 - (255 - person) // 3):
        assert toning_of([picture], [face]) is None
    grey = np.repeat(cv2.cvtColor(person, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    assert toning_of([grey, person], [face] * 2) is None
    assert toning_of([grey, person, grey], [face] * 3) is not None
    assert toning_of([grey], [face + 5000]) is None                          # a face outside tells nothing


@pytest.mark.parametrize("seed", range(3))
def test_a_grey_texture_gets_back_most_of_the_colours_it_had(model, seed):
    """Of an albedo of the model: luminance to the last digit, and colours that are nearer than the mean face's."""
    atlas, rng = build_atlas(model, 256), np.random.default_rng(seed)
    true = albedo_texture(model, rng.normal(0, 1, model.albedo_count), atlas).clip(0.02, 1)
    grey = np.repeat((true @ LUMINANCE)[..., None], 3, axis=2).astype(np.float32)
    seen = np.ones(grey.shape[:2], np.float32)
    out = coloured(model, Texture(grey, seen), atlas)
    assert np.array_equal(out.validity, seen)
    face = atlas.mask & (region_texture(model, "face", atlas) > 0.5)
    np.testing.assert_allclose((out.rgb @ LUMINANCE)[face], (true @ LUMINANCE)[face], atol=2e-3)
    mean = albedo_texture(model, np.zeros(model.albedo_count), atlas)
    mean = mean * ((true @ LUMINANCE) / (mean @ LUMINANCE))[..., None]
    error = lambda rgb: np.sqrt(np.square(rgb - true)[face].mean())
    assert error(out.rgb) < 0.8 * error(mean) < 0.5 * error(grey)


def test_nothing_seen_gives_the_mean_face_s_colours(model):
    atlas = build_atlas(model, 64)
    out = coloured(model, Texture(np.full((64, 64, 3), 0.5, np.float32), np.zeros((64, 64), np.float32)), atlas)
    mean = albedo_texture(model, np.zeros(model.albedo_count), atlas)
    expected = mean * (0.5 / np.maximum(mean @ LUMINANCE, 0.02))[..., None]
    np.testing.assert_allclose(out.rgb[atlas.mask], expected[atlas.mask], rtol=1e-4)


@pytest.fixture(scope="module")
def grey_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("grey") / "grey.mp4"
    drained = lambda _, p: np.repeat(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    return clips.cut(path, 4, change=drained)


def colourfulness(pictures):
    return max(float(np.ptp(p.astype(int), axis=2).max()) for p in pictures)


def test_a_face_has_no_colours_in_a_clip_without(grey_clip, tmp_path):
    with quick_fits(compositing.replace):
        assert compositing.replace.main([str(grey_clip), "--virtual", "5", "-o", str(tmp_path / "out.mp4")]) == 0
    before, after = clips.decoded(grey_clip), clips.decoded(tmp_path / "out.mp4")
    assert np.abs(after[1].astype(int) - before[1]).max() > 40               # there is another face
    assert colourfulness(after) <= colourfulness(before) + 6                 # the encoder's doing


def test_a_photo_without_colours_comes_alive_without_any(tmp_path):
    picture = cv2.imread(str(clips.DEMO.with_name("nobody.png")))
    cv2.imwrite(str(tmp_path / "photo.png"), np.repeat(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2))
    clip = clips.cut(tmp_path / "clip.mp4", 3, start=12)
    with quick_fits(compositing.animate):
        assert not compositing.animate.main([str(clip), str(tmp_path / "photo.png"), "-o", str(tmp_path / "out.mp4")])
    assert colourfulness(clips.decoded(tmp_path / "out.mp4")) <= 8
