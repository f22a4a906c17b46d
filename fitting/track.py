"""Tracks one face through a clip.

    python -m fitting.track clip.mp4 -o clip.npz

Identity, albedo and focal length come from several key frames solved together and stay fixed; expression, pose and
light follow per frame from a warm start; pose and light are then smoothed over the clip. The clip is read three times
and never held in memory.
"""
from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from facemodel.errors import InputError
from facemodel.light import ambient_light
from facemodel.morphable import load_model
from fitting import commands
from fitting.detection import FaceDetector
from fitting.fit import errors, fit_frames, initial_pose, taken
from fitting.follow import choose_key_frames, follow
from fitting.parameters import Frame
from fitting.smoothing import smooth_track
from fitting.solver import Settings, solve
from fitting.trackfile import Track, file_hash, save_track
from fitting.video_reader import VideoReader
from fitting.views import CLIP_LEVELS, make_view

PER_FRAME_BLOCKS = ("expression", "rotation", "translation", "light")
KEY_SETTINGS = Settings(samples=4000)
FRAME_SETTINGS = Settings(samples=3500, light_prior=10.0)
MAX_PHOTOMETRIC, MAX_LANDMARK = 0.12, 0.12        # beyond them, or twice the clip's median, a frame is not trusted


def read_landmarks(path, detector, face="largest", progress=True):
    """First reading: landmarks of every frame (fitting.follow.Following) and the reader's word on damage or None."""
    with VideoReader(path) as reader:
        total = reader.info.frame_count_estimate
        with tqdm(total=total, desc="landmarks", unit="frame", disable=not progress) as bar:
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


def fit_key_frames(model, path, following, count=8):
    """Identity, albedo and focal length from key frames: (Shared, {frame index: Frame})."""
    keys = choose_key_frames(following, count)
    images = read_pictures(path, keys)
    landmarks = [following.landmarks[k].astype(np.float64) for k in keys]
    shared, frames = fit_frames(model, images, landmarks, settings=KEY_SETTINGS)
    return shared, dict(zip(keys, frames))


class FrameTracker:
    """Expression, pose and light per frame, warm from the frame before."""

    def __init__(self, model, shared, key_frames):
        self._model, self._shared = model, shared
        self._light = np.mean([f.light for f in key_frames.values()], axis=0) if key_frames else ambient_light()
        self._mean_shape = model.shape(shared.identity)
        self._albedo = model.albedo(shared.albedo)
        self._last = None

    def start(self, landmarks, principal_point):
        """A cold start from landmarks."""
        rotation, translation = initial_pose(self._model, self._mean_shape, landmarks, self._shared.focal,
                                             principal_point)
        frame = Frame(np.zeros(self._model.expression_count), rotation, translation, self._light)
        return frame

    def step(self, image, landmarks):
        """Fits the next frame: (Frame, photometric error, landmark error)."""
        model, shared = self._model, self._shared
        cold = self._last is None
        coarse = make_view(model, image, landmarks, CLIP_LEVELS[0])
        frame = self.start(landmarks, coarse.principal_point) if cold else self._last
        light_mean = [frame.light]
        by_landmarks = Settings(w_colour=0.0)
        s = solve(model, shared, [frame], [coarse], ("expression", "rotation", "translation"), 4 if cold else 1,
                  by_landmarks, light_mean)
        s = solve(model, shared, s.frames, [coarse], PER_FRAME_BLOCKS, 6 if cold else 2, FRAME_SETTINGS, light_mean,
                  albedo=self._albedo)
        fine = make_view(model, image, landmarks, CLIP_LEVELS[1])
        s = solve(model, shared, s.frames, [fine], PER_FRAME_BLOCKS, 2, FRAME_SETTINGS, light_mean,
                  albedo=self._albedo)
        frame = s.frames[0]
        photometric_error, landmark_error = errors(model, fine, landmarks, shared, frame, self._albedo)
        self._last = None if landmark_error > 2 * MAX_LANDMARK else frame
        return frame, photometric_error, landmark_error

    def forget(self):
        """The face is gone; the next step starts cold."""
        self._last = None


