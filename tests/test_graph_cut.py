"""The seam: minimum cuts against networkx and brute force, hard labels, the temporal term, windows and resets."""

import itertools

import networkx
import numpy as np
import pytest

from compositing import graph_cut
from compositing.graph_cut import SeamLabeller, cut_window, energy, spatial_weights, temporal_weights


def grid(height, width):
    """(E, 2) edges of a grid of height x width vertices, each square split by a diagonal."""
    index = np.arange(height * width).reshape(height, width)
    pairs = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:]), (index[:-1, :-1], index[1:, 1:])]
    return np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs])


def random_colours(rng, frames, count):
    """Two (F, V, 3) clips: a random picture each, and small changes from frame to frame."""
    return [
        np.clip(rng.uniform(0.2, 0.8, (1, count, 3)) + rng.normal(0, 0.1, (frames, count, 3)), 0, 1) for _ in range(2)
    ]


def random_case(seed, frames=4, height=5, width=6, cost="within", smoothness=2e-3, unary=0.0):
    """Arguments of `cut_window`: left column source, right column target, some more at random."""
    rng = np.random.default_rng(seed)
    count = height * width
    edges = grid(height, width)
    colours = random_colours(rng, frames, count)
    draw = rng.uniform(size=(frames, count))
    column = np.arange(count) % width
    hard_source = (column == 0) | (draw < 0.05)
    hard_target = ((column == width - 1) | (draw > 0.95)) & ~hard_source
    case = {
        "spatial": spatial_weights(*colours, edges, cost),
        "temporal": temporal_weights(*colours, smoothness),
        "edges": edges,
        "hard_source": hard_source,
        "hard_target": hard_target,
    }
    if unary:
        case["cost_source"], case["cost_target"] = rng.normal(0, unary, (2, frames, count))
    return case


def energy_of(labels, case):
    return energy(labels, **{key: value for key, value in case.items() if not key.startswith("hard")})


def networkx_energy(spatial, temporal, edges, hard_source, hard_target, cost_source=0, cost_target=0):
    """Lowest energy by another library, on the whole graph, with infinite terminals."""
    shape = hard_source.shape
    shift = min(np.min(cost_source), np.min(cost_target), 0)  # every vertex pays one of the two: a constant
    cost_source = np.broadcast_to(cost_source - shift, shape)
    cost_target = np.broadcast_to(cost_target - shift, shape)
    graph = networkx.DiGraph()
    for t, i in np.ndindex(shape):
        graph.add_edge("s", (t, i), capacity=np.inf if hard_source[t, i] else cost_target[t, i])
        graph.add_edge((t, i), "t", capacity=np.inf if hard_target[t, i] else cost_source[t, i])
        if hard_source[t, i] or hard_target[t, i]:  # the price of a given label cannot be a capacity: add it below
            graph.edges["s", (t, i)]["capacity"] = np.inf if hard_source[t, i] else 0
            graph.edges[(t, i), "t"]["capacity"] = np.inf if hard_target[t, i] else 0
        for j in edges[edges[:, 0] == i, 1]:
            weight = float(spatial[t, np.flatnonzero((edges == (i, j)).all(axis=1))[0]])
            graph.add_edge((t, i), (t, int(j)), capacity=weight)
            graph.add_edge((t, int(j)), (t, i), capacity=weight)
        if t + 1 < shape[0]:
            graph.add_edge((t, i), (t + 1, i), capacity=float(temporal[t, i]))
            graph.add_edge((t + 1, i), (t, i), capacity=float(temporal[t, i]))
    value = networkx.minimum_cut_value(graph, "s", "t")
    return value + cost_source[hard_source].sum() + cost_target[hard_target].sum() + shift * hard_source.size


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cost", graph_cut.COSTS)
@pytest.mark.parametrize("unary", [0.0, 0.3])
def test_networkx_finds_the_same_minimum(seed, cost, unary):
    case = random_case(seed, cost=cost, unary=unary)
    labels = cut_window(**case)
    assert labels.energy == energy_of(labels.target, case)
    assert labels.energy == pytest.approx(networkx_energy(**case), abs=1e-5)
    assert labels.target[case["hard_target"]].all()
    assert not labels.target[case["hard_source"]].any()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("unary", [0.0, 0.2])
