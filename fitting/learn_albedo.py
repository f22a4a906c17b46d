"""Learns the embedded model's albedo (mean and principal components) from photographs.

    python -m fitting.learn_albedo PHOTOS... [--rounds 2]

PHOTOS are files or folders. Round 1 starts from a flat skin; each round fits every photo with the albedo of the round
before, lifts its albedo texture, completes it, and takes means and components over people and their mirror images.
The shipped file was learned from the Face Research Lab London Set (DeBruine & Jones, CC BY 4.0) and 14 CC0 portraits;
see assets/README.md. Takes two to three minutes per round on two cores for 140 photos.
"""
from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import assets
from facemodel import commands
from facemodel.atlas import build_atlas, uv_to_pixels
from facemodel.errors import InputError
from facemodel.files import stored_arrays, whole
from facemodel.morphable import DAMAGED, load_model
from facemodel.subdivision import catmull_clark
from facemodel.workers import worker_pool
from fitting.detection import FaceDetector
from fitting.fit import fit_image
from fitting.images import SUFFIXES, read_image
from fitting.progress import progress_bar
from fitting.texture import ResidualLight, albedo_texture, extract, fill, pose, region_texture, skin_weight

# photos of one person share what their names have before the first underscore
TEXTURE_SIZE = 256
MAX_PHOTOMETRIC, MAX_LANDMARK = 0.15, 0.08        # photos fitted worse than this are left out


def flat_albedo(geometry):
    """A start: one skin colour with lips, brows and eyes from the model's regions, three colour components."""
    with stored_arrays(geometry, DAMAGED) as d:
        step, _ = catmull_clark(d["quads"].astype(np.int64), len(d["mean"]))
        region = dict(zip(d["region_names"], np.clip(step @ (d["regions"].astype(np.float64).T / 255), 0, 1).T))
    mean = np.tile([0.72, 0.55, 0.47], (step.shape[0], 1))
    for name, colour in (("lips", (0.62, 0.36, 0.36)), ("eyebrows", (0.47, 0.36, 0.31)), ("eyes", (0.35, 0.33, 0.32)),
                         ("mouth_interior", (0.30, 0.15, 0.15))):
        mean += region[name][:, None] * (np.array(colour) - mean)
    colours = np.array([[0.10, 0.10, 0.10], [0.04, 0, -0.04], [0.015, -0.03, 0.015]])
    return mean, np.repeat(colours[:, None], len(mean), axis=1)


def store(path, mean, basis):
    """Writes albedo.npz: mean (V1, 3) float16 and basis (n, V1, 3) as int8 with a scale per component."""
    scale = np.abs(basis).max(axis=(1, 2)) / 127
    quantised = np.round(basis / scale[:, None, None]).astype(np.int8)
    with whole(path) as beside, beside.open("wb") as f:
        np.savez_compressed(f, mean=mean.astype(np.float16), basis=quantised, scale=scale.astype(np.float32))


_worker = {}


def _prepare(model_name):
    model = load_model(model_name)
    _worker.update(model=model, detector=FaceDetector(), atlas=build_atlas(model, TEXTURE_SIZE))


def lift(path, count):
    """Albedo at the first `count` vertices of one photo, or None with the reason: (name, (count, 3) or str)."""
    model, atlas = _worker["model"], _worker["atlas"]
    try:
        image = read_image(path)
        track, _ = fit_image(model, image, _worker["detector"], path=path)
    except InputError as error:
        return path, str(error).removeprefix(f"{path}: ")
    if track.photometric_error[0] > MAX_PHOTOMETRIC or track.landmark_error[0] > MAX_LANDMARK:
        return path, f"fit too far off ({track.photometric_error[0]:.3f}, {track.landmark_error[0]:.3f})"
    posed = pose(model, model.shape(track.identity, track.expression[0]), track.rotation[0], track.translation[0],
                 track.focal, track.principal_point)
    texture, validity = extract(image, posed, track.light[0], model, atlas)
    # what the fit can't explain at all (hair, background at the outline) is not skin
    model_texture = albedo_texture(model, track.albedo, atlas)
    strange = np.abs(texture - model_texture).max(axis=2) > 0.35
    face = np.clip((region_texture(model, "face", atlas) - 0.5) * 4, 0, 1)
    validity = validity * ~strange * face
    texture = texture * ResidualLight(model, atlas).gain(texture, validity * skin_weight(model, atlas))
    filled = fill(texture, validity, model, atlas, model_texture)
    where = np.clip(uv_to_pixels(model.uv[:count], atlas.size), 0, atlas.size - 1).astype(int)
    return path, filled[where[:, 1], where[:, 0]]


