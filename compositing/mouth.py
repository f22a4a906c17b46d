"""The mouth redrawn (section 5.4): the source's mouth, put where the inferred texture has its own and as bright.

What a network infers inside the mouth is right in place and poor in detail, and of a tongue it makes teeth; the
source's frame has both. For every texel of the inferred mouth SIFT flow says where the source's texture shows the same,
and that is drawn there. The paper speaks of the flow from source to target; here it points from the inferred texel to
the source's, so every texel gets exactly one colour. A closed-lipped photo says nothing of the colour of its teeth: the
source's stay, and compositing.tone gives the mouth the frame's light.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from compositing.dense_sift import dense_sift
from compositing.sift_flow import FlowSettings, sift_flow, unary_costs
from fitting.lift import BRIGHTEST
from fitting.yuv import LUMINANCE

GRID = 256                  # texels per side of the chart on which is matched: the generator's size
MARGIN = 6                  # texels of that grid around the mouth that take part: the lips
REACH = 8                   # and around these: so far do descriptors look
INNER_LIPS = ((61, 67), (62, 66), (63, 65))       # upper and lower landmark, iBUG's numbers
INNER_CORNERS = (60, 64)


@dataclass(frozen=True)
class MouthSettings:
    """How a mouth is redrawn.

    closed, open : opening (see `opening`) up to which nothing is redrawn, and from which on all is
    seen : validity of the source's texel from which on it is drawn wholly
    smooth : standard deviation of the blur that makes a flow of whole texels continuous, texels of 1 / GRID
    support : standard deviation in texels of the window over which a flow is placed between texels
    keep : share of the frame before in the flow drawn with, and in the match of brightness
    jump : difference between a flow and the one before, texels of 1 / GRID, from which on nothing is kept
    gain : bounds of the factor that matches the brightness
    """

    closed: float = 0.10
    open: float = 0.18
    seen: float = 0.5
    smooth: float = 1.5
    support: float = 3.0
    keep: float = 0.6
    jump: float = 3.0
    gain: tuple = (0.8, 1.25)


DEFAULT = MouthSettings()
# four times the usual price of a displacement: both mouths lie on one chart, the same things but a few texels apart
MOUTH_FLOW = FlowSettings(gamma=0.02 * 255, sweeps=6)


def opening(vertices, landmarks):
    """How far a mouth is open: mean gap between the inner lips over the mouth's inner width; about 0.06 when closed.

    vertices : (V, 3) of the shape. landmarks : (68,) int, their vertices (MorphableModel.landmarks)
    """
    points = vertices[landmarks]
    gap = np.mean([np.linalg.norm(points[a] - points[b]) for a, b in INNER_LIPS])
    return float(gap / max(np.linalg.norm(points[INNER_CORNERS[0]] - points[INNER_CORNERS[1]]), 1e-6))


class MouthRedrawer:
    """Redraws the mouth of one clip's frames, in order; it remembers the last frame's flow and brightness.

    Parameters
    ----------
    mouth : (m, m) float32 in [0, 1], the inside of the mouth on the chart, at any size that GRID divides
    settings : MouthSettings
    flow_settings : compositing.sift_flow.FlowSettings

    Raises
    ------
    ValueError : no mouth, or a size that GRID does not divide

    >>> redrawer = MouthRedrawer(np.pad(np.ones((40, 70), np.float32), ((170, 46), (93, 93))))
    >>> texture = np.full((512, 512, 3), 0.5, np.float32)
    >>> redrawer.redraw(texture, texture, np.ones((512, 512)), opening=0.05) is texture
    True
    """

    def __init__(self, mouth, settings=DEFAULT, flow_settings=MOUTH_FLOW):
        self._settings, self._flow_settings = settings, flow_settings
        small = _at_size(np.asarray(mouth, np.float32), GRID)
        rows, columns = np.flatnonzero((small > 0.05).any(axis=1)), np.flatnonzero((small > 0.05).any(axis=0))
        if not len(rows):
            raise ValueError("mouth is empty")
        self._window = _Window(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1).grown(MARGIN)
        self._outer = self._window.grown(REACH)
        self._mouth = np.ascontiguousarray(self._window.of(small))
        self.reset()

    def reset(self):
        """Forgets the frames before: a cut, or frames left out."""
        self._flow = self._drawn = self._match = self._blur = None

    def state(self):
        """What it remembers, as plain data (see fitting.checkpoint)."""
        return {"flow": self._flow, "drawn": self._drawn, "match": self._match, "blur": self._blur}

    def restore(self, state):
        """Goes on from a state."""
        self._flow, self._drawn, self._match, self._blur = (state[k] for k in ("flow", "drawn", "match", "blur"))

    @property
    def flow(self):
        """The last frame's flow, smooth in space and time: (h, w, 2) float32 texels of 1 / GRID, or None."""
        return self._drawn

    def redraw(self, texture, source_texture, source_validity, opening):
        """The inferred texture with its mouth redrawn.

        Parameters
        ----------
        texture : (S, S, 3) float32, the target's inferred texture, S a multiple of GRID
        source_texture : (s, s, 3) float32, the source's texture in this frame, s a multiple of GRID
        source_validity : (s, s) float in [0, 1], where it was seen
        opening : float, see `opening`

        Returns
        -------
        (S, S, 3) float32; `texture` itself when the mouth is closed

        Raises
        ------
        ValueError : a size that GRID does not divide
        """
        s = self._settings
        fade = float(np.clip((opening - s.closed) / (s.open - s.closed), 0, 1))
        fade *= fade * (3 - 2 * fade)
        if fade == 0:
            self.reset()
            return texture
        inferred = _at_grid(self._outer, texture)
        source, validity = _at_grid(self._outer, source_texture), _at_grid(self._outer, source_validity)
        self._follow(inferred, source, validity)
        return self._draw(texture, source_texture, inferred, source, validity, fade)

    def _follow(self, inferred, source, validity):
        """Brings the flow up to this frame."""
        s = self._settings
        inner = self._outer.inside(self._window)
        wanted, given = inferred @ LUMINANCE, source @ LUMINANCE
        blur = _blur_to_match(given, wanted, inner)
        self._blur = blur if self._blur is None else s.keep * self._blur + (1 - s.keep) * blur
        given = _blurred(given, self._blur)
        first, second = (np.ascontiguousarray(dense_sift(grey)[inner]) for grey in (wanted, given))
        seen = np.ascontiguousarray(np.clip(validity[inner] / s.seen, 0, 1), np.float32)
        self._flow = sift_flow(first, second, seen, self._flow, self._flow_settings)
        fine = self._flow.astype(np.float32) + _between_texels(first, second, seen, self._flow, s.support)
        smooth = cv2.GaussianBlur(fine, (0, 0), s.smooth)
        if self._drawn is None:
            self._drawn = smooth
        kept = s.keep * np.clip(1 - np.linalg.norm(smooth - self._drawn, axis=2, keepdims=True) / s.jump, 0, 1)
        self._drawn = smooth + kept * (self._drawn - smooth)

    def _draw(self, texture, source_texture, inferred, source, validity, fade):
        """Texture with the mouth drawn along the flow. inferred, source, validity : their windows on the grid."""
        s, size = self._settings, texture.shape[0]
        inner, place = self._outer.inside(self._window), self._window.at(size)
        # brightness and weights on the grid
        seen = np.clip(self._along(validity, GRID, GRID, cv2.INTER_LINEAR) / s.seen, 0, 1)
        weight = fade * self._mouth * seen
        match = _brightness(inferred[inner], self._along(source, GRID, GRID, cv2.INTER_LINEAR), weight, s.gain)
        self._match = match if self._match is None else s.keep * self._match + (1 - s.keep) * match
        # texels at the texture's own size
        before = texture[place]
        weight = np.clip(_enlarged(weight.astype(np.float32), before.shape[:2]), 0, 1)[..., None]
        crop = self._outer.of(source_texture)
        redrawn = np.float32(self._match) * self._along(crop, source_texture.shape[0], size, cv2.INTER_CUBIC)
        out = texture.copy()
        out[place] = before + weight * (np.clip(redrawn, 0, BRIGHTEST) - before)
        return out

    def _along(self, picture, scale, size, how):
        """The source along the flow, over the window at `size` texels per side of the chart: (h, w, ...) float32.

        picture : its outer window, at `scale` texels per side
        """
        window, outer = self._window, self._outer
        times, ratio = size // GRID, np.float32(scale / size)
        flow = _enlarged(self._drawn, ((window.bottom - window.top) * times, (window.right - window.left) * times))
        flow = flow * np.float32(scale / GRID)
        y, x = np.indices(flow.shape[:2], np.float32) + np.float32(0.5)
        x = (x + (window.left - outer.left) * times) * ratio - np.float32(0.5) + flow[..., 0]
        y = (y + (window.top - outer.top) * times) * ratio - np.float32(0.5) + flow[..., 1]
        return cv2.remap(np.ascontiguousarray(picture, np.float32), x, y, how, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class _Window:
    """Rows and columns of the chart, in texels of 1 / GRID."""

    top: int
    bottom: int
    left: int
    right: int

    def at(self, size):
        """The slices of a texture of `size` texels per side."""
        k = size // GRID
        return np.s_[self.top * k:self.bottom * k, self.left * k:self.right * k]

    def of(self, array):
        """Its part of a texture (S, S, ...)."""
        return array[self.at(array.shape[0])]

    def grown(self, margin):
        return _Window(max(self.top - margin, 0), min(self.bottom + margin, GRID),
                       max(self.left - margin, 0), min(self.right + margin, GRID))

    def inside(self, other):
        """The slices of another window within this one."""
        return np.s_[other.top - self.top:other.bottom - self.top, other.left - self.left:other.right - self.left]


def _at_grid(window, texture):
    """A window of a texture, reduced to GRID texels per side of the chart: float32."""
    size = texture.shape[0]
    if size % GRID or texture.shape[1] != size:
        raise ValueError(f"a texture must have {GRID} texels per side or a multiple, not {texture.shape[:2]}")
    return _reduced(np.ascontiguousarray(window.of(texture), np.float32), size // GRID)


def _at_size(texture, size):
    if texture.ndim != 2 or texture.shape[0] % size or texture.shape[0] != texture.shape[1]:
        raise ValueError(f"mouth must be (m, m), m a multiple of {size}, not {texture.shape}")
    return _reduced(texture, texture.shape[0] // size)


def _reduced(array, times):
    if times == 1:
        return array
    return cv2.resize(array, (array.shape[1] // times, array.shape[0] // times), interpolation=cv2.INTER_AREA)


def _enlarged(array, shape):
    return array if array.shape[:2] == shape else cv2.resize(array, shape[::-1], interpolation=cv2.INTER_LINEAR)


def _between_texels(first, second, valid, flow, support):
    """What a flow of whole texels lacks: (h, w, 2) float32 in [-0.5, 0.5].

    Costs one texel to both sides, blurred over a window, and the flow's own make two lines of opposite slope, as sums
    of absolute differences do near their least; they meet at the result.
    """
    costs = unary_costs(first, second, valid, None, flow, 1)
    costs = cv2.GaussianBlur(costs.reshape(*flow.shape[:2], 9), (0, 0), support)
    here, sides = costs[..., 4], ((costs[..., 3], costs[..., 5]), (costs[..., 1], costs[..., 7]))
    out = [0.5 * (low - high) / np.maximum(np.maximum(low, high) - here, 1.0) for low, high in sides]
    return np.clip(np.stack(out, axis=-1), -0.5, 0.5)


def _blurred(grey, sigma):
    return grey if sigma < 0.2 else cv2.GaussianBlur(grey, (0, 0), sigma)


def _blur_to_match(sharp, soft, window, largest=3.0):
    """Blur in texels after which a picture has as much fine detail as another one, relative to its contrast.

    Descriptors of a sharp and a blurred tooth differ though they belong together.
    """
    detail = lambda a: np.mean(np.square(np.diff(a[window], axis=0))) / max(float(np.var(a[window])), 1e-8)
    sigmas, wanted = np.linspace(0, largest, 13), detail(soft)
    values = [detail(_blurred(sharp, sigma)) for sigma in sigmas]
    return float(np.interp(-wanted, -np.minimum.accumulate(values), sigmas))


def _brightness(wanted, given, weight, bounds, texels=100):
    """What to multiply colours by to be on average as bright as others: float in `bounds`.

    Little evidence changes little: so many `texels` speak for no change.

    Parameters
    ----------
    wanted, given : (h, w, 3)
    weight : (h, w)
    bounds : least and largest factor
    """
    total = float(weight.sum())
    mean = lambda a: float((a @ LUMINANCE * weight).sum()) / max(total, 1e-6)
    factor = np.clip(mean(wanted) / max(mean(given), 0.02), *bounds)
    return float(1 + total / (total + texels) * (factor - 1))
