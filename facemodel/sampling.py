"""Pictures and textures looked up at points, in pixels whose centres lie at +0.5."""
from __future__ import annotations

import cv2
import numpy as np

ROWS = 16384                 # OpenCV draws no pictures of more than 32,767 rows


def sampled(picture, where, how=cv2.INTER_LINEAR, border=cv2.BORDER_REPLICATE):
    """A picture or texture (H, W) or (H, W, K) at points (h, w, 2), x and y: (h, w) or (h, w, K) of its dtype.

    how, border : OpenCV's interpolation and what lies outside
    """
    x, y = (where[..., k] - np.float32(0.5) for k in (0, 1))
    return cv2.remap(picture, x, y, how, borderMode=border)


def samples(picture, points):
    """Bilinear samples of (H, W) or (H, W, K) at N > 0 points (N, 2), the border repeated outside: (N,) or (N, K)."""
    points = np.ascontiguousarray(points, np.float32)
    parts = [sampled(picture, points[k:k + ROWS, None]) for k in range(0, len(points), ROWS)]
    return np.concatenate(parts).reshape(len(points), *picture.shape[2:])
