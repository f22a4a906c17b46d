"""The grain of a video, sensor noise or film, on the rendered face: without it a face looks pasted.

Grain is what differs between two frames along the skin's motion (dense optical flow: T. Kroeger et al. 2016,
arXiv:1603.03590), frequency band by frequency band and for brightness and colour apart. What that comparison does to
noise, by its interpolation and its filters, it does to noise of known strength as well, by which it is measured. Drawn
anew for every frame, grain of these strengths is laid over the rendering. Compressed video often has none.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fitting.detection import around
from fitting.yuv import LUMINANCE

BANDS = 0.7, 1.4, 2.8        # pixels: standard deviations of the blurs that part the bands
TILE = 512                   # pixels per side of the grain that is drawn; repeats beyond
QUIET = 0.25                 # quantile of the pairs that is believed: what moves differs by more than its grain
LEAST = np.array([[1.0], [1.4], [2.4]]) / 255        # of each band's strength: what an error of the flow makes of pores
MARGIN = 0.1                 # of the landmarks' extent around them
ROUNDS = 4                   # of bringing bands to their strengths
FEWEST = 400                 # pixels that say something
OPPONENT = np.float32([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt(np.float32([[3], [2], [6]]))
"""Rows: brightness and two colours, orthonormal in RGB (Y. Ohta et al. 1980, doi:10.1016/0146-664X(80)90047-7)."""


def split_bands(picture):
    """The frequency bands of a picture (h, w, ...), fine to coarse: list of arrays like it, without what is coarser."""
    blurred = [picture, *(cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in BANDS)]
    return [fine - coarse for fine, coarse in zip(blurred, blurred[1:])]


@dataclass(frozen=True)
class Grain:
    """Grain of one clip.

    strength : (3, 3), of each band (fine to coarse) along each row of OPPONENT: standard deviation of the white noise
        that is as strong there, for pictures in [0, 1]
    tile : (TILE, TILE, 3) float32, RGB, from which frames' grain is cut
    """

    strength: np.ndarray
    tile: np.ndarray

    @classmethod
    def of(cls, strength):
        """Grain of a strength (3, 3), or None where that is nothing."""
        if not np.any(strength):
            return None
        edge = int(4 * BANDS[-1])
        noise = np.random.default_rng(0).standard_normal((TILE, TILE, 3)).astype(np.float32)
        wrapped = np.pad(noise, ((edge, edge), (edge, edge), (0, 0)), mode="wrap")
        bands = np.stack([band[edge:-edge, edge:-edge] for band in split_bands(wrapped)])
        gain, white = np.array(strength, np.float32), bands.std(axis=(1, 2))
        for _ in range(ROUNDS):                            # bands overlap, so that a strong one adds to its neighbours
            drawn = (gain[:, None, None] * bands).sum(axis=0)
            gain *= strength / np.maximum(np.std(split_bands(drawn), axis=(1, 2)) / white, 1e-9)
        return cls(np.asarray(strength), (gain[:, None, None] * bands).sum(axis=0) @ OPPONENT)

    def drawn(self, number, height, width):
        """The grain of a frame: (height, width, 3) float32, the same for the same `number` >= 0."""
        top, left = np.random.default_rng(number).integers(TILE, size=2)
        return self.tile[np.ix_((top + np.arange(height)) % TILE, (left + np.arange(width)) % TILE)]


def grain_of(pairs):
    """The Grain of a clip, or None where it has none to be seen.

    Parameters
    ----------
    pairs : list of (picture, the one before it, both (H, W, 3) uint8, and landmarks (68, 2) in the first)
    """
    found = [x for x in (_strength(*pair) for pair in pairs) if x is not None]
    if not found:
        return None
    usual = np.quantile(found, QUIET, axis=0)
    return Grain.of(np.sqrt(np.maximum(np.square(usual) - LEAST ** 2, 0)))


def _strength(now, before, landmarks):
    """How strong the grain between two frames is, as Grain.strength; None where there is no face to see it on."""
    part = around(landmarks, MARGIN)
    now, before = (picture[part].astype(np.float32) / 255 for picture in (now, before))
    height, width = now.shape[:2]
    if height * width < FEWEST:
        return None
    hull = cv2.convexHull(np.round(landmarks - [part[1].start, part[0].start]).astype(np.int32))
    face = cv2.fillConvexPoly(np.zeros((height, width), np.uint8), hull, 1) > 0
    if face.sum() < FEWEST:
        return None
    grey = [np.round(cv2.GaussianBlur(p @ LUMINANCE, (0, 0), BANDS[1]) * 255).astype(np.uint8) for p in (now, before)]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    rows, columns = np.indices((height, width), np.float32)
    carried = lambda a: cv2.remap(a, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_CUBIC,
                                  borderMode=cv2.BORDER_REFLECT)
    spread = lambda a, b: [np.median(np.abs(band[face]), axis=0) for band in split_bands(a - carried(b))]
    known = np.random.default_rng(1).standard_normal((2, height, width, 3)).astype(np.float32)
    turned = (picture @ OPPONENT.T for picture in (now, before))
    return np.array(spread(*turned)) / np.array(spread(*known)).mean(axis=1, keepdims=True)
