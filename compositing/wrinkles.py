"""The folds of the source's skin, on the target's.

What a fold does to the light is a ratio: the skin's texture in a frame over the same skin's at rest (Z. Liu, Y. Shan,
Z. Zhang, "Expressive expression mapping with ratio images", 2001, doi:10.1145/383259.383289). A generator that learned
from few people knows the folds that most of them have; a frown, a squint, a line of one's own it does not. What of a
ratio it has not drawn is therefore multiplied onto its texture, with three precautions. Only what is as wide as folds
are is taken: broader is light, finer is noise. A texture that slips by a little makes a ratio wherever the skin at rest
has an edge, so that a ratio counts as far as it is more than such an edge explains. And light lines count less than
dark ones: shine wanders over a face, too.
"""
from __future__ import annotations

import cv2
import numpy as np

from facemodel.atlas import build_atlas
from fitting.texture import log_albedo, region_texture, skin_weight, weight_texture
from texgan.transfer import shrunk, window_at

FINE, BROAD = 0.0022, 0.026  # of the chart's side: standard deviations of the blurs between which folds lie
FLOOR = 0.02                 # of log luminance: as much is noise
SLIP = 0.0016                # of the chart's side, by which textures of two frames may be off
LIGHT = 0.5                  # share of what gets lighter
MOST = 0.5                   # of log luminance: no fold is deeper
LEAST_SEEN = 0.05            # weight under which a mean fades to nothing
COARSER = 4                  # times: texels that the broad blur is taken in
NOSTRILS, NOSTRIL = (31, 32, 33, 34, 35), 5.0      # iBUG landmarks, mm: their shadow moves, and is no fold
APART = 0.008                # of the chart's side from lips, lids, eyes and nostrils, over which folds fade


class WrinkleTransfer:
    """Draws the folds of one source on one target.

    Parameters
    ----------
    model : MorphableModel
    neutral, target : fitting.lift.Texture, neutral ones of the source and the target; (s, s, 3), (S, S, 3), s <= S
    """

    def __init__(self, model, neutral, target):
        self._size = size = len(neutral.rgb)
        skin = _open_skin(model, build_atlas(model, size))
        reach = round(3 * BROAD * size)
        self._window = tuple(_around(np.flatnonzero(skin.max(axis=k) > 0), reach, size) for k in (1, 0))
        self._skin = (skin * neutral.validity)[self._window]
        self._rest, self._rest_target = self._light(neutral.rgb), self._light(shrunk(target.rgb, size))
        slope = np.hypot(*np.gradient(cv2.GaussianBlur(self._rest, (0, 0), FINE * size)))
        steep = cv2.dilate(slope, np.ones((3, 3), np.uint8))
        self._doubt = FLOOR + SLIP * size * steep

    def draw(self, texture, lifted):
        """Draws the folds into a texture, in place.

        Parameters
        ----------
        texture : (S, S, 3) float32, the target's in a frame, about its neutral one
        lifted : fitting.lift.Texture of the source in that frame, (s, s, 3)
        """
        seen = self._skin * lifted.validity[self._window]
        fold = self._band(self._light(lifted.rgb) - self._rest, seen)
        fold *= np.maximum(0, 1 - np.square(self._doubt / np.maximum(np.abs(fold), 1e-6)))
        fold = np.where(fold > 0, LIGHT * fold, fold)
        drawn = self._band(self._light(shrunk(texture, self._size)) - self._rest_target, self._skin)
        fold -= np.clip(drawn, np.minimum(fold, 0), np.maximum(fold, 0))
        gain = np.exp(np.clip(seen * fold, -MOST, MOST))
        part = texture[window_at(self._window, len(texture) // self._size)]
        gain = cv2.resize(gain, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        np.multiply(part, cv2.cvtColor(gain, cv2.COLOR_GRAY2RGB), out=part)

    def _light(self, rgb):
        return log_albedo(cv2.transform(rgb[self._window], np.full((1, 3), 1 / 3)))

    def _band(self, change, seen):
        """What of a change (h, w) is as wide as folds are, where it was seen (h, w)."""
        both = np.dstack([change * seen, seen])
        few = cv2.resize(both, None, fx=1 / COARSER, fy=1 / COARSER, interpolation=cv2.INTER_AREA)
        fine = cv2.GaussianBlur(both, (0, 0), FINE * self._size)
        broad = cv2.GaussianBlur(few, (0, 0), BROAD / COARSER * self._size)
        broad = cv2.resize(broad, change.shape[::-1], interpolation=cv2.INTER_LINEAR)
        mean = lambda a: a[..., 0] / np.maximum(a[..., 1], LEAST_SEEN)
        return mean(fine) - mean(broad)


def _open_skin(model, atlas):
    """Skin away from lips, lids, eyes and nostrils, without brows: (s, s) float32 in [0, 1]."""
    skin = np.clip(2 * skin_weight(model, atlas) - 1, 0, 1)
    place = model.mean[model.landmarks[list(NOSTRILS)]]
    away = np.min([np.linalg.norm(model.mean - p, axis=1) for p in place], axis=0)
    nostrils = weight_texture(model, np.clip(2 - away / NOSTRIL, 0, 1).astype(np.float32), atlas)
    near = np.max([nostrils, *(region_texture(model, n, atlas) for n in ("lips", "eyelids", "eyes"))], axis=0)
    reach = 2 * round(APART * atlas.size) + 1
    near = cv2.dilate(near, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    near = cv2.GaussianBlur(near, (0, 0), APART * atlas.size / 2)
    return np.clip(skin * (1 - near), 0, 1).astype(np.float32)


def _around(indices, reach, size):
    """The slice over indices and `reach` to both sides, within `size`."""
    return slice(max(0, int(indices[0]) - reach), min(size, int(indices[-1]) + reach + 1))
