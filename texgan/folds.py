"""Folds of a virtual person's skin: where they run, and how far an expression presses them together.

Folds run where faces have them (forehead, between the brows, beside the eyes and under them, from the nose past the
mouth's corners, above the chin), slightly different on every person. A fold deepens as the skin across it gets shorter
than on the neutral face, which is what makes real skin fold.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

LEFT, TOP, SIDE, PER_MM = -95.0, 122.0, 190.0, 2.6       # the plane that folds are drawn on, mm: rest face, from front
SLACK, FULL = 0.03, 0.22         # shortening from which a fold shows, and that which deepens it fully
REACH = 9.0                      # mm from a fold within which skin is looked at
SMOOTHING = 2                    # rounds of averaging of the compression over neighbours


@dataclass(frozen=True)
class Folds:
    """Folds of one person, in two layers whose folds may cross: 0 most, 1 those between the brows.

    grooves : (S, S, 2) float32 mm, height of fully pressed folds over the plane
    plane : (3,) float32, left, top (mm) and texels per mm of it
    strength : float in [0, 1]
    triangles : (K, 3) int32, skin around the folds; vertices : (N,) int32, theirs
    across : (K, 2, 2) float32, for each layer the unit direction across the fold as a sum of the triangle's two edges
    """

    grooves: np.ndarray
    plane: np.ndarray
    strength: float
    triangles: np.ndarray
    vertices: np.ndarray
    across: np.ndarray


@dataclass(frozen=True)
class Curve:
    """A fold: points (N, 2) mm over the plane, depth (N,) mm, its half width in mm, its layer."""

    points: np.ndarray
    depth: np.ndarray
    width: float
    layer: int = 0


def draw_folds(stage, neutral, rng, age):
    """Folds of a person.

    Parameters
    ----------
    stage : Stage
    neutral : (V, 3) float32, the person's neutral head
    rng : numpy Generator
    age : float in [0, 1]

    Returns
    -------
    Folds
    """
    marks = stage.mean[stage.landmarks].astype(np.float64)
    curves = _forehead(marks, rng) + _glabella(marks, rng)
    for side in (1, -1):
        curves += _beside(marks * [side, 1, 1], side, rng)
    size = int(SIDE * PER_MM)
    grooves = np.stack([_heights([c for c in curves if c.layer == k], size) for k in (0, 1)], axis=2)
    triangles, across = _lie_across(stage, neutral, curves)
    return Folds(grooves.astype(np.float32), np.float32([LEFT, TOP, PER_MM]), float(age), triangles,
                 np.unique(triangles).astype(np.int32), across)


def _curve(points, depth, width, rng, layer=0, wave=0.5):
    """A smooth Curve through some points (N, 2), wavy by `wave` mm, thinner towards its ends."""
    t, s = np.linspace(0, 1, len(points)), np.linspace(0, 1, 60)
    degree = min(3, len(points) - 1)
    fine = np.stack([np.polyval(np.polyfit(t, p, degree), s) for p in np.asarray(points, float).T], axis=1)
    phase, pitch = rng.uniform(0, 6.28, 2), rng.uniform(6, 14, 2)
    fine += wave * np.stack([np.sin(pitch[k] * s + phase[k]) for k in (0, 1)], axis=1) * rng.uniform(0.4, 1, 2)
    taper = np.sin(np.pi * np.clip(s * 0.94 + 0.03, 0, 1)) ** 0.6
    return Curve(fine, depth * taper * (1 + 0.25 * np.sin(17 * s + phase[0])), width, layer)


def _forehead(marks, rng):
    """Lines across the forehead, over both brows."""
    brow = marks[[19, 24], 1].mean()
    spacing, out = rng.uniform(7.5, 10.5), []
    for k in range(4):
        y = brow + 11 + k * spacing + rng.normal(0, 0.8)
        reach = np.array([-1, 1]) * (44 - 4 * k) * rng.uniform(0.75, 1, 2)
        x = np.linspace(*reach, 7)
        arch = 2.5 * np.cos(x / 40 * np.pi) * -1 + rng.normal(0, 0.5, 7)
        out.append(_curve(np.stack([x, y + arch], 1), rng.uniform(0.35, 0.6) * (1 - 0.12 * k), 1.1, rng))
    return out


def _glabella(marks, rng):
    """Upright lines between the brows."""
    y = marks[[21, 22], 1].mean()
    out = []
    for side in (-1, 1):
        x = side * rng.uniform(5.5, 8.5)
        line = [(x, y - 6), (x * 0.95, y + 3), (x * rng.uniform(0.9, 1.25), y + rng.uniform(10, 17))]
        out.append(_curve(line, rng.uniform(0.4, 0.7), 1.1, rng, layer=1, wave=0.3))
    return out


def _beside(marks, side, rng):
    """Folds of one half of the face; `marks` are mirrored for the subject's right, the landmarks' names are left's."""
    left = (45, 35, 54, 46, 47, 42) if side > 0 else (36, 31, 48, 41, 40, 39)
    corner, wing, mouth, low_out, low_in, inner = marks[list(left), :2]
    out = []
    for angle in np.linspace(-38, 30, 4) + rng.normal(0, 4, 4):                # crow's feet
        d = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        start, length = corner + [3, 0] + 5 * d, rng.uniform(9, 17)
        bend = np.array([0, -0.03 * angle])
        out.append(_curve([start, start + d * length / 2 + bend, start + d * length], rng.uniform(0.25, 0.42), 0.8, rng,
                          wave=0.2))
    low = (low_out + low_in) / 2
    for drop in (5.5, 9.5):                                                    # under the eye
        line = [inner + [2, -drop * 0.8], low + [0, -drop - 1.5], corner + [-1, -drop * 0.7]]
        out.append(_curve(line, rng.uniform(0.14, 0.28), 1.0, rng, wave=0.3))
    top = wing + [5.5, 5.5]                                                    # from the nose past the mouth
    line = [top, (top + mouth) / 2 + [8, 4], mouth + [9, 3], mouth + [9, -10]]
    out.append(_curve(line, rng.uniform(0.9, 1.3), 1.7, rng, wave=0.3))
    line = [mouth + [17, 12], mouth + [19, 2], mouth + [16, -9]]
    out.append(_curve(line, rng.uniform(0.15, 0.6), 1.6, rng, wave=0.3))
    middle = np.array([0, mouth[1] - 19])                                      # above the chin
    out.append(_curve([middle + [-1, 0], middle + [8, -0.8], middle + [15, -4]], rng.uniform(0.3, 0.5), 1.8, rng))
    return [Curve(c.points * [side, 1], c.depth, c.width, c.layer) for c in out]