def test_brute_force_finds_no_lower_labelling(seed, unary):
    case = random_case(seed, frames=3, height=2, width=4, unary=unary)
    free = ~(case["hard_source"] | case["hard_target"])
    assert free.sum() <= 12
    labels = cut_window(**case)
    trial = case["hard_target"].copy()
    energies = []
    for choice in itertools.product([False, True], repeat=free.sum()):
        trial[free] = choice
        energies.append(energy_of(trial, case))
    assert labels.energy == pytest.approx(min(energies), abs=1e-6)


def test_no_single_flip_is_lower_on_a_larger_case():
    case = random_case(0, frames=5, height=9, width=9, unary=0.1)
    labels = cut_window(**case)
    for t, i in np.argwhere(~(case["hard_source"] | case["hard_target"])):
        flipped = labels.target.copy()
        flipped[t, i] ^= True
        assert energy_of(flipped, case) >= labels.energy - 1e-6


def test_energy_by_hand():
    edges = np.array([[0, 1], [1, 2]])
    spatial, temporal = np.array([[1.0, 2.0], [4.0, 8.0]]), np.array([[16.0, 32.0, 64.0]])
    labels = np.array([[False, True, True], [False, False, True]])
    assert energy(labels, spatial, temporal, edges) == 1 + 8 + 32
    assert energy(labels, spatial, temporal, edges, 100.0, [0, 1000, 10000]) == 41 + 3 * 100 + 1000 + 2 * 10000


def test_weights_by_hand():
    source = np.array([[[0, 0, 0], [0.3, 0.4, 0]], [[0, 0, 0.5], [0.3, 0.4, 0]]])
    target = np.array([[[0, 0, 1], [0, 0, 0.9]], [[0, 0, 1], [0, 0, 0.4]]])
    edges = np.array([[0, 1]])
    np.testing.assert_allclose(spatial_weights(source, target, edges, "within")[0], [0.5 + 0.1], rtol=1e-6)
    at_one = np.sqrt(0.09 + 0.16 + 0.81)
    np.testing.assert_allclose(spatial_weights(source, target, edges, "between")[0], [1 + at_one], rtol=1e-6)
    expected = 0.01 * np.array([[1 / 0.6 + 1 / 0.1, 1 / 0.1 + 1 / 0.6]])
    np.testing.assert_allclose(temporal_weights(source, target, 0.01, 0.1), expected, rtol=1e-5)


def test_the_cut_follows_the_cheap_column():
    height, width, cheap = 4, 9, 5
    edges = grid(height, width)
    column = np.arange(height * width) % width
    spatial = np.where((column[edges[:, 0]] == cheap) & (column[edges[:, 1]] == cheap + 1), 0.01, 1.0)[None]
    labels = cut_window(spatial, np.empty((0, height * width)), edges, column == 0, column == width - 1)
    np.testing.assert_array_equal(labels.target[0], column > cheap)


@pytest.mark.parametrize("smoothness", [0.0, 2e-3])
def test_without_terminals_everything_is_target(smoothness):
    case = random_case(0, smoothness=smoothness)
    nothing = np.zeros_like(case["hard_source"])
    assert cut_window(**{**case, "hard_source": nothing, "hard_target": nothing}).target.all()


def test_one_terminal_alone_takes_what_is_linked_to_it():
    case = random_case(0)
    nothing = np.zeros_like(case["hard_source"])
    assert not cut_window(**{**case, "hard_target": nothing}).target.any()
    assert cut_window(**{**case, "hard_source": nothing}).target.all()
    everything = cut_window(**{**case, "hard_source": ~nothing, "hard_target": nothing})
    assert not everything.target.any() and everything.energy == 0


def test_unary_costs_choose_where_nothing_else_does():
    shape, edges = (1, 3), np.array([[0, 1], [1, 2]])
    nothing = np.zeros(shape, bool)
    labels = cut_window(np.zeros((1, 2)), np.empty((0, 3)), edges, nothing, nothing, [0, 0.5, 0], [0.1, 0.4, -0.1])
    np.testing.assert_array_equal(labels.target, [[False, True, True]])
    assert labels.energy == pytest.approx(0.4 - 0.1)


