"""Fits the face model to one photo.

    python -m fitting.fit photo.jpg -o photo.npz

writes identity, albedo, expression, pose, camera and light as described in fitting.trackfile; the commands
fitting.export and compositing.replace read it.
"""
from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from facemodel import commands
from facemodel.camera import default_focal, project, to_camera
from facemodel.device import backend_for
from facemodel.errors import InputError
from facemodel.light import ambient_light
from facemodel.morphable import load_model
from fitting.detection import RIGID, FaceDetector, eye_distance
from fitting.images import read_image
from fitting.parameters import Frame, Shared
from fitting.solver import (
    DEFAULT,
    NUMBA,
    Appearance,
    Settings,
    draw_samples,
    engine_for,
    slide_jaw,
    solve,
    view_residuals,
)
from fitting.trackfile import Track, save_track
from fitting.views import LEVELS, make_view

DENSE_GAIN = 2.0     # of the weight of equation 5, where there are dense landmarks
# one picture hardly tells a shape from an expression, and most are near neutral
PHOTO = Settings(expression_spread=0.5)
# RMS colour residual from which on identity is held back in full; what the model explains better has less noise and
# tells more: the regulariser of identity falls with the square of the residual
USUAL_MISFIT, LEAST_DOUBT = 0.03, 1 / 16
KEY_LOOKS = 5        # at a photo or a key frame, for its dense landmarks
RELIT = 12           # steps
ALL_BLOCKS = ("identity", "albedo", "focal", "expression", "rotation", "translation", "light")


