"""Faces and their 68 landmarks, by dlib; many more by fitting.dense_landmarks.

The predictor is dlib's implementation of V. Kazemi, J. Sullivan, "One millisecond face alignment with an ensemble of
regression trees", 2014, doi:10.1109/CVPR.2014.241 ([18] of the paper), in the iBUG 68-point markup.
"""
from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from facemodel.errors import InputError

DETECTION_SIZE = 640        # px, longer side of the picture that is searched first
WEAK = -0.8                 # score down to which faces are looked at again
UNSURE = 0.03               # of the eyes' distance: dense landmarks' usual sigma; .009 to .016 on faces, .057 on none
TILTED = 0.3                # radians: landmarks of heads that are tilted by more are not good enough
# of the 68 points: nose and eye corners, which an expression hardly moves
RIGID = np.array([27, 28, 29, 30, 31, 33, 35, 36, 39, 42, 45])
# of the 68 points: nose, eye corners, mouth corners; what places a whole face best
ANCHORS = np.array([27, 28, 29, 30, 33, 36, 39, 42, 45, 48, 54])
JITTER = ((0, 0, 1), (0.04, 0, 1), (-0.04, 0, 1), (0, 0.04, 1), (0, -0.04, 1), (0, 0, 0.94), (0, 0, 1.06))


@dataclass(frozen=True)
class Face:
    """A detected face.

    box : (4,) float64, left, top, right, bottom in pixels
    score : float, the detector's confidence (0 is its threshold)
    roll : float, radians from x towards y by which the eyes' line is known to be turned; the box is that of the face
        turned back about the box's centre
    """

    box: np.ndarray
    score: float
    roll: float = 0.0

    @property
    def size(self):
        return float(self.box[2] - self.box[0])

    @property
    def centre(self):
        return (self.box[:2] + self.box[2:]) / 2


