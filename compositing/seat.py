"""Where a face sits on another head, and how far its features are moved to meet that head's.

A photo does not tell how large its face is, and fits differ in how a head is tilted in its own space: eyes, nose and
mouth are laid over those of the source's head, whose size and tilt are what its pose belongs to. What is then left
between the two is another person's features, which shall stay, and misfits of both, which shall not. Both are seen by
the same detector, on the source's frames and on the renderings of the same frames. Eyes, nose and mouth are moved by
most of the difference, by which a face descriptor hardly tells people apart; jaw and brows, by which it does, less.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from compositing.retarget import render, retarget_expression
from facemodel.camera import rotation_matrix
from facemodel.readers.transfer import similarity
from fitting.detection import box_from_landmarks

SEAT_LANDMARKS = np.array([27, 28, 29, 30, 33, 36, 39, 42, 45, 48, 54])      # nose, eye corners, mouth corners
JAW, BROWS, MOUTH = slice(0, 17), slice(17, 27), slice(48, 68)
SHARE, JAW_SHARE, BROW_SHARE = 0.9, 0.5, 0.3  # of the differences that features are moved by
REACH = 12.0                  # mm, standard deviation of what a landmark moves around it
NOISE = 0.2                   # of the landmarks, in the kernel's units: not each of them is followed
MOST = 4.0                    # mm that a landmark is moved at most
FRAMES, MAX_TURN = 8, 0.5     # frames beside the calm ones, and how far their heads may be turned (radians)


@dataclass(frozen=True)
class Seat:
    """Model space of a face to that of the head it sits on: x -> scale * rotation @ x + translation + shift (mm).

    shift : (V, 3) float32, or 0
    """

    scale: float
    rotation: np.ndarray
    translation: np.ndarray
    shift: np.ndarray | float = 0.0

    def __call__(self, vertices):
        return (self.scale * vertices @ self.rotation.T + self.translation + self.shift).astype(np.float32)


def seat_on(model, identity, head):
    """The Seat that lays eyes, nose and mouth of a neutral face over those of another head, without a shift.

    identity, head : (n_id,) of the face and of the head it shall sit on
    """
    anchors = model.landmarks[SEAT_LANDMARKS]
    face, other = (model.shape(i, rows=anchors)[anchors].astype(np.float64) for i in (identity, head))
    return Seat(*similarity(face, other))


def spread_frames(track, count=FRAMES):
    """Trusted frames over the whole clip whose faces are not turned far away: (n,) int, n <= count, in order."""
    near = np.flatnonzero((track.status == "ok") & (np.linalg.norm(track.rotation, axis=1) < MAX_TURN))
    return near[np.unique(np.linspace(0, len(near) - 1, count + 2)[1:-1].round().astype(int))] if len(near) else near


def fitted_seat(model, target, track, pictures, calm, detector):
    """The Seat of a target's face on the source's head, its features moved towards the source's.

    Parameters
    ----------
    target : TargetFace
    track : Track of the source
    pictures : dict, of frames of the track (int) their pictures, (H, W, 3) uint8
    calm : (n,) int, those among them in which the mouth is at rest; what differs there counts for the mouth
    detector : FaceDetector

    Returns
    -------
    Seat
    """
    seat = seat_on(model, target.identity, track.identity)
    expression = retarget_expression(model, track, target)
    seen = {t: _difference(model, target, expression[t], track, t, picture, detector, seat)
            for t, picture in pictures.items()}
    seen = {t: found for t, found in seen.items() if found is not None}
    if not seen:
        return seat
    difference = np.median([d for d, _ in seen.values()], axis=0)
    resting = [seen[t][0] for t in calm if t in seen]
    if resting:
        difference[MOUTH] = np.median(resting, axis=0)[MOUTH]
    share = np.full(68, SHARE)
    share[JAW], share[BROWS] = JAW_SHARE, BROW_SHARE
    length = np.linalg.norm(difference, axis=1)
    share *= MOST / np.maximum(length, MOST)
    at = np.median([a for _, a in seen.values()], axis=0)
    placed = seat(model.shape(target.identity))
    return replace(seat, shift=-smooth_shift(at, difference * share[:, None], placed).astype(np.float32))


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


def smooth_shift(at, shift, vertices):
    """Carries shifts of a few points on to vertices, smoothly, dying off away from the points.

    Gaussian process regression in the face's plane (Rasmussen and Williams 2006, equation 2.23), of deviation REACH.

    Parameters
    ----------
    at, shift : (N, 3) float64 mm
    vertices : (V, 3) mm

    Returns
    -------
    (V, 3) float64 mm
    """
    def kernel(a, b):
        gap = a[:, None, :2] - b[None, :, :2]
        return np.exp(-(gap * gap).sum(axis=2) / (2 * REACH * REACH))

    weights = np.linalg.solve(kernel(at, at) + NOISE * np.eye(len(at)), shift)
    return kernel(np.asarray(vertices, np.float64), at) @ weights
