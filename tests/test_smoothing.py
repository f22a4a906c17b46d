"""Smoothing removes noise, keeps motion without lag, and leaves losses and expressions alone."""
from dataclasses import replace

import numpy as np
import pytest

from fitting.smoothing import runs, smooth_track
from tests.test_trackfile import some_track

FRAMES = 60


@pytest.fixture(scope="module")
def clip(model):
    """A head that sways; noise on top."""
    t = np.arange(FRAMES)[:, None]
    rng = np.random.default_rng(0)
    rotation = 0.3 * np.sin(0.12 * t + np.array([0, 1, 2]))
    translation = np.array([20, 10, 700]) + 15 * np.sin(0.1 * t + np.array([0, 2, 4]))
    track = replace(some_track(model, FRAMES), rotation=rotation.astype(np.float32),
                    translation=translation.astype(np.float32))
    noisy = replace(track, rotation=(rotation + rng.normal(0, 0.005, (FRAMES, 3))).astype(np.float32),
                    translation=(translation + rng.normal(0, 0.5, (FRAMES, 3))).astype(np.float32))
    return track, noisy


def test_noise_falls_and_motion_stays(clip):
    truth, noisy = clip
    smooth = smooth_track(noisy)
    for name in ("rotation", "translation"):
        error = lambda a, n=name: np.abs(getattr(a, n) - getattr(truth, n))[5:-5].mean()
        assert error(smooth) < 0.8 * error(noisy)
    assert np.abs(smooth_track(truth).rotation - truth.rotation).max() < 0.003


def test_no_lag(clip):
    truth, noisy = clip
    smooth = smooth_track(noisy).rotation[:, 0]
    shifted = [np.mean((np.roll(smooth, k) - truth.rotation[:, 0])[6:-6] ** 2) for k in (-1, 0, 1)]
    assert np.argmin(shifted) == 1


def test_expressions_and_lost_frames_are_untouched(clip):
    _, noisy = clip
    status = noisy.status.astype("U16")
    status[20:25] = "lost"
    lost = replace(noisy, status=status)
    smooth = smooth_track(lost)
    np.testing.assert_array_equal(smooth.expression, lost.expression)
    np.testing.assert_array_equal(smooth.rotation[20:25], lost.rotation[20:25])
    # nothing leaks across the gap: the part before is smoothed as if the clip ended there
    before = smooth_track(replace(lost, status=np.where(np.arange(FRAMES) < 20, status, "lost")))
    np.testing.assert_array_equal(smooth.rotation[:20], before.rotation[:20])


def test_runs():
    assert runs(np.array([True, True, False, True])) == [slice(0, 2), slice(3, 4)]
    assert runs(np.zeros(3, bool)) == []
