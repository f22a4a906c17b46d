"""Learns how real heads vary, from a second model's heads, and writes it into the embedded model.

    python -m facemodel.build.population path/to/ICT-FaceKit

The path is any model that --model reads.

MakeHuman's targets say what a head can do, not how often heads do it, and its base mesh is an artist's. Heads drawn at
random from a model made of scans are laid over with the embedded model (facemodel.registration); the mean and the
principal components of what the embedded surface then looks like become its identity. The surface, its chart and its
expressions stay MakeHuman's; so does a share of the spread, for heads that the other model does not know.
"""
from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from facemodel import commands
from facemodel.build.__main__ import DEFAULT_OUT
from facemodel.errors import InputError
from facemodel.files import stored_arrays, whole
from facemodel.mesh import vertex_normals
from facemodel.morphable import DAMAGED, FLIP, load_model
from facemodel.registration import LOOSE, SHARED_LANDMARKS, register
from facemodel.workers import worker_pool

FURTHEST_COEFFICIENT = 2.2       # standard deviations, of the heads drawn
OWN_SHARE, OWN_SPREAD = 0.1, 0.5     # share of the embedded model's own components, and how far they reach
# landmarks that are placed anew, where the other model has them: brows, nose and the lips' outline, with their partners
# on the other side. Lids and inner lips stay where the surface parts
BROWS_NOSE_LIPS = {17: 26, 18: 25, 19: 24, 20: 23, 21: 22, 27: 27, 28: 28, 29: 29, 30: 30, 31: 35, 32: 34, 33: 33,
                   48: 54, 49: 53, 50: 52, 51: 51, 57: 57, 58: 56, 59: 55}
# where dlib's detector finds them, against the markup of ICT-FaceKit: mean over 56 rendered heads, mm to the subject's
# left and up, for the first of each pair
DETECTOR = {17: (-0.4, -0.9), 18: (-0.4, -0.2), 19: (0.7, -0.0), 20: (0.4, -0.6), 21: (0.4, -2.1), 27: (0.0, 0.2),
            28: (0.0, -0.8), 29: (0.0, -1.9), 30: (0.0, -1.7), 31: (-0.6, 1.4), 32: (-0.7, 0.3), 33: (0.0, -0.6),
            48: (-0.3, -0.8), 49: (0.9, -1.4), 50: (0.8, -1.0), 51: (0.0, -1.6), 57: (0.0, -0.2), 58: (2.4, -0.6),
            59: (1.1, -0.9)}
DEPTH_WEIGHT = 0.3               # of a distance along the line of sight, when a landmark is placed
EYES_TO_ORIGIN = 65.0            # mm, the origin lies behind the middle of the eyes


def draw_heads(model, count, seed):
    """(count, V, 3) vertices of random heads of a model, file orientation, millimetres."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        drawn = rng.normal(size=model.identity_count)
        yield model.shape(np.clip(drawn, -FURTHEST_COEFFICIENT, FURTHEST_COEFFICIENT)) * FLIP


def lay_over(head, guide, triangles, landmarks):
    """Control mesh (C, 3) of the embedded model laid over a head, in the head's space, and the distance in mm."""
    fit = register(guide, head, triangles, landmarks, iterations=14, stiffness=LOOSE)
    control = guide.neutral(fit.coefficients) * FLIP
    return fit.scale * control @ fit.rotation.T + fit.translation, fit.distance


def statistics(shapes, own, mirror, weight, count):
    """Mean and components of heads and their mirror images, mixed with the model's own components.

    Parameters
    ----------
    shapes : (N, C, 3) control meshes; their position is taken out, size and tilt are kept
    own : (C, 3, K) components of the model, per standard deviation
    mirror : (C,) int, each vertex's partner on the other side
    weight : (C,) float, importance of each vertex in the variance
    count : int

    Returns
    -------
    mean : (C, 3), basis : (C, 3, count) displacement per standard deviation
    """
    shapes = np.concatenate([shapes, shapes[:, mirror] * [-1, 1, 1]])
    shapes = shapes - np.einsum("v,nvk->nk", weight / weight.sum(), shapes)[:, None]
    mean = shapes.mean(axis=0)
    rows = np.concatenate([(shapes - mean) * np.sqrt((1 - OWN_SHARE) / (len(shapes) - 1)),
                           np.moveaxis(own, 2, 0) * OWN_SPREAD * np.sqrt(OWN_SHARE)]).reshape(-1, mean.size)
    scaled = rows * np.sqrt(np.repeat(weight, 3))
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    return mean, (vectors.T @ rows).reshape(count, -1, 3).transpose(1, 2, 0)


