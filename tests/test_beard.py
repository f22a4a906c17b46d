"""Beards are found, say nothing about the light, and can be taken off."""
from dataclasses import replace

import cv2
import numpy as np
import pytest

from compositing.beard import MODES, UNDER_NOSE, _beard_area, find_beard, without_beard
from compositing.target import target_from_photo
from facemodel.atlas import build_atlas, uv_to_pixels
from facemodel.light import ambient_light, shade
from facemodel.mesh import vertex_normals
from facemodel.sampling import samples
from fitting.fit import relit
from fitting.lift import Lifter, Texture
from fitting.texture import albedo_texture, bare_lips, region_texture, skin_weight, weight_texture
from tests.synthetic import LARGE, draw, known_face, track_of, true_landmarks


@pytest.fixture(scope="module")
def chart(model):
    return build_atlas(model, LARGE)


@pytest.fixture(scope="module")
def area(model, chart):
    """Where a full beard grows, but for lips and mouth: (S, S) bool."""
    return (_beard_area(model, chart) > 0.9) & (skin_weight(model, chart) > 0.9)


def grainy(texture, where, depth, seed=0):
    """A Texture with fine light and dark, of `depth` in its logarithm, where `where` (S, S) says."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, where.shape).astype(np.float32), (0, 0), 0.8)
    return Texture(texture.rgb * np.exp(where * depth * noise / noise.std())[..., None], texture.validity)


def bearded(model, where, skin=0.9, dark=0.3, detail=0.3):
    """Skin with pores, `skin` times as bright as the mean face's, and hair on it where `where` (S, S) bool says."""
    mean = albedo_texture(model, None, build_atlas(model, LARGE))
    seen = np.ones(where.shape, np.float32)
    face = grainy(Texture(skin * mean, seen), seen, 0.03, seed=1)
    hair = grainy(face, np.float32(where), detail)
    return Texture(np.where(where[..., None], hair.rgb * np.exp(-dark), face.rgb), face.validity)


@pytest.mark.parametrize("skin, dark, detail", [(0.9, 0.7, 0.3), (0.9, 0.0, 0.3), (0.9, 0.5, 0.0), (0.25, 0.3, 0.3)],
                         ids=["dark", "blond", "seen dimly", "on dark skin"])
def test_a_beard_is_found_where_it_grows(model, chart, area, skin, dark, detail):
    found = find_beard(model, bearded(model, area, skin, dark, detail), chart)
    assert (found[area] > 0.5).mean() > 0.95
    assert found[_beard_area(model, chart, UNDER_NOSE) == 0].max() < 0.05


def test_a_moustache_is_found_alone(model, chart, area):
    lips, nose = (model.mean[model.landmarks[k], 1] for k in (51, 33))
    under = weight_texture(model, np.float32((model.mean[:, 1] > nose) & (model.mean[:, 1] < lips)), chart) > 0.5
    found = find_beard(model, bearded(model, area & under), chart)
    assert (found[area & under] > 0.5).mean() > 0.95
    assert (found[area & ~under] > 0.5).mean() < 0.25


def test_a_bare_face_has_none(model, chart, area):
    none = np.zeros_like(area)
    for skin in (0.2, 0.9):
        bare = bearded(model, none, skin)
        assert find_beard(model, bare, chart) is None
        shaded = bare.rgb * (1 - 0.15 * cv2.GaussianBlur(np.float32(area), (0, 0), 8))[..., None]
        assert find_beard(model, Texture(shaded, bare.validity), chart) is None
        blurred = Texture(cv2.GaussianBlur(bare.rgb, (0, 0), 4), bare.validity)
        assert find_beard(model, blurred, chart) is None
        assert find_beard(model, Texture(bare.rgb, 0 * bare.validity), chart) is None