def initial_pose(model, shape, landmarks, focal, principal_point):
    """Rotation (3, 3) and translation (3,) from the rigid landmarks (eye corners and nose), perspective-n-point."""
    camera = np.array([[focal, 0, principal_point[0]], [0, focal, principal_point[1]], [0, 0, 1]], float)
    points = shape[model.landmarks[RIGID]].astype(float)
    pixels = landmarks[RIGID].astype(float)
    _, rotation, translation = cv2.solvePnP(points, pixels, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    rotation, translation = cv2.solvePnPRefineLM(points, pixels, camera, None, rotation, translation)
    return cv2.Rodrigues(rotation)[0], translation.ravel()


def neutral_start(model, landmarks, image_size, identity):
    """A face of some identity, posed by the landmarks: (Shared, Frame)."""
    height, width = image_size
    shared = Shared(identity, np.zeros(model.albedo_count), default_focal(height, width))
    rotation, translation = initial_pose(model, model.shape(identity), landmarks, shared.focal,
                                         np.array([width / 2, height / 2]))
    return shared, Frame(np.zeros(model.expression_count), rotation, translation, ambient_light())


def told(model, settings, dense):
    """Settings for pictures of one person with dense landmarks.

    Equation 5 counts DENSE_GAIN times as much, and identity is held to what the network guesses, if it knows the model.

    dense : list of DenseLandmarks, one per picture, or None: nothing changes
    """
    if not dense:
        return settings
    settings = replace(settings, w_landmark=DENSE_GAIN * settings.w_landmark)
    guesses = [guess for d in dense if (guess := d.guess_for(model))]
    if not guesses:
        return settings
    return replace(settings, identity_mean=np.mean([g.mean for g in guesses], axis=0),
                   identity_sigma=guesses[0].sigma)


def fit_frames(model, images, landmarks, active=ALL_BLOCKS, settings=DEFAULT, iterations=(8, 5, 4), engine=NUMBA,
               dense=None):
    """Fits one person in one or several pictures of one camera (identity, albedo and focal length are shared).

    Parameters
    ----------
    model : MorphableModel
    images : list of (H, W, 3) uint8
    landmarks : list of (68, 2)
    dense : list of fitting.dense_landmarks.DenseLandmarks, or None: go by the 68 alone
    active : blocks that are solved for in the end
    settings : fitting.solver.Settings, weights and limits
    iterations : steps on each level of the pyramid, coarse to fine
    engine : fitting.solver.Engine

    Returns
    -------
    Shared, list of Frame
    """
    settings = told(model, settings, dense)
    identity = np.zeros(model.identity_count) + settings.identity_mean
    starts = [neutral_start(model, marks, image.shape[:2], identity) for image, marks in zip(images, landmarks)]
    shared, frames = starts[0][0], [s[1] for s in starts]
    focal_mean = shared.focal
    by_landmarks = replace(settings, w_colour=0.0)
    dense = dense or [None] * len(images)
    views_at = lambda eyes: [make_view(model, i, m, eyes, dense=d) for i, m, d in zip(images, landmarks, dense)]
    views = views_at(LEVELS[0])
    for blocks, steps in ((("rotation", "translation", "expression"), 4),
                          (("identity", "expression", "rotation", "translation"), 6)):
        s = solve(model, shared, frames, views, blocks, steps, by_landmarks)
        shared, frames = s.shared, s.frames
    light_mean, doubt = [ambient_light()] * len(frames), 1.0
    for level, (eyes, steps) in enumerate(zip(LEVELS, iterations)):
        views = views_at(eyes)
        if level == 0:
            s = solve(model, shared, frames, views, ("light",), 4, settings, light_mean, engine=engine)
            colours = tuple(b for b in active if b in ("light", "albedo"))
            s = solve(model, s.shared, s.frames, views, colours, 4, settings, light_mean, engine=engine)
            shared, frames = s.shared, s.frames
        held = replace(settings, identity_weight=settings.identity_weight * doubt)
        s = solve(model, shared, frames, views, active, steps, held, light_mean, focal_mean, engine=engine)
        shared, frames = s.shared, s.frames
        if level + 1 < len(LEVELS):
            doubt = float(np.clip((misfit(model, views, s) / USUAL_MISFIT) ** 2, LEAST_DOUBT, 1))
    return shared, frames


def misfit(model, views, solution):
    """RMS colour residual of a Solution over its views (in [0, 1]); nan where none shows the face."""
    albedo, squares = model.albedo(solution.shared.albedo), []
    for view, frame, samples in zip(views, solution.frames, solution.samples):
        if samples is not None:
            vertices = model.shape(solution.shared.identity, frame.expression)
            r, _ = view_residuals(model, vertices, albedo, view, samples, solution.shared, frame)
            squares.append(np.average((r ** 2).mean(axis=1), weights=samples.weight))
    return float(np.sqrt(np.mean(squares))) if squares else np.nan


def errors(model, view, landmarks, shared, frame):
    """Photometric RMS over the visible face and mean landmark distance over the eye distance, in one view."""
    vertices = model.shape(shared.identity, frame.expression)
    marks = slide_jaw(model, vertices, shared, frame, view)
    camera = to_camera(vertices[marks.vertices], frame.rotation, frame.translation)
    xy = project(camera, shared.focal, view.principal_point)
    landmark_error = np.linalg.norm(xy - landmarks, axis=1).mean() / eye_distance(landmarks)
    samples = draw_samples(model, vertices, shared, frame, view, DEFAULT.samples)
    if samples is None:
        return np.nan, float(landmark_error)
    residual, _ = view_residuals(model, vertices, model.albedo(shared.albedo), view, samples, shared, frame)
    weight = samples.weight / samples.weight.sum()
    return float(np.sqrt((weight * (residual ** 2).mean(axis=1)).sum())), float(landmark_error)


def choose_face(faces, choice, path, option="--face"):
    """The face that `choice` names: 'largest', 'leftmost', 'rightmost' or a number counted from 1, left to right.

    option : the name under which the user gave the choice, for the message

    Raises
    ------
    InputError : no face, or no face of that number
    """
    if not faces:
        raise InputError(f"{path}: no face found; give a picture with an upright face of 80 pixels or more, seen from "
                         "the front")
    if choice == "largest":
        return faces[0]
    ordered = sorted(faces, key=lambda f: f.centre[0])
    choice = {"leftmost": "1", "rightmost": str(len(faces))}.get(choice, choice)
    if not choice.isdecimal() or not 1 <= int(choice) <= len(faces):
        there = "is 1 face; give 1" if len(faces) == 1 else f"are {len(faces)} faces; give 1 to {len(faces)}"
        raise InputError(f"{path}: {option} {choice}: there {there}, counted from the left, or 'largest'")
    return ordered[int(choice) - 1]


def taken(choice):
    """A choice of face in words, for a remark."""
    return f"number {choice} from the left" if choice.isdecimal() else f"the {choice}"


@threadpool_limits.wrap(limits=1, user_api="blas")        # see fitting.track.track_clip
def fit_image(model, image, detector, face="largest", path="image", settings=PHOTO, option="--face", engine=NUMBA):
    """Fits one picture: (Track of one frame, number of faces that were found)."""
    faces = detector.find(image)
    chosen = choose_face(faces, face, path, option)
    landmarks = detector.landmarks_of(image, chosen)
    shared, (frame,) = fit_frames(model, [image], [landmarks], settings=settings, engine=engine,
                                  dense=[detector.dense(image, landmarks, KEY_LOOKS)])
    view = make_view(model, image, landmarks, LEVELS[-1])
    photometric_error, landmark_error = errors(model, view, landmarks, shared, frame)
    height, width = image.shape[:2]
    f32 = lambda x: np.asarray(x, np.float32)
    track = Track(
        model_name=model.name, model_hash=model.hash, image_size=np.array([height, width]), frame_index=np.array([0]),
        status=np.array(["ok"]), identity=f32(shared.identity), albedo=f32(shared.albedo),
        expression=f32(frame.expression)[None], expression_names=np.array(model.expression_names),
        rotation=f32(frame.axis_angle)[None], translation=f32(frame.translation)[None], focal=f32(shared.focal),
        principal_point=f32([width / 2, height / 2]), light=f32(frame.light)[None], landmarks=f32(landmarks)[None],
        photometric_error=f32([photometric_error]), landmark_error=f32([landmark_error]))
    return track, len(faces)


@threadpool_limits.wrap(limits=1, user_api="blas")
def relit(model, image, track, weight, engine=NUMBA):
    """A fitted picture with its light and albedo solved anew, from some of the skin: a Track of one frame.

    weight : (V,) float32 in [0, 1], how far a vertex counts
    """
    view = make_view(model, image, track.landmarks[0], LEVELS[-1])
    shared = Shared(np.float64(track.identity), np.float64(track.albedo), float(track.focal))
    seen = Appearance(weight=model.sampling_weight * np.float32(weight))
    s = solve(model, shared, [Frame.of(track)], [view], ("light", "albedo"), RELIT, PHOTO, [ambient_light()],
              appearance=seen, engine=engine)
    return replace(track, light=np.float32(s.frames[0].light)[None], albedo=np.float32(s.shared.albedo))


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m fitting.fit", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a photo with a face")
    parser.add_argument("-o", "--out", type=Path, metavar="FIT.npz", help="default: beside the photo, suffix .npz")
    parser.add_argument("--face", default="largest", metavar="N", help="'largest' or a number, counted from the left")
    commands.add_common(parser)
    args = parser.parse_args(argv)
    backend = backend_for(args.device)
    out = args.out or args.image.with_suffix(".npz")
    image = read_image(args.image)
    commands.check_writable(out, inputs=[args.image])
    model = load_model(args.model)
    track, count = fit_image(model, image, FaceDetector(), args.face, args.image, engine=engine_for(model, backend))
    save_track(track, out)
    if count > 1:
        print(f"{args.image}: {count} faces found, took {taken(args.face)}; choose with --face N, counted "
              "from the left")
    print(f"wrote {out}: photometric RMS {track.photometric_error[0]:.3f}, landmarks "
          f"{100 * track.landmark_error[0]:.1f} % of the eye distance")


if __name__ == "__main__":
    commands.run(main)
