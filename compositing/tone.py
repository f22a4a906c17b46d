"""The target's colours brought to the source's: what the fitted light leaves over, matched slowly over the face.

On the skin around the features the ratio of source and rendered target is gathered in cells of the chart, so that it
stays with the face as it moves, and spread smoothly over all of it. Pores and wrinkles are finer than the cells and
stay. Near the face's border the ratio is applied whole: there the target must meet the source's cheeks and neck. Inside
it does not go far from its mean, for there a beard or a shadow makes it, and no light. What is darker on the target
below the nose is a beard at the border, too, and says nothing, or it would be bleached where it meets the jaw. Of the
person's own tone as much is kept as SKIN says:

    source   nothing: the skin's mean is the source's everywhere
    auto     AUTO_SHARE, of the brightness up to AUTO_KEEPS and of the colour up to AUTO_COLOUR: less than what is seen
             beside the neck. Twice as much looks like a mask and brings a face's descriptor nearer by only .003
    target   all of it; where two people differ much, the border shows it

Eyes, lips and mouth have no skin: what makes one person's skin out of another's would make them glow. The eyes get what
makes the white of the target's that of the source's, but where wide eyes look out of a narrow-eyed head it is lids that
are taken for white: eyes get no darker than a usual white would be in the light that was fitted. The inside of the
mouth gets what makes its mean that of the source's, and so do lips, up to LIPS_KEEP of their own; skin beside the
mouth's corners is no lip, or a source's lipstick would glow there. Of a mouth that is all but closed only rims of lips
are seen, which say nothing of teeth: for the two there are two ratios, and before it has been open the mouth gets what
the eyes get.

Ratios are of code values, which for a power-law transfer is the same as a ratio of linear light.
"""
from __future__ import annotations

import cv2
import numpy as np

from compositing.ramps import smoothstep
from facemodel.sampling import samples

CELLS = 48                   # of the chart, each way
SPREAD = 2.5                 # cells: standard deviation of the smoothing
DOUBT = 0.02                 # weight, in vertices a cell, with which the mean speaks where nothing was seen
LARGEST = 1.2                # of the ratio's logarithm
LOCAL = 0.25                 # of its difference from the mean, inside; softly
MEMORY = 0.9                 # share of the past that is kept from frame to frame
MEMORIES = {"lips": 0.97, "eyes": 0.97, "mouth": 0.9, "rims": 0.9}        # likewise; lids cover eyes, lips are pressed
WHITE_PART = 0.8, 0.95       # quantiles, of eyes' darkest channel, between which they are white, but no glint
WHITE = (0.80, 0.75, 0.72)   # albedo of such whites: three in four of the London set's are darker
SHADE = 0.1                  # of the ratio's logarithm, by which another head's brows may shade them
LIPS_KEEP = 0.15             # of the ratio's logarithm
LEAST = 12                   # vertices of eyes or lips that say something
OPENING = 0.2, 0.5           # share of the mouth's vertices seen up to which it is closed, and from which on it is open
BEARD = 0.15                 # of the ratio's logarithm over the mean: with more, what is dark on the target is a beard
AUTO_SHARE = 0.35            # of the person's own tone
AUTO_KEEPS, AUTO_COLOUR = 0.10, 0.04      # of the ratio's logarithm: of its mean over the channels, and of the rest
BORDER = 6.0                 # cells from the face's border inwards over which its own tone comes in
KEEPS = {"source": (0.0, 0.0, 0.0), "auto": (AUTO_SHARE, AUTO_KEEPS, AUTO_COLOUR), "target": (1.0, np.inf, np.inf)}
SKIN = tuple(KEEPS)


