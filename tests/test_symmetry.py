"""Left and right exchanged."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from facemodel.atlas import build_atlas, to_texture
from facemodel.camera import rotation_matrix
from facemodel.symmetry import INNER, MIRROR, chart_is_symmetric, mirror_image, mirror_plane, mirrored_identity
from fitting.texture import region_texture


def test_landmarks_have_partners_on_the_other_side(model):
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(68))
    np.testing.assert_array_equal(INNER[INNER], np.arange(51))
    places = model.mean[model.landmarks]
    np.testing.assert_allclose(places[MIRROR] * [-1, 1, 1], places, atol=1.5)


def test_a_mirrored_head_is_the_mirror_image(model):
    identity = np.random.default_rng(3).normal(0, 1, model.identity_count)
    partner = cKDTree(model.mean).query(model.mean * np.float32([-1, 1, 1]))[1]
    matrix = mirrored_identity(model)
    image = model.shape(identity)[partner] * np.float32([-1, 1, 1])
    away = np.linalg.norm(model.shape(matrix @ identity) - image, axis=1)
    other = np.linalg.norm(model.shape(identity) - image, axis=1)
    assert away.max() < 0.05 and other.max() > 0.5
    np.testing.assert_allclose(matrix @ matrix, np.eye(len(matrix)), atol=0.02)


def partners(model):
    """Vertices of the embedded surface on the other side, and which have one; behind the ears a slit doubles them."""
    away, partner = cKDTree(model.mean).query(model.mean * np.float32([-1, 1, 1]))
    return partner, (away < 1e-3) & (np.abs(model.mean[:, 0]) > 0.5) & (model.regions["face"] > 0.5)


def away_from_mirror_images(model, atlas, shape, texture):
    """Millimetres from what a texture of positions (x, y, z) says to the mirror images of a shape's own: (S, S)."""
    return np.linalg.norm(texture - to_texture(shape, model.triangles, atlas) * np.float32([-1, 1, 1]), axis=2)


def test_the_mirror_plane_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    points, normal = rng.normal(0, 40, (60, 3)) + [3, -20, 9], np.array([0.9, -0.3, 0.2])
    normal /= np.linalg.norm(normal)
    exact = points - 2 * (points @ normal - 7)[:, None] * normal
    np.testing.assert_allclose(mirror_image(points, (normal, 7)), exact)
    found, distance = mirror_plane(points, exact)
    assert np.sign(found[0]) * distance == pytest.approx(7)
    np.testing.assert_allclose(np.sign(found[0]) * found, normal, atol=1e-9)
    noisy = exact + rng.normal(0, 8, exact.shape)

    def misfit(x):
        return np.square(mirror_image(points, (x[:3] / np.linalg.norm(x[:3]), x[3])) - noisy).sum()

    best = min(minimize(misfit, [*start, 0.0]).fun for start in np.eye(3))
    assert misfit([*(plane := mirror_plane(points, noisy))[0], plane[1]]) == pytest.approx(best, rel=1e-6)


def test_the_embedded_chart_is_mirrored_by_its_columns(model):
    assert chart_is_symmetric(model) and model.mirrored_uv is None
    atlas, rng = build_atlas(model, 128), np.random.default_rng(0)
    assert atlas.opposite is None
    for shape in ((128, 128), (128, 128, 3)):
        texture = rng.random(shape, np.float32)
        np.testing.assert_array_equal(atlas.mirrored(texture), texture[:, ::-1])
    texture = to_texture(model.mean, model.triangles, atlas)
    away = away_from_mirror_images(model, atlas, model.mean, atlas.mirrored(texture))
    assert away[atlas.mask & atlas.mask[:, ::-1]].max() < 1e-2


def test_on_a_lopsided_chart_texels_find_their_mirror_images(model, lopsided):
    """The inside of the mouth too, which on the mean face lies folded between the lips."""
    assert not chart_is_symmetric(lopsided)
    partner, known = partners(model)
    texels = 512 * np.linalg.norm(lopsided.mirrored_uv - lopsided.uv[partner], axis=1)[known]
    assert known.sum() > 10_000 and np.median(texels) < 0.02 and np.percentile(texels, 95) < 0.1
    atlas = build_atlas(lopsided, 512)
    opened = np.zeros(model.expression_count, np.float32)
    opened[model.expression_names.index("jawOpen")] = 1
    for shape in (model.mean, model.shape(None, opened)):
        texture = np.where(atlas.mask[..., None], to_texture(shape, model.triangles, atlas), 0)
        for name, median, most in (("face", 0.03, 0.1), ("eyebrows", 0.03, 0.1), ("lips", 0.05, 0.3),
                                   ("mouth_interior", 0.3, 2.0), ("eyes", 0.05, 0.2)):
            inside = atlas.mask & (region_texture(model, name, atlas) > 0.5)
            found, flipped = (away_from_mirror_images(model, atlas, shape, t)[inside]
                              for t in (atlas.mirrored(texture), texture[:, ::-1]))
            assert np.median(found) < median and np.percentile(found, 95) < most, name
            assert np.median(found) < 0.2 * np.median(flipped), name


def test_heads_that_lie_aslant_have_the_same_mirror_images(lopsided):
    """Files say which way is up, not where the plane of symmetry lies."""
    turned = lopsided.control_mean @ rotation_matrix(np.array([0.05, 0.14, 0.03])).T + [6, -4, 3]
    aslant = replace(lopsided, control_mean=turned.astype(np.float32))
    texels = 512 * np.linalg.norm(aslant.mirrored_uv - lopsided.mirrored_uv, axis=1)[lopsided.regions["face"] > 0.5]
    assert np.median(texels) < 0.02 and np.percentile(texels, 99) < 0.5
    wrong = np.random.default_rng(0).choice(np.flatnonzero(lopsided.regions["face"] > 0.5), 3)
    landmarks = lopsided.landmarks.copy()
    landmarks[[20, 40, 50]] = wrong                            # a list's landmarks may be anywhere nearby
    other = replace(lopsided, landmarks=landmarks)
    texels = 512 * np.linalg.norm(other.mirrored_uv - lopsided.mirrored_uv, axis=1)[lopsided.regions["face"] > 0.5]
    assert np.percentile(texels, 99) < 0.5