def _heights(curves, size):
    """Height (size, size) float64 mm over the plane: a groove along each curve, between two swellings."""
    axis = (np.arange(size) + 0.5) / PER_MM
    x, y = np.meshgrid(LEFT + axis, TOP - axis)
    out = np.zeros((size, size))
    for curve in curves:
        low, high = curve.points.min(axis=0) - 5 * curve.width, curve.points.max(axis=0) + 5 * curve.width
        near = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
        distance, at = cKDTree(curve.points).query(np.stack([x[near], y[near]], axis=1))
        d = distance / curve.width
        height = curve.depth[at] * (0.45 * np.exp(-((d - 2) / 1.2) ** 2) - np.exp(-d ** 2))
        out[near] = np.where(np.abs(height) > np.abs(out[near]), height, out[near])
    return out


def _lie_across(stage, neutral, curves):
    """Triangles (K, 3) around the folds and the directions across these, in terms of their edges (K, 2, 2)."""
    skin = stage.triangles[stage.material == 0]
    middle = stage.mean[skin].mean(axis=1)
    e1, e2 = neutral[skin[:, 1]] - neutral[skin[:, 0]], neutral[skin[:, 2]] - neutral[skin[:, 0]]
    front = np.cross(e1, e2)[:, 2] > 0
    across, near = np.zeros((len(skin), 2, 2)), np.zeros((len(skin), 2), bool)
    for layer in (0, 1):
        chosen = [c for c in curves if c.layer == layer]
        points = np.concatenate([c.points for c in chosen])
        along = np.concatenate([np.gradient(c.points, axis=0) for c in chosen])
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
        distance, at = cKDTree(points).query(middle[:, :2])
        near[:, layer] = (distance < REACH) & front
        edges = np.stack([e1, e2], axis=2)[..., :2, :].transpose(0, 2, 1)          # (K, 2 edges, xy)
        flat = np.linalg.det(edges)
        inverse = np.linalg.inv(np.where(np.abs(flat)[:, None, None] > 1e-6, edges, np.eye(2)))
        share = np.einsum("nk,nkd->nd", normal[at], inverse)
        length = np.linalg.norm(share[:, :1] * e1 + share[:, 1:] * e2, axis=1, keepdims=True)
        across[:, layer] = share / np.maximum(length, 1e-6) * near[:, layer, None]
    keep = near.any(axis=1)
    return np.ascontiguousarray(skin[keep]), across[keep].astype(np.float32)


@njit(cache=True, fastmath=True, nogil=True)
def _shortening(vertices, triangles, across, out, weight):
    for t in range(len(triangles)):
        a, b, c = triangles[t]
        for layer in range(2):
            p, q = across[t, layer]
            if p == 0 and q == 0:
                continue
            square = np.float32(0)
            for k in range(3):
                d = p * (vertices[b, k] - vertices[a, k]) + q * (vertices[c, k] - vertices[a, k])
                square += d * d
            value = 1 - np.sqrt(square)
            for corner in (a, b, c):
                out[corner, layer] += value
                weight[corner, layer] += 1
    for v in range(len(out)):
        for layer in range(2):
            out[v, layer] /= max(weight[v, layer], np.float32(1))


@njit(cache=True, fastmath=True, nogil=True)
def _smooth(values, triangles, out, weight):
    for t in range(len(triangles)):
        for layer in range(2):
            a, b, c = triangles[t]
            mean = (values[a, layer] + values[b, layer] + values[c, layer]) / 3
            for corner in (a, b, c):
                out[corner, layer] += mean
                weight[corner, layer] += 1
    for v in range(len(out)):
        for layer in range(2):
            out[v, layer] /= max(weight[v, layer], np.float32(1))


def shortening(folds, vertices):
    """Share by which skin has become shorter across the folds: (V, 2) float32, negative where it is stretched."""
    zero = lambda: np.zeros((len(vertices), 2), np.float32)
    out = zero()
    _shortening(vertices, folds.triangles, folds.across, out, zero())
    for _ in range(SMOOTHING):
        smooth = zero()
        _smooth(out, folds.triangles, smooth, zero())
        out = smooth
    return out


def compression(folds, vertices):
    """How far the folds are pressed together by an expression, times the person's strength: (V, 2) float32."""
    return folds.strength * np.clip((shortening(folds, vertices) - SLACK) / FULL, 0, 1.2)