class ToneMatch:
    """Matches the tone of one clip's renderings to its frames, in order; it remembers the frames before.

    Parameters
    ----------
    uv : (N, 2) float, the vertices' place on the chart, v up
    skin : (N,) bool, skin that both people have: the face without brows, lids, eyes, lips and mouth
    outer : (N,) bool, outside the face; its border is where the target has to meet the source
    keep : one of SKIN
    eyes, mouth, lips : (N,) float in [0, 1], how far a vertex belongs to the eyeballs, to the mouth's inside, the lips
    least_eyes : (3,) float, logarithm of the least gain of eyes, see least_eyes; default none
    beard : (N,) bool, where a beard may grow; default nowhere
    """

    def __init__(self, uv, skin, outer, keep="auto", eyes=None, mouth=None, lips=None, least_eyes=None, beard=None):
        if keep not in KEEPS:
            raise ValueError(f"keep is {keep!r}, but must be one of {', '.join(SKIN)}")
        self._skin, self._keep = np.asarray(skin, bool), KEEPS[keep]
        self._least_eyes = np.float32(-LARGEST if least_eyes is None else least_eyes)
        none = np.zeros(len(uv), np.float32)
        self._beard = none > 0 if beard is None else np.asarray(beard, bool)
        parts = {name: np.float32(none if x is None else x) for name, x in (("lips", lips), ("eyes", eyes),
                                                                              ("mouth", mouth))}
        parts["lips"] = parts["lips"] * (1 - parts["mouth"])
        self._parts = {name: (weight > 0.5, weight[:, None]) for name, weight in parts.items()}
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
        self._total, self._weight, self._ratios, self._counts = None, None, {}, {}

    def state(self):
        """What it remembers, as plain data (see fitting.checkpoint)."""
        return {"total": self._total, "weight": self._weight, "ratios": dict(self._ratios),
                "counts": dict(self._counts)}

    def restore(self, state):
        """Goes on from a state."""
        self._total, self._weight = state["total"], state["weight"]
        self._ratios, self._counts = dict(state["ratios"]), dict(state["counts"])

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
        weight *= _no_beard(ratio.mean(axis=1), weight, self._beard[used])
        cell = self._cell[used]
        gather = lambda w: np.bincount(cell, w, CELLS * CELLS).reshape(CELLS, CELLS)
        now = np.stack([gather(weight * ratio[:, k]) for k in range(3)], axis=-1)
        count = gather(weight)
        if self._weight is None:
            self._total, self._weight = now, count
        else:
            self._total = MEMORY * self._total + (1 - MEMORY) * now
            self._weight = MEMORY * self._weight + (1 - MEMORY) * count
        out = samples(self._field(), self._place)
        for name, (inside, weight) in self._parts.items():
            seen = inside & visible
            openness = 1.0
            if name == "mouth":
                openness = smoothstep(seen.sum() / max(inside.sum(), 1), *OPENING)
            if seen.sum() >= LEAST:
                ratio = self._part_ratio(name, source[seen], target[seen])
                self._remember(name if openness == 1 else "rims", ratio, (seen.sum() / inside.sum()) ** 2)
            ratio = self._ratios.get(name, self._ratios.get("eyes") if name == "mouth" else None)
            if openness < 1 and "rims" in self._ratios:
                rims = self._ratios["rims"]
                ratio = rims if ratio is None else rims + np.float32(openness) * (ratio - rims)
            if ratio is not None:
                out = out + weight * (ratio - out)
        return np.exp(out)

    def _remember(self, name, ratio, count):
        """Adds to a part's ratio. count : float, how much it says beside what was said before.

        That is the square of the share of the part that is seen: of narrowed eyes it is mostly what shades them.
        """
        before = MEMORIES[name] * self._counts.get(name, 0.0)
        past = self._ratios.get(name, ratio)
        self._ratios[name] = past + np.float32(count / (before + count)) * (ratio - past)
        self._counts[name] = before + count

    def _part_ratio(self, name, source, target):
        """The logarithm of what makes a part's colours (n, 3) in the target those of the source: (3,) float32."""
        if name == "eyes":
            return np.maximum(_log_ratio(_white(source), _white(target)), self._least_eyes)
        ratio = _log_ratio(source.mean(axis=0), target.mean(axis=0))
        return ratio - np.clip(ratio, -LIPS_KEEP, LIPS_KEEP) if name == "lips" else ratio

    def _field(self):
        """The logarithm of the gain in every cell: (CELLS, CELLS, 3) float32."""
        if not self._weight.sum() > 0:
            return np.zeros((CELLS, CELLS, 3), np.float32)
        mean = self._total.sum(axis=(0, 1)) / self._weight.sum()
        smooth = (_blurred(self._total, SPREAD) + DOUBT * mean) / (_blurred(self._weight, SPREAD)[..., None] + DOUBT)
        limited = mean + LOCAL * np.tanh((smooth - mean) / LOCAL)
        smooth = smooth + self._inside[..., None] * (limited - smooth)
        share, most, most_colour = self._keep
        grey = share * mean.mean()
        colour = share * mean - grey
        kept = np.clip(grey, -most, most) + colour * min(1.0, most_colour / max(np.linalg.norm(colour), 1e-9))
        return (smooth - self._inside[..., None] * kept).astype(np.float32)


def _blurred(cells, width):
    return cv2.GaussianBlur(cells, (0, 0), width, borderType=cv2.BORDER_CONSTANT)


def _log_ratio(source, target):
    """(3,) float32 of two colours."""
    ratio = np.log(np.maximum(source, 0.01) / np.maximum(target, 0.02))
    return np.clip(ratio, -LARGEST, LARGEST).astype(np.float32)


def least_eyes(texture, eyes):
    """The logarithm of the least gain that eyes of a texture get, where the light is what was fitted: (3,) float32.

    texture : fitting.lift.Texture, neutral, (S, S, 3); eyes : (S, S) float32, its eyes
    """
    seen = eyes * texture.validity > 0.5
    if not seen.any():
        return np.full(3, -LARGEST, np.float32)
    return np.float32(np.minimum(np.log(np.float32(WHITE) / _white(texture.rgb[seen])), 0) - SHADE)


def _white(colours):
    """The white of the eyes, (3,), by their colours (n, 3): the least red of them, without the glints."""
    light = colours.min(axis=1)
    low, high = np.quantile(light, WHITE_PART)
    return colours[(light >= low) & (light <= high)].mean(axis=0)


def _no_beard(ratio, weight, beard):
    """Weight of each log ratio (n,) again: little where a beard may grow, (n,) bool, and the target is darker there."""
    if beard.all():
        return np.ones(len(ratio))
    darker = np.maximum(ratio - np.average(ratio[~beard], weights=weight[~beard]), 0) * beard
    return np.exp(-((darker / BEARD) ** 2))


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