def place_landmarks(guide, surface, goals):
    """Landmarks of the guide with BROWS_NOSE_LIPS moved to the vertices nearest to their goals, alike on both sides.

    Parameters
    ----------
    guide : MorphableModel
    surface : (V, 3) float, its mean face in the other model's space, file orientation, symmetric in x
    goals : (68, 3) float, in that space

    Returns
    -------
    (68,) int32
    """
    facing = vertex_normals(surface, guide.triangles)[:, 2] > 0.05
    allowed = np.flatnonzero(facing & (guide.regions["face"] > 0.5) & (guide.regions["mouth_interior"] < 0.3))
    metric = np.array([1, 1, DEPTH_WEIGHT])
    landmarks = guide.landmarks.copy()
    for left, right in BROWS_NOSE_LIPS.items():
        goal = (goals[left] + goals[right] * [-1, 1, 1]) / 2
        middle = np.abs(surface[allowed, 0]) < 0.3
        among = allowed[middle] if left == right else allowed
        landmarks[left] = among[np.linalg.norm((surface[among] - goal) * metric, axis=1).argmin()]
        landmarks[right] = np.linalg.norm(surface - surface[landmarks[left]] * [-1, 1, 1], axis=1).argmin()
    return landmarks.astype(np.int32)


def learn(guide, model, mirror, weight, draws, seed, log=print):
    """What a population of heads tells.

    Returns
    -------
    mean : (C, 3), identity : (C, 3, 80), in the heads' orientation
    rotation : (3, 3), the guide's file space to the heads'
    landmarks : (68,) int32
    """
    landmarks = {k: model.landmarks[k] for k in SHARED_LANDMARKS}
    first = register(guide, model.mean * FLIP, model.triangles, landmarks, stiffness=LOOSE)
    centred = replace(guide, control_mean=guide.neutral(first.coefficients))
    job = partial(lay_over, guide=centred, triangles=model.triangles, landmarks=landmarks)
    with worker_pool() as pool:
        results = list(pool.map(job, draw_heads(model, draws, seed), chunksize=4))
    log(f"{draws} heads laid over, median distance {np.median([d for _, d in results]):.2f} mm")
    shapes = np.stack([s for s, _ in results])
    own = np.einsum("ij,vjk->vik", first.rotation, guide.control_identity * FLIP[:, None])
    mean, basis = statistics(shapes, own, mirror, weight, guide.identity_count)
    typical = shapes.mean(axis=0)
    typical = (typical + typical[mirror] * [-1, 1, 1]) / 2
    goals = (model.mean * FLIP)[model.landmarks].astype(np.float64)
    for left, right in BROWS_NOSE_LIPS.items():
        x, y = DETECTOR[left]
        goals[left], goals[right] = goals[left] + [x, y, 0], goals[right] + ([-x, y, 0] if left != right else [x, y, 0])
    placed = place_landmarks(guide, guide.refine @ typical.astype(np.float32), goals)
    return mean, basis, first.rotation, placed


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m facemodel.build.population", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", metavar="MODEL", help="whose heads: the path of a model made of scans")
    parser.add_argument("--guide", type=Path, default=DEFAULT_OUT, help="commons_face.npz as facemodel.build wrote it")
    parser.add_argument("-o", "--out", type=Path, help="default: the model's own place")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=77)
    commands.add_verbose(parser)
    args = parser.parse_args(argv)
    out = args.out or args.guide
    commands.check_writable(out)
    model, guide = load_model(args.heads), load_model(args.guide.parent)
    with stored_arrays(args.guide, DAMAGED) as arrays:
        known = str(arrays.get("population", ""))
    if known:
        raise InputError(f"{args.guide}: knows its population already; build it anew with python -m facemodel.build")
    region = dict(zip(arrays["region_names"], arrays["regions"].astype(np.float64) / 255))
    weight = 0.02 + np.clip(region["face"] + 0.5 * region["forehead"], 0, 1)
    mean, basis, rotation, arrays["landmarks"] = learn(guide, model, arrays["mirror"].astype(int), weight, args.draws,
                                                       args.seed)
    eyes = (guide.refine @ mean.astype(np.float32))[guide.landmarks[[36, 39, 42, 45]]].mean(axis=0)
    arrays["mean"] = (mean - eyes + [0, 0, EYES_TO_ORIGIN]).astype(np.float32)
    arrays["identity_basis"] = np.moveaxis(basis, 2, 0).astype(np.float16)
    arrays["expression_basis"] = (arrays["expression_basis"].astype(np.float32) @ rotation.T).astype(np.float16)
    arrays["population"] = f"{args.draws} heads of {model.name}, seed {args.seed}"
    with whole(out) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    commands.run(main)
