"""The rendering as sharp as the frame it goes into: a photo's pores on a soft video look pasted, and glitter.

Two measures have to agree that the rendering is too sharp to be blurred. One is the energy of fine detail. The other is
its share in all detail, from which the contrast cancels: a smooth skin in a sharp video is not taken for a soft video.
If pores, and all fine detail together, are still stronger than the frame's, pores are made fainter by coring: soft
light, make-up and compression take pores from a video's skin, while eyes and lips stay sharp. Of what then is still
stronger, eyes and lips among it, at most a quarter goes: a face that is all crisper than its video flickers in it. The
frame's grain is no detail: it is laid over the rendering afterwards (compositing.grain).
"""
from __future__ import annotations

import cv2
import numpy as np

from fitting.yuv import LUMINANCE

BLURS = np.float32([0, 0.35, 0.45, 0.55, 0.65, 0.8, 1.0, 1.25, 1.5])      # standard deviations in pixels
COARSE = 1.5                 # pixels: what is broader is no fine detail
FAINTEST = 0.5               # of the contrast of pores that is left at least
FAINTEST_EDGES = 0.75        # likewise of all fine detail
PORES = 3.0                  # times the usual detail: what is stronger is no pore
LEVEL = 0.5 / 255            # detail that 8 bits show; a frame with less is black or white, and says nothing of detail
MEMORY = 0.9                 # share of the past that is kept from frame to frame
BESIDE_GRAIN = 0.1           # of a frame's detail that is no grain, at least: grain is not the same everywhere


def energy(grey, inside):
    """Energy of the finest detail, float >= 0. grey : (h, w) float32. inside : (h, w) bool, where detail counts"""
    return float(np.var(cv2.Laplacian(grey, cv2.CV_32F)[inside]))


def energies(grey, inside):
    """Energy of the finest detail and of the somewhat coarser one: (2,) float64. Parameters as of `energy`."""
    return np.array([energy(a, inside) for a in (grey, cv2.GaussianBlur(grey, (0, 0), COARSE))])


def detail(grey, inside, grain=0.0):
    """Energy of the finest detail, and that over the energy of the somewhat coarser one: (2,) float64, >= 0.

    grey, inside : as of `energy`. grain : (2,), energies that are grain's
    """
    fine, coarse = _without(energies(grey, inside), grain)
    return np.array([fine, fine / max(coarse, 1e-9)])


def usual_detail(grey, inside):
    """How strong the finest detail usually is, whatever edges there are: float >= 0. Parameters as of `detail`."""
    return float(np.median(np.abs(cv2.Laplacian(grey, cv2.CV_32F)[inside])))


def _without(energy, grain):
    """What of an energy is no grain's."""
    return np.maximum(energy - grain, BESIDE_GRAIN * energy)


class SharpnessMatch:
    """Brings one clip's renderings to the sharpness of its frames, in order; it remembers the frames before.

    Parameters
    ----------
    grain : compositing.grain.Grain of the clip, or None
    """

    def __init__(self, grain=None):
        self._grain, self._usual_grain = np.zeros(2), 0.0
        if grain is not None:
            tile = grain.tile @ LUMINANCE
            everywhere = np.ones(tile.shape, bool)
            self._grain, self._usual_grain = energies(tile, everywhere), usual_detail(tile, everywhere)
        self.reset()

    def reset(self):
        """Forgets the frames before: a cut, or frames left out."""
        self._blur = self._contrast = self._edges = None

    def state(self):
        """What it remembers, as plain data (see fitting.checkpoint)."""
        return {"blur": self._blur, "contrast": self._contrast, "edges": self._edges}

    def restore(self, state):
        """Goes on from a state."""
        self._blur, self._contrast, self._edges = state["blur"], state["contrast"], state["edges"]

    def __call__(self, frame, rgb, inside):
        """The rendering, blurred if it is sharper than the frame, and its pores as faint; never sharpened.

        Parameters
        ----------
        frame, rgb : (h, w, 3) float32 in [0, 1], the frame's window and the rendering
        inside : (h, w) bool, where both show a face, away from the rendering's outline

        Returns
        -------
        (h, w, 3) float32, `rgb` itself where nothing is to be done
        """
        if inside.sum() < 400:
            return rgb
        rows, columns = (np.flatnonzero(inside.any(axis=k)) for k in (1, 0))
        part = np.s_[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
        seen, grey = frame[part] @ LUMINANCE, rgb[part] @ LUMINANCE
        wanted = detail(seen, inside[part], self._grain)
        blur = _least_blur(grey, inside[part], wanted)
        self._blur = _remembered(self._blur, blur)
        usual = float(np.sqrt(_without(usual_detail(seen, inside[part]) ** 2, self._usual_grain ** 2)))
        soft = _blurred(grey, self._blur)
        if usual > LEVEL:
            ratio = usual / max(usual_detail(soft, inside[part]), 1e-9)
            stronger = energy(soft, inside[part]) > wanted[0]
            contrast = float(np.clip(ratio, FAINTEST, 1)) if stronger else 1.0
            self._contrast = _remembered(self._contrast, contrast)
        made = _cored(_blurred(rgb, self._blur), 1 if self._contrast is None else self._contrast, inside)
        if wanted[0] > LEVEL ** 2:
            ratio = wanted[0] / max(energy(made[part] @ LUMINANCE, inside[part]), 1e-9)
            self._edges = _remembered(self._edges, float(np.clip(np.sqrt(ratio), FAINTEST_EDGES, 1)))
        if self._edges is None or self._edges > 0.98:
            return made
        return made - np.float32(1 - self._edges) * (made - cv2.GaussianBlur(made, (0, 0), COARSE))


def _least_blur(grey, inside, wanted):
    """Sigma at which a picture's detail, one of the two kinds, falls to what is wanted (2,)."""
    values = []
    for sigma in BLURS:
        values.append(detail(_blurred(grey, sigma), inside))
        if (np.min(values, axis=0) <= wanted).all():         # more blur would tell nothing more
            break
    values = np.minimum.accumulate(values)
    return min(float(np.interp(-wanted[k], -values[:, k], BLURS[:len(values)])) for k in range(2))


def _remembered(before, now):
    return now if before is None else MEMORY * before + (1 - MEMORY) * now


def _blurred(picture, sigma):
    return picture if sigma < 0.2 else cv2.GaussianBlur(picture, (0, 0), float(sigma))


def _cored(picture, contrast, inside):
    """A picture whose faint fine detail has some of its contrast, while strong detail, edges, has all of it."""
    if contrast > 0.98:
        return picture
    fine = picture - cv2.GaussianBlur(picture, (0, 0), COARSE)
    strength = np.abs(fine @ LUMINANCE)
    faint = np.exp(-np.square(strength / max(PORES * float(np.median(strength[inside])), 1e-6)))
    return picture - np.float32(1 - contrast) * faint[..., None] * fine
