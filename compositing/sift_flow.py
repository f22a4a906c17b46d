"""SIFT flow (eq. 8): which texel of one texture belongs to which of another, though their colours differ.

A flow is (H, W, 2) int32, (u, v) = pixels to the right and down: what picture 1 shows at p, picture 2 shows at
p + w(p). Its energy is the sum of

- min(||s1(p) - s2(p + w(p))||_1, truncation) over all p; the paper's eq. 8 lacks the minus sign. Outside picture 2,
  and as far as it was not seen there, the truncation is paid,
- gamma (|u| + |v|) over all p,
- min(alpha |u(p) - u(q)|, d) + min(alpha |v(p) - v(q)|, d) over all pairs of neighbours, four to a pixel,
- where a `previous` flow is given, memory * min(|u - u'| + |v - v'|, memory_reach) over all p: not in the paper, whose
  flows know nothing of each other.

It is minimised from coarse to fine, each level in a window around what the coarser one found. Min-sum belief
propagation on two layers, u and v, joined at every pixel, proposes a flow; messages of truncated-linear costs take
linear time (Felzenszwalb and Huttenlocher). Belief propagation is not exact on a grid, and its proposal may be worse
than the start. So it is compared with the other starts, and the best is improved by moves that never raise the energy:
of an induced forest of the grid, about two thirds of the pixels, all labels are chosen anew and exactly, given those
of the other pixels (Hamze and de Freitas 2004); the forests are drawn anew each time, from a seed.

Constants are for descriptors of length 255 (compositing.dense_sift); for length 1 divide all of them by 255.

References: Liu, Yuen and Torralba 2011, SIFT Flow, https://doi.org/10.1109/TPAMI.2010.147; Felzenszwalb and
Huttenlocher 2006, Efficient Belief Propagation, https://doi.org/10.1007/s11263-006-7899-4; Hamze and de Freitas 2004,
From Fields to Trees, https://arxiv.org/abs/1207.4149.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

INFINITE = np.float32(1e18)


@dataclass(frozen=True)
class FlowSettings:
    """Weights of the energy, in units of descriptors of length 255, and how hard it is minimised.

    truncation : of the data term
    gamma : per pixel of displacement
    alpha, d : per pixel of difference between neighbours, and its bound
    memory, memory_reach : per pixel of difference to the previous flow, and the difference from which on no more is
        paid (pixels)
    levels : at most so many; the coarsest has at least `smallest` pixels on its short side
    reach_top, reach : half width of the window of flows tried at the coarsest level and at the others, pixels
    sweeps_top, sweeps : of belief propagation, each there and back, at the coarsest level and at the others
    work : labels, of all pixels together, that the search after belief propagation may look at, at each level
    moves : at least and at most so many forests in it, whatever the work
    patience : forests in turn that change nothing before it starts anew
    seed : of the search
    """

    truncation: float = 8 * 255.0
    gamma: float = 0.005 * 255
    alpha: float = 2 * 255.0
    d: float = 40 * 255.0
    memory: float = 0.5 * 255
    memory_reach: int = 4
    levels: int = 4
    smallest: int = 10
    reach_top: int = 4
    reach: int = 2
    sweeps_top: int = 10
    sweeps: int = 8
    work: float = 1.2e5
    moves: tuple = (2, 2000)
    patience: int = 4
    seed: int = 0


DEFAULT = FlowSettings()


def sift_flow(first, second, valid=None, previous=None, settings=DEFAULT):
    """The flow from picture 1 to picture 2; its energy is not above that of the flow that is zero everywhere.

    Parameters
    ----------
    first, second : (H, W, K) float32, descriptors
    valid : (H, W) float in [0, 1], where picture 2 was seen; default everywhere
    previous : (H, W, 2) int, flow of the frame before; default none
    settings : FlowSettings

    Returns
    -------
    (H, W, 2) int32. With `previous`, too, eq. 8 alone is not above that of the zero flow.

    Raises
    ------
    ValueError : shapes that do not fit
    """
    first, second, valid, previous = _checked(first, second, valid, previous)
    flow = _coarse_to_fine(first, second, valid, previous, settings)
    starts = [np.zeros_like(flow)] if previous is None else [np.zeros_like(flow), previous]
    total = lambda w: energy(w, first, second, valid, previous, settings)
    best = min([flow, *starts], key=total)
    if best is not flow:            # the pyramid went astray: the search goes on around the better start
        flow = _improve(first, second, valid, previous, best, settings, settings.reach, 0)
    if previous is not None and (energy(flow, first, second, valid, None, settings)
                                 > energy(starts[0], first, second, valid, None, settings)):
        return sift_flow(first, second, valid, None, settings)
    return flow


def energy(flow, first, second, valid=None, previous=None, settings=DEFAULT):
    """Energy of a flow (eq. 8, with the term of a previous flow if one is given): a float, summed in float64.

    Parameters as for `sift_flow`; flow : (H, W, 2) int
    """
    first, second, valid, previous = _checked(first, second, valid, previous)
    flow = np.asarray(flow, np.int32)
    if flow.shape != (*first.shape[:2], 2):
        raise ValueError(f"flow must be {(*first.shape[:2], 2)}, not {flow.shape}")
    unary = unary_costs(first, second, valid, previous, flow, 0, settings)
    return labelling_energy(unary, flow, flow, settings)


def unary_costs(first, second, valid, previous, centre, reach, settings=DEFAULT):
    """Data, small displacement and memory term of every flow in a window: (H, W, n, n) float32, n = 2 reach + 1.

    Element [i, j, b, a] belongs to the flow centre[i, j] + (a - reach, b - reach). centre : (H, W, 2) int32
    """
    out = np.empty((*first.shape[:2], 2 * reach + 1, 2 * reach + 1), np.float32)
    recall = 0.0 if previous is None else settings.memory
    _unary(first, second, valid, centre if previous is None else previous, centre, reach,
           np.float32(settings.truncation), np.float32(settings.gamma), np.float32(recall), settings.memory_reach, out)
    return out


def labelling_energy(unary, centre, flow, settings=DEFAULT):
    """Unary costs of a flow, which must lie in the windows, and what its neighbours pay: a float."""
    rows, columns = np.indices(flow.shape[:2])
    label = flow - centre + unary.shape[2] // 2
    total = unary[rows, columns, label[..., 1], label[..., 0]].sum(dtype=np.float64)
    for axis in (0, 1):
        step = np.abs(np.diff(flow, axis=axis)).astype(np.float64)
        total += np.minimum(settings.alpha * step, settings.d).sum()
    return float(total)


def minimise(unary, centre, starts=(), settings=DEFAULT, sweeps=8):
    """A flow of low energy in windows around a centre.

    Parameters
    ----------
    unary : (H, W, n, n) float32, see `unary_costs`
    centre : (H, W, 2) int32
    starts : flows (H, W, 2) inside the windows; the result is not worse than any
    settings : FlowSettings, of which alpha, d and those of the search count
    sweeps : of belief propagation

    Returns
    -------
    (H, W, 2) int32
    """
    alpha, d = np.float32(settings.alpha), np.float32(settings.d)
    proposals = [_propagate(unary, centre, alpha, d, sweeps), *(np.asarray(s, np.int32) for s in starts)]
    energies = [labelling_energy(unary, centre, p, settings) for p in proposals]
    flow = proposals[int(np.argmin(energies))].copy()
    moves = int(np.clip(settings.work // unary.size, *settings.moves))
    _search(unary, centre, flow, alpha, d, moves, settings.patience,
            np.random.default_rng(settings.seed))
    return flow


def _checked(first, second, valid, previous):
    first, second = (np.ascontiguousarray(a, np.float32) for a in (first, second))
    if first.ndim != 3 or first.shape != second.shape:
        raise ValueError(f"descriptors must both be (H, W, K), not {first.shape} and {second.shape}")
    shape = first.shape[:2]
    valid = np.ones(shape, np.float32) if valid is None else np.ascontiguousarray(valid, np.float32)
    previous = None if previous is None else np.ascontiguousarray(previous, np.int32)
    if valid.shape != shape or (previous is not None and previous.shape != (*shape, 2)):
        raise ValueError(f"valid and previous must be {shape} and {(*shape, 2)}, not {valid.shape}, "
                         f"{None if previous is None else previous.shape}")
    return first, second, valid, previous


def _coarse_to_fine(first, second, valid, previous, settings):
    pyramid = [(first, second, valid, previous)]
    while len(pyramid) < settings.levels and min(pyramid[-1][0].shape[:2]) >= 2 * settings.smallest:
        pyramid.append(tuple(None if a is None else _halved(a) for a in pyramid[-1]))
    flow = np.zeros((*pyramid[-1][0].shape[:2], 2), np.int32)
    for level, arrays in list(enumerate(pyramid))[::-1]:
        if arrays[0].shape[:2] != flow.shape[:2]:
            flow = _doubled(flow, arrays[0].shape[:2])
        top = level == len(pyramid) - 1
        flow = _improve(*arrays, flow, settings, settings.reach_top if top else settings.reach,
                        settings.sweeps_top if top else settings.sweeps)
    return flow


def _improve(first, second, valid, previous, centre, settings, reach, sweeps):
    unary = unary_costs(first, second, valid, previous, centre, reach, settings)
    return minimise(unary, centre, [centre], settings, sweeps)


def _halved(array):
    """Means of 2 x 2 pixels; of a flow (integers) half of them, rounded. The last of an odd number counts twice."""
    height, width = array.shape[:2]
    padded = np.pad(array, [(0, height % 2), (0, width % 2)] + [(0, 0)] * (array.ndim - 2), mode="edge")
    mean = (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]) / np.float32(4)
    return np.rint(mean / 2).astype(np.int32) if array.dtype == np.int32 else np.ascontiguousarray(mean)


def _doubled(flow, shape):
    """A flow of the next coarser level at this one's resolution, between its pixels linear, rounded."""
    height, width = flow.shape[:2]
    large = cv2.resize(2 * flow.astype(np.float32), (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.rint(large[:shape[0], :shape[1]]).astype(np.int32))


@njit(cache=True, fastmath=True, nogil=True)
def _distance(a, b):
    total = np.float32(0)
    for k in range(len(a)):
        total += abs(a[k] - b[k])
    return total


@njit(cache=True, fastmath=True, nogil=True)
def _unary(first, second, valid, previous, centre, reach, truncation, gamma, memory, memory_reach, out):
    height, width = first.shape[:2]
    for i in range(height):
        for j in range(width):
            for m in range(2 * reach + 1):
                v = centre[i, j, 1] + m - reach
                for n in range(2 * reach + 1):
                    u = centre[i, j, 0] + n - reach
                    cost = truncation
                    if 0 <= i + v < height and 0 <= j + u < width:
                        distance = _distance(first[i, j], second[i + v, j + u])
                        cost += valid[i + v, j + u] * (min(distance, truncation) - truncation)
                    away = min(abs(u - previous[i, j, 0]) + abs(v - previous[i, j, 1]), memory_reach)
                    out[i, j, m, n] = cost + gamma * (abs(u) + abs(v)) + memory * away


@njit(cache=True, fastmath=True, nogil=True)
def _message(h, shift, alpha, d, work, out):
    """out[k] = min over l of h[l] + min(alpha |l - k - shift|, d), by the distance transform, in linear time.

    h, out : (n,) float32, costs of a pixel's n labels and of its neighbour's, whose window lies `shift` further
    work : (n,) float32, work space

    Returns
    -------
    float32, the least of out
    """
    n = len(h)
    lowest = work[0] = h[0]
    for k in range(1, n):
        lowest = min(lowest, h[k])
        work[k] = min(h[k], work[k - 1] + alpha)
    for k in range(n - 2, -1, -1):
        work[k] = min(work[k], work[k + 1] + alpha)
    bound, least = lowest + d, INFINITE
    for k in range(n):
        place = min(max(k + shift, 0), n - 1)
        out[k] = min(work[place] + alpha * abs(k + shift - place), bound)
        least = min(least, out[k])
    return least


# neighbours of a pixel, and which of them it is in turn: left, right, above, below
_STEPS = np.array([[0, -1], [0, 1], [-1, 0], [1, 0]])
_OPPOSITE = np.array([1, 0, 3, 2])


@njit(cache=True, nogil=True)
def _propagate(unary, centre, alpha, d, sweeps):
    """Dual-layer belief propagation, pixel after pixel there and back (BP-S) -> (H, W, 2) int32, jointly read out."""
    height, width, n = unary.shape[:3]
    messages = np.zeros((height, width, 2, 4, n), np.float32)      # layer u, v; from left, right, above, below
    told, own, room = np.empty((2, n), np.float32), np.empty((2, n), np.float32), np.empty((3, n), np.float32)
    for sweep in range(2 * sweeps):
        forward = sweep % 2 == 0
        for place in range(height * width):
            p = place if forward else height * width - 1 - place
            _send(unary, centre, messages, p // width, p % width, forward, alpha, d, told, own, room)
    flow = np.empty((height, width, 2), np.int32)
    for i in range(height):
        for j in range(width):
            _sum(messages[i, j], told)
            best = INFINITE
            for b in range(n):
                for a in range(n):
                    cost = unary[i, j, b, a] + told[0, a] + told[1, b]
                    if cost < best:
                        best = cost
                        flow[i, j, 0] = centre[i, j, 0] + a - n // 2
                        flow[i, j, 1] = centre[i, j, 1] + b - n // 2
    return flow


@njit(cache=True, fastmath=True, nogil=True)
def _sum(messages, told):
    """All that the neighbours tell a pixel's two layers: messages (2, 4, n) -> told (2, n)."""
    for layer in range(2):
        m = messages[layer]
        for k in range(told.shape[1]):
            told[layer, k] = m[0, k] + m[1, k] + m[2, k] + m[3, k]


@njit(cache=True, fastmath=True, nogil=True)
def _send(unary, centre, messages, i, j, forward, alpha, d, told, own, room):
    """A pixel's messages to the right and down (forward), or to the left and up. The last three are work space."""
    height, width, n = unary.shape[:3]
    _sum(messages[i, j], told)
    own[:] = INFINITE                                              # what one layer tells the other, at this pixel
    costs = unary[i, j]
    for b in range(n):
        for a in range(n):
            own[0, a] = min(own[0, a], costs[b, a] + told[1, b])
            own[1, b] = min(own[1, b], costs[b, a] + told[0, a])
    for side in range(4):
        y, x = i + _STEPS[side, 0], j + _STEPS[side, 1]
        if (y + x > i + j) != forward or not (0 <= y < height and 0 <= x < width):
            continue
        for layer in range(2):
            for k in range(n):
                room[0, k] = own[layer, k] + told[layer, k] - messages[i, j, layer, side, k]
            shift = centre[y, x, layer] - centre[i, j, layer]
            least = _message(room[0], shift, alpha, d, room[1], room[2])
            sent = messages[y, x, layer, _OPPOSITE[side]]
            for k in range(n):
                sent[k] = room[2, k] - least


@njit(cache=True, nogil=True)
def _search(unary, centre, flow, alpha, d, moves, patience, rng):
    """Improves a flow in place, by forests and, as long as moves are left, by new starts from the best so far.

    A new start gives all pixels of a rectangle one flow: what holds pixels to each other can hold them all to a wrong
    flow, from which no part moves alone.
    """
    height, width, n = unary.shape[:3]
    left = _settle(unary, centre, flow, alpha, d, moves, patience, rng)
    best = _energy(unary, centre, flow, alpha, d)
    while left > 0:
        trial = flow.copy()
        top, bottom = _span(height, rng)
        first, last = _span(width, rng)
        i, j = top + _drawn(bottom - top, rng), first + _drawn(last - first, rng)
        u = centre[i, j, 0] + _drawn(n, rng) - n // 2
        v = centre[i, j, 1] + _drawn(n, rng) - n // 2
        for i in range(top, bottom):
            for j in range(first, last):
                trial[i, j, 0] = min(max(u, centre[i, j, 0] - n // 2), centre[i, j, 0] + n // 2)
                trial[i, j, 1] = min(max(v, centre[i, j, 1] - n // 2), centre[i, j, 1] + n // 2)
        left = _settle(unary, centre, trial, alpha, d, left, patience, rng)
        total = _energy(unary, centre, trial, alpha, d)
        if total < best:
            best = total
            for i in range(height):
                _put(flow[i], trial[i])


@njit(cache=True, nogil=True)
def _drawn(count, rng):
    """A random integer from 0 up to count; numba takes ten seconds to compile Generator.integers and permutation."""
    return int(rng.random() * count)


@njit(cache=True, nogil=True)
def _span(count, rng):
    """A random non-empty range within 0 to count."""
    a, b = _drawn(count, rng), _drawn(count, rng)
    return min(a, b), max(a, b) + 1


@njit(cache=True, nogil=True)
def _settle(unary, centre, flow, alpha, d, moves, patience, rng):
    """Improves a flow in place by one forest after the other until `patience` changed nothing -> moves left."""
    costs = np.empty_like(unary)
    idle = 0
    while moves > 0 and idle < patience:
        order, parent = _induced_forest(unary.shape[0], unary.shape[1], rng)
        idle = 0 if _forest_move(unary, centre, flow, alpha, d, order, parent, costs) else idle + 1
        moves -= 1
    return moves


@njit(cache=True, nogil=True)
def _energy(unary, centre, flow, alpha, d):
    """What `labelling_energy` gives."""
    height, width, n = unary.shape[:3]
    total = 0.0
    for i in range(height):
        for j in range(width):
            total += unary[i, j, flow[i, j, 1] - centre[i, j, 1] + n // 2, flow[i, j, 0] - centre[i, j, 0] + n // 2]
            for k in range(2):
                if i > 0:
                    total += min(alpha * abs(flow[i, j, k] - flow[i - 1, j, k]), d)
                if j > 0:
                    total += min(alpha * abs(flow[i, j, k] - flow[i, j - 1, k]), d)
    return total


@njit(cache=True, nogil=True)
def _root(group, p):
    while group[p] != p:
        group[p] = group[group[p]]
        p = group[p]
    return p


@njit(cache=True, nogil=True)
def _induced_forest(height, width, rng):
    """A random forest of grid pixels that has every grid edge between its pixels.

    Pixels in random order join unless they would close a circle.

    Returns
    -------
    order : (N,) int64, its pixels (row * width + column), each before its parent
    parent : (height * width,) int64, side (0 to 3) on which a pixel's parent lies, 4 for a root, -1 outside the forest
    """
    count = height * width
    group, parent = np.arange(count), np.full(count, -1, np.int64)
    shuffled = np.arange(count)
    for left in range(count, 0, -1):
        chosen = _drawn(left, rng)
        p, shuffled[chosen] = shuffled[chosen], shuffled[left - 1]
        touched, free = np.full(4, -1, np.int64), True
        for side in range(4):
            q = _neighbour(p, side, height, width)
            if q >= 0 and parent[q] >= 0:
                touched[side] = _root(group, q)
                for other in range(side):
                    free = free and touched[other] != touched[side]
        if free:
            parent[p] = 4
            for side in range(4):
                if touched[side] >= 0:
                    group[touched[side]] = p
    # walk every tree from one of its pixels
    order, seen, filled = np.empty(count, np.int64), np.zeros(count, np.bool_), 0
    for start in range(count):
        if parent[start] < 0 or seen[start]:
            continue
        seen[start], order[filled] = True, start
        head, filled = filled, filled + 1
        while head < filled:
            p, head = order[head], head + 1
            for side in range(4):
                q = _neighbour(p, side, height, width)
                if q >= 0 and parent[q] >= 0 and not seen[q]:
                    seen[q], parent[q], order[filled] = True, _OPPOSITE[side], q
                    filled += 1
    return order[:filled][::-1].copy(), parent


@njit(cache=True, nogil=True)
def _neighbour(p, side, height, width):
    i, j = p // width + _STEPS[side, 0], p % width + _STEPS[side, 1]
    return i * width + j if 0 <= i < height and 0 <= j < width else -1


@njit(cache=True, nogil=True)
def _forest_move(unary, centre, flow, alpha, d, order, parent, costs):
    """Best labels of a forest's pixels, those of the others given -> whether one changed.

    costs : (H, W, n, n) float32, work space: a label's cost with all that hangs on it below
    """
    height, width, n = unary.shape[:3]
    message, room = np.empty((n, n), np.float32), np.empty((2 * n + 3, n), np.float32)
    for p in order:
        i, j = p // width, p % width
        _put(costs[i, j], unary[i, j])
        for side in range(4):
            q = _neighbour(p, side, height, width)
            if q >= 0 and parent[q] < 0:
                _add_pair(costs[i, j], centre[i, j], flow[q // width, q % width], alpha, d)
    for p in order:                                                # leaves first
        if parent[p] == 4:
            continue
        i, j, q = p // width, p % width, _neighbour(p, parent[p], height, width)
        _message_2d(costs[i, j], centre[q // width, q % width] - centre[i, j], alpha, d, room, message)
        _add(costs[q // width, q % width], message)
    changed = False
    for p in order[::-1]:                                          # roots first
        i, j = p // width, p % width
        if parent[p] != 4:
            q = _neighbour(p, parent[p], height, width)
            _add_pair(costs[i, j], centre[i, j], flow[q // width, q % width], alpha, d)
        changed = _choose(costs[i, j], centre[i, j], flow[i, j]) or changed
    return changed


# numba takes seconds to compile assignments of arrays, for what they say when shapes differ
@njit(cache=True, nogil=True)
def _put(into, values):
    for b in range(len(values)):
        for a in range(values.shape[1]):
            into[b, a] = values[b, a]


@njit(cache=True, nogil=True)
def _add(to, values):
    for b in range(len(values)):
        for a in range(values.shape[1]):
            to[b, a] += values[b, a]


@njit(cache=True, nogil=True)
def _add_pair(cost, centre, other, alpha, d):
    """Adds to the costs (n, n) of a pixel's labels what they pay beside a neighbour with the flow `other` (2,)."""
    n = len(cost)
    for b in range(n):
        across = min(alpha * abs(centre[1] + b - n // 2 - other[1]), d)
        for a in range(n):
            cost[b, a] += across + min(alpha * abs(centre[0] + a - n // 2 - other[0]), d)


@njit(cache=True, nogil=True)
def _message_2d(h, shift, alpha, d, room, out):
    """`_message` over both components, one after the other: the pair's cost is a sum of theirs.

    h, out : (n, n) float32. room : (2 n + 3, n) float32, work space
    """
    n = len(h)
    half, turned, line = room[:n], room[n:2 * n], room[2 * n:]
    for b in range(n):
        _message(h[b], shift[0], alpha, d, line[0], half[b])
    for a in range(n):
        for b in range(n):
            line[1, b] = half[b, a]
        _message(line[1], shift[1], alpha, d, line[0], turned[a])
        for b in range(n):
            out[b, a] = turned[a, b]


@njit(cache=True, nogil=True)
def _choose(cost, centre, flow):
    """Sets a pixel's flow (2,) to the cheapest label unless it has as cheap a one -> whether it changed."""
    n = len(cost)
    b, a = flow[1] - centre[1] + n // 2, flow[0] - centre[0] + n // 2
    best = np.argmin(cost)
    if cost.ravel()[best] >= cost[b, a] - np.float32(1e-6) * abs(cost[b, a]):
        return False
    flow[0], flow[1] = centre[0] + best % n - n // 2, centre[1] + best // n - n // 2
    return True
