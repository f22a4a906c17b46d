"""Where a face sits on another head.

A photo does not tell how large its face is, and fits differ in how a head is tilted in its own space: eyes, nose and
mouth are laid over those of the source's head, whose size and tilt are what its pose belongs to. What is then left
between the two is seen by one detector, on the source's frames and on the renderings of the same frames: a turn, as
perspective-n-point of a usual face tells it, is taken back beyond what nobody sees and up to what may be its error, and
so are place and size. The features themselves stay where the person has them: moved to the source's they would halve
the difference, and cost a third of the likeness.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compositing.retarget import render
from facemodel.camera import axis_angle, rotation_matrix
from facemodel.registration import similarity
from fitting.detection import ANCHORS, box_from_landmarks
from fitting.fit import initial_pose

WEIGHTS = np.repeat([0.5, 1.0], [17, 51])    # of landmarks' differences: the jaw is the outline of other heads
UNSEEN = np.radians(1.0)      # of a turn that nobody sees: it may be the person's own face
MOST = np.radians(4.0)        # of a turn that is taken back: a detector that reads more is misled by other features
SMALLEST = 16                 # pixels, of a face that landmarks are looked for in
ROUNDS = 2                    # of looking and reseating: a detector sees but most of a change


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
    boxes = {t: box_from_landmarks(track.landmarks[t]) for t in pictures}
    boxes = {t: box for t, box in boxes.items() if box[2] - box[0] >= SMALLEST}
    marks = {t: detector.landmarks(pictures[t], box) for t, box in boxes.items()}
    total = np.zeros(3)
    for _ in range(ROUNDS):
        seen = [_seen(model, target, shown[t], track, t, pictures[t], box, marks[t], detector, seat)
                for t, box in boxes.items()]
        seen = [found for found in seen if found is not None]
        if not seen:
            break
        away, places, turns = (np.median(values, axis=0) for values in zip(*seen))
        wanted = total + turns * max(0.0, 1 - UNSEEN / max(float(np.linalg.norm(turns)), 1e-9))
        wanted *= min(1.0, MOST / max(float(np.linalg.norm(wanted)), 1e-9))
        seat, total = reseated(seat, places, away, wanted - total), wanted
    return seat


def reseated(seat, at, difference, turn):
    """The Seat that takes away a turn, and what of its landmarks' differences is then place and size.

    Turned about the landmarks' middle; the rest by least squares in the face's plane.

    Parameters
    ----------
    at, difference : (68, 3) mm, where landmarks lie and how far off they are, the latter without depth
    turn : (3,) radians, axis times angle, by which the face is turned too far

    Returns
    -------
    Seat
    """
    middle, back = at.mean(axis=0), rotation_matrix(-np.asarray(turn))
    turned = (at - middle) @ back.T
    left = (difference + turned - (at - middle))[:, :2]
    x, y = turned[:, :2].T
    zero, one = np.zeros(68), np.ones(68)
    rows = np.stack([np.stack([one, zero, x], axis=1), np.stack([zero, one, y], axis=1)], axis=1)
    weight = WEIGHTS[:, None]
    p = np.linalg.lstsq((weight[..., None] * rows).reshape(-1, 3), -(weight * left).ravel(), rcond=None)[0]
    scale = 1 + p[2]
    shift = np.array([*p[:2], 0]) + middle - scale * back @ middle
    return Seat(scale * seat.scale, back @ seat.rotation, scale * back @ seat.translation + shift)


def _seen(model, target, expression, track, t, picture, box, marks, detector, seat):
    """What a detector sees of a rendering in a box of a frame, against `marks`, what it sees there in the picture.

    Returns
    -------
    (68, 3) mm, landmarks on the rendering less those on the picture, and (68, 3) mm, where they are, both on the
    source's head: the differences lie in the picture's plane, are turned with the head, and what is depth there is left
    out; (3,) radians, how far the rendering seems turned against the picture, there as well. None where nothing is seen
    """
    drawn = render(model, target.identity, target.texture.rgb, expression, track.rotation[t], track.translation[t],
                   track.light[t], track.focal, track.principal_point, picture.shape[:2], seat)
    if drawn is None:
        return None
    left, top, right, bottom = drawn.window
    pasted = picture.copy()
    pasted[top:bottom, left:right][drawn.mask] = np.round(drawn.rgb[drawn.mask] * 255).astype(np.uint8)
    seen = detector.landmarks(pasted, box)
    placed, turn = drawn.posed.vertices[model.landmarks].astype(np.float64), rotation_matrix(track.rotation[t])
    away = np.column_stack([(seen - marks) * placed[:, 2:] / float(track.focal), np.zeros(68)])
    as_seen, as_is = (initial_pose(model, model.mean, points, float(track.focal), track.principal_point)[0]
                      for points in (seen, marks))
    return (away @ turn) * [1, 1, 0], (placed - track.translation[t]) @ turn, turn.T @ axis_angle(as_seen @ as_is.T)