class FaceDetector:
    """Finds faces and landmarks; holds dlib's models for that, loaded on construction, and its face descriptor.

    Raises
    ------
    InputError : when dlib or its model files are not installed
    """

    def __init__(self):
        try:
            import dlib
        except ImportError as error:
            raise InputError("dlib is not installed: pip install dlib-bin") from error
        spec = importlib.util.find_spec("face_recognition_models")
        if spec is None:
            raise InputError("dlib's landmark model is not installed: pip install face_recognition_models")
        models = Path(spec.submodule_search_locations[0]) / "models"
        self._dlib = dlib
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(models / "shape_predictor_68_face_landmarks.dat"))
        self._describer, self._describer_path = None, models / "dlib_face_recognition_resnet_model_v1.dat"
        self._predict_dense = None

    def find(self, image, scale=None):
        """Faces in an image, largest first, as `detect` finds them; if there are none, faces that it all but misses.

        A head that is tilted, turned far, dark or has its mouth wide open scores below the detector's threshold, as do
        many things that are no faces. Dense landmarks tell: of a face they are sure, and they say better where it is.
        Parameters as of `detect`.
        """
        faces = self.detect(image, scale)
        return faces or [sure for face in self.detect(image, scale, WEAK) if (sure := self._looked_at(image, face))]

    def _looked_at(self, image, face):
        """A Face as dense landmarks see it, or None where they are not sure that it is one."""
        landmarks = self.landmarks(image, face.box)
        dense = self.dense(image, landmarks)
        if np.median(dense.sigma) >= UNSURE * eye_distance(landmarks):
            return None
        landmarks[17:] = dense.points[:51]
        roll = _roll(landmarks)
        turn, middle = _turned(roll), landmarks[17:].mean(axis=0)
        box = box_from_landmarks((landmarks - middle) @ turn)
        centre = turn @ (box[:2] + box[2:]) / 2 + middle
        return Face(np.concatenate([centre, centre]) + (box[2] - box[0]) / 2 * np.array([-1, -1, 1, 1]), face.score,
                    roll)

    def detect(self, image, scale=None, threshold=0.0):
        """Faces in an image, largest first.

        Parameters
        ----------
        image : (H, W, 3) uint8 RGB
        scale : float, optional: the image is resized by it before the search (faces need 80 px there); by default it
            is searched at 640 px, then, if nothing is found, at 1280 px or its own size, if that is more
        threshold : float, least score

        Returns
        -------
        list of Face
        """
        longest = max(image.shape[:2])
        scales = [scale] if scale else [min(1.0, DETECTION_SIZE / longest), max(1.0, 2 * DETECTION_SIZE / longest)]
        for s in scales:
            method = cv2.INTER_AREA if s < 1 else cv2.INTER_LINEAR
            small = image if s == 1 else cv2.resize(image, None, fx=s, fy=s, interpolation=method)
            boxes, scores, _ = self._detector.run(np.ascontiguousarray(small), 0, threshold)
            if boxes:
                faces = [Face(np.array([b.left(), b.top(), b.right(), b.bottom()], float) / s, v)
                         for b, v in zip(boxes, scores)]
                return sorted(faces, key=lambda f: -f.size)
        return []

    def landmarks_of(self, image, face):
        """68 landmarks of a Face that `find` gave, (68, 2) float64 pixels; for a tilted one it is turned upright."""
        roll = face.roll
        if not roll:
            marks = self.landmarks(image, face.box)
            roll = _roll(marks)
            if abs(roll) < TILTED:
                return marks
        side, turn = int(np.ceil(2 * face.size)), _turned(roll)
        matrix = np.column_stack([turn, face.centre - turn @ np.full(2, side / 2)])          # of the patch to the image
        # OpenCV's coordinates have pixel centres at 0
        shifted = np.column_stack([turn, matrix[:, 2] + turn @ np.full(2, 0.5) - 0.5])
        patch = cv2.warpAffine(image, shifted, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                               borderMode=cv2.BORDER_REPLICATE)
        half = face.size / 2
        marks = self.landmarks(patch, side / 2 + half * np.array([-1, -1, 1, 1]))
        return marks @ turn.T + matrix[:, 2]

    def landmarks(self, image, box, jitter=7):
        """68 landmarks, averaged over slightly moved boxes, which halves their noise.

        Parameters
        ----------
        image : (H, W, 3) uint8 RGB
        box : (4,) float
        jitter : int, how many boxes, 1 to 7

        Returns
        -------
        (68, 2) float64 pixels, pixel centres at +0.5
        """
        size = box[2] - box[0]
        total = np.zeros((68, 2))
        for dx, dy, k in JITTER[:jitter]:
            centre = (box[:2] + box[2:]) / 2 + [dx * size, dy * size]
            corners = np.round([*(centre - size * k / 2), *(centre + size * k / 2)]).astype(int)
            shape = self._predictor(image, self._dlib.rectangle(*corners.tolist()))
            total += [(p.x, p.y) for p in shape.parts()]
        return total / min(jitter, len(JITTER)) + 0.5

    def dense(self, image, landmarks, looks=1):
        """Dense landmarks of a face: (H, W, 3) uint8 RGB and (68, 2) -> fitting.dense_landmarks.DenseLandmarks.

        Their network is loaded when they are first asked for; `looks` is how often it looks.
        """
        if self._predict_dense is None:
            from fitting.dense_landmarks import DensePredictor
            self._predict_dense = DensePredictor()
        return self._predict_dense(image, landmarks, looks)

    def descriptor(self, image, landmarks):
        """What tells people apart, by dlib's network; takes 75 ms. Its model is loaded when it is first asked for.

        Parameters
        ----------
        image : (H, W, 3) uint8 RGB
        landmarks : (68, 2) pixels, as `landmarks` gives them

        Returns
        -------
        (128,) float64; two of one person are less than about 0.6 apart (Euclidean), of two people more
        """
        if self._describer is None:
            self._describer = self._dlib.face_recognition_model_v1(str(self._describer_path))
        points = [self._dlib.point(*p) for p in np.round(np.asarray(landmarks) - 0.5).astype(int).tolist()]
        box = self._dlib.rectangle(*np.round(box_from_landmarks(np.asarray(landmarks))).astype(int).tolist())
        shape = self._dlib.full_object_detection(box, self._dlib.points(points))
        return np.array(self._describer.compute_face_descriptor(np.ascontiguousarray(image), shape))


def _roll(landmarks):
    """Radians from x towards y by which the line of the outer eye corners of landmarks (68, 2) is turned."""
    return float(np.arctan2(*(landmarks[45] - landmarks[36])[::-1]))


def _turned(angle):
    """The (2, 2) rotation from x towards y by an angle in radians."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def box_from_landmarks(landmarks):
    """The box that dlib's detector would give for a face with these landmarks: (68, 2) -> (4,)."""
    centre = (landmarks[17:].min(axis=0) + landmarks[17:].max(axis=0)) / 2
    eyes, mouth = landmarks[36:48].mean(axis=0), landmarks[48:68].mean(axis=0)
    size = max(2.35 * np.linalg.norm(eyes - mouth), 1.45 * np.linalg.norm(landmarks[36] - landmarks[45]))
    return np.concatenate([centre - size / 2, centre + size / 2])


def around(landmarks, margin=0.0):
    """The part of a picture, two slices, that holds landmarks (68, 2) and `margin` of their extent to each side."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    margin = margin * (high - low)
    left, top = np.maximum(np.floor(low - margin), 0).astype(int)
    right, bottom = np.maximum(np.ceil(high + margin), 0).astype(int)
    return np.s_[top:bottom, left:right]


def eye_distance(landmarks):
    """Distance of the outer eye corners in pixels, not below half the distance eyes - mouth (for turned heads)."""
    eyes, mouth = landmarks[36:48].mean(axis=0), landmarks[48:68].mean(axis=0)
    return float(max(np.linalg.norm(landmarks[36] - landmarks[45]), 1.2 * np.linalg.norm(eyes - mouth)))
