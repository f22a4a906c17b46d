"""Masks over the chart: grown, closed, followed."""
from __future__ import annotations

import cv2
import numpy as np


def connected(inside, seeds):
    """What of a mask (h, w) bool is connected to where `seeds` (h, w) bool are."""
    _, label = cv2.connectedComponents((inside | seeds).astype(np.uint8), connectivity=4)
    reached = np.zeros(label.max() + 1, bool)
    reached[label[seeds]] = True
    reached[0] = False
    return reached[label] & inside


def grown(mask, radius):
    """What is within a radius, in shares of the side, of a mask (S, S) bool."""
    if not mask.any():
        return mask
    return cv2.distanceTransform(np.uint8(~mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= round(radius * len(mask))


def closed(mask, width):
    """A mask (S, S) float32 or uint8 without the gaps that are narrower than a width, in shares of the side."""
    side = 2 * round(width * len(mask) / 2) + 1
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
