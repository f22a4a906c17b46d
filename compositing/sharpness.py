"""The rendering as sharp as the frame it goes into: a photo's pores on a soft video look pasted, and glitter.

Two measures have to agree that the rendering is too sharp. One is the energy of fine detail. The other is its share in
all detail, from which the contrast cancels: a smooth skin in a sharp video is not taken for a soft video.
"""
from __future__ import annotations

import cv2
import numpy as np

from fitting.yuv import LUMINANCE

BLURS = np.float32([0, 0.35, 0.45, 0.55, 0.65, 0.8, 1.0, 1.25, 1.5])      # standard deviations in pixels
COARSE = 1.5                 # pixels: what is broader is no fine detail
MEMORY = 0.9                 # share of the past that is kept from frame to frame


def detail(grey, inside):
    """Energy of the finest detail, and that over the energy of the somewhat coarser one: (2,) float64, >= 0.

    grey : (h, w) float32. inside : (h, w) bool, where detail counts
    """
    energy = lambda a: float(np.var(cv2.Laplacian(a, cv2.CV_32F)[inside]))
    fine, coarse = energy(grey), energy(cv2.GaussianBlur(grey, (0, 0), COARSE))
    return np.array([fine, fine / max(coarse, 1e-9)])


class SharpnessMatch:
    """Blurs one clip's renderings to the sharpness of its frames, in order; it remembers the frames before."""

    def __init__(self):
        self.reset()

    def reset(self):
        """Forgets the frames before: a cut, or frames left out."""
        self._blur = None

    def state(self):
        """What it remembers, as plain data (see fitting.checkpoint)."""
        return {"blur": self._blur}

    def restore(self, state):
        """Goes on from a state."""
        self._blur = state["blur"]

    def __call__(self, frame, rgb, inside):
        """The rendering, blurred where it is sharper than the frame; never sharpened.

        Parameters
        ----------
        frame, rgb : (h, w, 3) float32 in [0, 1], the frame's window and the rendering
        inside : (h, w) bool, where both show a face, away from the rendering's outline

        Returns
        -------
        (h, w, 3) float32, `rgb` itself where nothing is to be blurred
        """
        if inside.sum() < 400:
            return rgb
        rows, columns = (np.flatnonzero(inside.any(axis=k)) for k in (1, 0))
        part = np.s_[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
        wanted, grey = detail(frame[part] @ LUMINANCE, inside[part]), rgb[part] @ LUMINANCE
        values = np.minimum.accumulate([detail(_blurred(grey, sigma), inside[part]) for sigma in BLURS])
        blur = min(float(np.interp(-wanted[k], -values[:, k], BLURS)) for k in range(2))
        self._blur = blur if self._blur is None else MEMORY * self._blur + (1 - MEMORY) * blur
        return _blurred(rgb, self._blur)


def _blurred(picture, sigma):
    return picture if sigma < 0.2 else cv2.GaussianBlur(picture, (0, 0), float(sigma))