@pytest.mark.parametrize("cost", graph_cut.COSTS)
def test_more_smoothness_means_fewer_changes_over_time(cost):
    rng = np.random.default_rng(7)
    height, width, frames = 8, 10, 8
    edges, column = grid(height, width), np.arange(height * width) % width
    colours = random_colours(rng, frames, height * width)
    spatial, unit = spatial_weights(*colours, edges, cost), temporal_weights(*colours, 1.0)
    changes, weighted = [], []
    for smoothness in [0, 1e-3, 3e-3, 1e-2, 2e-2, 5e-2, 1.0]:
        target = cut_window(spatial, smoothness * unit, edges, column == 0, column == width - 1).target
        changed = target[1:] != target[:-1]
        changes.append(changed.sum())
        weighted.append(np.sum(unit, where=changed, dtype=np.float64))
    assert np.all(np.diff(changes) <= 0) and len(set(changes)) > 3 and changes[-1] == 0
    assert np.all(np.diff(weighted) <= 1e-6)  # this one holds for every case


def clip(seed, frames, height=5, width=7):
    rng = np.random.default_rng(seed)
    count = height * width
    column = np.arange(count) % width
    hard_source = (column == 0) | ((column == 1) & (rng.uniform(size=(frames, count)) < 0.3))
    hard_target = np.broadcast_to(column == width - 1, (frames, count))
    return grid(height, width), *random_colours(rng, frames, count), hard_source, hard_target


def stream(labeller, *columns, resets=()):
    """Push every frame and flush; also how many frames each push gave out."""
    given, counts = [], []
    for t, frame in enumerate(zip(*columns)):
        ready = labeller.push(*frame, reset=t in resets)
        given += ready
        counts.append(len(ready))
    return given + labeller.flush(), counts


@pytest.mark.parametrize(("window", "overlap"), [(9, 0), (9, 4), (9, 8), (20, 5)])
def test_a_window_as_long_as_the_clip_is_the_single_solve(window, overlap):
    edges, source, target, hard_source, hard_target = clip(1, 9)
    weights = spatial_weights(source, target, edges), temporal_weights(source, target)
    expected = cut_window(*weights, edges, hard_source, hard_target).target
    labeller = SeamLabeller(edges, window=window, overlap=overlap)
    labels, _ = stream(labeller, source, target, hard_source, hard_target)
    np.testing.assert_array_equal(labels, expected)
    assert np.any(expected[1:] != expected[:-1])


@pytest.mark.parametrize(("window", "overlap"), [(1, 0), (4, 0), (4, 1), (5, 4), (6, 3)])
def test_windows_give_every_frame_once_in_time_and_near_the_optimum(window, overlap):
    frames = 23
    edges, source, target, hard_source, hard_target = clip(2, frames)
    weights = spatial_weights(source, target, edges), temporal_weights(source, target)
    labeller = SeamLabeller(edges, window=window, overlap=overlap)
    labels, counts = stream(labeller, source, target, hard_source, hard_target)
    assert len(labels) == frames
    assert not np.any(np.array(labels) & hard_source) and np.all(np.array(labels)[hard_target])
    assert np.all(np.arange(1, frames + 1) - np.cumsum(counts) < window)
    best = cut_window(*weights, edges, hard_source, hard_target).energy
    assert best - 1e-5 <= energy(labels, *weights, edges) <= 1.1 * best


def test_emitted_labels_bind_the_next_window():
    """Each window's labels are the optimum given the last frame before it, recomputed here by hand."""
    frames, window, overlap = 11, 5, 2
    edges, source, target, hard_source, hard_target = clip(3, frames)
    spatial, temporal = spatial_weights(source, target, edges), temporal_weights(source, target)
    expected = np.empty((0, source.shape[1]), bool)
    while len(expected) < frames:
        start, stop = len(expected), min(len(expected) + window, frames)
        price = np.zeros((2, stop - start, source.shape[1]))
        if start:
            price[:, 0] = temporal[start - 1] * expected[-1], temporal[start - 1] * ~expected[-1]
        inside = slice(start, stop)
        cut = cut_window(
            spatial[inside], temporal[start : stop - 1], edges, hard_source[inside], hard_target[inside], *price
        )
        expected = np.concatenate([expected, cut.target[: window - overlap if stop < frames else window]])
    labels, _ = stream(SeamLabeller(edges, window=window, overlap=overlap), source, target, hard_source, hard_target)
    np.testing.assert_array_equal(labels, expected)


