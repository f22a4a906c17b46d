"""Where a face sits on another head: against scipy's interpolation, and on rendered people whose features differ."""
from dataclasses import replace

import numpy as np
from scipy.interpolate import RBFInterpolator

from compositing.retarget import TargetFace, render
from compositing.seat import MOST, NOISE, REACH, SEAT_LANDMARKS, fitted_seat, seat_on, smooth_shift, spread_frames
from compositing.virtual import virtual_face
from facemodel.camera import project, to_camera
from facemodel.light import ambient_light
from fitting.detection import FaceDetector
from fitting.trackfile import Track

SIZE, FOCAL = 400, 900.0


def test_a_face_sits_on_the_head_whose_pose_it_takes(model):
    """A head's own face sits where it is; a face that is larger, tilted and elsewhere comes back to it."""
    rng = np.random.default_rng(0)
    head = rng.normal(size=model.identity_count)
    own = seat_on(model, head, head)
    vertices = model.shape(head)
    np.testing.assert_allclose(own(vertices), vertices, atol=1e-3)
    anchors = model.landmarks[SEAT_LANDMARKS]
    for other in rng.normal(size=(3, model.identity_count)):
        seat = seat_on(model, other, head)
        face = model.shape(other)
        gap = lambda placed: np.linalg.norm((placed - vertices)[anchors], axis=1)
        assert (gap(seat(face)) ** 2).sum() < (gap(face) ** 2).sum()
        for scale in (0.98, 1.02):                                    # no other size would do better
            worse = replace(seat, scale=seat.scale * scale)
            assert (gap(worse(face)) ** 2).sum() > (gap(seat(face)) ** 2).sum()


def test_shifts_are_carried_on_as_scipy_would():
    rng = np.random.default_rng(1)
    at, shift, vertices = rng.normal(0, 40, (68, 3)), rng.normal(0, 2, (68, 3)), rng.normal(0, 60, (500, 3))
    known = RBFInterpolator(at[:, :2], shift, kernel="gaussian", epsilon=1 / (np.sqrt(2) * REACH), smoothing=NOISE,
                            degree=-1)
    np.testing.assert_allclose(smooth_shift(at, shift, vertices), known(vertices[:, :2]), atol=1e-9)
    far = vertices + [0, 400, 0]
    assert np.abs(smooth_shift(at, shift, far)).max() < 1e-6


def source_of(model, face, turns):
    """Track of a person without expression, as if fitted without error, and its pictures, by frame."""
    f32, count = np.float32, len(turns)
    rotation, translation = f32(turns), np.repeat(f32([[0, 0, 560]]), count, axis=0)
    light = np.repeat(f32(ambient_light(0.8))[None], count, axis=0)
    centre = f32([SIZE / 2, SIZE / 2])
    expression = np.zeros((count, model.expression_count), np.float32)
    pictures, marks = {}, []
    for t in range(count):
        drawn = render(model, face.identity, face.texture.rgb, expression[t], rotation[t], translation[t], light[t],
                       FOCAL, centre, (SIZE, SIZE))
        picture = np.full((SIZE, SIZE, 3), 120, np.uint8)
        left, top, right, bottom = drawn.window
        picture[top:bottom, left:right][drawn.mask] = np.round(drawn.rgb[drawn.mask] * 255)
        pictures[t] = picture
        camera = to_camera(model.shape(face.identity)[model.landmarks], rotation[t], translation[t])
        marks.append(project(camera, FOCAL, centre))
    return Track(model_name=model.name, model_hash=model.hash, image_size=np.array([SIZE, SIZE]),
                 frame_index=np.arange(count), status=np.array(["ok"] * count), identity=face.identity,
                 albedo=np.zeros(model.albedo_count, np.float32), expression=expression,
                 expression_names=np.array(model.expression_names), rotation=rotation, translation=translation,
                 focal=f32(FOCAL), principal_point=centre, light=light, landmarks=f32(marks),
                 photometric_error=np.zeros(count, np.float32), landmark_error=np.zeros(count, np.float32)), pictures


def test_features_come_nearer_and_brows_stay_more(model):
    """A target whose eyes stand 3 mm lower and wider: after the shift they lie nearer to the source's."""
    face = virtual_face(model, 7, size=256)
    track, pictures = source_of(model, face, [[0, 0, 0], [0.1, 0.2, 0], [0, -0.25, 0.05]])
    changed = np.zeros((model.vertex_count, 3), np.float32)
    eyes = model.landmarks[36:48]
    for mark in eyes:
        gap = np.linalg.norm(model.mean - model.mean[mark], axis=1)[:, None]
        changed = np.maximum(np.abs(changed), np.exp(-(gap / 12) ** 2) * 3)
    lowered = changed * [0, 1, 0]

    class Lowered:
        """The model, with a person whose eyes are low."""

        def __getattr__(self, name):
            return getattr(model, name)

        def shape(self, identity, expression=None, rows=None):
            whole = model.shape(identity, expression)
            return whole + lowered.astype(np.float32) if np.array_equal(identity, low.identity) else whole

    low = TargetFace(face.identity + np.float32(1e-6), face.expression, face.texture)
    seat = fitted_seat(Lowered(), low, track, pictures, np.array([0]), FaceDetector())
    plain = seat_on(Lowered(), low.identity, face.identity)
    own = model.shape(face.identity)
    gap = lambda placed, marks: np.abs((placed(Lowered().shape(low.identity)) - own)[model.landmarks[marks], 1]).mean()
    assert gap(seat, slice(36, 48)) < 0.6 * gap(plain, slice(36, 48))
    assert np.abs(seat.shift[:, :2]).max() < 1.2 * MOST and not seat.shift[:, 2].any()


def test_a_face_on_its_own_head_is_left_as_it_is(model):
    face = virtual_face(model, 3, size=256)
    track, pictures = source_of(model, face, [[0, 0, 0], [0, 0.2, 0]])
    seat = fitted_seat(model, face, track, pictures, np.array([0]), FaceDetector())
    assert np.abs(seat.shift).max() < 0.25


def test_frames_are_spread_over_the_trusted_ones(model):
    face = virtual_face(model, 3, size=256)
    track, _ = source_of(model, face, [[0, 0, 0], [0, 0.2, 0]])
    assert spread_frames(track).tolist() == [0, 1]
    long = replace(track, status=np.array(["ok"] * 40 + ["lost"] * 60), rotation=np.zeros((100, 3), np.float32))
    assert spread_frames(long, 3).tolist() == [10, 20, 29]
    turned = replace(long, rotation=np.full((100, 3), 0.9, np.float32))
    assert spread_frames(turned).size == 0
