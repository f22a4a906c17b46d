"""Where a face sits on another head: against known displacements, and on rendered people."""
from dataclasses import replace

import numpy as np
import pytest

from compositing.key_frames import spread_frames
from compositing.retarget import render
from compositing.seat import Seat, fitted_seat, reseated, seat_on
from compositing.virtual import virtual_face
from facemodel.camera import axis_angle, project, rotation_matrix, to_camera
from facemodel.light import ambient_light
from fitting.detection import ANCHORS, FaceDetector
from fitting.parameters import Frame, Shared
from tests import synthetic

SIZE, FOCAL = 400, 900.0


def test_a_face_sits_on_the_head_whose_pose_it_takes(model):
    """A head's own face sits where it is; a face that is larger, tilted and elsewhere comes back to it."""
    rng = np.random.default_rng(0)
    head = rng.normal(size=model.identity_count)
    own = seat_on(model, head, head)
    vertices = model.shape(head)
    np.testing.assert_allclose(own(vertices), vertices, atol=1e-3)
    anchors = model.landmarks[ANCHORS]
    for other in rng.normal(size=(3, model.identity_count)):
        seat = seat_on(model, other, head)
        face = model.shape(other)
        gap = lambda placed: np.linalg.norm((placed - vertices)[anchors], axis=1)
        assert (gap(seat(face)) ** 2).sum() < (gap(face) ** 2).sum()
        for scale in (0.98, 1.02):                                    # no other size would do better
            worse = replace(seat, scale=seat.scale * scale)
            assert (gap(worse(face)) ** 2).sum() > (gap(seat(face)) ** 2).sum()


def test_a_misplaced_seat_comes_back():
    """A face moved, resized and turned a little: its turn and its landmarks' differences in the plane bring it back."""
    rng = np.random.default_rng(2)
    points = rng.normal(0, 30, (68, 3)) * [1, 1, 0.5]
    for angle in (0.0, 1.0, 3.0):
        turn = np.radians([angle, -angle, 0.5 * angle])
        wrong = Seat(1.03, rotation_matrix(turn), np.array([2.0, -3.0, 0.0]))
        at = wrong(points).astype(np.float64)
        back = reseated(wrong, at, (at - points) * [1, 1, 0], turn)
        gap = lambda seat: np.linalg.norm((seat(points) - points)[:, :2], axis=1).mean()
        np.testing.assert_allclose(back.rotation, np.eye(3), atol=1e-12)
        assert gap(back) < 0.002 * gap(wrong)


def source_of(model, face, turns):
    """Track of a person without expression, as if fitted without error, and its pictures, by frame."""
    shared = Shared(face.identity, np.zeros(model.albedo_count), FOCAL)
    frames = [Frame(np.zeros(model.expression_count), rotation_matrix(np.array(turn)), np.array([0.0, 0, 560]),
                    ambient_light(0.8)) for turn in turns]
    centre, pictures, marks = np.float32([SIZE / 2, SIZE / 2]), {}, []
    for t, one in enumerate(frames):
        drawn = render(model, face.identity, face.texture.rgb, one.expression, one.rotation, one.translation, one.light,
                       FOCAL, centre, (SIZE, SIZE))
        picture = np.full((SIZE, SIZE, 3), 120, np.uint8)
        left, top, right, bottom = drawn.window
        picture[top:bottom, left:right][drawn.mask] = np.round(drawn.rgb[drawn.mask] * 255)
        pictures[t] = picture
        camera = to_camera(model.shape(face.identity)[model.landmarks], one.rotation, one.translation)
        marks.append(project(camera, FOCAL, centre))
    return synthetic.track_of(model, shared, frames, SIZE, marks), pictures


def test_a_face_that_was_fitted_too_large_and_low_is_seated_where_it_belongs(model):
    """The same person, but the source's fit has a head that is smaller and higher than what its pictures show."""
    face = virtual_face(model, 7, size=256)
    track, pictures = source_of(model, face, [[0, 0, 0], [0.1, 0.2, 0], [0, -0.25, 0.05]])

    class Misfitted:
        """The model, with a source whose fitted surface is 4 % too small and 3 mm too high."""

        def __getattr__(self, name):
            return getattr(model, name)

        def shape(self, identity, expression=None, rows=None):
            true = np.array_equal(identity, face.identity)
            return model.shape(face.identity, expression) if true else model.shape(face.identity) * 0.96 - [0, 3, 0]

    wrong = replace(track, identity=face.identity + np.float32(1))
    own = model.shape(face.identity)
    gap = lambda seat: np.abs((seat(own) - own)[model.landmarks[17:], :2]).mean()
    plain = gap(seat_on(Misfitted(), face.identity, wrong.identity))
    seat = fitted_seat(Misfitted(), face, wrong.expression, wrong, pictures, FaceDetector())
    assert plain > 2 and gap(seat) < 0.3 * plain


@pytest.mark.parametrize(("wrong", "least", "most"), [(4.0, 2.0, 4.0), (0.5, 0.0, 0.8), (9.0, 3.5, 4.5)])
def test_a_head_that_was_fitted_too_far_down_does_not_tilt_the_face(model, wrong, least, most):
    """The same person, whose fit is tilted against what its pictures show; what nobody sees is left as it is, no more
    than MOST taken back."""
    face = virtual_face(model, 7, size=256)
    track, pictures = source_of(model, face, [[0, 0, 0], [0.1, 0.2, 0], [0, -0.25, 0.05]])
    tilt = rotation_matrix(np.radians([wrong, 0, 0]))
    tilted = replace(track, rotation=np.float32([axis_angle(rotation_matrix(r) @ tilt) for r in track.rotation]))
    seat = fitted_seat(model, face, track.expression, tilted, pictures, FaceDetector())
    left = np.degrees(np.linalg.norm(axis_angle(tilt @ seat.rotation)))
    assert wrong - most < left < wrong - least + 0.3


def test_a_face_on_its_own_head_is_left_as_it_is(model):
    face = virtual_face(model, 3, size=256)
    track, pictures = source_of(model, face, [[0, 0, 0], [0, 0.2, 0]])
    seat = fitted_seat(model, face, track.expression, track, pictures, FaceDetector())
    own = model.shape(face.identity)
    assert np.abs(seat(own) - own)[model.landmarks].max() < 0.3


def test_where_no_landmarks_are_known_the_seat_is_that_of_the_heads(model):
    face = virtual_face(model, 3, size=256)
    track, pictures = source_of(model, face, [[0, 0, 0], [0, 0.2, 0]])
    unknown = replace(track, landmarks=np.zeros_like(track.landmarks))
    seat, plain = fitted_seat(model, face, track.expression, unknown, pictures, FaceDetector()), seat_on(
        model, face.identity, track.identity)
    np.testing.assert_array_equal(seat.rotation, plain.rotation)
    np.testing.assert_array_equal(seat.translation, plain.translation)


def test_frames_are_spread_over_the_trusted_ones(model):
    face = virtual_face(model, 3, size=256)
    track, _ = source_of(model, face, [[0, 0, 0], [0, 0.2, 0]])
    assert spread_frames(track).tolist() == [0, 1]
    long = replace(track, status=np.array(["ok"] * 40 + ["lost"] * 60), rotation=np.zeros((100, 3), np.float32))
    assert spread_frames(long, 3).tolist() == [10, 20, 29]
    turned = replace(long, rotation=np.full((100, 3), 0.9, np.float32))
    assert spread_frames(turned).size == 0
