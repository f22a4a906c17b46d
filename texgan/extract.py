"""Makes a data set of aligned UV textures from photos and videos.

    python -m texgan.extract INPUT... -o DATASET

INPUT are photos, videos, or folders of them. Photos named ID_EXPRESSION.jpg are one person's, a video is a person of
its own unless --people says otherwise. Every picture is fitted, its light is divided out and the albedo laid on the
chart, under one light for all pictures of a person. Stop it and run it again: finished clips are kept.

Exit status: 0 when every input is in the data set, 3 when some had to be left out (they are named), 1 on errors.
"""
from __future__ import annotations

import argparse
import csv
import os
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from facemodel import commands
from facemodel.atlas import chart_hash
from facemodel.device import backend_for
from facemodel.errors import InputError
from facemodel.morphable import load_model
from facemodel.workers import worker_pool
from fitting.detection import FaceDetector
from fitting.fit import KEY_LOOKS, choose_face
from fitting.images import SUFFIXES, read_image
from fitting.lift import Lifter
from fitting.parameters import Frame, Shared
from fitting.progress import progress_bar
from fitting.solver import NUMBA, engine_for
from fitting.texture import weight_texture
from fitting.track import FrameTracker, Person, fit_person, read_pictures, residuals_in, track_clip
from fitting.trackfile import Track, file_hash, load_track, save_track
from fitting.trust import Trust
from fitting.video_reader import VideoReader
from fitting.views import CLIP_LEVELS, make_view
from texgan.dataset import SIZE, Clip, ClipInfo, encode, read_info, write_clip, write_info, write_manifest

VIDEOS = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"}
FULL_SIZE = 1024
NEUTRAL = "neutral"
PHOTO_SCRIPT = "photos"
STILL = 3                # times a photo is looked at, so that its occlusions weigh as in a clip
GPU_WORKERS = 2          # processes that share a GPU's memory


@dataclass(frozen=True)
class Job:
    """One clip to be: a person's photos, or a video.

    name, identity, rights : str
    paths : tuple of Path, one video or several photos
    neutral : str or None, frame (number, or expression of a photo) that is neutral; None: choose
    """

    name: str
    identity: str
    rights: str
    paths: tuple
    neutral: str | None = None

    @property
    def is_video(self):
        return self.paths[0].suffix.lower() in VIDEOS


def find_jobs(inputs, people=None, rights=""):
    """The clips that files and folders make, photos of one person together.

    Parameters
    ----------
    inputs : list of Path
    people : dict file name -> (identity, rights or "", neutral frame or None); others are taken from the names
    rights : str, for all files that `people` says nothing else of

    Returns
    -------
    list of Job, by name

    Raises
    ------
    InputError : no photos or videos, two clips of one name, or `people` that don't fit the files
    """
    people, photos, jobs, known = people or {}, {}, [], set()
    for path in _files(inputs):
        known.add(path.name)
        identity, own_rights, neutral = people.get(path.name, (None, "", None))
        if path.suffix.lower() in VIDEOS:
            if neutral is not None and not neutral.isdecimal():
                raise InputError(f"{path}: '{neutral}' is given as its neutral frame; of a video, give a number")
            neutral = neutral and str(int(neutral))
            jobs.append(Job(path.stem, identity or path.stem, own_rights or rights, (path,), neutral))
        else:
            photos.setdefault(identity or path.stem.split("_")[0], []).append((path, own_rights, neutral))
    for identity, found in photos.items():
        chosen = next((n for _, _, n in found if n), None)
        jobs.append(Job(identity, identity, next((r for _, r, _ in found if r), rights),
                        tuple(p for p, _, _ in found), chosen))
    if strange := next((name for name in people if name not in known), None):
        raise InputError(f"{strange}: is in the table of people, but not among the inputs; give the file, too, or take "
                         "out its line")
    names = [j.name for j in jobs]
    if double := next((n for n in names if names.count(n) > 1), None):
        raise InputError(f"two inputs make a clip named {double}; rename one of them")
    return sorted(jobs, key=lambda j: j.name)


def _files(inputs):
    found = []
    for given in inputs:
        if not given.exists():
            raise InputError(f"{given}: no such file or folder")
        inside = sorted(given.iterdir()) if given.is_dir() else [given]
        usable = [p for p in inside if p.suffix.lower() in SUFFIXES | VIDEOS]
        if not usable:
            raise InputError(f"{given}: no photos or videos there; give .jpg, .png, .mp4, .mov or folders of them")
        found += usable
    return found


