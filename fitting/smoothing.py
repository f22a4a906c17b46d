"""Smoothing that knows the whole clip: pose and light lose their frame-to-frame noise, expressions are left alone.

A Savitzky-Golay filter is symmetric in time, so nothing lags; it is applied within runs of trusted frames only, so
nothing leaks across a loss. Blinks and plosives live in the expression and stay as they were tracked.
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import savgol_filter
from scipy.spatial.transform import Rotation

ROTATION_WINDOW, TRANSLATION_WINDOW, DEPTH_WINDOW = 5, 5, 9     # frames; quadratic in the window
LIGHT_SIGMA = 4.0                                               # frames


def runs(mask):
    """Slices of consecutive True in (F,) bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(mask, int), [0]])))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2])]


def _filter(values, window):
    return savgol_filter(values, window, 2, axis=0) if len(values) >= window else values


def smooth_track(track):
    """A Track with smoothed rotation, translation and light; frames that are not 'ok' keep theirs."""
    rotation, translation, light = track.rotation.copy(), track.translation.copy(), track.light.copy()
    for run in runs(track.status == "ok"):
        turns = Rotation.from_rotvec(track.rotation[run].astype(np.float64))
        mean = turns.mean()
        away = _filter((mean.inv() * turns).as_rotvec(), ROTATION_WINDOW)
        rotation[run] = (mean * Rotation.from_rotvec(away)).as_rotvec()
        place = track.translation[run].astype(np.float64)
        # what is seen is the direction x / z, y / z: it is smoothed less than the depth
        seen = _filter(place[:, :2] / place[:, 2:], TRANSLATION_WINDOW)
        depth = _filter(place[:, 2:], DEPTH_WINDOW)
        translation[run] = np.concatenate([seen * depth, depth], axis=1)
        light[run] = gaussian_filter1d(track.light[run].astype(np.float64), LIGHT_SIGMA, axis=0, mode="nearest")
    return replace(track, rotation=rotation, translation=translation, light=light)