def learn(albedos, mirror, components):
    """Mean and components (scaled to one standard deviation) of albedos (N, V, 3) and their mirror images."""
    data = np.concatenate([albedos, albedos[:, mirror]]).astype(np.float64)
    mean = np.median(data, axis=0)
    centred = (data - mean).clip(-0.35, 0.35).reshape(len(data), -1)
    mean = mean + centred.mean(axis=0).reshape(mean.shape)
    centred -= centred.mean(axis=0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    kept = float((s[:components] ** 2).sum() / (s ** 2).sum())
    basis = vt[:components] * (s[:components, None] / np.sqrt(len(data) - 1))
    return mean, basis.reshape(-1, *mean.shape), kept


def explained_of_strangers(albedos, people, mirror, components, folds=5):
    """Share of the variance of people's albedos that components learned from the others explain.

    Parameters
    ----------
    albedos : (N, V, 3)
    people : list of N str, who is in each
    folds : int, into how many groups the people are split

    Returns
    -------
    (people's number,) float: 1 - |albedo - its reconstruction|^2 / |albedo - mean|^2, per person
    """
    names = sorted(set(people))
    fold_of = {name: i % folds for i, name in enumerate(names)}
    fold = np.array([fold_of[p] for p in people])
    left, whole = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for k in range(folds):
        mean, basis, _ = learn(albedos[fold != k], mirror, components)
        modes = basis.reshape(len(basis), -1)
        modes = modes / np.maximum(np.linalg.norm(modes, axis=1, keepdims=True), 1e-12)
        for i in np.flatnonzero(fold == k):
            away = (albedos[i] - mean).ravel()
            left[people[i]] += ((away - modes.T @ (modes @ away)) ** 2).sum()
            whole[people[i]] += (away ** 2).sum()
    return np.array([1 - left[n] / whole[n] for n in names])


def surface_mirror(geometry):
    """(V1,) index of the mirrored vertex one subdivision below the surface: nearest in the symmetric chart."""
    from scipy.spatial import cKDTree
    with stored_arrays(geometry, DAMAGED) as d:
        step, _ = catmull_clark(d["quads"].astype(np.int64), len(d["mean"]))
        uv = step @ d["uv"].astype(np.float64)
    return cKDTree(uv).query(np.stack([1 - uv[:, 0], uv[:, 1]], axis=1))[1]


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m fitting.learn_albedo", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTOS", help="photos, or folders of photos")
    parser.add_argument("-o", "--out", type=Path, metavar="ALBEDO.npz", help="default: the embedded model's own")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--components", type=int, default=80)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--continue", dest="resume", action="store_true", help="start from the present albedo")
    commands.add_verbose(parser)
    args = parser.parse_args(argv)
    if min(args.rounds, args.components, args.workers) < 1:
        raise InputError("--rounds, --components and --workers: give 1 or more")
    given = [f for p in args.photos for f in (sorted(p.iterdir()) if p.is_dir() else [p])]
    files = [f for f in given if f.suffix.lower() in SUFFIXES]
    if not files:
        raise InputError(f"{args.photos[0]}: no photos there; give files or folders with .jpg or .png")
    shipped = assets.path("commons_face")
    geometry, out = shipped / "commons_face.npz", args.out or shipped / "albedo.npz"
    commands.check_writable(out)
    mirror = surface_mirror(geometry)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        shutil.copy(geometry, folder / geometry.name)
        skin = folder / "albedo.npz"
        if args.resume:
            shutil.copy(shipped / "albedo.npz", skin)
        else:
            store(skin, *flat_albedo(geometry))
        for number in range(args.rounds):
            with worker_pool(args.workers, _prepare, (str(folder),)) as pool:
                results = []
                with progress_bar(len(files), f"round {number + 1}", "photo") as bar:
                    for result in pool.map(partial(lift, count=len(mirror)), files):
                        results.append(result)
                        bar.update()
            for path, reason in results:
                if isinstance(reason, str):
                    print(f"left out {path}: {reason}")
            if all(isinstance(a, str) for _, a in results):
                raise InputError(f"{files[0]}: neither this nor any other of {len(files)} photos can be fitted well "
                                 "enough; give photos of one face each, from the front")
            albedos = np.stack([a for _, a in results if not isinstance(a, str)])
            people = [Path(p).stem.split("_")[0] for p, a in results if not isinstance(a, str)]
            mean, basis, kept = learn(albedos, mirror, args.components)
            store(skin, mean, basis)
            print(f"round {number + 1}: {len(albedos)} photos, {len(basis)} components keep {100 * kept:.1f} % of the "
                  f"variance; {skin.stat().st_size / 1e6:.1f} MB")
        store(out, mean, basis)
    if len(set(people)) >= 5:
        shares = explained_of_strangers(albedos, people, mirror, args.components)
        print("of people who were left out, components learned from the others explain "
              f"{100 * np.median(shares):.0f} % (median; {100 * shares.min():.0f} to {100 * shares.max():.0f} %)")


if __name__ == "__main__":
    commands.run(main)
