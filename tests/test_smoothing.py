"""Smoothing minimises what it says, keeps what pictures tell, and neither lags nor leaks."""
import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from fitting import smoothing
from fitting.smoothing import RunSmoother, marginal, runs, smooth_light, smooth_run, smooth_states

TEMPERATURE = smoothing.TEMPERATURE


def random_problem(seed, frames=9, n=3, spread=0.05):
    """States, positive definite Hessians and bends."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(frames, n, n))
    hessians = TEMPERATURE * (500 * root @ root.transpose(0, 2, 1) + 50 * np.eye(n))
    return np.cumsum(rng.normal(0, spread, (frames, n)), axis=0), hessians, rng.uniform(0.01, 0.05, n)


def second_differences(frames, n):
    """(F - 2) n by F n matrix."""
    return np.kron(np.diff(np.eye(frames), 2, axis=0), np.eye(n))


def energy(x, states, hessians, bend):
    """The module's energy, rho(s) = log(1 + s^2) / 2, and its gradient; x is flat."""
    away = x.reshape(states.shape) - states
    pull = np.einsum("fij,fj->fi", hessians, away) / TEMPERATURE
    differ = second_differences(*states.shape)
    s = (differ @ x).reshape(-1, states.shape[1]) / bend
    value = 0.5 * (away * pull).sum() + 0.5 * np.log1p(s ** 2).sum()
    return value, pull.ravel() + differ.T @ (s / (1 + s ** 2) / bend).ravel()


@pytest.mark.parametrize("seed", range(3))
def test_one_reweighting_is_a_dense_least_squares_problem(seed):
    states, hessians, bend = random_problem(seed)
    differ = second_differences(*states.shape)
    s = differ @ states.ravel() / np.tile(bend, len(states) - 2)
    weight = 1 / (1 + s ** 2) / np.tile(bend, len(states) - 2) ** 2
    data = block_diag(*hessians) / TEMPERATURE
    dense = np.linalg.solve(data + differ.T @ (weight[:, None] * differ), data @ states.ravel())
    found = smooth_states(states, hessians, bend, reweightings=1)
    assert np.abs(found - states).max() > 0.01
    np.testing.assert_allclose(found.ravel(), dense, atol=1e-6 * np.abs(dense).max())


@pytest.mark.parametrize("seed", range(3))
def test_reweighting_ends_in_a_minimum_of_the_robust_energy(seed):
    states, hessians, bend = random_problem(seed)
    found = smooth_states(states, hessians, bend, reweightings=300)
    arguments = (states, hessians, bend)
    start, slope = energy(states.ravel(), *arguments)
    value, left = energy(found.ravel(), *arguments)
    assert value < start and np.abs(left).max() < 1e-4 * np.abs(slope).max()
    best = minimize(energy, found.ravel() + 1e-3, arguments, jac=True, method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(found.ravel(), best.x, atol=1e-5)
    # the usual number of steps is nearly there
    assert energy(smooth_states(*arguments).ravel(), *arguments)[0] - value < 0.05 * (start - value)


@pytest.mark.parametrize("kept", [1, 4])
def test_marginal_is_block_elimination(kept):
    """The inverse's block is the marginal's inverse; and the others at their best leave just its quadratic form."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    hessian = root @ root.T
    found = marginal(hessian, kept)
    np.testing.assert_allclose(found, np.linalg.inv(np.linalg.inv(hessian)[:kept, :kept]), rtol=1e-6)
    x = rng.normal(size=kept)
    rest = minimize(lambda y: np.r_[x, y] @ hessian @ np.r_[x, y], np.zeros(6 - kept), tol=1e-12)
    assert x @ found @ x == pytest.approx(rest.fun, rel=1e-5)


def test_marginal_where_the_rest_is_not_held_at_all():
    hessian = np.zeros((4, 4))
    hessian[:2, :2] = [[2, 1], [1, 3]]
    np.testing.assert_allclose(marginal(hessian, 2), hessian[:2, :2])


def test_what_is_not_seen_becomes_steady_and_a_blink_stays():
    """Two units undo each other: the picture tells their difference, in which the eye blinks, not their sum."""
    frames, rng = 60, np.random.default_rng(0)
    blink = np.zeros(frames)
    blink[30:34] = [0.4, 0.8, 0.8, 0.3]
    noise = rng.normal(0, 0.1, frames)
    states = 0.4 + np.stack([blink + noise, noise], axis=1)
    hessians = np.tile(0.2 * np.array([[1.0, -1], [-1, 1]]) + 1e-5 * np.eye(2), (frames, 1, 1))
    smooth = smooth_states(states, hessians, np.full(2, smoothing.EXPRESSION_BEND))
    told, untold = smooth[:, 0] - smooth[:, 1], smooth.sum(axis=1) / 2
    np.testing.assert_allclose(told, blink, atol=0.08)
    assert told.argmax() in (31, 32)
    calm = np.r_[5:25, 39:55]
    assert np.diff(untold, 2)[calm].std() < 0.02 * np.diff(states.sum(axis=1) / 2, 2)[calm].std()


SURE = np.r_[0.1, 0.1, 20, 20, 20, 2000, 2000, 20]         # of two expressions, rotation, translation (depth least)


def some_run(frames, seed=0, noise=1.0):
    """Arguments of smooth_run: a head that sways and speaks, with as much noise as its Hessians say."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None]
    root = np.eye(8) + rng.normal(0, 0.3, (frames, 8, 8))
    hessians = np.sqrt(SURE[:, None] * SURE) * (root @ root.transpose(0, 2, 1)) + 4e-4 * np.eye(8)
    away = np.linalg.solve(np.linalg.cholesky(hessians / TEMPERATURE).transpose(0, 2, 1),
                           noise * rng.normal(size=(frames, 8, 1)))[..., 0]
    expression = 0.5 + 0.1 * np.sin(0.1 * t + [0, 1]) + away[:, :2]
    rotation = 0.3 * np.sin(0.07 * t + [0, 1, 2]) + away[:, 2:5]
    translation = [20, 10, 700] + 15 * np.sin(0.05 * t + [0, 2, 4]) + 1000 * away[:, 5:]
    return expression, rotation, translation, hessians


def test_noise_falls_and_motion_stays():
    truth, noisy = some_run(80, noise=0), some_run(80)
    smooth, kept = smooth_run(*noisy, (0, 1)), smooth_run(*truth, (0, 1))
    for clean, before, after, untouched in zip(truth, noisy, smooth, kept):
        error = lambda a, b=clean: np.sqrt(((a - b) ** 2).mean())
        assert error(after) < 0.7 * error(before)
        assert error(untouched) < 0.1 * error(before)


def test_time_runs_both_ways():
    """Frames in reverse order give the result in reverse order: nothing can lag."""
    noisy = some_run(50)
    there, back = smooth_run(*noisy, (0, 1)), smooth_run(*(a[::-1] for a in noisy), (0, 1))
    for a, b in zip(there, back):
        np.testing.assert_allclose(a, b[::-1], rtol=1e-5, atol=1e-7)


def test_a_turn_of_the_camera_turns_the_result():
    """No rotation is special, neither none at all nor half a turn away."""
    expression, rotation, translation, hessians = some_run(30)
    camera = Rotation.from_rotvec([0, 2.9, 0.4])
    whole = block_diag(np.eye(2), camera.as_matrix(), np.eye(3))
    turned = (camera * Rotation.from_rotvec(rotation)).as_rotvec()
    _, a, _ = smooth_run(expression, rotation, translation, hessians, (0, 1))
    _, b, _ = smooth_run(expression, turned, translation, whole @ hessians @ whole.T, (0, 1))
    between = lambda x, y: (Rotation.from_rotvec(x) * Rotation.from_rotvec(y).inv()).magnitude()
    back = (camera.inv() * Rotation.from_rotvec(b)).as_rotvec()
    # not quite the same: rho acts on each axis by itself
    assert between(back, a).max() < 0.4 * between(rotation, a).max()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 3.0)])
