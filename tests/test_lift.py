"""Textures of one person under one light."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from facemodel.atlas import to_texture
from facemodel.camera import rotation_matrix
from fitting.lift import Lifter
from fitting.texture import albedo_texture, skin_weight
from tests.synthetic import SIZE, draw, known_face, track_of


@pytest.fixture(scope="module")
def lifter(model):
    return Lifter(model, 256)


@pytest.fixture(scope="module")
def scene(model):
    """A drawn face with its fit, as a track of two equal frames."""
    shared, frame = known_face(model, 0)
    twice = lambda x: np.stack([x, x]).astype(np.float32)
    track = SimpleNamespace(identity=shared.identity, albedo=shared.albedo, focal=shared.focal,
                            expression=twice(frame.expression), rotation=twice(frame.axis_angle),
                            translation=twice(frame.translation), light=twice(frame.light),
                            principal_point=np.float32([SIZE / 2, SIZE / 2]))
    return draw(model, shared, frame), track


def test_a_frame_is_brought_under_the_neutral_ones_light(model, lifter, scene):
    """The second frame's light is off by a smooth factor and a tint, as a fit's is: the textures agree all the same."""
    image, track = scene
    neutral = lifter.neutral(image, track)
    track.light[1] *= np.float32([0.8, 0.85, 0.9])
    track.light[1, 1:4] += 0.05
    other = lifter.frame(image, track, 1, neutral)
    seen = (np.minimum(neutral.validity, other.validity) > 0.9) & (skin_weight(model, lifter.atlas) > 0.9)
    raw, _ = lifter._raw(image, track, 1)
    gap = lambda t: np.abs(t - neutral.rgb)[seen].mean()
    assert gap(other.rgb) < 0.01 and gap(other.rgb) < 0.12 * gap(raw)


def test_what_a_frame_does_not_show_is_as_in_the_neutral_texture(lifter, scene):
    image, track = scene
    neutral = lifter.neutral(image, track)
    frame = lifter.frame(image, track, 1, neutral)
    hidden = frame.validity == 0
    assert hidden.any()
    np.testing.assert_array_equal(frame.rgb[hidden], neutral.rgb[hidden])


def test_the_neutral_texture_is_the_albedo_up_to_what_looks_like_light(model, lifter, scene):
    image, track = scene
    neutral = lifter.neutral(image, track)
    truth = albedo_texture(model, track.albedo, lifter.atlas)
    seen = neutral.validity > 0.9
    ratio = np.log(np.maximum(neutral.rgb, 0.05) / np.maximum(truth, 0.05))[seen]
    assert np.abs(ratio - np.median(ratio)).mean() < 0.05


def test_the_far_half_s_edge_is_not_believed(model, lifter):
    """A head turned away before a dark ground: what its far half shows aslant gives way to the near half."""
    shared, frame = known_face(model, 0)
    turned = replace(frame, rotation=rotation_matrix(np.array([0, 0.55, 0])))
    track = track_of(model, shared, [turned])
    image = draw(model, shared, turned)
    raw, seen = lifter._raw(image, track, 0)[1], lifter.seen(image, track)[1]
    better = raw[:, ::-1] > raw + 0.3
    assert (seen <= raw + 1e-6).all() and seen[better & (raw < 0.5)].max() == 0
    np.testing.assert_array_equal(seen[raw >= raw[:, ::-1]], raw[raw >= raw[:, ::-1]])
    frontal = replace(frame, rotation=np.eye(3))
    track, image = track_of(model, shared, [frontal]), draw(model, shared, frontal)
    raw, seen = lifter._raw(image, track, 0)[1], lifter.seen(image, track)[1]
    assert np.abs(raw - seen)[skin_weight(model, lifter.atlas) > 0.5].mean() < 0.01


def test_what_both_halves_show_aslant_is_believed(model, lopsided, monkeypatch):
    """On a chart whose halves are no mirror images: neither half is seen better."""
    lifter = Lifter(lopsided, 512)
    x, y, _ = np.moveaxis(to_texture(model.mean, model.triangles, lifter.atlas), -1, 0)
    aslant = np.float32(0.25 + 0.2 * np.sin(np.abs(x) / 2) * np.sin(y / 2)) * lifter.atlas.mask
    monkeypatch.setattr(Lifter, "_raw", lambda self, *_: (np.full((512, 512, 3), 0.5, np.float32), aslant))
    seen = lifter.seen(None, None)[1]
    assert np.abs(seen - aslant)[skin_weight(lopsided, lifter.atlas) > 0.9].max() < 0.1 * np.ptp(aslant)
