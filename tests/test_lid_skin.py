"""Lids as they close: streaks that are drawn out give way to skin, and nothing else does."""
from dataclasses import replace

import numpy as np
import pytest

from compositing.gaze import eye_charts
from compositing.lid_skin import LidSkin, stretch
from compositing.lids import closed_further
from compositing.virtual import virtual_face
from facemodel.atlas import build_atlas
from fitting.lift import Texture
from fitting.texture import region_texture

SIZE = 512


@pytest.fixture(scope="module")
def face(model):
    """A face of one colour with a dark edge of lashes all around its eyes, wide open."""
    one = virtual_face(model, 3, size=SIZE)
    rgb = np.full((SIZE, SIZE, 3), 0.6, np.float32) * np.float32([1, 0.8, 0.7])
    rgb[region_texture(model, "eyelids", build_atlas(model, SIZE)) > 0.3] *= 0.3
    return replace(one, texture=Texture(rgb, np.ones((SIZE, SIZE), np.float32)))


def test_stretching_is_measured(model):
    shape = model.mean
    wide = shape * np.float32([3, 1, 1])
    flat = np.abs(np.cross(shape[model.triangles[:, 1]] - shape[model.triangles[:, 0]],
                           shape[model.triangles[:, 2]] - shape[model.triangles[:, 0]]))
    np.testing.assert_allclose(stretch(model, shape, 2 * shape), 4, rtol=1e-3)
    frontal = np.unique(model.triangles[flat[:, 2] > 0.999 * np.linalg.norm(flat, axis=1)])
    assert np.median(stretch(model, shape, wide)[frontal]) == pytest.approx(3, rel=0.02)


def test_a_closed_lid_is_skin_down_to_its_lashes(model, face):
    charts = eye_charts(model, SIZE)
    lids, shut = LidSkin(model, face, charts), closed_further(model, face.identity, face.expression, 1.0)
    covered = face.texture.rgb.copy()
    lids.cover(covered, model.shape(face.identity, shut))
    changed = np.abs(covered - face.texture.rgb).max(axis=2) > 0.1
    atlas = build_atlas(model, SIZE)
    assert changed.sum() > 300 and (region_texture(model, "eyelids", atlas)[changed] > 0).all()
    assert np.abs(covered[changed] - face.texture.rgb[10, 256]).mean() < np.abs(
        face.texture.rgb[changed] - face.texture.rgb[10, 256]).mean()
    rows = np.nonzero(changed)[0]
    for chart in charts:                                            # upper lids only, and not their edges
        assert np.median(rows) < chart.window[0].start + 5
    assert not (changed & (region_texture(model, "eyes", atlas) > 0.5)).any()


def test_open_eyes_are_left_alone(model, face):
    lids, texture = LidSkin(model, face, eye_charts(model, SIZE)), face.texture.rgb.copy()
    lids.cover(texture, model.shape(face.identity, face.expression))
    np.testing.assert_array_equal(texture, face.texture.rgb)
    half = closed_further(model, face.identity, face.expression, 0.7)
    lids.cover(texture, model.shape(face.identity, half))
    whole = face.texture.rgb.copy()
    lids.cover(whole, model.shape(face.identity, closed_further(model, face.identity, face.expression, 1.0)))
    gap = lambda a: np.abs(a - face.texture.rgb).sum()
    assert 0 < gap(texture) < gap(whole)
