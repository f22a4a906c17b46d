"""Identity: principal components over random draws of MakeHuman's face and head targets."""
from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from facemodel.build.surface import place

FOLDERS = ("head", "nose", "mouth", "eyes", "eyebrows", "cheek", "chin", "forehead", "ears", "neck", "asym")
# spread of a target's coefficient (1 = the artist's full deflection) by folder, chosen so that draws look like people
SPREAD = {"head": 0.12, "nose": 0.18, "mouth": 0.19, "eyes": 0.19, "eyebrows": 0.2, "cheek": 0.22, "chin": 0.2,
          "forehead": 0.18, "ears": 0.15, "neck": 0.1, "asym": 0.06}
OPPOSITES = {"decr": "incr", "down": "up", "in": "out", "backward": "forward", "concave": "convex",
             "compress": "uncompress"}
EXCLUDED = re.compile(r"head-age|asymm-|head-(trans|scale-vert)|neck-trans|measure-|push|ear-shape|head-back")


def target_pairs(base):
    """Signed targets: list of (folder, name, positive displacement, negative displacement or None), each (V, 3) mm."""
    pairs = []
    for folder in FOLDERS:
        files = {n: p for n, p in base.target_files(folder).items() if not EXCLUDED.search(n)}
        done = set()
        for name, path in files.items():
            if name in done:
                continue
            stem, _, last = name.rpartition("-")
            partner = f"{stem}-{OPPOSITES.get(last, '')}"
            if partner in files:
                done.add(partner)
                pairs.append((folder, stem, base.target(files[partner]), base.target(path)))
            elif last not in OPPOSITES.values() or f"{stem}-{_inverse(last)}" not in files:
                pairs.append((folder, name, base.target(path), None))
    return pairs


def _inverse(word):
    return next((k for k, v in OPPOSITES.items() if v == word), "")


def _macro(base, target, rng):
    """One draw of descent, sex, age, muscle and weight: (V, 3) displacement in mm. target(path) reads a target."""
    folder = base.folder / "mpfb2/targets/macrodetails"
    out = np.zeros_like(base.vertices)
    race = rng.dirichlet([0.6, 0.6, 0.9])
    sex = rng.beta(0.6, 0.6)
    old = np.clip(rng.exponential(0.28), 0, 1)
    muscle, weight = rng.normal(0, 0.3, 2)
    for r, descent in zip(race, ("african", "asian", "caucasian")):
        for s, gender in ((sex, "male"), (1 - sex, "female")):
            for a, age in ((old, "old"), (1 - old, "young")):
                out += r * s * a * target(folder / f"{descent}-{gender}-{age}.target.gz")
    for s, gender in ((sex, "male"), (1 - sex, "female")):
        for a, age in ((old, "old"), (1 - old, "young")):
            for m, muscles in _levels(muscle):
                for w, fat in _levels(weight):
                    out += s * a * m * w * target(
                        folder / f"universal-{gender}-{age}-{muscles}muscle-{fat}weight.target.gz")
    return out


def _levels(x):
    """Weights of 'min', 'average', 'max' for a value in [-1, 1], those that are not zero."""
    x = float(np.clip(x, -1, 1))
    side = ("max", x) if x > 0 else ("min", -x)
    return [(1 - abs(x), "average"), (side[1], side[0])]


def draw_shapes(base, mesh, count, seed):
    """Random believable heads: (count, V, 3) float32 on the control mesh, millimetres, each with its macro part."""
    rng = np.random.default_rng(seed)
    pairs, target = target_pairs(base), lru_cache(maxsize=None)(base.target)
    sides = {(f, n): i for i, (f, n, *_) in enumerate(pairs)}
    shapes = np.empty((count, len(mesh.source), 3), np.float32)
    for k in range(count):
        coefficients = np.array([np.clip(rng.normal(0, SPREAD[f]), -1, 1) for f, *_ in pairs])
        for (folder, name), i in sides.items():           # left and right go together, but for a tenth
            if name.startswith("l-") and (folder, "r-" + name[2:]) in sides:
                j = sides[folder, "r-" + name[2:]]
                coefficients[j] = coefficients[i] + 0.1 * coefficients[j]
        vertices = base.vertices + _macro(base, target, rng)
        for c, (_, _, positive, negative) in zip(coefficients, pairs):
            if negative is None:
                vertices += abs(c) * positive
            else:
                vertices += c * positive if c > 0 else -c * negative
        shapes[k] = place(mesh, base, vertices, close_lips=True)
    return shapes


def align(shapes, weights, iterations=4):
    """Removes rigid motion and size (generalised Procrustes with vertex weights).

    Parameters
    ----------
    shapes : (N, V, 3) float
    weights : (V,) float, which part decides the alignment

    Returns
    -------
    (N, V, 3) float64 with the mean size of the input
    """
    shapes = shapes.astype(np.float64)
    w = weights / weights.sum()
    shapes = shapes - np.einsum("v,nvk->nk", w, shapes)[:, None]
    size = np.sqrt(np.einsum("v,nvk,nvk->n", w, shapes, shapes))
    mean_size = size.mean()
    shapes *= (mean_size / size)[:, None, None]
    mean = shapes[0]
    for _ in range(iterations):
        for k, shape in enumerate(shapes):
            u, _, vt = np.linalg.svd(np.einsum("v,vi,vj->ij", w, mean, shape))
            r = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
            shapes[k] = shape @ r.T
        mean = shapes.mean(axis=0)
        mean *= mean_size / np.sqrt(np.einsum("v,vk,vk->", w, mean, mean))
    return shapes


def principal_components(shapes, count, weights):
    """Mean, components scaled by their standard deviation, and the share of variance kept.

    Parameters
    ----------
    shapes : (N, V, 3) float
    count : int
    weights : (V,) float, importance of each vertex in the variance

    Returns
    -------
    mean : (V, 3), basis : (count, V, 3) displacement per standard deviation, kept : float in [0, 1]
    """
    mean = shapes.mean(axis=0)
    centred = (shapes - mean).reshape(len(shapes), -1)
    scale = np.sqrt(np.repeat(weights, 3))
    gram = (centred * scale) @ (centred * scale).T
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    basis = (vectors / np.sqrt(values)).T @ centred * np.sqrt(values / (len(shapes) - 1))[:, None]
    return mean, basis.reshape(count, -1, 3), float(values.sum() / np.trace(gram))
