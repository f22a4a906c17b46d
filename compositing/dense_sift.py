"""Dense SIFT: one descriptor of 4 x 4 cells x 8 orientations around every pixel of a grey picture.

Scale: a descriptor of a textured place has the length 255, so its numbers lie in [0, 255]; compositing.sift_flow's
constants belong to this scale.

References: Lowe 2004, https://doi.org/10.1023/B:VISI.0000029664.99615.94; dense, without keypoints and without the
Gaussian window: Liu, Yuen and Torralba 2011, https://doi.org/10.1109/TPAMI.2010.147.
"""
from __future__ import annotations

import cv2
import numpy as np
from numba import njit

CELLS, ORIENTATIONS = 4, 8
LENGTH = 255.0          # of a descriptor
CLAMP = 0.2             # largest share of the length in one number before the second normalisation (Lowe, section 6.1)


def dense_sift(grey, cell=3, quiet=0.05):
    """Descriptors on a grid of one pixel.

    Gradients are central differences. Each is shared linearly between its two nearest orientations and its nearest
    cells; cells lie (-1.5, -0.5, 0.5, 1.5) * cell from the pixel in both directions. Nothing lies outside the picture.

    Parameters
    ----------
    grey : (H, W) float, usually in [0, 1]
    cell : int >= 1, pixels from one cell's centre to the next
    quiet : gradient sum, in units of grey, at which a descriptor has half its length: noise on a plain surface shall
        not look like texture

    Returns
    -------
    (H, W, 128) float32 in [0, 255]: cells row by row, in each the orientations from x (to the right) to y (down)

    Raises
    ------
    ValueError : not a picture of one channel
    """
    grey = np.asarray(grey, np.float32)
    if grey.ndim != 2 or min(grey.shape) < 2:
        raise ValueError(f"grey must be (H, W) with at least 2 x 2 pixels, not {grey.shape}")
    histogram = _orientations(grey)
    kernels = _cell_kernels(cell)
    out = np.empty((*grey.shape, CELLS, CELLS, ORIENTATIONS), np.float32)
    for i, vertical in enumerate(kernels):
        for j, horizontal in enumerate(kernels):
            out[:, :, i, j] = cv2.sepFilter2D(histogram, -1, horizontal, vertical, borderType=cv2.BORDER_CONSTANT)
    out = out.reshape(*grey.shape, -1)
    _normalise(out, np.float32(quiet))
    return out


def _orientations(grey):
    """Gradient strength per orientation: (H, W, 8) float32."""
    dy, dx = np.gradient(grey)
    strength = np.hypot(dx, dy)
    place = np.arctan2(dy, dx) * np.float32(ORIENTATIONS / (2 * np.pi))
    distance = np.abs((place[..., None] - np.arange(ORIENTATIONS, dtype=np.float32) + 4) % ORIENTATIONS - 4)
    return (strength[..., None] * np.maximum(1 - distance, 0)).astype(np.float32)


def _cell_kernels(cell):
    """Weights of the pixels around a pixel in its four cells: (4, 2 R + 1) float32, triangles 2 * cell wide."""
    reach = int(np.ceil((CELLS + 1) / 2 * cell))
    centres = (np.arange(CELLS) - (CELLS - 1) / 2) * cell
    distance = np.abs(np.arange(-reach, reach + 1) - centres[:, None])
    return np.maximum(1 - distance / cell, 0).astype(np.float32)


@njit(cache=True, fastmath=True, nogil=True)
def _normalise(descriptors, quiet):
    height, width, count = descriptors.shape
    for i in range(height):
        for j in range(width):
            d = descriptors[i, j]
            length = np.float32(1e-12)
            for k in range(count):
                length += d[k] * d[k]
            length = np.sqrt(length)
            again = np.float32(1e-12)
            for k in range(count):
                d[k] = min(d[k] / length, np.float32(CLAMP))
                again += d[k] * d[k]
            scale = np.float32(LENGTH) / np.sqrt(again) * (length / (length + quiet))
            for k in range(count):
                d[k] *= scale
