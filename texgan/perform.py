"""Makes a data set of rendered performances: virtual people who play one script, seen through our own fit.

    python -m texgan.perform SKINS --ict ICT-FaceKit -o DATASET

SKINS is a data set of photos (texgan.extract) whose training people lend their skins to heads of ICT-FaceKit. Every
frame is drawn as a photo and then fitted and lifted as any photo is, so that the fit's faults are in the data, too.
Stop it and run it again: finished actors are kept. The same seed draws the same actors; a data set holds actors of one
seed, one SKINS and one model, but --actors may be raised.
"""
from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from facemodel import commands
from facemodel.atlas import chart_hash
from facemodel.errors import InputError
from facemodel.morphable import load_model
from facemodel.workers import worker_pool
from fitting.detection import FaceDetector
from fitting.progress import progress_bar
from fitting.trackfile import file_hash
from texgan.dataset import (
    SIZE,
    ClipInfo,
    clip_folders,
    decode,
    finished,
    read_clip,
    read_settings,
    write_clip,
    write_manifest,
)
from texgan.extract import Extractor, track_photos
from texgan.rendered import SCRIPT, draw_actor, draw_setup, perform
from texgan.split import split
from texgan.stage import load_stage

RENDERED_SCRIPT = "rendered"
KEYS = ("neutral", "smile_wide", "jaw_wide", "brows_up", "blink", "pucker", "grimace", "angry")
LEAST_FRAMES = 15                # an actor of whom fewer can be followed is left out


def skins_of(dataset):
    """Full-size neutral textures of a data set's training people: list of (name, path, rights).

    Raises
    ------
    InputError : when there are none
    """
    clips, _ = split([read_clip(folder) for folder in clip_folders(dataset)])
    found = []
    for clip in clips:
        path = Path(dataset) / "clips" / clip.info.name / "full" / f"{clip.info.neutral:06d}.png"
        if path.is_file() and clip.info.every == 0:                  # photos are sharper than frames
            found.append((clip.info.identity, path, clip.info.rights))
    if not found:
        raise InputError(f"{dataset}: holds no full-size textures of photos; make some with python -m texgan.extract")
    return found


def actor_frames(stage, skin, seed, number):
    """The frames of an actor's performance: yields (name, (512, 512, 3) uint8)."""
    rng = np.random.default_rng([seed, number])
    actor, setup = draw_actor(stage, rng, skin), draw_setup(rng)
    for name, weights in SCRIPT:
        yield name, perform(stage, actor, setup, weights, rng)


def extract_actor(model, extractor, detector, frames, name, rights):
    """The Clip of an actor's frames, or None when too few of them, or not the neutral one, can be followed."""
    names, images, landmarks = [], [], []
    for frame, image in frames:
        faces = detector.detect(image)
        if faces:
            names.append(frame)
            images.append(image)
            landmarks.append(detector.landmarks(image, faces[0].box))
    if len(names) < LEAST_FRAMES or names[0] != SCRIPT[0][0]:
        return None
    keys = [names.index(k) for k in KEYS if k in names]
    track = track_photos(model, images, landmarks, keys, detector)
    kept = [t for t in range(len(names)) if track.status[t] == "ok"]
    if len(kept) < LEAST_FRAMES or kept[0] != 0:
        return None
    neutral = extractor.lifter.neutral(images[0], track, 0)
    info = ClipInfo(name, name, [], [], rights, [names[t] for t in kept], [], 0, model.hash, chart_hash(model), every=0,
                    script=RENDERED_SCRIPT)
    return extractor.clip(info, ((t, images[t]) for t in kept), track, kept, neutral)


def begin(dataset, settings):
    """Writes the settings into a data set that is to be made, or to be gone on with.

    Raises
    ------
    InputError : its clips were made with others
    """
    known = read_settings(dataset)
    if finished(dataset):
        for name, option in (("seed", "--seed"), ("model_hash", "--model"), ("skins_sha256", "SKINS")):
            if known.get(name) != settings[name]:
                raise InputError(f"{dataset}: holds clips that were made with another {option}; give another folder "
                                 "with -o, or delete this one")
    Path(dataset).mkdir(exist_ok=True)
    write_manifest(dataset, settings)


def _skins_hash(skins):
    return hashlib.sha256("\n".join(f"{name} {file_hash(path)}" for name, path, _ in skins).encode()).hexdigest()


_worker = {}


def _prepare(model_name, ict_path):
    cv2.setNumThreads(1)
    model = load_model(model_name)
    _worker.update(model=model, detector=FaceDetector(), extractor=Extractor(model),
                   stage=load_stage(ict_path, load_model("commons")))


def _work(number, skin, seed, dataset):
    """Draws and extracts one actor: (its name, whether it could be followed)."""
    _, path, rights = skin
    name = f"actor{number:04d}"
    texture = decode(cv2.imread(str(path))[..., ::-1])
    with threadpool_limits(limits=1, user_api="blas"):
        clip = extract_actor(_worker["model"], _worker["extractor"], _worker["detector"],
                             actor_frames(_worker["stage"], texture, seed, number), name,
                             f"{rights}; ICT-FaceKit, MIT")
    if clip is not None:
        write_clip(dataset, clip)
    return name, clip is not None


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m texgan.perform", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("skins", type=Path, metavar="SKINS", help="data set of photos")
    parser.add_argument("--ict", type=Path, required=True, metavar="PATH", help="folder or .npz of ICT-FaceKit")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DATASET", help="folder, made if missing")
    parser.add_argument("--actors", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    commands.add_model(parser)
    args = parser.parse_args(argv)
    if args.actors < 1 or args.workers < 1:
        raise InputError("--actors and --workers: give 1 or more")
    skins = skins_of(args.skins)
    load_stage(args.ict, load_model("commons"))                      # says what is wrong before any work is done
    commands.check_folder(args.out)
    settings = {"skins": str(args.skins), "skins_sha256": _skins_hash(skins), "actors": args.actors, "seed": args.seed,
                "size": SIZE, "model": args.model, "model_hash": load_model(args.model).hash}
    begin(args.out, settings)
    todo = [k for k in range(args.actors) if not (args.out / "clips" / f"actor{k:04d}").is_dir()]
    lost = []
    with worker_pool(args.workers, _prepare, (args.model, args.ict)) as pool:
        with progress_bar(len(todo), "perform", "actor") as bar:
            jobs = [pool.submit(_work, k, skins[k % len(skins)], args.seed, args.out) for k in todo]
            for job in jobs:
                name, followed = job.result()
                lost += [] if followed else [name]
                bar.update()
    if lost:
        print(f"left out, since the fit could not follow them: {', '.join(lost)}")
    manifest = write_manifest(args.out, settings)
    if not manifest["clips"]:
        raise InputError(f"{args.out}: none of {args.actors} actors could be followed; give SKINS of other people")
    print(f"wrote {args.out}: {len(manifest['clips'])} actors, {manifest['frames']} frames")


if __name__ == "__main__":
    commands.run(main)