def read_people(path):
    """A CSV with the columns file, identity, and optionally rights and neutral -> dict for find_jobs."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            rows = list(csv.DictReader(f))
        return {r["file"]: (r["identity"], r.get("rights") or "", (r.get("neutral") or "").strip() or None)
                for r in rows}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: give a CSV with the columns file and identity ({error})") from error


# ---------------------------------------------------------------- fitting

def track_photos(model, images, landmarks, keys, detector, engine=NUMBA):
    """A Track of several photos of one person, each taken from its own place but with one focal length.

    Parameters
    ----------
    images : list of (H, W, 3) uint8, of one size
    landmarks : list of (68, 2) float64
    keys : list of int, the photos that identity, albedo and focal length come from
    detector : FaceDetector, for the dense landmarks
    engine : fitting.solver.Engine

    Returns
    -------
    Track
    """
    dense = [detector.dense(images[i], landmarks[i], KEY_LOOKS) for i in keys]
    person = fit_person(model, [images[i] for i in keys], [landmarks[i] for i in keys], engine, dense)
    tracker, fitted = FrameTracker(model, person, engine), []
    for image, marks in zip(images, landmarks):
        tracker.forget()
        fitted.append(tracker.step(image, marks))
    height, width = images[0].shape[:2]
    f32 = lambda values: np.asarray(values, np.float32)
    return Track(
        model_name=model.name, model_hash=model.hash, image_size=np.array([height, width]),
        frame_index=np.arange(len(images)), status=np.array([f.status for f in fitted]),
        identity=f32(person.shared.identity), albedo=f32(person.shared.albedo),
        expression=f32([f.frame.expression for f in fitted]), expression_names=np.array(model.expression_names),
        rotation=f32([f.frame.axis_angle for f in fitted]), translation=f32([f.frame.translation for f in fitted]),
        focal=f32(person.shared.focal), principal_point=f32([width / 2, height / 2]),
        light=f32([f.frame.light for f in fitted]), landmarks=f32(landmarks),
        photometric_error=f32([f.photometric_error for f in fitted]),
        landmark_error=f32([f.landmark_error for f in fitted]), confidence=f32([f.confidence for f in fitted]),
        albedo_offset=person.offset.astype(np.float16))


def calmest(track):
    """The frame nearest to a neutral, frontal, well explained face."""
    effort = (track.expression ** 2).sum(axis=1) + 2 * (track.rotation ** 2).sum(axis=1)
    effort += 10 * np.maximum(np.nanmax(track.confidence) - track.confidence, 0)
    effort = np.where(track.status == "ok", effort, np.inf)
    return int(np.argmin(effort))


# ---------------------------------------------------------------- textures

class Extractor:
    """Turns pictures with their Track into the arrays of a Clip."""

    def __init__(self, model, size=SIZE):
        self._model = model
        self.lifter = Lifter(model, size)
        inner = np.maximum(model.regions["mouth_interior"], model.regions["eyes"])
        self._feature = weight_texture(model, inner, self.lifter.atlas)

    def clip(self, info, pictures, track, kept, neutral):
        """The Clip of some frames of a track.

        Parameters
        ----------
        info : ClipInfo; its quality is set here
        pictures : iterable of (t, (H, W, 3) uint8), the kept frames in order
        track : Track
        kept : list of int, frames that are taken
        neutral : fitting.lift.Texture, the person's neutral one

        Returns
        -------
        Clip
        """
        person = Person.of(track)
        albedo = self._model.albedo(person.shared.albedo) + person.offset
        trust, still, rows = Trust.start(self._model, person.noise), track.confidence.size < 2 or not info.every, []
        for t, image in pictures:
            texture = self.lifter.frame(image, track, t, neutral)
            if still:
                trust = Trust.start(self._model, person.noise)
            trust = self._look(trust, image, track, t, albedo, person.shared, STILL if still else 1)
            believed = cv2.resize(np.clip((trust.grid - 0.3) / 0.4, 0, 1), texture.validity.shape,
                                  interpolation=cv2.INTER_LINEAR)
            confidence = texture.validity * np.maximum(believed, self._feature)
            seen = texture.validity[self.lifter.atlas.mask].mean()
            rows.append((encode(texture.rgb), *(np.round(255 * a).astype(np.uint8)
                                                for a in (texture.validity, confidence)),
                         float(seen * track.confidence[t])))
        textures, validity, confidence, quality = zip(*rows)
        best = max(quality)
        return Clip(replace(info, quality=[round(q / max(best, 1e-6), 4) for q in quality]), np.stack(textures),
                    np.stack(validity), np.stack(confidence), track.expression[kept].astype(np.float32))

    def _look(self, trust, image, track, t, albedo, shared: Shared, times):
        frame = Frame.of(track, t)
        view = make_view(self._model, image, track.landmarks[t].astype(float), CLIP_LEVELS[-1])
        vertices = self._model.shape(shared.identity, frame.expression)
        samples, residual = residuals_in(self._model, vertices, albedo, view, shared, frame)
        if samples is not None:
            for _ in range(times):
                trust = trust.after(self._model, samples, residual)
        return trust


def extract_photos(model, extractor, detector, job, engine=NUMBA):
    """(Clip, full-size textures) of a person's photos; raises InputError when none can be used."""
    images = [read_image(p) for p in job.paths]
    names = [_expression_of(p) for p in job.paths]
    size = images[0].shape
    if other := next((p for p, i in zip(job.paths, images) if i.shape != size), None):
        raise InputError(f"{other}: is of another size than {job.paths[0]}; photos of one person need one size")
    landmarks = [detector.landmarks_of(i, choose_face(detector.find(i), "largest", p))
                 for i, p in zip(images, job.paths)]
    known = job.neutral or (NEUTRAL if NEUTRAL in names else None)
    if known is not None and known not in names:
        raise InputError(f"{job.paths[0]}: person {job.identity} has no photo '{known}' to be neutral")
    # as when one photo is all there is of a target, where the neutral one is known
    keys = list(range(len(images))) if known is None else [names.index(known)]
    track = track_photos(model, images, landmarks, keys, detector, engine)
    kept = [t for t in range(len(images)) if track.status[t] == "ok"]
    first = calmest(track) if known is None else names.index(known)
    if first not in kept:
        raise InputError(f"{job.paths[first]}: the neutral photo can't be fitted well enough")
    neutral = extractor.lifter.neutral(images[first], track, first)
    info = ClipInfo(job.name, job.identity, [p.name for p in job.paths], [file_hash(p) for p in job.paths], job.rights,
                    [names[t] for t in kept], [], kept.index(first), model.hash, chart_hash(model), every=0,
                    script=PHOTO_SCRIPT, left_out=[p.name for t, p in enumerate(job.paths) if t not in kept])
    clip = extractor.clip(info, ((t, images[t]) for t in kept), track, kept, neutral)
    large = Lifter(model, FULL_SIZE)
    whole = large.neutral(images[first], track, first)
    full = {kept.index(t): whole if t == first else large.frame(images[t], track, t, whole) for t in kept}
    return clip, full


