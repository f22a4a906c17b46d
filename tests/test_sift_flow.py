"""SIFT flow and the redrawn mouth: descriptors, messages and minima against slow oracles, and what users count on."""
import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest

from compositing import sift_flow as flow_module
from compositing.dense_sift import dense_sift
from compositing.mouth import MOUTH_FLOW, MouthRedrawer, MouthSettings, opening
from compositing.sift_flow import FlowSettings, energy, labelling_energy, minimise, sift_flow, unary_costs


def picture(seed=0, shape=(40, 60), sigma=1.2):
    """(H, W) float32 in [0, 1], smooth noise."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=shape).astype(np.float32), (0, 0), sigma)
    return (noise - noise.min()) / np.ptp(noise)


def slow_descriptor(grey, y, x, cell, quiet):
    """One descriptor, gradient by gradient."""
    dy, dx = np.gradient(grey.astype(np.float64))
    out = np.zeros((4, 4, 8))
    for i, j in np.ndindex(grey.shape):
        strength, angle = np.hypot(dx[i, j], dy[i, j]), np.arctan2(dy[i, j], dx[i, j]) % (2 * np.pi)
        for r, c, o in np.ndindex(out.shape):
            across = 1 - abs(i - y - (r - 1.5) * cell) / cell
            along = 1 - abs(j - x - (c - 1.5) * cell) / cell
            turn = abs(angle - o * np.pi / 4)
            turn = 1 - min(turn, 2 * np.pi - turn) / (np.pi / 4)
            if min(across, along, turn) > 0:
                out[r, c, o] += strength * across * along * turn
    length = np.linalg.norm(out)
    unit = np.minimum(out / length, 0.2)
    return (255 * unit / np.linalg.norm(unit) * length / (length + quiet)).ravel()


@pytest.mark.parametrize("cell", [2, 3])
def test_descriptor_equals_a_plain_loop(cell):
    grey = picture(1, (18, 20))
    fast = dense_sift(grey, cell, quiet=0.1)
    for y, x in ((0, 0), (9, 10), (17, 4)):
        np.testing.assert_allclose(fast[y, x], slow_descriptor(grey, y, x, cell, 0.1), atol=1e-2)


def test_descriptor_tells_places_apart_as_opencv_does():
    grey = picture(2, (80, 80), sigma=2)
    places = [(y, x) for y in range(20, 60, 6) for x in range(20, 60, 6)]
    # OpenCV blurs to sigma 1.6 first and weights by a Gaussian window; a keypoint of size 2 has cells of 3 pixels
    keypoints = [cv2.KeyPoint(float(x), float(y), 2, 0) for y, x in places]
    keypoints, theirs = cv2.SIFT_create().compute(np.uint8(grey * 255), keypoints)
    assert len(keypoints) == len(places)
    ours = dense_sift(cv2.GaussianBlur(grey, (0, 0), np.sqrt(1.6 ** 2 - 0.5 ** 2)))
    ours = np.stack([ours[int(round(k.pt[1])), int(round(k.pt[0]))] for k in keypoints])
    distance = lambda a: np.linalg.norm(a[:, None].astype(float) - a, axis=2)[np.triu_indices(len(a), 1)]
    assert np.corrcoef(distance(ours), distance(theirs))[0, 1] > 0.8


def test_descriptor_has_no_units_of_light_and_plain_surfaces_are_short():
    grey = picture(3)
    np.testing.assert_allclose(dense_sift(grey, quiet=0), dense_sift(0.3 * grey + 0.5, quiet=0), atol=0.1)
    noise = 1e-4 * picture(4)
    assert np.linalg.norm(dense_sift(noise), axis=2).max() < 10
    assert not dense_sift(np.ones((8, 8))).any()


@pytest.mark.parametrize("shift", [-7, -2, 0, 1, 6])
def test_message_equals_the_minimum_over_all_labels(shift):
    rng = np.random.default_rng(shift + 10)
    for n in (1, 3, 5, 9):
        h = rng.uniform(0, 5, n).astype(np.float32)
        alpha, d = np.float32(rng.uniform(0.1, 2)), np.float32(rng.uniform(0.5, 4))
        out = np.empty(n, np.float32)
        least = flow_module._message(h, shift, alpha, d, np.empty(n, np.float32), out)
        k = np.arange(n)
        slow = (h + np.minimum(alpha * np.abs(k - k[:, None] - shift), d)).min(axis=1)
        np.testing.assert_allclose(out, slow, rtol=1e-5)
        assert least == out.min()


def test_message_over_both_components_equals_the_minimum_over_all_flows():
    rng = np.random.default_rng(0)
    h, out = rng.uniform(0, 5, (3, 3)).astype(np.float32), np.empty((3, 3), np.float32)
    alpha, d, shift = np.float32(0.7), np.float32(1.1), np.array([1, -2])
    flow_module._message_2d(h, shift, alpha, d, np.empty((9, 3), np.float32), out)
    for b, a in np.ndindex(3, 3):
        slow = min(h[m, n] + min(alpha * abs(n - a - shift[0]), d) + min(alpha * abs(m - b - shift[1]), d)
                   for m, n in np.ndindex(3, 3))
        np.testing.assert_allclose(out[b, a], slow, rtol=1e-5)


def small_problem(seed, size=3):
    """Arguments of `minimise`: size x size pixels, 3 x 3 flows each, weak and strong links, windows apart or not."""
    rng = np.random.default_rng(seed)
    strength = (0.5, 1, 3)[seed % 3]
    settings = FlowSettings(alpha=strength * rng.uniform(0.1, 2), d=rng.uniform(0.5, 4), seed=seed)
    unary = rng.uniform(0, 4, (size, size, 3, 3)).astype(np.float32)
    centre = rng.integers(-1, 2, (size, size, 2)) if seed % 2 else np.zeros((size, size, 2))
    return unary, centre.astype(np.int32), settings


def least_energy_by_rows(unary, centre, settings):
    """The lowest energy of all flows, by dynamic programming over whole rows: exact."""
    height, width, n = unary.shape[:3]
    states = np.array(list(itertools.product(range(n * n), repeat=width)))
    pay = lambda x: np.minimum(settings.alpha * np.abs(x), settings.d)
    total, above = 0.0, None
    for i in range(height):
        row = np.stack([states % n, states // n], axis=-1) + centre[i]
        if above is not None:
            total = (total[:, None] + sum(pay(above[:, None, j, k] - row[:, j, k])
                                          for j in range(width) for k in range(2))).min(axis=0)
        total = total + sum(unary[i, j].ravel()[states[:, j]].astype(float) for j in range(width))
        total = total + pay(np.diff(row, axis=1)).sum(axis=(1, 2))
        above = row
    return total.min()


@pytest.mark.parametrize("seed", range(3))
def test_row_oracle_equals_brute_force(seed):
    unary, centre, settings = small_problem(seed, size=2)
    labels = np.stack(np.unravel_index(np.arange(9), (3, 3))[::-1], axis=-1) - 1
    brute = min(labelling_energy(unary, centre, centre + labels[list(chosen)].reshape(2, 2, 2), settings)
                for chosen in itertools.product(range(9), repeat=4))
    np.testing.assert_allclose(least_energy_by_rows(unary, centre, settings), brute)


def test_minimum_equals_brute_force_on_3_by_3():
    for seed in range(40):
        unary, centre, settings = small_problem(seed)
        flow = minimise(unary, centre, settings=settings)
        assert np.abs(flow - centre).max() <= 1
        np.testing.assert_allclose(labelling_energy(unary, centre, flow, settings),
                                   least_energy_by_rows(unary, centre, settings), rtol=1e-5, err_msg=f"seed {seed}")


def test_sift_flow_of_3_by_3_pixels_equals_brute_force():
    """The public function on descriptors: one level, windows of 3 x 3 flows around zero."""
    for seed in range(12):
        first, second = np.random.default_rng(seed).uniform(0, 60, (2, 3, 3, 128)).astype(np.float32)
        settings = FlowSettings(reach_top=1, reach=1, levels=1, alpha=80.0 * (1 + seed % 3), d=300.0 + 40 * seed)
        centre = np.zeros((3, 3, 2), np.int32)
        flow = sift_flow(first, second, settings=settings)
        unary = unary_costs(first, second, np.ones((3, 3), np.float32), None, centre, 1, settings)
        np.testing.assert_allclose(energy(flow, first, second, settings=settings),
                                   least_energy_by_rows(unary, centre, settings), rtol=1e-5)


def test_belief_propagation_is_exact_on_a_chain_of_independent_layers():
    rng = np.random.default_rng(0)
    for _ in range(10):
        layers = rng.uniform(0, 4, (2, 1, 6, 3)).astype(np.float32)
        unary = layers[1][..., None] + layers[0][..., None, :]
        centre = np.zeros((1, 6, 2), np.int32)
        flow = flow_module._propagate(unary, centre, np.float32(1), np.float32(1.5), 1)
        settings = FlowSettings(alpha=1.0, d=1.5)
        least = minimise(unary, centre, settings=settings)
        np.testing.assert_allclose(labelling_energy(unary, centre, flow, settings),
                                   labelling_energy(unary, centre, least, settings), rtol=1e-5)


def test_forests_have_all_edges_between_their_pixels_and_no_circle():
    for seed in range(5):
        order, parent = flow_module._induced_forest(9, 11, np.random.default_rng(seed))
        inside = parent.reshape(9, 11) >= 0
        edges = (inside[1:] & inside[:-1]).sum() + (inside[:, 1:] & inside[:, :-1]).sum()
        assert len(order) == inside.sum() == edges + (parent == 4).sum()
        assert len(order) > 0.55 * parent.size
        place = {p: k for k, p in enumerate(order)}
        assert all(parent[p] == 4 or place[flow_module._neighbour(p, parent[p], 9, 11)] > place[p] for p in order)


def slow_energy(flow, first, second, valid, previous, s):
    height, width = flow.shape[:2]
    total = 0.0
    for i, j in np.ndindex(height, width):
        u, v = flow[i, j].astype(int)
        cost = s.truncation
        if 0 <= i + v < height and 0 <= j + u < width:
            data = min(np.abs(first[i, j] - second[i + v, j + u]).sum(dtype=float), s.truncation)
            cost = valid[i + v, j + u] * data + (1 - valid[i + v, j + u]) * s.truncation
        total += cost + s.gamma * (abs(u) + abs(v))
        if previous is not None:
            total += s.memory * min(np.abs(flow[i, j] - previous[i, j]).sum(), s.memory_reach)
        for y, x in ((i + 1, j), (i, j + 1)):
            if y < height and x < width:
                total += sum(min(s.alpha * abs(int(a)), s.d) for a in flow[i, j] - flow[y, x])
    return total


def test_energy_is_equation_8():
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, 60, (2, 6, 7, 128)).astype(np.float32)
    flow, previous = rng.integers(-3, 4, (2, 6, 7, 2))
    valid = rng.uniform(0, 1, (6, 7)).astype(np.float32)
    settings = FlowSettings(d=1200)
    for recalled in (None, previous):
        np.testing.assert_allclose(energy(flow, first, second, valid, recalled, settings),
                                   slow_energy(flow, first, second, valid, recalled, settings), rtol=1e-5)


@pytest.mark.parametrize("shift", [(3, -1), (-6, 4)])
def test_a_translation_is_found(shift):
    large = picture(5, (80, 100))
    cut = lambda u, v: dense_sift(large)[20 - v:64 - v, 20 - u:84 - u]
    first, second = cut(0, 0), cut(*shift)
    flow = sift_flow(first, second)
    assert (flow == shift).all(axis=2)[8:-8, 8:-8].mean() > 0.98
    assert energy(flow, first, second) < 0.5 * energy(np.zeros_like(flow), first, second)


def test_energy_is_never_above_that_of_the_zero_flow():
    rng = np.random.default_rng(0)
    for seed in range(6):
        first, second = dense_sift(picture(seed, (24, 30))), dense_sift(picture(100 + seed, (24, 30)))
        previous = rng.integers(-6, 7, (24, 30, 2)) if seed % 2 else None
        settings = FlowSettings(memory=1000.0 * (seed % 3), sweeps=1, sweeps_top=1, work=0)
        zero = np.zeros((24, 30, 2), np.int32)
        flow = sift_flow(first, second, None, previous, settings)
        assert energy(flow, first, second, settings=settings) <= energy(zero, first, second, settings=settings)
    np.testing.assert_array_equal(sift_flow(first, first), 0)
    np.testing.assert_array_equal(sift_flow(first, second, np.zeros((24, 30))), 0)


def test_flow_is_the_same_each_time_and_odd_sizes_work():
    first, second = dense_sift(picture(0, (37, 51))), dense_sift(picture(1, (37, 51)))
    np.testing.assert_array_equal(sift_flow(first, second), sift_flow(first, second))


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="descriptors"):
        sift_flow(np.zeros((4, 4, 8)), np.zeros((4, 5, 8)))
    with pytest.raises(ValueError, match="valid and previous"):
        sift_flow(np.zeros((4, 4, 8)), np.zeros((4, 4, 8)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="flow must be"):
        energy(np.zeros((4, 5, 2)), np.zeros((4, 4, 8)), np.zeros((4, 4, 8)))
    with pytest.raises(ValueError, match="grey"):
        dense_sift(np.zeros((4, 4, 3)))


def mouth_mask():
    y, x = np.mgrid[:256, :256] + 0.5
    inside = 1 - ((x - 128) / 33) ** 2 - ((y - 190) / 17) ** 2
    return np.clip(4 * inside, 0, 1).astype(np.float32)


def chart(seed, size=256):
    """(size, size, 3): teeth and lips of sorts, sharp."""
    grey = picture(seed, (256, 256))[..., None] * np.float32([0.9, 0.7, 0.6]) + np.float32(0.05)
    return cv2.resize(grey, (size, size), interpolation=cv2.INTER_CUBIC)


def soft_copy(source, shift):
    """What a network might infer: the same mouth displaced, blurred, a tenth darker and of another colour."""
    moved = cv2.GaussianBlur(np.roll(source, shift[::-1], (0, 1)), (0, 0), 1.0)
    return moved * np.float32([0.8, 0.93, 1.04])


def test_mouth_is_redrawn_in_place_sharp_as_bright_and_in_the_sources_colours():
    source, ones = chart(0), np.ones((256, 256), np.float32)
    inferred, truth = soft_copy(source, (3, -2)), np.roll(source, (-2, 3), (0, 1)) * np.float32(0.9)
    out = MouthRedrawer(mouth_mask()).redraw(inferred, source, ones, opening=0.3)
    inside = mouth_mask() == 1
    error = lambda a: np.abs(a - truth)[inside].mean()
    assert error(out) < 0.4 * error(inferred)
    np.testing.assert_array_equal(out[mouth_mask() == 0], inferred[mouth_mask() == 0])


def test_textures_of_other_sizes_are_redrawn_in_the_same_place():
    source, ones = chart(0, 512), np.ones((512, 512), np.float32)
    inferred = cv2.resize(soft_copy(chart(0), (2, 1)), (1024, 1024), interpolation=cv2.INTER_CUBIC)
    truth = np.roll(chart(0, 1024), (4, 8), (0, 1)) * np.float32(0.9)
    out = MouthRedrawer(mouth_mask()).redraw(inferred, source, ones, opening=0.3)
    inside = cv2.resize(mouth_mask(), (1024, 1024)) == 1
    assert out.shape == inferred.shape
    assert np.abs(out - truth)[inside].mean() < 0.5 * np.abs(inferred - truth)[inside].mean()


def test_closed_and_unseen_mouths_stay_and_opening_is_gradual():
    source, inferred = chart(0), soft_copy(chart(0), (2, 1))
    redrawer, ones = MouthRedrawer(mouth_mask()), np.ones((256, 256), np.float32)
    assert redrawer.redraw(inferred, source, ones, opening=0.05) is inferred
    np.testing.assert_allclose(redrawer.redraw(inferred, source, 0 * ones, opening=0.3), inferred, atol=1e-6)
    change = [np.abs(MouthRedrawer(mouth_mask()).redraw(inferred, source, ones, o) - inferred).mean()
              for o in (0.101, 0.12, 0.15, 0.2)]
    assert 0 < change[0] < 0.01 * change[-1]
    assert change == sorted(change)


def test_flow_is_steadier_with_memory():
    """The inferred mouth trembles as a network's does; the flow shall not."""
    source, ones = chart(0), np.ones((256, 256), np.float32)
    tremble = {}
    for memory, keep in ((0.0, 0.0), (MOUTH_FLOW.memory, MouthSettings().keep)):
        redrawer = MouthRedrawer(mouth_mask(), MouthSettings(keep=keep), replace(MOUTH_FLOW, memory=memory))
        rng, flows = np.random.default_rng(0), []
        for _ in range(5):
            noise = cv2.GaussianBlur(rng.normal(0, 0.15, (256, 256, 3)).astype(np.float32), (0, 0), 1.5)
            redrawer.redraw(cv2.GaussianBlur(soft_copy(source, (1, 1)), (0, 0), 2) + noise, source, ones, 0.3)
            flows.append(redrawer.flow.copy())
        tremble[memory] = np.abs(np.diff(flows, axis=0)).mean()
    first, second = tremble.values()
    assert first > 0.02 and second < 0.5 * first


