"""Tracks one face through a clip.

    python -m fitting.track clip.mp4 -o clip.npz

Identity, albedo and focal length come from several key frames solved together and stay fixed; expression, pose and
light follow per frame from a warm start; pose and light are then smoothed over the clip. The clip is read three times
and never held in memory.
"""
from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facemodel.camera import project, to_camera
from facemodel.errors import InputError
from facemodel.morphable import load_model
from fitting import commands
from fitting.detection import FaceDetector, eye_distance
from fitting.fit import fit_frames, initial_pose, taken
from fitting.follow import choose_key_frames, follow
from fitting.parameters import Frame, Shared
from fitting.personal import personal_albedo
from fitting.photometric import photometric
from fitting.progress import progress_bar
from fitting.smoothing import smooth_track
from fitting.solver import NUMBA, Appearance, Settings, draw_samples, engine_for, solve
from fitting.trackfile import Track, file_hash, save_track
from fitting.trust import Trust
from fitting.video_reader import VideoReader
from fitting.views import CLIP_LEVELS, make_view

PER_FRAME_BLOCKS = ("expression", "rotation", "translation", "light")
KEY_SETTINGS = Settings(samples=4000)
FRAME_SETTINGS = Settings(samples=3000, light_prior=10.0)
BY_LANDMARKS = Settings(w_colour=0.0)
MAX_PHOTOMETRIC, MAX_LANDMARK = 0.12, 0.12       # beyond them a frame is not trusted
UNSURE, LOST = 0.65, 0.35                        # confidence (see judge)


def read_landmarks(path, detector, face="largest", progress=True):
    """First reading: landmarks of every frame (fitting.follow.Following) and the reader's word on damage or None."""
    with VideoReader(path) as reader:
        total = reader.info.frame_count_estimate
        with progress_bar(total, "landmarks", show=progress) as bar:
            following = follow((f.rgb for f in reader), detector, face, path, bar.update)
        return following, reader.damage


def read_pictures(path, indices):
    """RGB pictures (H, W, 3) uint8 of some frames."""
    wanted, out = set(indices), {}
    with VideoReader(path) as reader:
        for frame in reader:
            if frame.index in wanted:
                out[frame.index] = frame.rgb.copy()
                if len(out) == len(wanted):
                    break
    return [out[i] for i in indices]


@dataclass(frozen=True)
class Person:
    """What key frames tell once for a clip.

    shared : Shared, identity, albedo and focal length
    offset : (V, 3) float32, the person's albedo beyond the basis (fitting.personal)
    noise : float, median colour residual of the key frames
    light : (9, 3), mean of the key frames
    """

    shared: Shared
    offset: np.ndarray
    noise: float
    light: np.ndarray


def fit_key_frames(model, path, following, count=8, engine=NUMBA):
    """Solves identity, albedo and focal length from key frames, then lifts the person's own albedo: Person."""
    keys = choose_key_frames(following, count)
    images = read_pictures(path, keys)
    landmarks = [following.landmarks[k].astype(np.float64) for k in keys]
    shared, frames = fit_frames(model, images, landmarks, settings=KEY_SETTINGS, engine=engine)
    views = [make_view(model, i, m, CLIP_LEVELS[-1]) for i, m in zip(images, landmarks)]
    offset = personal_albedo(model, views, shared, frames)
    albedo = model.albedo(shared.albedo) + offset
    solution = solve(model, shared, frames, views, PER_FRAME_BLOCKS, 2, KEY_SETTINGS, appearance=Appearance(albedo),
                     engine=engine)
    offset = personal_albedo(model, views, shared, solution.frames)
    albedo = model.albedo(shared.albedo) + offset
    residuals = [residuals_in(model, albedo, v, shared, f)[1] for v, f in zip(views, solution.frames)]
    sizes = np.concatenate([np.sqrt((r ** 2).mean(axis=1)) for r in residuals])
    return Person(shared, offset, float(np.median(sizes)), np.mean([f.light for f in solution.frames], axis=0))


def residuals_in(model, albedo, view, shared, frame):
    """Samples of all the visible face in a view and their colour residuals (N, 3); None and none without a face."""
    vertices = model.shape(shared.identity, frame.expression)
    samples = draw_samples(model, vertices, shared, frame, view, FRAME_SETTINGS.samples)
    if samples is None:
        return None, np.zeros((0, 3), np.float32)
    focal, centre = view.camera(shared.focal)
    residual, _ = photometric(model, vertices, albedo, view.image, samples, replace(shared, focal=focal), frame, centre)
    return samples, residual