def _expression_of(path):
    return path.stem.split("_", 1)[1] if "_" in path.stem else path.stem


def extract_video(model, extractor, detector, job, every=1, track_path=None, engine=NUMBA):
    """(Clip, full-size neutral texture) of a video; raises InputError when no frame can be used."""
    (path,) = job.paths
    if track_path is not None and track_path.is_file():
        track = load_track(track_path, model)
        if str(track.source_sha256) != file_hash(path):
            raise InputError(f"{track_path}: is the track of another clip than {path}; delete it to track again")
        if track.frame_index[0] != 0 or track.stopped_at >= 0:
            raise InputError(f"{track_path}: holds a part of {path} only; delete it to track all of it")
    else:
        track = track_clip(model, path, detector, progress=False, engine=engine).track
        if track_path is not None:
            save_track(track, track_path)
    usable = [int(t) for t in np.flatnonzero(track.status == "ok")]
    first = calmest(track) if job.neutral is None else int(job.neutral)
    if first not in usable:
        raise InputError(f"{path}: frame {first} can't be the neutral one, no face is followed there")
    kept = sorted({*usable[::every], first})
    picture = read_pictures(path, [first])[0]
    neutral = extractor.lifter.neutral(picture, track, first)
    info = ClipInfo(job.name, job.identity, [path.name], [str(track.source_sha256)], job.rights,
                    [str(t) for t in kept], [], kept.index(first), model.hash, chart_hash(model), every)
    clip = extractor.clip(info, _frames(path, kept), track, kept, neutral)
    return clip, {kept.index(first): Lifter(model, FULL_SIZE).neutral(picture, track, first)}


def _frames(path, kept):
    wanted = set(kept)
    with VideoReader(path) as reader:
        for frame in reader:
            if frame.index in wanted:
                yield frame.index, frame.rgb


# ---------------------------------------------------------------- the command

_worker = {}


def _prepare(model_name, device):
    cv2.setNumThreads(1)
    model = load_model(model_name)
    _worker.update(model=model, detector=FaceDetector(), extractor=Extractor(model),
                   engine=engine_for(model, backend_for(device)))