def test_what_is_taken_off_leaves_skin_and_nothing_else_changes(model, chart, area):
    """Below the pores, which compositing.pores draws afterwards."""
    clean, lips = bearded(model, np.zeros_like(area)), weight_texture(model, bare_lips(model), chart) > 0.7
    texture = bearded(model, area, dark=0.7)
    found = find_beard(model, texture, chart)
    out = without_beard(model, texture, chart, found)
    broad = lambda t: cv2.GaussianBlur(t.rgb, (0, 0), 3)
    inner = cv2.erode(np.uint8(area), np.ones((9, 9))) > 0
    assert np.abs(broad(out) - broad(clean))[inner].mean() < 0.02 < np.abs(broad(texture) - broad(clean))[inner].mean()
    assert out.validity[inner].max() < 0.05
    far = (cv2.dilate(np.uint8(found > 0), np.ones((3, 3))) == 0) & (chart.mirrored(found) == 0)
    mouth = region_texture(model, "mouth_interior", chart) > 0.2
    for same in (far, lips, mouth):
        np.testing.assert_allclose(out.rgb[same], texture.rgb[same], atol=1e-6)


@pytest.fixture(scope="module")
def portrait(model, area):
    """A drawn bearded face: (picture, its Track, the beard on the head (V,), the albedo (V, 3))."""
    shared, frame = known_face(model, 0)
    frame = replace(frame, expression=np.zeros(model.expression_count))
    on_head = samples(np.float32(area), uv_to_pixels(model.uv, LARGE) - 0.5)
    albedo = model.albedo(shared.albedo) * (1 - 0.5 * on_head[:, None])
    track = track_of(model, shared, [frame], 480, [true_landmarks(model, shared, frame, 480)])
    return draw(model, shared, frame, 480, albedo=albedo), track, on_head, albedo


def test_the_light_is_found_without_the_beard(model, area, portrait):
    """Drawn under a known light, of which a fit would take the beard for shade; and so is the texture's chin as dark as
    the beard, not bleached."""
    image, true, on_head, albedo = portrait
    shared, frame = known_face(model, 0)
    normals = vertex_normals(model.shape(shared.identity), model.triangles)
    chin = (on_head > 0.9) & (np.abs(model.mean[:, 0]) < 20)
    cheek = (model.regions["face"] > 0.9) & (on_head == 0) & (np.abs(np.abs(model.mean[:, 0]) - 35) < 8)
    cheek &= np.abs(model.mean[:, 1] - 25) < 10

    def contrast(track):
        bright = shade(normals @ frame.rotation.T, track.light[0]).mean(axis=1)
        return np.log(np.median(bright[chin]) / np.median(bright[cheek]))

    start = replace(true, light=ambient_light()[None].astype(np.float32))
    with_beard = relit(model, image, start, np.ones(len(on_head)))
    without = relit(model, image, start, 1 - on_head)
    assert abs(contrast(without) - contrast(true)) < 0.4 * abs(contrast(with_beard) - contrast(true))

    lifter = Lifter(model, LARGE)
    dark = lambda t: np.log(np.median(t.rgb[lower]) / np.median(t.rgb[upper]))
    lower = (area & (region_texture(model, "face", lifter.atlas) > 0.9)) & (lifter.neutral(image, true).validity > 0.9)
    upper = (lifter.neutral(image, true).validity > 0.9) & (skin_weight(model, lifter.atlas) > 0.9) & ~area
    ideal = dark(Texture(np.float32(weight_texture(model, albedo.mean(axis=1), lifter.atlas))[..., None], None))
    bleached, kept = lifter.neutral(image, with_beard), lifter.neutral(image, without, apart=np.float32(area))
    assert abs(dark(kept) - ideal) < 0.5 * abs(dark(bleached) - ideal)


def test_a_photos_beard_is_kept_or_taken_off(model, portrait):
    image, track, on_head, _ = portrait
    kept, off = (target_from_photo(model, image, track, LARGE, beard=beard) for beard in MODES)
    sure = (on_head > 0.9) & (np.abs(model.mean[:, 0]) < 30)
    assert kept.beard[sure].mean() > 0.9 and kept.beard[model.mean[:, 1] < -5].max() == 0 and off.beard is None
    chin = lambda face: np.median(samples(face.texture.rgb, uv_to_pixels(model.uv[sure], LARGE) - 0.5))
    assert chin(kept) < 0.7 * chin(off)
    assert target_from_photo(model, draw(model, *known_face(model, 0), 480), track, LARGE).beard is None
