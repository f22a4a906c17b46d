"""Jitter of known noise and lag of a known shift are found again."""
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from fitting.detection import eye_distance
from fitting.steadiness import FURTHEST_LAG, fixed_landmarks, lag, openings, steadiness
from tests.test_trackfile import some_track


def still_track(model, frames, translation=(0, 0, 700)):
    """A mean face that looks into the camera, with its own landmarks."""
    track = some_track(model, frames)
    f32 = np.float32
    track = replace(track, identity=0 * track.identity, expression=0 * track.expression, rotation=0 * track.rotation,
                    translation=np.broadcast_to(f32(translation), (frames, 3)).copy(), focal=f32(1000),
                    principal_point=f32([300, 250]))
    return replace(track, landmarks=fixed_landmarks(model, track).astype(f32))


def moved(model, track, **curves):
    """The track with expressions that follow curves (F,), and its landmarks still where they were."""
    expression = track.expression.copy()
    for name, curve in curves.items():
        expression[:, model.expression_names.index(name)] = curve
    return replace(track, expression=expression)


def test_a_still_head_without_noise(model):
    found = steadiness(model, still_track(model, 20))
    assert found.jitter < 1e-3 and found.still == 18 and np.isnan(found.lag)


@pytest.mark.parametrize("sigma", [0.1, 0.4])
def test_jitter_of_white_noise_is_its_standard_deviation(model, sigma):
    """Noise along one axis of the picture, in millimetres at 700 mm: the same shift for all points."""
    track = still_track(model, 400)
    size = eye_distance(track.landmarks[0].astype(float))
    track.translation[:, 0] += np.random.default_rng(0).normal(0, sigma, 400)
    points = fixed_landmarks(model, track)[:, 30, 0]                  # the tip of the nose
    found = steadiness(model, track)
    assert found.jitter == pytest.approx(100 * sigma * 1000 / 700 / size, rel=0.15)
    assert found.jitter == pytest.approx(100 * points.std() / size, rel=0.15) and found.still == 398


def test_a_head_that_moves_is_not_still(model):
    track = still_track(model, 40)
    track.translation[20:, 0] += 8.0 * np.arange(20)             # 9 % of the eye distance a frame
    track = replace(track, landmarks=fixed_landmarks(model, track).astype(np.float32))
    found = steadiness(model, track)
    assert found.still == 19 and found.jitter < 1e-3
    track.translation[:, 0] = 8.0 * np.arange(40)
    found = steadiness(model, track)
    assert found.still == 0 and np.isnan(found.jitter)


def test_frames_that_are_not_trusted_are_left_out(model):
    track = still_track(model, 40)
    status = np.full(40, "ok", "U16")
    status[20] = "lost"
    track.translation[20, 0] += 30
    found = steadiness(model, replace(track, status=status))
    assert found.jitter < 1e-3 and found.still == 18 + 17
    found = steadiness(model, replace(track, status=np.full(40, "lost")))
    assert np.isnan(found.jitter) and found.still == 0 and np.isnan(found.lag)
    status[np.arange(0, 40, 5)] = "lost"                          # runs of four frames are too short
    assert steadiness(model, replace(track, status=status)).still == 0


def speech(t, seed=0):
    """A smooth random curve in [0, 1] at real times t."""
    rng = np.random.default_rng(seed)
    waves = [a * np.sin(w * t + p) for a, w, p in zip(rng.uniform(0.5, 1, 6), rng.uniform(0.2, 1.0, 6),
                                                      rng.uniform(0, 6, 6))]
    return 0.5 + np.sum(waves, axis=0) / 12


@pytest.mark.parametrize("late", [0, 1, 0.5, -0.3, -2, 1.6])
def test_lag_of_a_shifted_curve(late):
    t = np.arange(120)
    assert lag(speech(t - late), speech(t)) == pytest.approx(late, abs=0.08)


def test_no_lag_is_known():
    t = np.arange(120.0)
    curve = speech(t)
    assert np.isnan(lag(curve, np.full(120, 0.3)))                # nothing to follow
    assert np.isnan(lag(np.full(120, 0.3), curve))                # nothing follows
    assert np.isnan(lag(curve[:3 * FURTHEST_LAG], curve[:3 * FURTHEST_LAG]))
    assert np.isnan(lag(np.random.default_rng(0).normal(size=120), curve))
    noise = gaussian_filter1d(np.random.default_rng(0).normal(size=130), 1.5)
    assert lag(noise[8:-2], noise[10:]) == pytest.approx(2, abs=0.05)
    assert np.isnan(lag(noise[4:-6], noise[10:]))                 # later than is looked for


def test_openings_by_hand():
    points = np.zeros((1, 68, 2))
    points[0, 45] = [200, 0]                                      # eyes 200 pixels apart
    points[0, [67, 66, 65], 1] = [10, 20, 30]
    points[0, [41, 40, 47, 46], 1] = [4, 8, 12, 16]
    np.testing.assert_allclose(openings(points), [[10, 5]])


@pytest.mark.parametrize("late", [0, 1, 0.5, -1.4])
def test_lag_of_a_track(model, late):
    """Mouth and lids of the model come `late` frames after those of the landmarks."""
    t = np.arange(90)
    lids = lambda u: dict.fromkeys(("eyeBlinkLeft", "eyeBlinkRight"), 0.7 * speech(u, 1))
    curves = lambda u: {"jawOpen": 0.6 * speech(u), **lids(u)}
    track = still_track(model, 90)
    spoken = fixed_landmarks(model, moved(model, track, **curves(t))).astype(np.float32)
    found = steadiness(model, replace(moved(model, track, **curves(t - late)), landmarks=spoken))
    assert found.lag == pytest.approx(late, abs=0.1)