def test_what_the_caller_does_with_given_arrays_changes_nothing():
    edges, *columns = clip(4, 12)
    columns = [np.array(column) for column in columns]
    expected, _ = stream(SeamLabeller(edges, window=4, overlap=1), *columns)
    labeller, labels = SeamLabeller(edges, window=4, overlap=1), []
    buffers = [np.empty_like(column[0]) for column in columns]
    for frame in zip(*columns):
        for buffer, values in zip(buffers, frame):
            buffer[...] = values
        ready = labeller.push(*buffers)
        labels += [given.copy() for given in ready]
        for given in ready:
            given[...] = True
        for buffer in buffers:
            buffer[...] = 1
    np.testing.assert_array_equal(labels + labeller.flush(), expected)


def test_unary_costs_reach_the_stream():
    edges, *columns = clip(5, 6)
    labeller = SeamLabeller(edges, window=3, overlap=1)
    labels = []
    for frame in zip(*columns):
        labels += labeller.push(*frame, cost_target=np.full(len(frame[0]), 50.0))
    np.testing.assert_array_equal(labels + labeller.flush(), columns[3])  # only the hard target vertices are left


def test_a_reset_separates_the_shots():
    edges, *columns = clip(6, 15)
    labeller = SeamLabeller(edges, window=5, overlap=2)
    labels, counts = stream(labeller, *columns, resets=[0, 7, 8])
    expected = []
    for part in (slice(0, 7), slice(7, 8), slice(8, 15)):
        expected += stream(SeamLabeller(edges, window=5, overlap=2), *(column[part] for column in columns))[0]
    np.testing.assert_array_equal(labels, expected)
    assert sum(counts[:8]) == 7 and sum(counts[:9]) == 8
    assert labeller.flush() == []


def test_flush_ends_a_shot_as_reset_does():
    edges, *columns = clip(6, 8)
    labeller, labels = SeamLabeller(edges, window=5, overlap=2), []
    for t, frame in enumerate(zip(*columns)):
        labels += labeller.flush() if t == 4 else []
        labels += labeller.push(*frame)
    labels += labeller.flush()
    np.testing.assert_array_equal(labels, stream(SeamLabeller(edges, window=5, overlap=2), *columns, resets=[4])[0])


def test_two_runs_are_the_same():
    edges, *columns = clip(8, 20)
    first, second = (stream(SeamLabeller(edges, window=6, overlap=2), *columns)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_what_does_not_fit_is_refused():
    case = random_case(0)
    with pytest.raises(ValueError, match="hard for both"):
        cut_window(**{**case, "hard_target": case["hard_source"]})
    with pytest.raises(ValueError, match="spatial must be finite"):
        cut_window(**{**case, "spatial": case["spatial"] * np.nan})
    with pytest.raises(ValueError, match="temporal must be finite"):
        cut_window(**{**case, "temporal": case["temporal"] - 10})
    with pytest.raises(ValueError, match=r"\(F - 1, V\)"):
        cut_window(**{**case, "temporal": case["temporal"][:-1]})
    with pytest.raises(ValueError, match="hard_source must be"):
        cut_window(**{**case, "hard_source": case["hard_source"][:2]})
    with pytest.raises(ValueError, match="cost is 'beside'"):
        SeamLabeller(case["edges"], cost="beside")
    with pytest.raises(ValueError, match="overlap"):
        SeamLabeller(case["edges"], window=4, overlap=4)
    with pytest.raises(ValueError, match="smoothness must be"):
        temporal_weights(np.zeros((2, 3, 3)), np.zeros((2, 3, 3)), epsilon=0)
    edges, source, target, *hard = clip(0, 2)
    with pytest.raises(ValueError, match="edges name vertices"):
        spatial_weights(source, target, edges + 1)
    labeller = SeamLabeller(edges)
    with pytest.raises(ValueError, match="must be finite"):
        labeller.push(source[0] * np.nan, target[0], hard[0][0], hard[1][0])
    assert labeller.flush() == []
