"""Tracks one face through a clip.

    python -m fitting.track clip.mp4 -o clip.npz

Identity, albedo and focal length come from several key frames solved together and stay fixed; expression, pose and
light follow per frame from a warm start and are then smoothed over the clip. The clip is read three times
and never held in memory.
"""
from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from facemodel import commands
from facemodel.camera import project, to_camera
from facemodel.device import backend_for
from facemodel.errors import InputError
from facemodel.morphable import load_model
from fitting import checkpoint
from fitting.detection import FaceDetector, eye_distance
from fitting.fit import KEY_LOOKS, fit_frames, initial_pose, taken
from fitting.follow import choose_key_frames, follow
from fitting.parameters import Frame, Shared
from fitting.personal import personal_albedo
from fitting.progress import progress_bar
from fitting.smoothing import RunSmoother, marginal, smooth_light
from fitting.solver import NUMBA, Appearance, Settings, draw_samples, engine_for, solve, view_residuals
from fitting.steadiness import steadiness
from fitting.trackfile import Track, file_hash, save_track
from fitting.trust import Trust
from fitting.unfinished import RAW, SMOOTHED, UnfinishedTrack
from fitting.video_reader import WHOLE, VideoReader
from fitting.views import CLIP_LEVELS, make_view

UNKNOWNS = PER_FRAME_BLOCKS = ("expression", "rotation", "translation", "light")
KEY_SETTINGS = Settings(samples=1250)
FRAME_SETTINGS = Settings(samples=3000, light_prior=10.0)
BY_LANDMARKS = Settings(w_colour=0.0)
MAX_PHOTOMETRIC, MAX_LANDMARK = 0.12, 0.12       # beyond them a frame is not trusted
UNSURE, LOST = 0.65, 0.35                        # confidence (see Fitted.status)


def read_landmarks(path, detector, face="largest", progress=True, span=WHOLE, journal=None):
    """First reading: landmarks of every frame (fitting.follow.Following) and the reader's word on damage or None."""
    done = 0 if journal is None else checkpoint.EVERY * journal.count
    with VideoReader(path, replace(span, first=span.first + done)) as reader:
        total = span.count(reader.info.frame_count_estimate)
        with progress_bar(total, "landmarks", show=progress) as bar:
            bar.update(done)
            pictures = _pictures(reader, path, span, done)
            following = follow(pictures, detector, face, path, bar.update, journal)
        return following, reader.damage


def _pictures(reader, path, span, done):
    """RGB pictures of a span; InputError when the clip ends before it."""
    empty = done == 0
    for frame in reader:
        yield frame.rgb
        empty = False
    if empty:
        raise InputError(f"{path}: ends before frame {span.first}; give an earlier --start")


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


    @classmethod
    def of(cls, track):
        """The Person of a Track that was made by track_clip, with its usual error as noise."""
        shared = Shared(track.identity.astype(float), track.albedo.astype(float), float(track.focal))
        return cls(shared, track.albedo_offset.astype(np.float32), float(np.nanmedian(track.photometric_error)),
                   track.light.mean(axis=0).astype(float))


def fit_person(model, images, landmarks, engine=NUMBA, dense=None):
    """Solves identity, albedo and focal length from key frames, then lifts the person's own albedo.

    Parameters
    ----------
    images : list of (H, W, 3) uint8
    landmarks : list of (68, 2) float64 pixels
    dense : list of fitting.dense_landmarks.DenseLandmarks, or None

    Returns
    -------
    Person
    """
    shared, frames = fit_frames(model, images, landmarks, settings=KEY_SETTINGS, engine=engine, dense=dense)
    dense = dense or [None] * len(images)
    views = [make_view(model, i, m, CLIP_LEVELS[-1], dense=d) for i, m, d in zip(images, landmarks, dense)]
    offset = personal_albedo(model, views, shared, frames)
    albedo = model.albedo(shared.albedo) + offset
    solution = solve(model, shared, frames, views, PER_FRAME_BLOCKS, 2, KEY_SETTINGS, appearance=Appearance(albedo),
                     engine=engine)
    offset = personal_albedo(model, views, shared, solution.frames)
    albedo = model.albedo(shared.albedo) + offset
    residuals = [residuals_in(model, model.shape(shared.identity, f.expression), albedo, v, shared, f)[1]
                 for v, f in zip(views, solution.frames)]
    sizes = np.concatenate([np.sqrt((r ** 2).mean(axis=1)) for r in residuals])
    return Person(shared, offset, float(np.median(sizes)), np.mean([f.light for f in solution.frames], axis=0))


def residuals_in(model, vertices, albedo, view, shared, frame):
    """Samples of all the visible face in a view and their colour residuals (N, 3); None and none without a face."""
    samples = draw_samples(model, vertices, shared, frame, view, FRAME_SETTINGS.samples)
    if samples is None:
        return None, np.zeros((0, 3), np.float32)
    return samples, view_residuals(model, vertices, albedo, view, samples, shared, frame)[0]