@dataclass(frozen=True)
class Fitted:
    """A fitted frame: its unknowns and how far they can be believed (see fitting.trackfile.Track)."""

    frame: Frame
    photometric_error: float
    landmark_error: float
    confidence: float


class FrameTracker:
    """Expression, pose and light per frame, warm from the frame before."""

    def __init__(self, model, person, engine=NUMBA):
        self._model, self._person, self._engine = model, person, engine
        self._albedo = model.albedo(person.shared.albedo) + person.offset
        self._mean_shape = model.shape(person.shared.identity)
        self._last = None
        self._trust = Trust.start(model, person.noise)

    def start(self, landmarks, principal_point):
        """A cold start from landmarks."""
        rotation, translation = initial_pose(self._model, self._mean_shape, landmarks, self._person.shared.focal,
                                             principal_point)
        return Frame(np.zeros(self._model.expression_count), rotation, translation, self._person.light)

    def step(self, image, landmarks):
        """Fits the next frame: (H, W, 3) uint8 and (68, 2) pixels -> Fitted."""
        model, shared = self._model, self._person.shared
        cold = self._last is None
        coarse, fine = (make_view(model, image, landmarks, eyes) for eyes in CLIP_LEVELS)
        frame = self.start(landmarks, coarse.principal_point) if cold else self._last
        light_mean = [frame.light]
        seen = Appearance(self._albedo, self._trust.weights(model))
        blocks = ("expression", "rotation", "translation")
        s = solve(model, shared, [frame], [coarse], blocks, 4 if cold else 1, BY_LANDMARKS, light_mean)
        for view, steps in ((coarse, 6 if cold else 2), (fine, 4 if cold else 2)):
            s = solve(model, shared, s.frames, [view], PER_FRAME_BLOCKS, steps, FRAME_SETTINGS, light_mean,
                      appearance=seen, engine=self._engine)
        return self._judged(s.frames[0], fine, landmarks, s.landmarks[0].vertices, seen.weight)

    def _judged(self, frame, view, landmarks, marks, weight):
        model, shared = self._model, self._person.shared
        vertices = model.shape(shared.identity, frame.expression, marks)
        xy = project(to_camera(vertices[marks], frame.rotation, frame.translation), shared.focal, view.principal_point)
        landmark_error = float(np.linalg.norm(xy - landmarks, axis=1).mean() / eye_distance(landmarks))
        samples, residual = residuals_in(model, self._albedo, view, shared, frame)
        if samples is None:
            self._last = None
            return Fitted(frame, np.nan, landmark_error, 0.0)
        confidence = float(np.average(self._trust.explained(residual), weights=samples.weight))
        nearest = model.triangles[samples.triangle, samples.barycentric.argmax(axis=1)]
        looked = samples.weight * weight[nearest] / np.maximum(model.sampling_weight[nearest], 1e-6)
        photometric_error = float(np.sqrt(np.average((residual ** 2).mean(axis=1), weights=looked)))
        self._trust = self._trust.after(model, samples, residual)
        wild = landmark_error > 2 * MAX_LANDMARK or confidence < LOST
        self._last = None if wild else frame
        return Fitted(frame, photometric_error, landmark_error, confidence)

    def forget(self):
        """The face is gone; the next step starts cold and trusts all of it."""
        self._last = None
        self._trust = Trust.start(self._model, self._person.noise)


def track_clip(model, path, detector, face="largest", key_frames=10, progress=True, engine=NUMBA, smooth=True):
    """Tracks a face through a clip.

    Parameters
    ----------
    model : MorphableModel
    path : video file
    detector : FaceDetector
    face : 'largest' or a number counted from the left, in the first frame that shows a face
    key_frames : int, frames that identity, albedo and focal length are solved from
    engine : fitting.solver.Engine
    smooth : bool, False leaves the frames as they were tracked

    Returns
    -------
    Track, and a list of remarks (several faces, a damaged file)

    Raises
    ------
    InputError : when the clip can't be read or shows no face
    """
    following, damage = read_landmarks(path, detector, face, progress)
    person = fit_key_frames(model, path, following, key_frames, engine)
    tracker = FrameTracker(model, person, engine)
    fitted = [None] * len(following.confirmed)
    with VideoReader(path) as reader, progress_bar(len(fitted), "fit", show=progress) as bar:
        for video_frame in reader:
            marks = following.landmarks[video_frame.index].astype(np.float64)
            if np.isfinite(marks).all():
                fitted[video_frame.index] = tracker.step(video_frame.rgb, marks)
            else:
                tracker.forget()
            bar.update()
        info = reader.info
    remarks = [damage] if damage else []
    if following.face_count > 1:
        remarks.append(f"{path}: {following.face_count} faces in the first frame with a face, took {taken(face)}; "
                       "choose with --face N, counted from the left")
    track = _assemble(model, person, fitted, following, info, file_hash(path), str(face))
    return smooth_track(track) if smooth else track, remarks