def test_a_tongue_stays_red_though_the_network_saw_teeth():
    """Brightness comes nearer to the inferred one, but not all the way; colour does not change at all."""
    ones = np.ones((256, 256), np.float32)
    source = chart(0) * np.float32([0.8, 0.3, 0.3])
    inferred = np.full((256, 256, 3), 0.8, np.float32)
    out = MouthRedrawer(mouth_mask()).redraw(inferred, source, ones, opening=0.3)[mouth_mask() == 1].mean(axis=0)
    given = source[mouth_mask() == 1].mean(axis=0)
    assert 1.1 < out.mean() / given.mean() < 1.3
    np.testing.assert_allclose(out / out.sum(), given / given.sum(), atol=0.01)


def test_reset_forgets():
    source, ones = chart(0), np.ones((256, 256), np.float32)
    used, fresh = MouthRedrawer(mouth_mask()), MouthRedrawer(mouth_mask())
    used.redraw(soft_copy(source, (-3, 2)), source, ones, 0.3)
    used.reset()
    inferred = soft_copy(source, (2, 1))
    np.testing.assert_array_equal(used.redraw(inferred, source, ones, 0.3), fresh.redraw(inferred, source, ones, 0.3))


def test_opening_of_landmarks():
    points = np.zeros((68, 3))
    points[[60, 64], 0] = 0, 50
    points[[65, 66, 67], 1] = 5, 10, 15
    assert opening(points, np.arange(68)) == pytest.approx(0.2)


def test_mouth_of_an_unfit_size_is_named():
    with pytest.raises(ValueError, match="empty"):
        MouthRedrawer(np.zeros((256, 256), np.float32))
    with pytest.raises(ValueError, match="multiple of 256"):
        MouthRedrawer(np.ones((300, 300), np.float32))