def test_expressions_keep_their_range(low, high):
    _, rotation, translation, _ = some_run(40)
    closed = np.where((np.arange(40) // 4) % 2, low, high)[:, None].repeat(2, axis=1)
    hessians = np.tile(np.diag(np.r_[1e-3, 1e-3, SURE[2:]]), (40, 1, 1))
    smooth, *_ = smooth_run(closed, rotation, translation, hessians, (low, high))
    free, *_ = smooth_run(closed, rotation, translation, hessians, (-99, 99))
    assert smooth.min() >= low and smooth.max() <= high
    assert free.min() < low and free.max() > high


@pytest.mark.parametrize("frames", [1, 2])
def test_runs_too_short_to_bend_are_left_alone(frames):
    before = some_run(frames)
    for a, b in zip(before, smooth_run(*before, (0, 1))):
        np.testing.assert_allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("frames", [239, 260, 261, 640])
def test_chunks_give_what_the_whole_run_gives(frames):
    noisy = some_run(frames)
    smoother, out, most, keys = RunSmoother((0, 1)), [], 0, []
    for t, arguments in enumerate(zip(*noisy)):
        for key, *smoothed in smoother.push(t, *arguments):
            keys.append(key)
            out.append(smoothed)
            assert key <= t
        most = max(most, len(smoother._frames))
    for key, *smoothed in smoother.flush():
        keys.append(key)
        out.append(smoothed)
    assert keys == list(range(frames))
    assert most <= smoothing.CHUNK + 2 * smoothing.MARGIN and (frames < 260 or most < frames)
    # steps that are not repeated to the end leave some difference; rotations are also seen from another mean
    for chunks, whole, before, most in zip(zip(*out), smooth_run(*noisy, (0, 1)), noisy, (0.1, 0.25, 0.2)):
        assert np.abs(np.array(chunks) - whole).max() < most * np.sqrt(((whole - before) ** 2).mean())


def test_a_flush_ends_a_run():
    """What comes after a flush is smoothed as if nothing had been before it."""
    first, second = some_run(30), some_run(25, seed=1)
    smoother, out = RunSmoother((0, 1)), []
    for part in (first, second):
        for t, arguments in enumerate(zip(*part)):
            out += smoother.push(t, *arguments)
        out += smoother.flush()
    assert [row[0] for row in out] == [*range(30), *range(25)]
    assert list(smoother.flush()) == []
    for part, rows in ((first, out[:30]), (second, out[30:])):
        for k, whole in enumerate(smooth_run(*part, (0, 1))):
            np.testing.assert_array_equal(np.array([row[k + 1] for row in rows]), whole)


def test_light_is_smoothed_within_runs():
    rng = np.random.default_rng(0)
    light, mask = rng.normal(size=(30, 9, 3)).astype(np.float32), np.arange(30) != 12
    smooth = smooth_light(light, mask)
    np.testing.assert_array_equal(smooth[12], light[12])
    alone = gaussian_filter1d(light[:12].astype(float), smoothing.LIGHT_SIGMA, axis=0, mode="nearest")
    np.testing.assert_allclose(smooth[:12], alone, rtol=1e-5, atol=1e-6)
    assert smooth[13:].std(axis=0).mean() < 0.5 * light[13:].std(axis=0).mean()


def test_runs():
    assert runs(np.array([True, True, False, True])) == [slice(0, 2), slice(3, 4)]
    assert runs(np.zeros(3, bool)) == []