def judge(following, photometric_error, landmark_error, confidence):
    """(F,) status: no_face, lost (the picture is not the face that was fitted), low_confidence, ok.

    confidence : (F,) share of the visible face that the fit explains; beyond LOST nothing of a fit can be used, between
    LOST and UNSURE a third or more of the face is covered or wrong
    """
    status = np.full(len(confidence), "ok", dtype="U16")
    status[(confidence < UNSURE) | (photometric_error > MAX_PHOTOMETRIC) | (landmark_error > MAX_LANDMARK)] = (
        "low_confidence")
    status[(landmark_error > 2 * MAX_LANDMARK) | (confidence < LOST)] = "lost"
    status[~np.isfinite(following.landmarks).all(axis=(1, 2))] = "no_face"
    return status


def _assemble(model, person, fitted, following, info, source_hash, face):
    filled, last = [], next(f.frame for f in fitted if f is not None)
    for f in fitted:
        last = f.frame if f is not None else last
        filled.append(last)
    f32 = lambda rows: np.asarray(rows, np.float32)
    measured = lambda name: f32([np.nan if f is None else getattr(f, name) for f in fitted])
    photometric_error, landmark_error = measured("photometric_error"), measured("landmark_error")
    confidence = np.nan_to_num(measured("confidence"))
    return Track(
        model_name=model.name, model_hash=model.hash, image_size=np.array([info.height, info.width]),
        frame_index=np.arange(len(fitted)), status=judge(following, photometric_error, landmark_error, confidence),
        identity=f32(person.shared.identity), albedo=f32(person.shared.albedo),
        expression=f32([f.expression for f in filled]), expression_names=np.array(model.expression_names),
        rotation=f32([f.axis_angle for f in filled]), translation=f32([f.translation for f in filled]),
        focal=f32(person.shared.focal), principal_point=f32([info.width / 2, info.height / 2]),
        light=f32([f.light for f in filled]), landmarks=following.landmarks, photometric_error=photometric_error,
        landmark_error=landmark_error, confidence=confidence, albedo_offset=person.offset.astype(np.float16),
        source_sha256=source_hash, face=face)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m fitting.track", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, metavar="VIDEO", help="a clip with a face")
    parser.add_argument("-o", "--out", type=Path, metavar="TRACK.npz", help="default: beside the clip, suffix .npz")
    parser.add_argument("--face", default="largest", metavar="N", help="'largest' or a number, counted from the left")
    parser.add_argument("--key-frames", type=int, default=10, metavar="K", help="frames that identity comes from")
    parser.add_argument("--no-smoothing", action="store_true", help="leave the frames as they were tracked")
    commands.add_common(parser)
    args = parser.parse_args(argv)
    backend = commands.check_device(args.device)
    if args.key_frames < 1:
        raise InputError(f"--key-frames {args.key_frames}: give 1 or more")
    out = args.out or args.video.with_suffix(".npz")
    commands.check_writable(out)
    model = load_model(args.model)
    track, remarks = track_clip(model, args.video, FaceDetector(), args.face, args.key_frames,
                                engine=engine_for(model, backend), smooth=not args.no_smoothing)
    save_track(track, out)
    for remark in remarks:
        print(remark)
    counts = ", ".join(f"{n} {s}" for s, n in zip(*np.unique(track.status, return_counts=True)))
    print(f"wrote {out}: {counts}; median photometric RMS {np.nanmedian(track.photometric_error):.3f}, landmarks "
          f"{100 * np.nanmedian(track.landmark_error):.1f} % of the eye distance")


if __name__ == "__main__":
    commands.run(main)