@dataclass(frozen=True)
class Fitted:
    """A fitted frame: its unknowns and how far they can be believed (see fitting.trackfile.Track).

    hessian : (n, n) float32, of the energy by expression, rotation and translation, light following freely
    """

    frame: Frame
    hessian: np.ndarray
    photometric_error: float
    landmark_error: float
    confidence: float

    @property
    def status(self):
        """ok, low_confidence (a third or more of the face is covered or wrong) or lost (nothing of it can be used)."""
        if self.landmark_error > 2 * MAX_LANDMARK or self.confidence < LOST:
            return "lost"
        unsure = self.photometric_error > MAX_PHOTOMETRIC or self.landmark_error > MAX_LANDMARK
        return "low_confidence" if unsure or self.confidence < UNSURE else "ok"


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
        hessian = marginal(s.hessians[0], model.expression_count + 6).astype(np.float32)
        return self._judged(s.frames[0], hessian, fine, landmarks, s.landmarks[0].vertices, seen.weight)

    def _judged(self, frame, hessian, view, landmarks, marks, weight):
        model, shared = self._model, self._person.shared
        vertices = model.shape(shared.identity, frame.expression)
        xy = project(to_camera(vertices[marks], frame.rotation, frame.translation), shared.focal, view.principal_point)
        landmark_error = float(np.linalg.norm(xy - landmarks, axis=1).mean() / eye_distance(landmarks))
        samples, residual = residuals_in(model, vertices, self._albedo, view, shared, frame)
        if samples is None:
            self._last = None
            return Fitted(frame, hessian, np.nan, landmark_error, 0.0)
        confidence = float(np.average(self._trust.explained(residual), weights=samples.weight))
        nearest = model.triangles[samples.triangle, samples.barycentric.argmax(axis=1)]
        looked = samples.weight * weight[nearest] / np.maximum(model.sampling_weight[nearest], 1e-6)
        photometric_error = float(np.sqrt(np.average((residual ** 2).mean(axis=1), weights=looked)))
        self._trust = self._trust.after(model, samples, residual)
        fitted = Fitted(frame, hessian, photometric_error, landmark_error, confidence)
        self._last = None if fitted.status == "lost" else frame
        return fitted

    def state(self):
        """What is remembered from frame to frame, as plain data (see fitting.checkpoint)."""
        last = None if self._last is None else {name: getattr(self._last, name) for name in PER_FRAME_BLOCKS}
        return {"last": last, "trust": self._trust.grid}

    def restore(self, state):
        """Goes on from a state."""
        self._last = None if state["last"] is None else Frame(**state["last"])
        self._trust = replace(self._trust, grid=state["trust"])

    def forget(self):
        """The face is gone; the next step starts cold and trusts all of it."""
        self._last = None
        self._trust = Trust.start(self._model, self._person.noise)


@dataclass(frozen=True)
class Tracking:
    """A tracked clip.

    track : Track, smoothed
    raw : Track, as the frames were fitted
    remarks : list of str for the user (several faces, a damaged file)
    """

    track: Track
    raw: Track
    remarks: list


# matrices are small: BLAS threads would only take turns with numba's
@threadpool_limits.wrap(limits=1, user_api="blas")
def track_clip(model, path, detector, face="largest", key_frames=10, progress=True, engine=NUMBA, span=WHOLE,
               folder=None):
    """Tracks a face through a clip.

    Parameters
    ----------
    model : MorphableModel
    path : video file
    detector : FaceDetector
    face : 'largest' or a number counted from the left, in the first frame that shows a face
    key_frames : int, frames that identity, albedo and focal length are solved from
    engine : fitting.solver.Engine
    span : fitting.span.Span, the part to be tracked; nothing behind it is read
    folder : optional path where unfinished work is kept, from which a later call with the same arguments goes on

    Returns
    -------
    Tracking

    Raises
    ------
    InputError : when the clip can't be read or shows no face
    """
    kept = UnfinishedTrack(folder)
    following, damage = kept.following(lambda journal: read_landmarks(path, detector, face, progress, span, journal))
    keys = choose_key_frames(following, key_frames)

    def look_at_keys():
        pictures = read_pictures(path, [span.first + k for k in keys])
        marks = list(following.landmarks[keys].astype(np.float64))
        dense = [detector.dense(p, m, KEY_LOOKS) for p, m in zip(pictures, marks)]
        return fit_person(model, pictures, marks, engine, dense)

    person = kept.person(look_at_keys)
    tracker, smoother = FrameTracker(model, person, engine), RunSmoother(model.expression_range)
    raw = _empty_track(model, person, following, file_hash(path), str(face), span)
    smooth = replace(raw, expression=raw.expression.copy(), rotation=raw.rotation.copy(),
                     translation=raw.translation.copy())
    done = kept.restore(raw, smooth, tracker, smoother)
    rest = replace(span, first=span.first + done)
    with VideoReader(path, rest) as reader, progress_bar(len(raw), "fit", show=progress) as bar:
        bar.update(done)
        info = reader.info
        raw.image_size[:], raw.principal_point[:] = [info.height, info.width], [info.width / 2, info.height / 2]
        for video_frame in reader:
            t = video_frame.index - span.first
            marks = following.landmarks[t].astype(np.float64)
            if following.repeated[t]:
                _copy(raw, t, RAW)
            else:
                fitted = tracker.step(video_frame.rgb, marks) if np.isfinite(marks).all() else None
                if fitted is None:
                    tracker.forget()
                _note(raw, t, fitted)
                if raw.status[t] == "ok":
                    ready = smoother.push(t, raw.expression[t].astype(np.float64), raw.rotation[t].astype(np.float64),
                                          raw.translation[t].astype(np.float64), fitted.hessian)
                else:
                    ready = smoother.flush()
                    for name in SMOOTHED:
                        getattr(smooth, name)[t] = getattr(raw, name)[t]
                _place(smooth, ready)
            if (t + 1) % checkpoint.EVERY == 0:
                kept.append(t + 1, raw, smooth, tracker, smoother)
            bar.update(frame=video_frame.index)
        _place(smooth, smoother.flush())
    first = int(np.argmax(raw.status != "no_face"))
    for track in (raw, smooth):
        for name in UNKNOWNS:
            getattr(track, name)[:first] = getattr(track, name)[first]
    smooth = replace(smooth, light=smooth_light(raw.light, raw.status == "ok"))
    for t in np.flatnonzero(following.repeated):
        _copy(smooth, t, UNKNOWNS)
    remarks = [damage] if damage else []
    if following.face_count > 1:
        remarks.append(f"{path}: {following.face_count} faces in the first frame with a face, took {taken(face)}; "
                       "choose with --face N, counted from the left")
    return Tracking(smooth, raw, remarks)