def track_clip(model, path, detector, face="largest", key_frames=8, progress=True):
    """Tracks a face through a clip.

    Parameters
    ----------
    model : MorphableModel
    path : video file
    detector : FaceDetector
    face : 'largest' or a number counted from the left, in the first frame that shows a face
    key_frames : int, frames that identity, albedo and focal length are solved from

    Returns
    -------
    Track, and a list of remarks (several faces, a damaged file)

    Raises
    ------
    InputError : when the clip can't be read or shows no face
    """
    following, damage = read_landmarks(path, detector, face, progress)
    shared, keys = fit_key_frames(model, path, following, key_frames)
    tracker = FrameTracker(model, shared, keys)
    count = len(following.confirmed)
    photometric = np.full(count, np.nan, np.float32)
    landmark = np.full(count, np.nan, np.float32)
    fitted = [None] * count
    with VideoReader(path) as reader:
        info = reader.info
        for video_frame in tqdm(reader, total=count, desc="fit", unit="frame", disable=not progress):
            t = video_frame.index
            marks = following.landmarks[t].astype(np.float64)
            if not np.isfinite(marks).all():
                tracker.forget()
                continue
            fitted[t], photometric[t], landmark[t] = tracker.step(video_frame.rgb, marks)
    status = judge(following, photometric, landmark)
    remarks = [damage] if damage else []
    if following.face_count > 1:
        remarks.append(f"{path}: {following.face_count} faces in the first frame with a face, took {taken(face)}; "
                       "choose with --face N, counted from the left")
    track = _assemble(model, shared, fitted, following, status, photometric, landmark, info)
    track = replace(track, source_sha256=file_hash(path), face=str(face))
    return smooth_track(track), remarks


def judge(following, photometric, landmark):
    """(F,) status from the errors: no_face, lost (landmarks and fit disagree), low_confidence, ok."""
    typical = np.nanmedian(photometric)
    status = np.full(len(photometric), "ok", dtype="U16")
    unsure = (photometric > max(MAX_PHOTOMETRIC, 2 * typical)) | (landmark > MAX_LANDMARK)
    status[unsure] = "low_confidence"
    status[(landmark > 2 * MAX_LANDMARK) | ((photometric > 3 * max(typical, 0.05)) & ~following.confirmed)] = "lost"
    status[~np.isfinite(following.landmarks).all(axis=(1, 2))] = "no_face"
    return status


def _assemble(model, shared, fitted, following, status, photometric, landmark, info):
    known = [f for f in fitted if f is not None]
    filled, last = [], known[0]
    for frame in fitted:
        last = frame if frame is not None else last
        filled.append(last)
    f32 = lambda rows: np.asarray(rows, np.float32)
    return Track(
        model_name=model.name, model_hash=model.hash, image_size=np.array([info.height, info.width]),
        frame_index=np.arange(len(fitted)), status=status, identity=f32(shared.identity), albedo=f32(shared.albedo),
        expression=f32([f.expression for f in filled]), expression_names=np.array(model.expression_names),
        rotation=f32([f.axis_angle for f in filled]), translation=f32([f.translation for f in filled]),
        focal=f32(shared.focal), principal_point=f32([info.width / 2, info.height / 2]),
        light=f32([f.light for f in filled]), landmarks=following.landmarks, photometric_error=photometric,
        landmark_error=landmark)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m fitting.track", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, metavar="VIDEO", help="a clip with a face")
    parser.add_argument("-o", "--out", type=Path, metavar="TRACK.npz", help="default: beside the clip, suffix .npz")
    parser.add_argument("--face", default="largest", metavar="N", help="'largest' or a number, counted from the left")
    parser.add_argument("--key-frames", type=int, default=8, metavar="K", help="frames that identity comes from")
    commands.add_common(parser)
    args = parser.parse_args(argv)
    commands.check_device(args.device)
    if args.key_frames < 1:
        raise InputError(f"--key-frames {args.key_frames}: give 1 or more")
    out = args.out or args.video.with_suffix(".npz")
    commands.check_writable(out)
    track, remarks = track_clip(load_model(args.model), args.video, FaceDetector(), args.face, args.key_frames)
    save_track(track, out)
    for remark in remarks:
        print(remark)
    counts = ", ".join(f"{n} {s}" for s, n in zip(*np.unique(track.status, return_counts=True)))
    print(f"wrote {out}: {counts}; median photometric RMS {np.nanmedian(track.photometric_error):.3f}, landmarks "
          f"{100 * np.nanmedian(track.landmark_error):.1f} % of the eye distance")


if __name__ == "__main__":
    commands.run(main)
