"""Crops of a picture around a face, at the levels of a pyramid."""
from __future__ import annotations

import cv2
import numpy as np

from fitting.detection import eye_distance
from fitting.energy import Landmarks
from fitting.solver import View

# distance of the outer eye corners in pixels, coarse to fine
LEVELS = (40.0, 90.0, 180.0)      # a photo and the key frames of a clip
CLIP_LEVELS = (64.0, 120.0)       # frames of a clip, from a warm start
# dense landmarks: weight of all of them over that of the 68, where they are as sure as usual; SURE is the standard
# deviation of such a one over the eye distance, and MOST what a surer one may weigh
DENSE, SURE, MOST = 2.0, 0.012, 4.0


def landmark_weights():
    """(68,) weights in equation 5: contours of eyes and lips count more, the jaw line and the brows less."""
    weight = np.ones(68)
    weight[:17] = 0.25
    weight[17:27] = 0.6
    weight[27:36] = 1.5
    weight[36:48] = 2.0
    weight[60:68] = 2.0
    return weight


def make_marks(model, landmarks, dense=None):
    """What equation 5 looks at.

    Parameters
    ----------
    landmarks : (68, 2) pixels
    dense : fitting.dense_landmarks.DenseLandmarks, or None; they weigh by how sure they are

    Returns
    -------
    fitting.energy.Landmarks, the 68 first
    """
    size, weight = eye_distance(landmarks), landmark_weights()
    if dense is None:
        return Landmarks(model.landmarks.astype(np.int64), landmarks, weight, size)
    sure = np.minimum((SURE * size / dense.sigma) ** 2, MOST)
    return Landmarks(np.concatenate([model.landmarks, model.dense_landmarks]).astype(np.int64),
                     np.concatenate([landmarks, dense.points]),
                     np.concatenate([weight, DENSE * weight.sum() / len(sure) * sure]), size)


def make_view(model, image, landmarks, eye_pixels, principal_point=None, dense=None):
    """A crop of a picture around a face.

    Parameters
    ----------
    model : MorphableModel
    image : (H, W, 3) uint8 RGB
    landmarks : (68, 2) float, full-frame pixels
    eye_pixels : float, the eye distance that the crop should have; a smaller face is not enlarged
    principal_point : (2,) float, default the picture's centre
    dense : fitting.dense_landmarks.DenseLandmarks, or None

    Returns
    -------
    View
    """
    height, width = image.shape[:2]
    if principal_point is None:
        principal_point = np.array([width / 2, height / 2])
    size = eye_distance(landmarks)
    scale = min(1.0, eye_pixels / size)
    low = np.floor(np.maximum(landmarks.min(axis=0) - [0.5 * size, 0.9 * size], 0)).astype(int)
    high = np.ceil(np.minimum(landmarks.max(axis=0) + 0.5 * size, [width, height])).astype(int)
    high = np.maximum(high, np.minimum(low + 16, [width, height]))
    low = np.minimum(low, high - 16).clip(0)
    crop = image[low[1]:high[1], low[0]:high[0]].astype(np.float32) / 255
    if scale < 1:
        # blur, then sample at exactly this scale: rounding the size instead would stretch the picture
        size_out = np.maximum(np.round((high - low) * scale), 8).astype(int)
        crop = cv2.GaussianBlur(crop, (0, 0), 0.5 / scale)
        shift = 0.5 * scale - 0.5
        matrix = np.array([[scale, 0, shift], [0, scale, shift]])
        crop = cv2.warpAffine(crop, matrix, (int(size_out[0]), int(size_out[1])), flags=cv2.INTER_LINEAR,
                              borderMode=cv2.BORDER_REPLICATE)
    guess = dense and dense.guess_for(model)
    return View(crop, float(scale), low.astype(float), np.asarray(principal_point, float),
                make_marks(model, landmarks, dense), guess and guess.pose)
