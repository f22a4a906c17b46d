"""Where a face sits on another head.

A photo does not tell how large its face is, and fits differ in how a head is tilted in its own space: eyes, nose and
mouth are laid over those of the source's head, whose size and tilt are what its pose belongs to. What is then left
between the two is seen by one detector, on the source's frames and on the renderings of the same frames; as far as it
is another place, size or tilt, the seat is changed. The features themselves stay where the person has them: moved to
the source's they would halve the difference, and cost a third of the likeness.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compositing.retarget import render
from facemodel.camera import rotation_matrix
from facemodel.readers.transfer import similarity
from fitting.detection import ANCHORS, box_from_landmarks

RIGID = (27, 28, 29, 30, 31, 33, 35, 36, 39, 42, 45)                         # nose, eye corners
WEIGHTS = np.array([3.0 if k in RIGID else 0.5 if k < 17 else 1.0 for k in range(68)])       # of their differences
TILT = 2.0                    # degrees, standard deviation of what a seat is tilted by
DOUBT = 1.5                   # mm, of a landmark's difference


@dataclass(frozen=True)
class Seat:
    """Model space of a face to that of the head it sits on: x -> scale * rotation @ x + translation (mm)."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def __call__(self, vertices):
        return (self.scale * vertices @ self.rotation.T + self.translation).astype(np.float32)


def seat_on(model, identity, head):
    """The Seat that lays eyes, nose and mouth of a neutral face over those of another head.

    identity, head : (n_id,) of the face and of the head it shall sit on
    """
    anchors = model.landmarks[ANCHORS]
    face, other = (model.shape(i, rows=anchors)[anchors].astype(np.float64) for i in (identity, head))
    return Seat(*similarity(face, other))


def fitted_seat(model, target, shown, track, pictures, detector):
    """The Seat of a target's face on the source's head, corrected by what a detector sees of both.

    Parameters
    ----------
    target : TargetFace
    shown : (F, n_exp), the expressions that it is shown with
    track : Track of the source
    pictures : dict, of frames of the track (int) their pictures, (H, W, 3) uint8
    detector : FaceDetector

    Returns
    -------
    Seat
    """
    seat = seat_on(model, target.identity, track.identity)
    seen = {t: _difference(model, target, shown[t], track, t, picture, detector, seat)
            for t, picture in pictures.items()}
    seen = {t: found for t, found in seen.items() if found is not None}
    if not seen:
        return seat
    difference = np.median([d for d, _ in seen.values()], axis=0)
    return reseated(seat, np.median([a for _, a in seen.values()], axis=0), difference)


def reseated(seat, at, difference):
    """The Seat that takes away what of its landmarks' differences is place, size and tilt.

    Least squares in the face's plane, linear in small turns, which TILT keeps small: turned about x, what is further in
    front moves up or down.

    Parameters
    ----------
    at, difference : (68, 3) mm, where landmarks lie and how far off they are, the latter without depth

    Returns
    -------
    Seat
    """
    middle = at.mean(axis=0)
    x, y, z = (at - middle).T
    zero, one = np.zeros(68), np.ones(68)
    rows = np.stack([np.stack([one, zero, x, zero, z, -y], axis=1),             # what x changes by: translation (2),
                     np.stack([zero, one, y, -z, zero, x], axis=1)], axis=1)    # scale, turns about x, y and z
    weight = WEIGHTS[:, None] / DOUBT
    a, b = (weight[..., None] * rows).reshape(-1, 6), -(weight * difference[:, :2]).reshape(-1)
    prior = np.diag([0, 0, 0, *[1 / np.radians(TILT)] * 3])
    p = np.linalg.lstsq(np.vstack([a, prior]), np.concatenate([b, np.zeros(6)]), rcond=None)[0]
    turn, scale = rotation_matrix(p[3:]), 1 + p[2]
    shift = np.array([*p[:2], 0]) + middle - scale * turn @ middle
    return Seat(scale * seat.scale, turn @ seat.rotation, scale * turn @ seat.translation + shift)


def _difference(model, target, expression, track, t, picture, detector, seat):
    """Landmarks on the rendering less those on the picture, and where they are, both (68, 3) mm on the source's head.

    The differences lie in the picture's plane; they are turned with the head, and what is depth there is left out.
    """
    drawn = render(model, target.identity, target.texture.rgb, expression, track.rotation[t], track.translation[t],
                   track.light[t], track.focal, track.principal_point, picture.shape[:2], seat)
    if drawn is None:
        return None
    left, top, right, bottom = drawn.window
    pasted = picture.copy()
    pasted[top:bottom, left:right][drawn.mask] = np.round(drawn.rgb[drawn.mask] * 255).astype(np.uint8)
    box = box_from_landmarks(track.landmarks[t])
    pixels = detector.landmarks(pasted, box) - detector.landmarks(picture, box)
    placed, turn = drawn.posed.vertices[model.landmarks].astype(np.float64), rotation_matrix(track.rotation[t])
    away = np.column_stack([pixels * placed[:, 2:] / float(track.focal), np.zeros(68)])
    return (away @ turn) * [1, 1, 0], (placed - track.translation[t]) @ turn
