"""The two views of a face in which occluders are looked for, laid out by the head and not by what lies before it.

OBJECT holds the whole head; hands and microphones are looked for there. STRIP holds the eyes from temple to temple, in
about the video's own resolution; the frame of a pair of glasses is one or two pixels wide there.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fitting.detection import ANCHORS

EYES = np.array([36, 39, 42, 45])


@dataclass(frozen=True)
class View:
    """A window on the frontal mean face.

    size : (2,) int, width and height in pixels
    scale : float, pixels per millimetre
    above : float, pixels from its top to the eyes
    """

    size: tuple
    scale: float
    above: float


OBJECT = View((128, 128), 0.56, 54.0)
STRIP = View((256, 112), 1.35, 50.0)


def layout(model, view):
    """Where the anchors of the mean face lie in a view: (11, 2) float64 pixels."""
    points = model.mean[model.landmarks][:, :2].astype(np.float64)
    eyes = points[EYES].mean(axis=0)
    return (points[ANCHORS] - eyes) * view.scale + [view.size[0] / 2, view.above]


def placement(landmarks, places):
    """The similarity that lays a face into a view.

    Parameters
    ----------
    landmarks : (68, 2) pixels of the picture
    places : (11, 2), of `layout`

    Returns
    -------
    (2, 3) float64: [x, y, 1] of the picture -> pixels of the view
    """
    from_, to = landmarks[ANCHORS].astype(np.float64), np.asarray(places, np.float64)
    centre, centre_to = from_.mean(axis=0), to.mean(axis=0)
    a, b = from_ - centre, to - centre_to
    total = (a * a).sum()
    cosine, sine = (a * b).sum() / total, (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / total
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, centre_to - turn @ centre])


def cut(image, where, view):
    """The view of a picture: (h, w, 3) of its dtype, the border repeated outside. where : of `placement`."""
    factor = np.sqrt(abs(np.linalg.det(where[:, :2])))
    step = int(1 / factor) if factor < 0.5 else 1
    if step > 1:                                                 # else fine detail would alias
        image = cv2.resize(image, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
        where = where * [[step, step, 1]]
    shift = np.array([[0, 0, 0.5]] * 2)                          # OpenCV counts from pixel centres
    moved = where + np.column_stack([np.zeros((2, 2)), where[:, :2] @ [0.5, 0.5]]) - shift
    return cv2.warpAffine(image, moved, view.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
