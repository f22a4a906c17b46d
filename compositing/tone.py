"""The target's colours brought to the source's: what the fitted light leaves over, matched slowly over the face.

On the skin around the features the ratio of source and rendered target is gathered in cells of the chart, so that it
stays with the face as it moves, and spread smoothly over all of it. Pores and wrinkles are finer than the cells and
stay. Near the face's border the ratio is applied whole: there the target must meet the source's cheeks and neck. Inside
as much of the person's own tone is kept as SKIN says:

    source   nothing: the skin's mean is the source's everywhere
    auto     up to AUTO_KEEPS per channel, about what passes for shadow beside a neck of the other tone
    target   all of it; where two people differ much, the border shows it

Eyes and teeth have no skin: what makes one person's skin out of another's would make them glow. They get what makes the
white of the target's eyes that of the source's.

Ratios are of code values, which for a power-law transfer is the same as a ratio of linear light.
"""
from __future__ import annotations

import cv2
import numpy as np

CELLS = 32                   # of the chart, each way
SPREAD = 2.5                 # cells: standard deviation of the smoothing
DOUBT = 0.02                 # weight, in vertices a cell, with which the mean speaks where nothing was seen
LARGEST = 0.9                # of the ratio's logarithm
MEMORY = 0.9                 # share of the past that is kept from frame to frame
EYE_MEMORY = 0.97            # longer: lids come over the eyes
LEAST_EYES = 12              # vertices
AUTO_KEEPS = 0.04            # of the ratio's logarithm
BORDER = 3.0                 # cells from the face's border inwards over which its own tone comes in
KEEPS = {"source": 0.0, "auto": AUTO_KEEPS, "target": np.inf}
SKIN = tuple(KEEPS)


class ToneMatch:
    """Matches the tone of one clip's renderings to its frames, in order; it remembers the frames before.

    Parameters
    ----------
    uv : (N, 2) float, the vertices' place on the chart, v up
    skin : (N,) bool, skin that both people have: the face without brows, eyes, lips and mouth
    outer : (N,) bool, outside the face; its border is where the target has to meet the source
    keep : one of SKIN
    eyes, teeth : (N,) float in [0, 1], how far a vertex belongs to the eyeballs and to the inside of the mouth
    """

    def __init__(self, uv, skin, outer, keep="auto", eyes=None, teeth=None):
        if keep not in KEEPS:
            raise ValueError(f"keep is {keep!r}, but must be one of {', '.join(SKIN)}")
        self._skin, self._keep = np.asarray(skin, bool), KEEPS[keep]
        none = np.zeros(len(uv), np.float32)
        self._eyes, self._bare = (np.float32(none if x is None else x) for x in (eyes, teeth))
        self._bare = np.clip(np.maximum(self._eyes, self._bare), 0, 1)[:, None]
        self._place = np.float32([uv[:, 0] * CELLS, (1 - uv[:, 1]) * CELLS]).T
        column, row = np.clip(self._place.astype(int), 0, CELLS - 1).T
        self._cell = row * CELLS + column
        face = np.zeros((CELLS, CELLS), np.uint8)
        face.ravel()[self._cell[~np.asarray(outer, bool)]] = 1
        depth = cv2.distanceTransform(np.pad(face, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        self._inside = np.clip((depth - 1) / BORDER, 0, 1).astype(np.float32)
        self.reset()

    def reset(self):
        """Forgets the frames before: a cut, or frames left out."""
        self._total, self._weight, self._eye_ratio = None, None, None

    def state(self):
        """What it remembers, as plain data (see fitting.checkpoint)."""
        return {"total": self._total, "weight": self._weight, "eyes": self._eye_ratio}

    def restore(self, state):
        """Goes on from a state."""
        self._total, self._weight, self._eye_ratio = state["total"], state["weight"], state["eyes"]

    def gain(self, source, target, visible):
        """What to multiply the rendered colours by at every vertex, after one more frame.

        Parameters
        ----------
        source, target : (N, 3) float in [0, 1], the frame's and the rendering's colours where the vertices are seen
        visible : (N,) bool, which are, and are not covered by anything

        Returns
        -------
        (N, 3) float32 in [exp(-LARGEST), exp(LARGEST)]; ones as long as nothing was seen
        """
        used = self._skin & visible & (source.min(axis=1) > 0.01) & (target.min(axis=1) > 0.01)
        ratio = np.clip(np.log(np.maximum(source[used], 0.01) / np.maximum(target[used], 0.01)), -LARGEST, LARGEST)
        weight = _agreeing(ratio)
        cell = self._cell[used]
        gather = lambda w: np.bincount(cell, w, CELLS * CELLS).reshape(CELLS, CELLS)
        now = np.stack([gather(weight * ratio[:, k]) for k in range(3)], axis=-1)
        count = gather(weight)
        if self._weight is None:
            self._total, self._weight = now, count
        else:
            self._total = MEMORY * self._total + (1 - MEMORY) * now
            self._weight = MEMORY * self._weight + (1 - MEMORY) * count
        skin = self._at_vertices(self._field())
        self._see_eyes(source, target, visible)
        if self._eye_ratio is None:
            return np.exp(skin)
        return np.exp(skin + self._bare * (self._eye_ratio - skin))

    def _see_eyes(self, source, target, visible):
        seen = (self._eyes > 0.5) & visible
        if seen.sum() >= LEAST_EYES:
            ratio = _white(source[seen]) / np.maximum(_white(target[seen]), 0.02)
            now = np.log(np.clip(ratio, np.exp(-LARGEST), np.exp(LARGEST))).astype(np.float32)
            self._eye_ratio = now if self._eye_ratio is None else EYE_MEMORY * self._eye_ratio + (1 - EYE_MEMORY) * now

    def _field(self):
        """The logarithm of the gain in every cell: (CELLS, CELLS, 3) float32."""
        if not self._weight.sum() > 0:
            return np.zeros((CELLS, CELLS, 3), np.float32)
        mean = self._total.sum(axis=(0, 1)) / self._weight.sum()
        blur = lambda a: cv2.GaussianBlur(a, (0, 0), SPREAD, borderType=cv2.BORDER_CONSTANT)
        weight = blur(self._weight)[..., None]
        smooth = (blur(self._total) + DOUBT * mean) / (weight + DOUBT)
        kept = np.clip(mean, -self._keep, self._keep)
        return (smooth - self._inside[..., None] * kept).astype(np.float32)

    def _at_vertices(self, field):
        x, y = (np.ascontiguousarray(self._place[:, k, None] - 0.5, np.float32) for k in (0, 1))
        return cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]


def _white(colours):
    """The white of the eye, (3,): the mean of the brighter half of the eyes' colours (n, 3)."""
    light = colours.mean(axis=1)
    return np.maximum(colours[light >= np.median(light)].mean(axis=0), 0.02)


def _agreeing(ratio, rounds=3, usual=0.08):
    """Weight of each log ratio (n, 3): 1 near their robust mean, little where hair, a shadow or a hand makes another.

    Returns (n,) float64 in (0, 1].
    """
    weight = np.ones(len(ratio))
    for _ in range(rounds if len(ratio) else 0):
        mean = (ratio * weight[:, None]).sum(axis=0) / weight.sum()
        distance = np.linalg.norm(ratio - mean, axis=1)
        weight = 1 / (1 + (distance / max(2 * usual, 2 * float(np.median(distance)))) ** 4)
    return weight
