"""Keeps the rendered face still on the moving head.

The fit of each frame is off by a fraction of a pixel, differently each time, and the photo's pores shimmer by it: its
detail moves against the video's. The source itself tells how its skin has moved since the frame before (dense optical
flow: T. Kroeger et al. 2016, arXiv:1603.03590). Along that motion the rendering is mixed with the one before, so much
that it changes no more than the source's own skin does there, and as far as both show the same: where they differ by
more than SAME, at a closing lid or an opening mouth, the new one stands alone.
"""
from __future__ import annotations

import cv2
import numpy as np

from fitting.yuv import LUMINANCE

SHARE = 0.6                  # of the frame before, at most
SAME = 0.10                  # difference, of 1, over which the share fades
BROAD = 0.05                 # of the window's width: over how wide a neighbourhood the changes are measured
FLOW_SIDE = 320              # pixels: larger windows are reduced for the flow


class Steadier:
    """Mixes renderings with what went before; its memory is one frame."""

    def __init__(self):
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self.reset()

    def reset(self):
        """Forgets the frame before."""
        self._before = None

    def state(self):
        """All that is remembered, as plain data (see fitting.checkpoint)."""
        return self._before and list(self._before)

    def restore(self, state):
        """Goes on from a state."""
        self._before = state and tuple(state)

    def __call__(self, frame, window, rgb, mask):
        """The rendering, steadied.

        Parameters
        ----------
        frame : (H, W, 3) uint8, the source's frame
        window : (4,) int, left, top, right, bottom of the rendering in it
        rgb : (h, w, 3) float32 in [0, 1], the rendering
        mask : (h, w) bool, where it shows the face

        Returns
        -------
        (h, w, 3) float32
        """
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        out = rgb if self._before is None else self._mixed(grey, [int(x) for x in window], rgb, mask)
        self._before = grey, np.asarray(window, np.int64), np.where(mask[..., None], out, 0).astype(np.float32), mask
        return out

    def _mixed(self, grey, window, rgb, mask):
        old_grey, (old_left, old_top, _, _), old_rgb, old_mask = self._before
        left, top, right, bottom = window
        flow = self._motion(grey[top:bottom, left:right], old_grey[top:bottom, left:right])
        height, width = mask.shape
        x = flow[..., 0] + np.arange(width, dtype=np.float32) + np.float32(left - old_left)
        y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None] + np.float32(top - old_top)
        carried = cv2.remap(old_rgb, x, y, cv2.INTER_CUBIC)
        known = cv2.remap(old_mask.astype(np.float32), x, y, cv2.INTER_LINEAR) * mask > 0.99
        known = cv2.erode(known.astype(np.uint8), np.ones((3, 3), np.uint8))
        moved = cv2.remap(old_grey, x + np.float32(old_left), y + np.float32(old_top), cv2.INTER_LINEAR)
        own = cv2.absdiff(grey[top:bottom, left:right], moved).astype(np.float32) / 255
        around = lambda change: _broad(change * known, BROAD * width)
        share = 1 - around(own) / np.maximum(around(np.abs((rgb - carried) @ LUMINANCE)), 1e-4)
        red, green, blue = cv2.split(cv2.absdiff(rgb, carried))
        gap = cv2.blur(cv2.max(cv2.max(red, green), blue), (5, 5)) / SAME
        share = np.clip(share, 0, SHARE) * np.exp(-gap * gap) * known
        return np.clip(rgb + share[..., None] * (carried - rgb), 0, 1)

    def _motion(self, now, before):
        """Where each pixel of a window was in the frame before, relative to it: (h, w, 2) float32, x and y."""
        height, width = now.shape
        scale = min(1.0, FLOW_SIDE / max(height, width))
        size = max(16, round(width * scale)), max(16, round(height * scale))
        small = [cv2.resize(g, size, interpolation=cv2.INTER_AREA) for g in (now, before)]
        flow = self._flow.calc(*small, None)
        return cv2.resize(flow, (width, height)) * np.float32([width / size[0], height / size[1]])


def _broad(picture, sigma):
    """A picture (h, w) float32 blurred by so much that a smaller one shows it as well."""
    step = max(1, int(sigma / 3))
    size = tuple(max(1, round(n / step)) for n in picture.shape[::-1])
    small = cv2.GaussianBlur(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / step)
    return cv2.resize(small, picture.shape[::-1])