def _work(job, dataset, every, tracks):
    """Extracts a job into a data set: (name, None or what is wrong)."""
    model, detector, extractor, engine = (_worker[k] for k in ("model", "detector", "extractor", "engine"))
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            if job.is_video:
                track_path = None if tracks is None else tracks / f"{job.name}.npz"
                clip, full = extract_video(model, extractor, detector, job, every, track_path, engine)
            else:
                clip, full = extract_photos(model, extractor, detector, job, engine)
    except InputError as error:
        return job.name, str(error)
    write_clip(dataset, clip, full)
    return job.name, None


def is_done(dataset, job, model_hash, every):
    """Whether a data set holds this job's clip, made from the same files with the same settings."""
    folder = Path(dataset) / "clips" / job.name
    if not folder.is_dir():
        return False
    info = read_info(folder)
    if info.model_hash != model_hash or info.identity != job.identity:
        return False
    if job.is_video:
        return info.every == every and info.sha256 == [file_hash(job.paths[0])] and (
            job.neutral is None or info.frames[info.neutral] == job.neutral)
    return sorted(info.sha256) == sorted(file_hash(p) for p in job.paths) and (
        job.neutral is None or info.frames[info.neutral] == job.neutral)


def extract(jobs, dataset, model_name="commons", every=1, tracks=None, workers=None, progress=True, device="auto"):
    """Extracts Jobs into a data set, several at a time; finished ones are kept, with the rights that are given now.

    Parameters
    ----------
    jobs : list of Job
    dataset : Path of the folder, made if missing
    model_name : 'commons' or the path of a model
    every : int, takes one frame of a video in so many
    tracks : Path or None, folder of NAME.npz to read tracks from and to keep them in
    workers : int, processes; default one per core
    device : 'auto', 'cpu' or 'cuda', where to fit; on a GPU by GPU_WORKERS processes at most

    Returns
    -------
    dict name -> str, what is wrong with the clips, and with the photos of other clips, that were left out
    """
    model_hash = load_model(model_name).hash
    todo = [j for j in jobs if not is_done(dataset, j, model_hash, every)]
    if backend_for(device).torch_device:
        workers = min(workers or os.cpu_count(), GPU_WORKERS)
    Path(dataset, "clips").mkdir(parents=True, exist_ok=True)
    wrong = {}
    with worker_pool(workers, _prepare, (str(model_name), device)) as pool:
        with progress_bar(len(todo), "extract", "clip", progress) as bar:
            for done in as_completed([pool.submit(_work, j, dataset, every, tracks) for j in todo]):
                name, error = done.result()
                if error:
                    wrong[name] = error
                bar.update()
    for job in jobs:
        if job.name in wrong:
            continue
        info = read_info(Path(dataset, "clips", job.name))
        wrong.update(dict.fromkeys(info.left_out, "can't be fitted well enough"))
        if job.rights and info.rights != job.rights:
            write_info(dataset, replace(info, rights=job.rights))
    return dict(sorted(wrong.items()))


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m texgan.extract", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="photos, videos, or folders of them")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DATASET", help="folder, made if missing")
    parser.add_argument("--people", type=Path, metavar="CSV",
                        help="columns file, identity and optionally rights, neutral (a frame's number or an "
                             "expression's name)")
    parser.add_argument("--rights", default="", help="what may be done with the inputs, kept in the manifest")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of a video take one frame in N (default 1)")
    parser.add_argument("--tracks", type=Path, metavar="FOLDER", help="read tracks from there, or keep them there")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    commands.add_common(parser)
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.every < 1 or args.workers < 1:
        raise InputError("--every and --workers: give 1 or more")
    if args.tracks is not None and not args.tracks.is_dir():
        raise InputError(f"{args.tracks}: no such folder; make it or leave --tracks out")
    jobs = find_jobs(args.inputs, read_people(args.people) if args.people else None, args.rights)
    commands.check_folder(args.out)
    wrong = extract(jobs, args.out, args.model, args.every, args.tracks, args.workers, device=args.device)
    for name, error in wrong.items():
        print(f"left out {name}: {error}")
    if all(j.name in wrong for j in jobs):
        raise InputError(f"{args.out}: none of {len(jobs)} inputs could be used")
    manifest = write_manifest(args.out, {"model": args.model, "every": args.every, "size": SIZE})
    print(f"wrote {args.out}: {len(manifest['clips'])} clips of {manifest['identities']} people, "
          f"{manifest['frames']} frames; look at it with python -m texgan.check {args.out}")
    return 3 if wrong else 0


if __name__ == "__main__":
    commands.run(main)