def _empty_track(model, person, following, source_hash, face, span):
    """A Track of a clip's length whose frames are to be filled in."""
    count = len(following.confirmed)
    f32 = lambda *shape: np.zeros((count, *shape), np.float32)
    return Track(
        model_name=model.name, model_hash=model.hash, image_size=np.zeros(2, np.int64),
        frame_index=span.first + np.arange(count), status=np.full(count, "no_face", "U16"),
        identity=person.shared.identity.astype(np.float32),
        albedo=person.shared.albedo.astype(np.float32), expression=f32(model.expression_count),
        expression_names=np.array(model.expression_names), rotation=f32(3), translation=f32(3),
        focal=np.float32(person.shared.focal), principal_point=np.zeros(2, np.float32), light=f32(9, 3),
        landmarks=following.landmarks, photometric_error=np.full(count, np.nan, np.float32),
        landmark_error=np.full(count, np.nan, np.float32), confidence=f32(),
        albedo_offset=person.offset.astype(np.float16), source_sha256=source_hash, face=face,
        stopped_at=-1 if span.end is None or span.first + count < span.end else span.end)


def _note(track, t, fitted):
    """Writes a frame into a track; one without a face repeats the last one's unknowns."""
    if fitted is None:
        _copy(track, t, UNKNOWNS if t else ())
        return
    frame = fitted.frame
    track.expression[t], track.rotation[t], track.translation[t] = frame.expression, frame.axis_angle, frame.translation
    track.light[t], track.status[t], track.confidence[t] = frame.light, fitted.status, fitted.confidence
    track.photometric_error[t], track.landmark_error[t] = fitted.photometric_error, fitted.landmark_error


def _copy(track, t, names):
    """Gives frame t what the one before it has."""
    for name in names:
        getattr(track, name)[t] = getattr(track, name)[t - 1]


def _place(track, ready):
    for t, expression, rotation, translation in ready:
        track.expression[t], track.rotation[t], track.translation[t] = expression, rotation, translation


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
    backend = backend_for(args.device)
    if args.key_frames < 1:
        raise InputError(f"--key-frames {args.key_frames}: give 1 or more")
    out = args.out or args.video.with_suffix(".npz")
    commands.check_writable(out, inputs=[args.video])
    model = load_model(args.model)
    tracking = track_clip(model, args.video, FaceDetector(), args.face, args.key_frames,
                          engine=engine_for(model, backend))
    track = tracking.raw if args.no_smoothing else tracking.track
    save_track(track, out)
    for remark in tracking.remarks:
        print(remark)
    counts = ", ".join(f"{n} {s}" for s, n in zip(*np.unique(track.status, return_counts=True)))
    explained = track.confidence[track.status != "no_face"]
    print(f"wrote {out}: {counts}; median photometric RMS {np.nanmedian(track.photometric_error):.3f}, landmarks "
          f"{100 * np.nanmedian(track.landmark_error):.1f} % of the eye distance, "
          f"{100 * np.median(explained):.0f} % of the skin explained")
    before, after = steadiness(model, tracking.raw), steadiness(model, track)
    print(f"jitter {after.jitter:.2f} % of the eye distance ({before.jitter:.2f} before smoothing) on {after.still} "
          f"still frames, lag {after.lag:+.2f} frames ({before.lag:+.2f})")


if __name__ == "__main__":
    commands.run(main)
