"""Lifting, evening out and completing textures."""
from dataclasses import replace

import numpy as np
import pytest

from facemodel.atlas import build_atlas, to_texture
from facemodel.light import sh_basis
from facemodel.mesh import vertex_normals
from fitting.texture import ResidualLight, albedo_texture, bare_lips, extract, fill, pose, pull_push, skin_weight
from tests.synthetic import SIZE, draw, known_face


@pytest.fixture(scope="module")
def atlas(model):
    return build_atlas(model, 256)


def test_extract_gives_the_albedo_back(model, atlas):
    shared, frame = known_face(model, 0)
    posed = pose(model, model.shape(shared.identity, frame.expression), frame.rotation, frame.translation, shared.focal,
                 (SIZE / 2, SIZE / 2))
    texture, validity = extract(draw(model, shared, frame), posed, frame.light, model, atlas)
    truth = albedo_texture(model, shared.albedo, atlas)
    seen = validity > 0.9
    assert seen.sum() > 10_000
    assert np.abs(texture - truth)[seen].mean() < 0.01


def test_residual_light_is_smooth_light_and_nothing_else(model, atlas):
    normals = vertex_normals(model.mean, model.triangles)
    light = np.zeros(9)
    light[[1, 2, 3, 6]] = -0.1, -0.2, 0.15, 0.1
    log_shade = sh_basis(to_texture(normals, model.triangles, atlas)) @ light
    shade = np.exp(np.where(atlas.mask, log_shade, 0))[..., None].astype(np.float32)
    weight = skin_weight(model, atlas)
    flat = np.full((256, 256, 3), [0.6, 0.45, 0.4], np.float32)
    spots = flat * (1 - 0.3 * (np.indices((256, 256)).sum(axis=0) % 7 == 0))[..., None].astype(np.float32)
    skin = weight > 0.5
    spread = lambda t: (np.log(t.mean(axis=2)) - np.log(spots.mean(axis=2)))[skin].std()
    residual = ResidualLight(model, atlas)
    out = spots * shade * residual.gain(spots * shade, weight, flat)
    assert spread(out) < 0.15 * spread(spots * shade)
    assert np.abs(residual.gain(spots, weight, flat) - 1)[skin].max() < 0.03
    np.testing.assert_allclose(out[..., 0] / out[..., 2], (spots * shade)[..., 0] / (spots * shade)[..., 2], rtol=1e-5)
    tinted = 0.8 * spots * shade * np.float32([1.1, 1, 0.9])
    even = tinted * residual.gain(tinted, weight, spots, brightness=True)
    assert np.abs(even / spots - 1)[skin].mean() < 0.02


def test_fill_keeps_what_was_seen_and_mirrors_the_rest(model, atlas):
    texture = albedo_texture(model, None, atlas)
    texture = texture * (1 + 0.1 * np.sin(np.arange(256) / 9))[:, None, None].astype(np.float32)
    left = np.zeros((256, 256), np.float32)
    left[:, :150] = 1
    fallback = np.full_like(texture, 0.5)
    out = fill(texture, left, model, atlas, fallback)
    face = skin_weight(model, atlas) > 0.9
    np.testing.assert_allclose(out[:, :140][face[:, :140]], texture[:, :140][face[:, :140]], atol=1e-5)
    unseen = np.s_[90:200, 175:230]
    error = lambda t: np.abs(t - texture)[unseen][face[unseen]].mean()
    assert error(out) < 0.5 * error(fallback)


def test_fill_mirrors_the_face_and_not_the_chart(model, lopsided):
    """Spots that both halves of a face have, on a chart whose halves are no mirror images."""
    atlas = build_atlas(lopsided, 512)
    x, y, z = np.moveaxis(to_texture(model.mean, model.triangles, atlas), -1, 0)
    truth = np.float32(0.5 + 0.2 * np.sin(np.abs(x)) * np.sin(y))[..., None] * np.float32([1, 0.8, 0.7])
    out = fill(truth, np.float32(x > -5), lopsided, atlas, np.full_like(truth, 0.5))
    unseen = (x < -15) & (skin_weight(lopsided, atlas) > 0.9)
    assert unseen.sum() > 10_000
    assert np.abs(out - truth)[unseen].mean() < 0.1 * np.abs(0.5 - truth)[unseen].mean()


def test_values_are_carried_on(atlas):
    """A linear ramp known on its border is nearly that inside, and a constant is a constant, in small pictures too."""
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None, :, None].repeat(48, axis=0).repeat(3, axis=2)
    known = np.ones((48, 64), np.float32)
    known[10:38, 14:50] = 0
    assert np.abs(pull_push(ramp, known) - ramp).max() < 0.12
    even = np.full((5, 7, 2), 0.3, np.float32)
    np.testing.assert_allclose(pull_push(even, np.eye(5, 7, dtype=np.float32)), even, atol=1e-5)


def test_lips_are_what_is_red_of_their_region(model):
    region = model.regions["lips"] * (1 - model.regions["mouth_interior"])
    corner = region * (np.abs(model.mean[:, 0] - model.mean[region > 0.5, 0].mean()) > 22) > 0.5
    assert corner.sum() > 50
    albedo = np.full_like(model.albedo_mean, 0.6) * np.float32([1.0, 0.8, 0.7])
    plain = replace(model, albedo_mean=albedo)
    assert np.allclose(bare_lips(plain), region)                  # nothing tells them apart: the region
    albedo = np.where((region > 0)[:, None] & ~corner[:, None], albedo * np.float32([1.0, 0.7, 0.9]), albedo)
    found = bare_lips(replace(model, albedo_mean=albedo))
    assert np.allclose(found[~corner], region[~corner]) and np.all(found[corner] == 0)


def test_the_own_model_has_skin_in_its_region_of_lips(model):
    """A source's lipstick glowed beside the mouth's corners as long as the region was taken for lips."""
    found = bare_lips(model)
    x, y = model.mean[model.landmarks[48:60], :2].T                # the outer lips' contour
    aside = np.abs(model.mean[:, 0] - x.mean()) > np.ptp(x) / 2 + 2
    assert model.regions["lips"][aside].max() > 0.9 > 0.2 > found[aside].max()
    middle = (model.regions["lips"] > 0.9) & (model.regions["mouth_interior"] < 0.1)
    middle &= np.linalg.norm(model.mean - model.mean[model.landmarks[57]], axis=1) < 10
    assert middle.sum() > 50 and found[middle].min() > 0.8
