"""Renderings held still on moving skin: against what averaging must give in closed form."""
import cv2
import numpy as np
import pytest

from compositing.steady import SHARE, Steadier

SIZE, WINDOW = 160, (20, 16, 140, 144)
INSIDE = np.s_[24:-24, 24:-24]


def skin(seed=0):
    """A smooth texture that optical flow can follow: (SIZE + 40, SIZE + 40, 3) uint8."""
    noise = np.random.default_rng(seed).normal(size=(SIZE + 40, SIZE + 40))
    noise = cv2.GaussianBlur(noise, (0, 0), 3)
    grey = np.clip(128 + 40 * noise / noise.std(), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def window_of(picture):
    left, top, right, bottom = WINDOW
    return picture[top:bottom, left:right].astype(np.float32) / 255


MASK = np.ones((WINDOW[3] - WINDOW[1], WINDOW[2] - WINDOW[0]), bool)


def test_noise_falls_to_the_variance_of_an_exponential_mean():
    frame, rng, steadier = skin()[:SIZE, :SIZE], np.random.default_rng(1), Steadier()
    base, sigma = window_of(frame), 0.004
    errors = []
    for _ in range(30):
        noise = rng.normal(0, sigma, base.shape).astype(np.float32)
        out = steadier(frame, WINDOW, base + noise, MASK)
        errors.append((out - base)[INSIDE].var())
    assert errors[0] == pytest.approx(sigma ** 2, rel=0.05)
    assert np.mean(errors[10:]) == pytest.approx(sigma ** 2 * (1 - SHARE) / (1 + SHARE), rel=0.1)


def test_what_changes_no_more_than_the_source_is_left_alone():
    """A source that flickers by itself: a rendering that flickers as much stays, a stronger one comes down to it."""
    still, rng = skin()[:SIZE, :SIZE], np.random.default_rng(4)
    base, changes = window_of(still), {}
    for strength in (1.0, 2.0):
        steadier, before, sizes = Steadier(), None, []
        for _ in range(12):
            noise = rng.normal(0, 4, still.shape[:2])[..., None]
            frame = np.clip(still + noise, 0, 255).astype(np.uint8)
            rendering = base + strength * (window_of(frame) - base)
            out = steadier(frame, WINDOW, rendering, MASK)
            if before is not None:
                sizes.append([np.abs(out - before)[INSIDE].mean(), np.abs(out - rendering)[INSIDE].mean()])
            before = out
        changes[strength] = np.mean(sizes[3:], axis=0)
    assert changes[1.0][1] < 0.15 * changes[1.0][0]            # hardly mixed
    assert changes[2.0][0] == pytest.approx(changes[1.0][0], rel=0.25)


def test_what_moves_with_the_skin_stays_as_it_is():
    whole, steadier = skin(2), Steadier()
    for t in range(6):
        frame = whole[t:t + SIZE, 2 * t:2 * t + SIZE]
        rendering = 1 - window_of(frame)                       # another picture that moves alike
        out = steadier(frame, WINDOW, rendering, MASK)
        assert np.abs(out - rendering)[INSIDE].mean() < 0.004


def test_a_window_that_jumps_changes_nothing():
    frame, steadier = skin()[:SIZE, :SIZE], Steadier()
    steadier(frame, WINDOW, window_of(frame), MASK)
    moved = (24, 20, 140, 144)
    rendering = frame[20:144, 24:140].astype(np.float32) / 255
    assert np.abs(steadier(frame, moved, rendering, MASK[4:, 4:]) - rendering)[INSIDE].max() < 0.004


def test_a_change_and_what_was_not_seen_are_shown_at_once():
    frame, steadier = skin()[:SIZE, :SIZE], Steadier()
    base, unseen = window_of(frame), MASK.copy()
    unseen[:, 60:] = False
    steadier(frame, WINDOW, base, unseen)
    closed = base.copy()
    closed[30:60, 20:50] += 0.4                                # a lid falls
    closed[:, 80:] += 0.02                                     # hardly a change, but there was nothing
    closed = closed.clip(0, 1)
    out = steadier(frame, WINDOW, closed, MASK)
    assert np.abs(out - closed)[34:56, 24:46].max() < 1e-4 and (out == closed)[:, 80:].all()


def test_it_goes_on_from_its_state_and_forgets():
    whole, one = skin(3), Steadier()
    pictures = [whole[t:t + SIZE, :SIZE] for t in range(4)]
    for frame in pictures[:2]:
        one(frame, WINDOW, window_of(frame) * 0.9, MASK)
    two = Steadier()
    two.restore(one.state())
    for frame in pictures[2:]:
        assert (one(frame, WINDOW, window_of(frame), MASK) == two(frame, WINDOW, window_of(frame), MASK)).all()
    two.reset()
    anew = window_of(pictures[0])
    assert two.state() is None and (two(pictures[0], WINDOW, anew, MASK) == anew).all()
