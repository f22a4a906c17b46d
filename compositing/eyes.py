"""The target's own irises, looking where the source's look.

Between the lids a texture cannot be changed by adding: an iris that moves would leave its ghost behind. The photo's eye
is taken apart instead, into an iris, completed by its own symmetry where the lids hid it, and the white, completed
under the iris. In every frame both are drawn anew on the eyeball, where the source's iris lies, so that lids that
narrow cut an iris off and do not flatten it.

Where a source that mostly shows its irises shows none, its eyes are closed, whatever its landmarks say: those of a
detector stay open behind glasses. The target's are closed then. A single eye is closed if its landmarks are nearer to
each other, too: a detector sees the winking eye half open.

How eyes sit in a fitted face differs from person to person by some degrees. What is carried over is therefore the turn
from how the source mostly looks to how the photo does; only what is too large for an error of the fit, a photo or a
whole clip that looks aside, counts as a direction. How high eyes look is told from their lower lids, the target's as
the source's: where a fit lays the lids too high or too low, it lays what is between them likewise. Lids rise with a
gaze, so that eyes narrower than usual do not look up: it is their lashes that look so.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from compositing.gaze import (
    AHEAD,
    EYEBALL,
    EYES,
    IRIS,
    PLAIN,
    EyeChart,
    eye_charts,
    find_iris,
    on_sphere,
    read_gaze,
    redness,
)
from compositing.lid_skin import LidSkin
from compositing.lids import closed_further
from compositing.ramps import ramp, smoothstep
from facemodel.atlas import uv_to_pixels
from facemodel.rasterizer import interpolate, rasterize
from facemodel.sampling import sampled
from fitting.lift import Lifter, Texture
from fitting.texture import pull_push
from texgan.transfer import shrunk

GRID = 256                   # texels per side of the chart on which gazes are read
PATCH, SPAN = 128, 1.4       # pixels across an iris' picture, and how many radii it reaches from the middle
RINGS = 24                   # of the picture, in which an iris is the same all round
SIZES = 0.92, 0.96, 1.0, 1.04, 1.08              # of irises, times the usual one
LIMBUS = 1.0, 1.2            # radii between which the iris passes into the white
NEAR = 0.4                   # radii beyond, over which the white is believed to be white
HIDDEN = 0.15                # share of the iris that a photo has to show
WHITEST = 0.8                # quantile of blue from which on what is no iris is surely white
TELLS = 0.15                 # of the logarithm of red over blue, by which skin differs from whites
SKIN = 0.35, 0.75            # of the way from whites to skin over which skin begins
SLIT = 1.0, 2.5              # mm between the lids: up to which lashes are all there is, from which on all is drawn
DOUBT = 2.0                  # that the source mostly looks AHEAD: two pictures' worth of readings, be they misled alike
ERROR = np.radians([4, 8])   # of gazes across and down, by how eyes sit in a fit
STILL = np.radians(4.0)      # a turn within a frame that is no jump of the eyes
FOLLOWS, JUMPS = 0.4, 0.9    # share of it that is followed at once, and of a jump
TREMBLES = np.radians([1.0, 2.5])    # up to the first a turn is rather misread, from the second on it is none
FAINTLY = 0.12               # share of such a one that is followed at once
ALONE = 0.25                 # evidence that one eye is believed to have more of than the other, if its lid is up
LOWERED = 0.6, 0.95          # of the usual gap: up to this lids are lowered, and eyes do not look up; from that on not
FAINT = 0.1                  # evidence of an iris up to which an eye stays as the method infers it
RISES = 0.4                  # of the way from there to one that is drawn, within a frame
GONE = 0.1, 0.2              # evidence of irises up to which eyes are closed, and from which on they are open
OPEN = 0.45                  # that open eyes show, mostly, if that is to be so
NARROWER = 0.7, 0.85         # of the other eye's gap: up to this an eye without an iris winks, from that on it does not
SHUTS, AJAR = 0.7, 0.02      # share of that which is followed at once, and what is left of it at last
PARTS = 0.2                  # share of a change of the two eyes against each other that is followed at once


@dataclass(frozen=True)
class Eye:
    """An eye of a photo, taken apart.

    chart : EyeChart of the texture's size
    ahead : (2,) radians, its gaze in the photo, or what of that is no look aside
    lid : (2,) radians, of its lower lid in the photo, see EyeChart.lid
    radius : mm, of the iris
    iris : (PATCH, PATCH, 3) float32, seen along its gaze, SPAN radii to each side
    white : (h, w, 3) float32, the eye on the chart without its iris
    opening : (h, w) float32 in [0, 1], how far a texel is eye: the chart's without the lid's skin
    """

    chart: EyeChart
    ahead: np.ndarray
    lid: np.ndarray
    radius: float
    iris: np.ndarray
    white: np.ndarray
    opening: np.ndarray

    def drawn(self, directions, gaze):
        """The eye with another gaze: (h, w, 3) float32. directions : (h, w, 3), to its texels as the face is shown."""
        place, distance = along(directions, gaze, self.radius)
        iris = sampled(self.iris, (place / SPAN + 1) * np.float32(PATCH / 2))
        return self.white + smoothstep(distance, *LIMBUS[::-1])[..., None] * (iris - self.white)


@dataclass(frozen=True)
class Usual:
    """How a source mostly looks; of both eyes.

    gaze : (2, 2) radians, what the target's own gaze stands for
    lid : (2, 2) radians, of their lower lids, see EyeChart.lid
    gap : (2,) mm between their lids
    plain : float, how plainly its irises are to see
    """

    gaze: np.ndarray
    lid: np.ndarray
    gap: np.ndarray
    plain: float


class EyeRedrawer:
    """Draws the eyes of one clip's frames, in order; it remembers where they looked.

    Parameters
    ----------
    model : MorphableModel
    target : compositing.target.TargetFace
    eyes : list of two Eye, see `eye_redrawer`; empty where eyes stay as the method infers them and only lids are drawn
    track : Track of the source
    shown : (F, n_exp), the expressions that the target is shown with
    usual : Usual, or None where there are no eyes
    charts, small : EyeChart of each eye, of the target's texture's size and of GRID texels per side
    blinks : bool, whether eyes without irises are closed ones, since open ones show theirs plainly
    """

    def __init__(self, model, target, eyes, track, shown, usual, charts, small, blinks=True):
        self._model, self._target, self._eyes, self._track = model, target, eyes, track
        self._shown, self._usual, self._blinks, self._charts = shown, usual, blinks, small
        self._rows = np.unique(np.concatenate([chart.rows for chart in [*self._charts, *charts]]))
        self._lids, self.expression = LidSkin(model, target, charts), None
        self.reset()

    def reset(self):
        """Forgets the frames before: a cut, or frames left out."""
        self._turn, self._plain, self._shut = None, 1.0, np.zeros(2)

    def state(self):
        """What it remembers, as plain data (see fitting.checkpoint)."""
        return {"turn": self._turn, "plain": self._plain, "shut": self._shut}

    def restore(self, state):
        """Goes on from a state."""
        self._turn, self._plain, self._shut = state["turn"], state["plain"], state["shut"]

    def redraw(self, texture, source_texture, source_validity, t):
        """Draws the eyes of an inferred texture anew, in place.

        Parameters
        ----------
        texture : (S, S, 3) float32, S that of the target's texture
        source_texture : (s, s, 3) float32, the source's texture in frame t of its track, s a multiple of GRID
        source_validity : (s, s) float32 in [0, 1]

        `expression` is then what the target has to be shown with in this frame, (n_exp,) float32.
        """
        if self._eyes:
            self._look(source_texture, source_validity, t)
        identity = self._target.identity
        self.expression = closed_further(self._model, identity, self._shown[t], self._shut)
        shape = self._model.shape(identity, self.expression, rows=self._rows)
        for eye, turn in zip(self._eyes, self._turn if self._eyes else ()):
            share = self._plain * ramp(eye.chart.gap(shape), *SLIT)
            before = texture[eye.chart.window]
            before += (np.float32(share) * eye.opening)[..., None] * (
                eye.drawn(eye.chart.directions(shape), eye.ahead - eye.lid + eye.chart.lid(shape) + turn) - before)
        self._lids.cover(texture, shape)

    def _look(self, texture, validity, t):
        """Brings up to frame t how far the eyes are turned and how plain irises are to see."""
        track = self._track
        shape = self._model.shape(track.identity, track.expression[t], rows=self._rows)
        usual, gaps, lids = self._usual, *_gaps_and_lids(self._charts, shape)
        read = [read_gaze(chart, shape, texture, validity, gaze) for chart, gaze in zip(self._charts, usual.gaze)]
        given, winks, raised = [evidence for _, evidence in read], np.zeros(2), ramp(gaps / usual.gap, *LOWERED)
        if None not in given:
            winks = self._blinks * _winking(given, gaps) * raised[::-1]
            given = [min(evidence, other + ALONE * high + wink)     # a reflection is in one eye, a gaze in both
                     for evidence, other, high, wink in zip(given, given[::-1], raised, winks[::-1])]
        seen = [evidence for evidence in given if evidence is not None]
        if seen:
            plain, gone = float(ramp(max(seen), FAINT, PLAIN)), float(ramp(max(seen), *GONE[::-1]))
            gone = np.maximum(self._blinks * gone, winks)
            first = self._turn is None
            self._plain = plain if first else min(plain, self._plain + RISES)       # lids fall fast
            self._shut = gone if first else self._shut + SHUTS * (gone - self._shut)
            self._shut = self._shut * (self._shut > AJAR)
        trust = np.array([max((evidence or 0) - PLAIN, 0) for evidence in given])
        before = np.zeros((2, 2)) if self._turn is None else self._turn
        turns = np.array([gaze for gaze, _ in read]) - lids - (usual.gaze - usual.lid)
        turns[:, 1] *= np.where(turns[:, 1] < 0, raised, 1)
        self._turn = before if not trust.any() else _followed(self._turn, turns, trust)


def _gaps_and_lids(charts, shape):
    """Of both eyes: (2,) mm, EyeChart.gap, and (2, 2) radians, EyeChart.lid."""
    return np.array([chart.gap(shape) for chart in charts]), np.array([chart.lid(shape) for chart in charts])


def _winking(given, gaps):
    """How far each eye winks, (2,) in [0, 1], by the evidence of irises (2,) and the gaps (2,) between the lids, mm."""
    return np.array([ramp(given[k], *GONE[::-1]) * ramp(gaps[k] / max(gaps[1 - k], 1e-3), *NARROWER[::-1])
                     * (given[1 - k] > PLAIN) for k in (0, 1)])


def _followed(before, turns, trust):
    """Turns (2, 2) of both eyes after one more frame. before : those of the frame before, or None. trust : (2,)"""
    was, was_apart = np.zeros((2, 2)) if before is None else (before.mean(axis=0), (before[0] - before[1]) / 2)
    now = (trust[:, None] * turns).sum(axis=0) / trust.sum()
    apart = (turns[0] - turns[1]) / 2 * [1, 0] if trust.all() else was_apart           # one eye never looks higher
    if before is not None:
        change = now - was
        size = np.linalg.norm(change)
        now = was + change * (JUMPS if size >= STILL else np.interp(size, TREMBLES, (FAINTLY, FOLLOWS)))
        apart = was_apart + PARTS * (apart - was_apart)
    return np.array([now + apart, now - apart])


def eye_redrawer(model, track, target, shown, pictures, neutral, relative=False):
    """The EyeRedrawer of a target for a clip, or None where the model has no eyes.

    Where the irises of photo or clip are not plain to see, it draws no eyes but closing lids.

    Parameters
    ----------
    track : Track of the source
    target : compositing.target.TargetFace
    shown : (F, n_exp), the expressions that the target is shown with
    pictures : dict of pictures (H, W, 3) uint8 of the clip, by frame of the track, to see how the source mostly looks
    neutral : fitting.lift.Texture, the source's
    relative : where the source mostly looks, the target looks as in the photo, be either aside
    """
    small = eye_charts(model, GRID)
    if len(small) < len(EYES):
        return None
    charts = eye_charts(model, len(target.texture.rgb))
    usual = _usual(model, track, pictures, neutral, small, relative)
    eyes = [take_apart(model, target, chart) for chart in charts]
    if usual is None or any(eye is None for eye in eyes):
        return EyeRedrawer(model, target, [], track, shown, None, charts, small)
    if not relative:
        ahead = _less_aside(np.array([eye.ahead for eye in eyes]))
        eyes = [replace(eye, ahead=gaze) for eye, gaze in zip(eyes, ahead)]
    return EyeRedrawer(model, target, eyes, track, shown, usual, charts, small, usual.plain > OPEN)


def take_apart(model, target, chart):
    """The Eye of a TargetFace, or None when its texture does not show enough of an iris.

    chart : EyeChart of the texture's size
    """
    texture, size = target.texture, len(target.texture.rgb)
    shape, window = model.shape(target.identity, target.expression), texture.rgb[chart.window]
    directions, weight = chart.directions(shape), chart.weight * texture.validity[chart.window]
    red = redness(cv2.GaussianBlur(window, (0, 0), size / 1024))
    tried = [(*find_iris(directions, red, weight, IRIS * k), IRIS * k) for k in SIZES]
    gaze, evidence, radius = max(tried, key=lambda x: x[1])
    distance = along(directions, gaze, radius)[1]
    known = (distance > LIMBUS[1]) & (weight > 0.5)
    iris = _iris_alone(model, chart, shape, texture.rgb, weight, gaze, radius)
    if evidence < PLAIN or not known.any() or iris is None:
        return None
    blue = window[..., 2] / max(np.quantile(window[..., 2][known], 0.9), 1e-3)        # lids and corners are red
    trust = known * np.clip(blue, 0, 1) ** 6 * np.exp(-((distance - LIMBUS[1]) / NEAR) ** 2)
    white = pull_push(window, trust.astype(np.float32))
    white = white + _inwards(known, size / 128)[..., None] * (window - white)
    smooth = cv2.GaussianBlur(window, (0, 0), size / 512)
    opening = chart.weight * (1 - _skin(smooth, distance, known, chart.weight > 0))
    return Eye(chart, gaze, chart.lid(shape), radius, iris, white.astype(np.float32), opening.astype(np.float32))


def _skin(window, distance, known, eye):
    """How far an eye's window (h, w, 3) is skin of its lids, which a fit that opens the eye too far lays there: (h, w).

    Told by red over blue, which is another one in whites. distance : (h, w), from the iris' middle, radii. known, eye :
    (h, w) bool, what is no iris, and what the chart takes for eye
    """
    tint = np.log(np.maximum(window[..., 0], 0.02) / np.maximum(window[..., 2], 0.02))
    bright = window[..., 2] > np.quantile(window[..., 2][known], WHITEST)
    white, skin = (np.median(tint[where]) if where.any() else 0.0 for where in (known & bright, ~eye))
    if skin - white < TELLS:
        return np.zeros(distance.shape, np.float32)
    return smoothstep((tint - white) / (skin - white), *SKIN) * ramp(distance, *LIMBUS)


def along(directions, gaze, radius):
    """Directions (..., 3) as seen along a gaze: (..., 2) in radii of the iris, and their distance from its middle."""
    turn = cv2.Rodrigues(np.array([gaze[1], 0.0, 0.0]))[0] @ cv2.Rodrigues(np.array([0.0, -gaze[0], 0.0]))[0]
    local = directions @ turn.T.astype(np.float32)
    flat = local[..., :2] * np.float32(EYEBALL / radius)
    return flat, np.where(local[..., 2] > 0, np.linalg.norm(flat, axis=-1), np.float32(9))


def _iris_alone(model, chart, shape, texture, weight, gaze, radius):
    """The iris and what surrounds it, seen along the gaze: (PATCH, PATCH, 3) float32, or None if too much is hidden."""
    flat, _ = along(on_sphere(chart.points(shape)), gaze, radius)
    xy = (flat / SPAN + 1) * np.float32(PATCH / 2)
    raster = rasterize(xy, np.ones(len(xy), np.float32), chart.triangles, PATCH, PATCH, cull_backfaces=False)
    where = interpolate(uv_to_pixels(model.uv[chart.vertices], len(texture)), chart.triangles, raster)
    eye = np.zeros(texture.shape[:2], np.float32)
    eye[chart.window] = weight
    patch, seen = sampled(texture, where), (sampled(eye, where) > 0.5) & raster.mask
    seen = cv2.erode(seen.astype(np.uint8), np.ones((5, 5), np.uint8))         # lids shade what lies beside them
    y, x = (np.indices((PATCH, PATCH)) + 0.5) * (2 * SPAN / PATCH) - SPAN
    distance = np.hypot(x, y)
    if seen[distance < 1].mean() < HIDDEN:
        return None
    ring = np.minimum((distance * (RINGS / SPAN)).astype(int), RINGS - 1).ravel()
    count = np.bincount(ring, seen.ravel(), RINGS)
    known, at = np.flatnonzero(count), distance * (RINGS / SPAN) - 0.5
    means = [np.bincount(ring, (seen * patch[..., k]).ravel(), RINGS)[known] / count[known] for k in range(3)]
    even = np.stack([np.interp(at, known, mean) for mean in means], axis=-1)
    return (even + _inwards(seen > 0, PATCH / 10)[..., None] * (patch - even)).astype(np.float32)


def _usual(model, track, pictures, neutral, charts, relative):
    """How the source mostly looks, Usual, or None if too few pictures show it. relative : as of `eye_redrawer`

    How plainly is the median evidence of the plainer iris where it can be read. Eyes that are wide open and plain to
    see tell most of the rest. A few pictures that look aside are no proof against AHEAD.
    """
    lifter, rows = Lifter(model, GRID), np.unique(np.concatenate([chart.rows for chart in charts]))
    seen, evidences = [], []
    small = Texture(shrunk(neutral.rgb, GRID), shrunk(neutral.validity, GRID))
    for t, picture in pictures.items():
        lifted = lifter.frame(picture, track, t, small)
        shape = model.shape(track.identity, track.expression[t], rows=rows)
        read = [read_gaze(chart, shape, lifted.rgb, lifted.validity) for chart in charts]
        least, most = (f(evidence or 0 for _, evidence in read) for f in (min, max))
        if most > FAINT:
            evidences.append(most)
        if least > PLAIN:
            gaps, lids = _gaps_and_lids(charts, shape)
            seen.append((gaps.min() * (least - PLAIN), [gaze for gaze, _ in read], lids, gaps))
    if len(seen) <= len(pictures) / 4:
        return None
    weights, gazes, lids, gaps = (np.array(values) for values in zip(*seen))
    both, sure = gazes.mean(axis=1), len(seen) / (len(seen) + DOUBT)
    middle = AHEAD + sure * (np.average(both, axis=0, weights=weights) - AHEAD)
    gaze, mean = middle + np.median(gazes - both[:, None], axis=0), lambda x: np.average(x, axis=0, weights=weights)
    gaze = gaze if relative else _less_aside(gaze)
    return Usual(gaze, mean(lids), mean(gaps), float(np.median(evidences)))


def _less_aside(gazes):
    """Gazes (2, 2) of both eyes, without what they look aside together by more than eyes sit differently."""
    both = gazes.mean(axis=0)
    return gazes - both + np.clip(both, AHEAD - ERROR, AHEAD + ERROR)


def _inwards(mask, width):
    """0 at a mask's border (h, w), rising to 1 over `width` pixels inside it: float32."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.clip(distance / np.float32(width), 0, 1)
