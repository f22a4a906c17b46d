"""Follows one face through a clip: landmarks per frame, found in a patch turned upright around the last position.

That it is still the same person is looked at now and then, in every third frame while another face is near, and
whenever a face comes back (fitting.identity). Frames that turn out to show somebody else are given up.

Clips that were brought to another frame rate show every so many frames twice. Such a frame differs from the one before
in coding noise alone. It is known by that and takes over what was found there: what moved on in it would slip over a
head that stands still.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from facemodel.errors import InputError
from fitting import checkpoint
from fitting.detection import box_from_landmarks, eye_distance
from fitting.fit import choose_face
from fitting.identity import STRANGER, Gallery

PATCH, PATCH_FACE = 300, 130      # px: side of the upright patch, and of the face's box in it
FULL_SEARCH_EVERY = 5             # frames between searches of the whole frame while no face is followed
PATIENCE = 8                      # frames for which landmarks go on without the detector confirming them
LIKENESS = 0.7                    # correlation with the frame before, below which an unconfirmed face is gone at once:
                                  # 0.89 to 1 over seven clips of moving faces, 0 to 0.55 where a clip cuts away
JUMP = 0.85                       # correlation below which the face may have become somebody else's
LOOK_AGAIN, IN_COMPANY = 25, 3    # frames between two looks at who it is; the latter while another face is near
COMPANY = 15                      # frames for which a face that was near is thought to be
STRIKES = 2                       # looks in a row after which it is believed that it is somebody else
LOOK = 26                         # px: side of the small grey picture of the face that is compared
SAME, SAME_MOST = 0.2, 4.0        # grey levels, mean of the face and most of a LOOK's pixels: how far a repeated frame
                                  # differs; over five clips with such frames 0 to 0.19, of others 0.3 and more


@dataclass(frozen=True)
class Following:
    """Landmarks of one face through a clip of F frames.

    landmarks : (F, 68, 2) float32 pixels, nan where there is no face
    confirmed : (F,) bool, the detector found the face there
    repeated : (F,) bool, the frame is the one before once more, and so are its landmarks, of which there are some
    face_count : int, faces in the first frame that shows any
    """

    landmarks: np.ndarray
    confirmed: np.ndarray
    repeated: np.ndarray
    face_count: int


def _upright(landmarks):
    """2 x 3 similarity from the frame to the patch that shows these landmarks upright, and its inverse."""
    box = box_from_landmarks(landmarks)
    centre, size = (box[:2] + box[2:]) / 2, box[2] - box[0]
    eyes = landmarks[42:48].mean(axis=0) - landmarks[36:42].mean(axis=0)
    angle = np.arctan2(eyes[1], eyes[0])
    scale = PATCH_FACE / size
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[c, s], [-s, c]])
    matrix = np.column_stack([turn, PATCH / 2 - turn @ centre])
    return matrix, cv2.invertAffineTransform(matrix)


def _patch(image, landmarks):
    """The patch that shows these landmarks upright, (PATCH, PATCH, 3) uint8, and the 2 x 3 way back to the frame."""
    matrix, inverse = _upright(landmarks)
    return cv2.warpAffine(image, matrix, (PATCH, PATCH), flags=cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_REPLICATE), inverse


def _face(patch):
    """The face in an upright patch, grey: (PATCH_FACE, PATCH_FACE) uint8."""
    margin = (PATCH - PATCH_FACE) // 2
    return cv2.cvtColor(patch[margin:PATCH - margin, margin:PATCH - margin], cv2.COLOR_RGB2GRAY)


def _look(face):
    """A grey face, small: (LOOK, LOOK) float32, mean 0."""
    small = cv2.resize(face, (LOOK, LOOK), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small - small.mean()


def same_picture(picture, before):
    """Whether two pictures (h, w) uint8 of a face or of it and a little more differ in coding noise alone."""
    away = cv2.resize(cv2.absdiff(picture, before).astype(np.float32), (LOOK, LOOK), interpolation=cv2.INTER_AREA)
    return bool(away.mean() < SAME and away.max() < SAME_MOST)


def _likeness(a, b):
    """Correlation of two looks; that of an even grey is 0."""
    noise = 4 * a.size                  # grey levels squared: below it there is no picture
    return float((a * b).sum() / np.sqrt(((a * a).sum() + noise) * ((b * b).sum() + noise)))


class Follower:
    """Steps through the frames of a clip in order.

    face_count : int, faces in the first frame that shows any, 0 before
    retracted : int, how many of the frames before the last one showed somebody else, as became clear in it
    repeated : bool, the last frame was the one before once more
    """

    _REMEMBERED = ("_last", "_before", "_memory", "_misses", "_wait", "_company", "_unseen", "_strikes", "face_count")

    def __init__(self, detector, choice="largest", path="clip"):
        self._detector, self._choice, self._path = detector, choice, path
        self._last = None               # landmarks of the frame before
        self._before = None             # the face there, grey and upright
        self._memory = None             # where the face was when it was lost
        self._misses = 0
        self._wait = 0
        self._gallery = Gallery()
        self._company = 0               # frames for which another face is still thought to be near
        self._unseen = 0                # frames since it was last seen who this is, or since the picture jumped
        self._strikes = 0
        self.face_count = self.retracted = 0
        self.repeated = False

    def step(self, image):
        """Landmarks (68, 2) float64 of the next frame or None, and whether the detector confirmed them."""
        self.retracted, self.repeated = 0, False
        if self._last is None:
            return self._search(image)
        patch, inverse = _patch(image, self._last)
        face = _face(patch)
        if not self._strikes and not self._misses and same_picture(face, self._before):
            self.repeated = True
            self._unseen += 1
            return self._last, True
        faces = self._detector.find(patch, scale=1.0)
        middle = np.array([PATCH / 2, PATCH / 2])
        near = [f for f in faces if np.linalg.norm(f.centre - middle) < 0.5 * PATCH_FACE]
        self._company = COMPANY if len(faces) > bool(near) else max(0, self._company - 1)
        back = bool(near) and self._misses > 0
        if near:
            box = min(near, key=lambda f: np.linalg.norm(f.centre - middle)).box
            self._misses = 0
        else:
            box = np.array([PATCH - PATCH_FACE, PATCH - PATCH_FACE, PATCH + PATCH_FACE, PATCH + PATCH_FACE]) / 2
            self._misses += 1
        likeness = _likeness(_look(face), _look(self._before))
        if (not near and likeness < LIKENESS) or self._misses > PATIENCE:
            return self._lose(image)
        marks = self._detector.landmarks(patch, box, jitter=5)
        marks = marks @ inverse[:, :2].T + inverse[:, 2]
        self._unseen = self._unseen + 1 if likeness >= JUMP else 1
        due = self._unseen >= (IN_COMPANY if self._company else LOOK_AGAIN)
        if (back or due or self._strikes or likeness < JUMP) and not self._recognised(image, marks):
            self.retracted = min(self._unseen, IN_COMPANY + STRIKES) - 1
            return self._lose(image)
        self._remember(image, marks)
        return marks, bool(near)

    def state(self):
        """All that is remembered from frame to frame, as plain data (see fitting.checkpoint)."""
        return {name: getattr(self, name) for name in self._REMEMBERED} | {"views": self._gallery.views}

    def restore(self, state):
        """Goes on from a state."""
        for name in self._REMEMBERED:
            setattr(self, name, state[name])
        self._gallery = Gallery(state["views"])

    def _recognised(self, image, marks):
        """Whether this may still be the same person: False after STRIKES looks in a row at somebody else."""
        seen = self._detector.descriptor(image, marks)
        if self._gallery.distance(seen) >= STRANGER:
            self._strikes += 1
            return self._strikes < STRIKES
        if not self._company:
            self._gallery.learn(seen)
        self._unseen = self._strikes = 0
        return True

    def _lose(self, image):
        self._memory, self._last, self._wait = self._last, None, 0
        return self._search(image)

    def _remember(self, image, marks):
        self._last, self._before = marks, _face(_patch(image, marks)[0])

    def _search(self, image):
        self._wait -= 1
        if self._wait > 0:
            return None, False
        faces = self._detector.find(image)
        self._wait = FULL_SEARCH_EVERY
        if not faces:
            return None, False
        if self._memory is None:
            self.face_count = len(faces)
            marks = self._detector.landmarks_of(image, choose_face(faces, self._choice, self._path))
            self._gallery.learn(self._detector.descriptor(image, marks))
        else:
            marks = self._known(image, faces)
            if marks is None:
                return None, False
        self._company = COMPANY if len(faces) > 1 else 0
        self._misses = self._unseen = self._strikes = 0
        self._remember(image, marks)
        return marks, True

    def _known(self, image, faces):
        """Landmarks of the face that was lost, or None when it is not among these; of two alike, the nearer."""
        found = [self._detector.landmarks_of(image, face) for face in faces]
        unlike = np.array([self._gallery.distance(self._detector.descriptor(image, marks)) for marks in found])
        alike = np.flatnonzero(unlike < min(STRANGER, unlike.min() + 0.1))
        return min((found[k] for k in alike), default=None,
                   key=lambda marks: np.linalg.norm(marks.mean(axis=0) - self._memory.mean(axis=0)))


def follow(frames, detector, choice="largest", path="clip", progress=None, journal=None):
    """Follows a face through frames.

    Parameters
    ----------
    frames : iterable of (H, W, 3) uint8
    detector : FaceDetector
    choice : 'largest' or a number counted from the left, in the first frame with a face
    progress : callable without arguments, called after every frame
    journal : fitting.checkpoint.Journal or None; `frames` are those after the frames it holds (see kept_frames)

    Raises
    ------
    InputError : when no frame shows a face
    """
    follower, landmarks, confirmed, repeated, gone = Follower(detector, choice, path), [], [], [], []
    for piece in journal.pieces() if journal else ():
        landmarks.extend(piece["landmarks"])
        confirmed.extend(piece["confirmed"].tolist())
        repeated.extend(piece["repeated"].tolist())
        gone.extend(piece["gone"].tolist())
        follower.restore(journal.state)
    kept = len(gone)
    for image in frames:
        marks, sure = follower.step(image)
        gone.extend(range(len(landmarks) - follower.retracted, len(landmarks)))
        landmarks.append(np.full((68, 2), np.nan, np.float32) if marks is None else marks.astype(np.float32))
        confirmed.append(bool(sure))
        repeated.append(follower.repeated)
        if journal and len(confirmed) % checkpoint.EVERY == 0:
            new = slice(-checkpoint.EVERY, None)
            journal.append({"landmarks": np.array(landmarks[new]), "confirmed": np.array(confirmed[new]),
                            "repeated": np.array(repeated[new]), "gone": np.array(gone[kept:], int)}, follower.state())
            kept = len(gone)
        if progress:
            progress()
    # landmarks that the detector never confirmed again were already wandering
    confirmed, repeated = np.array(confirmed, bool), np.array(repeated, bool)
    landmarks = np.array(landmarks)
    confirmed[gone], landmarks[gone] = False, np.nan
    run = 0
    for t in range(len(confirmed)):
        run = 0 if confirmed[t] else run + 1
        if run == PATIENCE and not confirmed[t:t + 2].any():
            landmarks[t - run + 1:t + 1] = np.nan
    repeated &= np.isfinite(landmarks).all(axis=(1, 2))
    if not confirmed.any():
        raise InputError(f"{path}: no face found in {len(confirmed)} frames; give a clip with a face of 80 pixels or "
                         "more, upright and seen from the front")
    return Following(landmarks, confirmed, repeated, follower.face_count)


def choose_key_frames(following, count):
    """Frames that differ most in landmarks (pose and expression): farthest-point sampling over confirmed frames.

    Returns
    -------
    sorted list of at most `count` frame indices
    """
    candidates = np.flatnonzero(following.confirmed & np.isfinite(following.landmarks).all(axis=(1, 2)))
    marks = following.landmarks[candidates].astype(np.float64)
    size = np.array([eye_distance(m) for m in marks])
    normalised = ((marks - marks.mean(axis=1, keepdims=True)) / size[:, None, None])[:, 17:].reshape(len(marks), -1)
    chosen = [int(np.argmin(((normalised - np.median(normalised, axis=0)) ** 2).sum(axis=1)))]
    distance = ((normalised - normalised[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(count, len(candidates)):
        distance[chosen] = -1           # a still picture repeated: all distances are 0
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, ((normalised - normalised[chosen[-1]]) ** 2).sum(axis=1))
    return sorted(int(candidates[i]) for i in chosen)
