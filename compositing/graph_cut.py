"""The seam (section 6.1): a minimum cut labels every mesh vertex of every frame as source or target.

A label is a bool: False takes the pixel from the source frame, True from the rendered target. Shapes: F frames,
V vertices, E undirected mesh edges. The energy of a labelling is the sum of

- `spatial[t, e]` for every edge whose two ends differ in frame t (eq. 9, or Kwatra's cost),
- `temporal[t, i]` for every vertex i that changes its label between frames t and t + 1 (eq. 10),
- optionally `cost_source[t, i]` for every vertex labelled source, `cost_target[t, i]` for every one labelled target.

The paper names no terminals: the caller says which vertices are source (`hard_source`, e.g. the rim of the face) and
which are target (`hard_target`, e.g. mouth and eyes); the rest is free. Where a vertex cannot be seen its colours mean
nothing, so make it hard, or give it a unary cost.

On real clips (`python -m tests.seam_sweep`: four of them, 40 frames each, London's 120 for target) the cost between the
images leaves half the difference across the seam that eq. 9 leaves, and more lambda buys steadiness with it:

    lambda                                    0    1e-4    3e-4    1e-3    3e-3    1e-2
    seam, mean difference of 255   eq. 9   16.3    16.2    16.2    15.6    15.6    15.9
                                 between    9.3     9.3     9.4     9.3     9.5     9.9
    pops, thousandths of a level   eq. 9    316      67      32      15       7       5
                                 between    108      43      33      18       9       3

The solver counts in integers: every weight and unary cost is rounded to a multiple of 1 / CAPACITY_SCALE (6e-8), and
the cut is exact for the rounded numbers: of n weights and costs, no labelling is better by n / CAPACITY_SCALE.

References: Kwatra et al. 2003, Graphcut Textures, https://doi.org/10.1145/882262.882264;
Dale et al. 2011, Video Face Replacement, https://doi.org/10.1145/2024156.2024164.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ortools.graph.python import max_flow

COSTS = ("within", "between")
CAPACITY_SCALE = 2**24
MAX_WEIGHT = 2.0**16  # sums of capacities stay inside int64 for a million nodes


@dataclass(frozen=True)
class Labels:
    """A labelling and what it costs.

    target : (F, V) bool, True where the vertex shows the rendered target.
    energy : sum of the weights and costs that it pays (see `energy`).
    """

    target: np.ndarray
    energy: float


def spatial_weights(source_colours, target_colours, edges, cost="within"):
    """Cost of a seam across each mesh edge, (F, E) float32.

    source_colours, target_colours : (F, V, 3) float, RGB in [0, 1] where each vertex projects in the source frame and
        in the rendered target.
    edges : (E, 2) int, pairs of vertices.
    cost : "within", eq. 9 as printed: ||Is(u) - Is(v)|| + ||It(u) - It(v)||, a seam away from both images' edges.
        "between", Kwatra et al. 2003: ||Is(u) - It(u)|| + ||Is(v) - It(v)||, a seam where the two images agree.
    Raises ValueError for an unknown cost or for shapes that do not fit.
    """
    source, target = _colours(source_colours, target_colours)
    u, v = _edges(edges, source.shape[1]).T
    if cost == "within":
        return _distance(source[:, u], source[:, v]) + _distance(target[:, u], target[:, v])
    if cost == "between":
        difference = _distance(source, target)
        return difference[:, u] + difference[:, v]
    raise ValueError(f"cost is {cost!r}, but must be one of {', '.join(COSTS)}")


def temporal_weights(source_colours, target_colours, smoothness=1e-3, epsilon=1 / 255):
    """Cost of a change of label from each frame to the next, (F - 1, V) float32 (eq. 10).

    source_colours, target_colours : (F, V, 3) float, as for `spatial_weights`.
    smoothness : lambda >= 0, in units of colour squared; 0 separates the frames. A still vertex then costs
        2 smoothness / epsilon, to be compared with the spatial weights.
    epsilon : > 0, added to each difference before its inverse; one grey level of 8 bits unless told.

    Differs from the paper in three ways. Its index "V_{t+1,i} + 1" is a misprint for V_{t+1,i}. Its inverses are
    infinite where nothing moves, hence epsilon. It multiplies only the first inverse by lambda; the other one, about
    100 on still skin, would then outweigh every spatial cost (at most 2 sqrt 3) whatever lambda is. Here lambda
    multiplies both.
    Raises ValueError for a negative smoothness, an epsilon that is not positive, or shapes that do not fit.
    """
    if not smoothness >= 0 or not epsilon > 0:
        raise ValueError(f"smoothness must be >= 0 and epsilon > 0, not {smoothness} and {epsilon}")
    source, target = _colours(source_colours, target_colours)
    inverses = 1 / (_distance(source[:-1], source[1:]) + epsilon) + 1 / (_distance(target[:-1], target[1:]) + epsilon)
    return (smoothness * inverses).astype(np.float32)


def energy(labels, spatial, temporal, edges, cost_source=0, cost_target=0):
    """What a labelling costs, a float summed in float64; hard vertices are not looked at.

    labels : (F, V) bool. The others as for `cut_window`.
    """
    labels = np.asarray(labels, bool)
    u, v = _edges(edges, labels.shape[1]).T
    total = np.sum(spatial, where=labels[:, u] != labels[:, v], dtype=np.float64)
    total += np.sum(temporal, where=labels[1:] != labels[:-1], dtype=np.float64)
    for cost, paid in ((cost_source, ~labels), (cost_target, labels)):
        total += np.sum(np.broadcast_to(cost, labels.shape), where=paid, dtype=np.float64)
    return float(total)


def cut_window(spatial, temporal, edges, hard_source, hard_target, cost_source=0, cost_target=0):
    """The labelling of lowest energy of F frames, as `Labels`; among equals, the one with most target vertices.

    spatial : (F, E) float >= 0. temporal : (F - 1, V) float >= 0. edges : (E, 2) int.
    hard_source, hard_target : (F, V) or (V,) bool, vertices whose label is given; the energy counts theirs too.
    cost_source, cost_target : (F, V) or (V,) float of any sign, price of either label at a vertex.
    Raises ValueError for shapes that do not fit, numbers that are not finite, negative or above MAX_WEIGHT, and
    vertices that are hard for both labels.
    """
    spatial, temporal = np.asarray(spatial), np.asarray(temporal)
    if spatial.ndim != 2 or temporal.ndim != 2 or len(temporal) != len(spatial) - 1:
        raise ValueError(f"spatial and temporal must be (F, E) and (F - 1, V), not {spatial.shape}, {temporal.shape}")
    shape = frames, count = len(spatial), temporal.shape[1]
    edges = _edges(edges, count)
    if len(edges) != spatial.shape[1]:
        raise ValueError(f"spatial has {spatial.shape[1]} edges, edges has {len(edges)}")
    hard_source, hard_target = _hard(hard_source, hard_target, shape)

    # price[n] > 0: what it costs to label node n target, less what it costs to label it source
    price = np.zeros(frames * count, np.int64)
    for sign, name, cost in ((-1, "cost_source", cost_source), (1, "cost_target", cost_target)):
        price += sign * _capacities(_per_vertex(cost, shape, name, np.float64), name, low=-MAX_WEIGHT).ravel()

    nodes = np.arange(frames * count).reshape(shape)
    tail = np.concatenate([nodes[:, edges[:, 0]].ravel(), nodes[:-1].ravel()])
    head = np.concatenate([nodes[:, edges[:, 1]].ravel(), nodes[1:].ravel()])
    capacity = np.concatenate([_capacities(spatial, "spatial").ravel(), _capacities(temporal, "temporal").ravel()])

    # Hard vertices leave the graph: an edge to one is a price for the other label
    side = (hard_source.astype(np.int64) - hard_target).ravel()
    for near, far in ((tail, head), (head, tail)):
        np.add.at(price, near, capacity * side[far])
    free = np.flatnonzero(side == 0)
    small = np.cumsum(side == 0) - 1
    keep = (side[tail] == 0) & (side[head] == 0) & (capacity > 0)

    target = hard_target.copy()
    target.ravel()[free] = _minimum_cut(small[tail[keep]], small[head[keep]], capacity[keep], price[free])
    return Labels(target, energy(target, spatial, temporal, edges, cost_source, cost_target))


class SeamLabeller:
    """Labels a clip of any length, frame by frame, in windows that agree with each other.

    Frames wait until `window` of them are there and are cut together. All but the last `overlap` are given out; these
    see too little of what follows, so they wait and are cut again in the next window. There the last frame given out
    is hard, with the labels it was given: the seam does not jump where windows meet. Only `window` + 1 frames are
    held, each is solved window / (window - overlap) times on average, and a frame's labels come at the latest when
    `window` frames have been pushed from it on, itself included.

    edges : (E, 2) int. cost, smoothness, epsilon : as for `spatial_weights` and `temporal_weights`.
    Raises ValueError unless 0 <= overlap < window and cost is one of COSTS.

    >>> labeller = SeamLabeller([[0, 1], [1, 2]], window=2, overlap=1)
    >>> grey, source, target = np.full((3, 3), 0.5), [True, False, False], [False, False, True]
    >>> [len(labeller.push(grey, grey, source, target)) for frame in range(3)], len(labeller.flush())
    ([0, 1, 1], 1)
    """

    def __init__(self, edges, *, cost="within", smoothness=1e-3, epsilon=1 / 255, window=12, overlap=4):
        if not 0 <= overlap < window:
            raise ValueError(f"overlap must be at least 0 and below window, not {overlap} and {window}")
        if cost not in COSTS:
            raise ValueError(f"cost is {cost!r}, but must be one of {', '.join(COSTS)}")
        self.edges, self.cost, self.smoothness, self.epsilon = np.asarray(edges), cost, smoothness, epsilon
        self.window, self.overlap = window, overlap
        self._start_anew()

    def push(
        self, source_colours, target_colours, hard_source, hard_target, *, cost_source=0, cost_target=0, reset=False
    ):
        """Take one frame, return the labels that are now final: a list of (V,) bool, in order, often empty.

        source_colours, target_colours : (V, 3) float in [0, 1]. hard_source, hard_target : (V,) bool.
        cost_source, cost_target : (V,) float, price of either label.
        reset : this frame does not continue the one before (a cut, a lost face), so the frames still waiting are
        given out first and nothing links the two. Where no face follows for long, call `flush` instead.
        Raises ValueError for what does not fit (see `cut_window`); the frame is then not taken.
        """
        colours = np.stack(_colours(source_colours, target_colours, ndim=2))
        shape = colours.shape[1:2]
        previous = colours if reset or self._last_colours is None else self._last_colours
        if previous.shape != colours.shape:
            raise ValueError(f"this frame has {shape[0]} vertices, the one before {previous.shape[1]}")
        frame = _Frame(
            spatial_weights(colours[0, None], colours[1, None], self.edges, self.cost)[0],
            temporal_weights(*np.stack([previous, colours], axis=1), self.smoothness, self.epsilon)[0],
            *_hard(hard_source, hard_target, shape),
            _per_vertex(cost_source, shape, "cost_source", np.float64),
            _per_vertex(cost_target, shape, "cost_target", np.float64),
        )
        ready = self.flush() if reset else []
        self._last_colours = colours
        self._waiting.append(frame)
        if len(self._waiting) == self.window:
            ready += self._give_out(self.window - self.overlap)
        return ready

    def flush(self):
        """End the clip or shot: the labels of all frames still waiting, a list of (V,) bool; then start anew."""
        ready = self._give_out(len(self._waiting))
        self._start_anew()
        return ready

    def settle(self):
        """The labels of all frames still waiting, a list of (V,) bool; what is pushed next continues them."""
        return self._give_out(len(self._waiting))

    def state(self):
        """What a labeller remembers when nothing waits, as plain data (see fitting.checkpoint)."""
        return {"held": None if self._held is None else list(self._held), "last_colours": self._last_colours}

    def restore(self, state):
        """Goes on from a state."""
        self._start_anew()
        self._held = None if state["held"] is None else _Frame(*state["held"])
        self._last_colours = state["last_colours"]

    def _start_anew(self):
        self._waiting = []
        self._held = None  # the last frame given out, hard
        self._last_colours = None  # (2, V, 3), source and target of the last frame pushed

    def _give_out(self, number):
        """Cut the waiting frames and release the first `number` of them."""
        if number == 0:
            return []
        held = [] if self._held is None else [self._held]
        spatial, temporal, *given = map(np.stack, zip(*held, *self._waiting))
        target = cut_window(spatial, temporal[1:], self.edges, *given).target[len(held) :]
        last = target[number - 1]
        self._held = self._waiting[number - 1]._replace(hard_source=~last, hard_target=last.copy())
        del self._waiting[:number]
        return [labels.copy() for labels in target[:number]]


class _Frame(NamedTuple):
    """One waiting frame: spatial (E,), temporal (V,) from the frame before (unused in a first frame), the rest (V,)."""

    spatial: np.ndarray
    temporal: np.ndarray
    hard_source: np.ndarray
    hard_target: np.ndarray
    cost_source: np.ndarray
    cost_target: np.ndarray


def _minimum_cut(tail, head, capacity, price):
    """True for the nodes on the target's side; ties fall to the target.

    tail, head, capacity : (A,) int, undirected edges. price : (N,) int64, positive links the node to the source
    terminal, negative to the target terminal.
    """
    source, target = len(price), len(price) + 1
    from_source, to_target = np.flatnonzero(price > 0), np.flatnonzero(price < 0)
    arcs = (
        (tail, head, capacity),
        (head, tail, capacity),
        (np.full(len(from_source), source), from_source, price[from_source]),
        (to_target, np.full(len(to_target), target), -price[to_target]),
        ([source], [target], [1]),  # the solver knows a terminal only by its arcs
    )
    tails, heads, capacities = (np.concatenate(column) for column in zip(*arcs))
    solver = max_flow.SimpleMaxFlow()
    solver.add_arcs_with_capacity(tails.astype(np.int32), heads.astype(np.int32), capacities.astype(np.int64))
    status = solver.solve(source, target)
    if status != solver.OPTIMAL:
        raise RuntimeError(f"the maximum flow solver gave up: {status}")
    labels = np.ones(len(price) + 2, bool)
    labels[solver.get_source_side_min_cut()] = False  # exactly what the source still reaches: the fewest source nodes
    return labels[:-2]


def _capacities(weights, name, low=0.0):
    weights = np.asarray(weights, np.float64)
    if not np.all((weights >= low) & (weights <= MAX_WEIGHT)):
        raise ValueError(f"{name} must be finite numbers from {low:g} to {MAX_WEIGHT:g}")
    return np.rint(weights * CAPACITY_SCALE).astype(np.int64)


def _colours(source_colours, target_colours, ndim=3):
    source, target = np.asarray(source_colours, np.float32), np.asarray(target_colours, np.float32)
    if source.shape != target.shape or source.ndim != ndim or source.shape[-1] != 3:
        wanted = "(F, V, 3)" if ndim == 3 else "(V, 3)"
        raise ValueError(f"colours must both be {wanted}, not {source.shape} and {target.shape}")
    if not np.isfinite(source).all() or not np.isfinite(target).all():
        raise ValueError("colours must be finite: give vertices that are out of sight some colour, and make them hard")
    return source, target


def _edges(edges, count):
    edges = np.asarray(edges)
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
        raise ValueError(f"edges must be (E, 2) int, not {edges.shape} {edges.dtype}")
    if edges.size and (edges.min() < 0 or edges.max() >= count):
        raise ValueError(f"edges name vertices {edges.min()} to {edges.max()}, but there are {count}")
    return edges


def _hard(hard_source, hard_target, shape):
    hard_source = _per_vertex(hard_source, shape, "hard_source", bool)
    hard_target = _per_vertex(hard_target, shape, "hard_target", bool)
    if both := np.sum(hard_source & hard_target):
        raise ValueError(f"{both} vertices are hard for both source and target")
    return hard_source, hard_target


def _per_vertex(values, shape, name, dtype):
    values = np.array(values, dtype)  # a copy: a waiting frame keeps it
    if values.shape not in ((), shape[-1:], shape):
        raise ValueError(f"{name} must be {shape} or {shape[-1:]}, not {values.shape}")
    return np.broadcast_to(values, shape)


def _distance(a, b):
    return np.linalg.norm(a - b, axis=-1)
