"""A photo that performs: its own pixels are warped, and what they can't show is drawn.

Three layers make a frame. The photo, warped so that every point of the fitted surface takes its pixel along: pores,
stubble, lashes and errors of the fit stay what they are, and at rest the result is the photo. On it the change that the
texture and the shading undergo, render(now) - render(rest), taken at the same point of the surface. And where the photo
did not show the surface, inside an opening mouth and on closing lids, the rendering itself, in the photo's colours.
Around the face the warp goes on and fades, so that the neck follows the chin; nothing is cut out, hence no seam
(as in H. Averbuch-Elor et al., Bringing portraits to life, 2017, doi:10.1145/3130800.3130818).
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from compositing.lids import LOWER_LIDS, UPPER_LIDS
from compositing.mouth import opening
from compositing.ramps import smoothstep
from facemodel.atlas import build_atlas, uv_to_pixels
from facemodel.camera import rotation_matrix
from facemodel.light import shade
from facemodel.rasterizer import interpolate, rasterize
from facemodel.sampling import sampled, samples
from fitting.lift import Texture
from fitting.texture import pose, region_texture

REACH = 0.45                # of the face's width: how far the surroundings follow an expression
POSED_REACH = 1.2           # and a turn of the head
BORDER = 0.2                # of the face's width: towards the photo's border they follow ever less
RIM = 0.05                  # of the face's width: along its outline the warp is the surroundings', not the surface's
MATCH_BLUR = 0.05           # of the face's width: blur in which render and photo are matched in colour
SEEN = (0.15, 0.50)         # validity of a texel between which the photo's pixel comes to be believed
HIDDEN = (0.5, 1.5)         # mm behind what the photo shows between which a point counts as not seen there
CLOSED = 0.18               # opening up to which a photo's mouth is not believed to show its inside
OPENS = (0.005, 0.04)       # by which a mouth opens further (see mouth.opening) until its inside is drawn wholly
EDGE = 0.002                # of the face's width: softness of the edge of what is drawn
FAR = 1e6                   # mm, depth of what is no face
NECK = np.float32([0, 70, 20])      # mm in the model's space: what the head turns about
STILL = 0.02                # pixels of warp below which the photo's pixel stays
SPREAD_SIZE = 160           # pixels of the longer side at which the warp is carried outwards
SHADING_CHANGE = 1.35       # factor by which the shading of a point may change
SHUT = 0.18                 # share of its opening at rest below which an eye counts as closed
LASHES = 0.004              # of the face's width: softness of the line between closed lids
LASHES_DARK = 0.45          # share of the light that it takes
FACE = 0.25                 # weight of the region "face" from which on the surface is drawn


@dataclass(frozen=True)
class Drawn:
    """A face drawn at the photo's pixels.

    window : (4,) int, left, top, right, bottom in the photo
    rgb : (h, w, 3) float32 in [0, 1], the finished picture of the window
    changed : (h, w) bool, where it differs from the photo
    """

    window: tuple
    rgb: np.ndarray
    changed: np.ndarray


class Puppet:
    """A fitted photo that takes on expressions, textures and small turns of the head.

    Parameters
    ----------
    model : MorphableModel
    photo : (H, W, 3) uint8
    fit : Track of the photo (one frame)
    target : TargetFace, made of them
    posed : bool, whether the head will turn: the surroundings then follow as far as POSED_REACH
    """

    def __init__(self, model, photo, fit, target, posed=False):
        self._model, self._fit = model, fit
        self.rest = target.texture
        regions = model.regions
        kept = (regions["face"][model.triangles] > FACE).all(axis=1)
        self._triangles = np.ascontiguousarray(model.triangles[kept])
        self._used = np.unique(self._triangles)
        still = self._posed(fit.expression[0])
        self._rest_xy, self._light = still.xy, fit.light[0]
        self._uv = uv_to_pixels(model.uv, self.rest.rgb.shape[0])
        face = self._rest_xy[self._used]
        self._width = float(np.ptp(face[:, 0]))
        self.window = self._window(face, photo.shape[:2], posed)
        left, top, right, bottom = self.window
        self._corner = np.float32([left, top])
        self._photo = photo[top:bottom, left:right].astype(np.float32) / 255
        self._rest_shading = shade(still.normals, self._light)
        raster = self._raster(still)
        self._fall = self._falloff(raster.mask, photo.shape[:2], posed)
        self._gain = self._colour_match(raster)
        self._rest_shading *= self._gain
        self._rest_opening = self._opening(fit.expression[0])
        self._rest_depth = np.where(raster.mask, raster.depth, np.float32(FAR))
        self._attributes = self._fixed_attributes(still.vertices[:, 2])
        self._eye = self._eyes()

    def draw(self, expression, texture, turn=None):
        """The photo with another expression.

        Parameters
        ----------
        expression : (n_exp,) float32
        texture : (S, S, 3) float32 albedo, of the size of the neutral one
        turn : (3,) axis-angle in radians by which the head turns about the neck, in the camera's axes; default none

        Returns
        -------
        Drawn
        """
        posed = self._posed(expression, turn)
        raster = self._raster(posed)
        values = interpolate(np.hstack([self._attributes, self._shading(posed)]), self._triangles, raster)
        shut = self._shut(posed, raster)
        mask = _filled(values, raster.mask & ~shut)
        where, before, shading = values[..., :2], values[..., 9:12], values[..., 12:15]
        face, seen, inner, mouth, depth = np.moveaxis(values[..., 4:9], 2, 0)
        warp = self._warp(where - _grid(mask.shape), mask, face, seen)
        albedo, neutral = (sampled(t, values[..., 2:4]) for t in (texture, self.rest.rgb))
        out = self._warped(warp)
        now = albedo * shading
        change = now - neutral * before
        share = (smoothstep(face, FACE + 0.1, 0.8) * mask)[..., None]
        hidden = smoothstep(depth - sampled(self._rest_depth, where), *HIDDEN)
        hidden = np.maximum(hidden, mouth * smoothstep(self._opening(expression) - self._rest_opening, *OPENS))
        drawn = inner * (1 - seen) * hidden * mask
        drawn = (cv2.GaussianBlur(drawn, (0, 0), max(EDGE * self._width, 0.7)) * mask)[..., None]      # no stairs
        change *= share
        out += change
        out += drawn * (now - out)
        if shut.any():
            self._draw_lashes(out, shut)
        changed = _beyond(warp, STILL) | _beyond(change, 0.5 / 255) | (drawn[..., 0] > 0.01)
        np.clip(out, 0, 1, out=out)
        out[~changed] = self._photo[~changed]
        return Drawn(self.window, out, changed)

    def _posed(self, expression, turn=None):
        fit = self._fit
        rotation, translation = rotation_matrix(fit.rotation[0]), fit.translation[0]
        if turn is not None:
            turned = rotation_matrix(turn) @ rotation
            translation = translation + (rotation - turned) @ NECK
            rotation = turned
        return pose(self._model, self._model.shape(fit.identity, expression), rotation, translation, fit.focal,
                    fit.principal_point)

    def _opening(self, expression):
        marks = self._model.landmarks
        return opening(self._model.shape(self._fit.identity, expression, rows=marks), marks)

    def _shading(self, posed):
        """Shading of the vertices in the photo's colours, (V, 3) float32, near what it was at rest.

        Lids keep theirs: at rest their crease is darker in the model than a fold under a brow is, and would light up.
        """
        before = self._rest_shading
        now = np.clip(shade(posed.normals, self._light) * self._gain, before / SHADING_CHANGE, before * SHADING_CHANGE)
        return now + self._model.regions["eyelids"][:, None] * (before - now)

    def _raster(self, posed):
        left, top, right, bottom = self.window
        return rasterize(posed.xy - self._corner, posed.vertices[:, 2], self._triangles, bottom - top, right - left)

    def _window(self, face, size, posed):
        """The part of the photo that can change."""
        reach = (POSED_REACH if posed else REACH) * self._width
        low, high = np.floor(face.min(axis=0) - reach).astype(int), np.ceil(face.max(axis=0) + reach).astype(int)
        left, top = np.clip(low, 0, [size[1] - 2, size[0] - 2]) // 2 * 2
        right, bottom = np.clip(high, [left + 2, top + 2], [size[1], size[0]])
        return int(left), int(top), int(right), int(bottom)

    def _falloff(self, mask, size, posed):
        """How far the surroundings follow: (h, w) float32, 1 at the face, 0 from the reach on and at the border."""
        reach = (POSED_REACH if posed else REACH) * self._width
        away = cv2.distanceTransform(1 - mask.astype(np.uint8), cv2.DIST_L2, 5)
        near = 1 - smoothstep(away, 0, reach)
        left, top, right, bottom = self.window
        x, y = np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5
        border = np.minimum(np.minimum(x, size[1] - x)[None], np.minimum(y, size[0] - y)[:, None])
        return (near * smoothstep(border, 1, BORDER * self._width)).astype(np.float32)

    def _colour_match(self, raster):
        """Per vertex, what the rendered face at rest is multiplied by to have the photo's colours: (V, 3) float32.

        A smooth ratio of the two pictures, from the skin that was seen.
        """
        model, used = self._model, self.rest
        skin = model.regions["face"] * (1 - model.regions["mouth_interior"]) * (1 - model.regions["eyes"])
        values = interpolate(np.hstack([self._uv, self._rest_shading, skin[:, None]]), self._triangles, raster)
        rendered = sampled(used.rgb, values[..., :2]) * values[..., 2:5]
        weight = values[..., 5] * sampled(used.validity, values[..., :2]) * raster.mask
        step = max(1, round(max(weight.shape) / SPREAD_SIZE))
        small = lambda a: cv2.resize(np.ascontiguousarray(a, np.float32), None, fx=1 / step, fy=1 / step,
                                     interpolation=cv2.INTER_AREA)
        blur = lambda a: cv2.GaussianBlur(small(a), (0, 0), MATCH_BLUR * self._width / step)
        total = np.maximum(blur(weight), 1e-4)[..., None]
        mean = lambda picture: blur(picture * weight[..., None]) / total + 0.01
        ratio = mean(self._photo) / mean(rendered)
        return np.clip(samples(ratio, (self._rest_xy - self._corner) / np.float32(step)), 0.5, 2)

    def _fixed_attributes(self, depth):
        """What every frame interpolates, of the rest: place in the window and on the texture, weights, depth, shading.

        depth : (V,) mm -> (V, 12) float32
        """
        regions = self._model.regions
        inner = np.maximum.reduce([regions[n] for n in ("mouth_interior", "lips", "eyes", "eyelids")])
        validity = samples(self.rest.validity, self._uv)
        columns = [self._rest_xy - self._corner, self._uv, regions["face"][:, None],
                   smoothstep(validity, *SEEN)[:, None], inner[:, None],
                   regions["mouth_interior"][:, None], depth[:, None], self._rest_shading]
        return np.hstack(columns).astype(np.float32)

    def _eyes(self):
        """Which eye a drawn triangle belongs to: (T,) int, 0 none, 1 the subject's right, 2 the left; 0 comes last."""
        model = self._model
        eye = (model.regions["eyes"][self._triangles] > 0.5).any(axis=1)
        left = model.mean[self._triangles[:, 0], 0] > model.mean[model.landmarks[27], 0]
        return np.append(eye * (1 + left), 0)         # what sees no triangle has index -1

    def _shut(self, posed, raster):
        """Pixels of an eye that is all but closed: (h, w) bool. What little is left of its iris would be a dark rag."""
        marks = self._model.landmarks
        y = lambda xy, which: xy[marks[list(which)], 1].mean()
        gap = lambda xy: [y(xy, low) - y(xy, up) for up, low in zip(UPPER_LIDS, LOWER_LIDS)]
        now, rest = gap(posed.xy), gap(self._rest_xy)
        which = self._eye[raster.triangle]
        return np.logical_or.reduce([(which == k + 1) & (now[k] < SHUT * rest[k]) for k in range(2)])

    def _draw_lashes(self, picture, shut):
        """Draws, in place, the soft dark line where closed lids meet. shut : (h, w) bool, see _shut."""
        rows, columns = (np.flatnonzero(shut.any(axis=k)) for k in (1, 0))
        sigma = max(LASHES * self._width, 0.7)
        grow = int(4 * sigma)
        box = np.s_[max(rows[0] - grow, 0):rows[-1] + grow + 1, max(columns[0] - grow, 0):columns[-1] + grow + 1]
        line = np.clip(2 * cv2.GaussianBlur(shut[box].astype(np.float32), (0, 0), sigma), 0, 1)[..., None]
        soft = cv2.GaussianBlur(picture[box], (0, 0), sigma)
        picture[box] += line * ((1 - LASHES_DARK) * soft - picture[box])

    def _warp(self, exact, mask, face, seen):
        """Where the photo's pixel lies from each pixel: (h, w, 2) float32, in pixels.

        exact : (h, w, 2), the surface's own, defined in mask
        """
        rim = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3) / max(RIM * self._width, 1)
        known = seen * smoothstep(face, FACE, 0.7) * mask
        carried = _carried(exact, known) * self._fall[..., None]
        own = (known * np.clip(rim, 0, 1))[..., None]
        return carried + own * (exact - carried)

    def _warped(self, warp):
        return sampled(self._photo, _grid(warp.shape[:2]) + warp, cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101)


def without_lips_inside(model, target, fit):
    """A TargetFace that does not know its mouth's inside, where the photo's mouth is all but closed.

    What the fit then takes for it are the lips.
    """
    marks = model.landmarks
    if opening(model.shape(fit.identity, fit.expression[0], rows=marks), marks) > CLOSED:
        return target
    atlas = build_atlas(model, len(target.texture.rgb))
    inside = np.clip(2 * region_texture(model, "mouth_interior", atlas), 0, 1)
    return replace(target, texture=Texture(target.texture.rgb, target.texture.validity * (1 - inside)))


def _filled(values, mask):
    """Fills slits of the mask, where closed lids or lips cross, with the nearest values, in place; the whole mask.

    values : (h, w, K) float32, mask : (h, w) bool -> (h, w) bool
    """
    holes = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)).astype(bool) & ~mask
    if not holes.any():
        return mask
    rows, columns = (np.flatnonzero(holes.any(axis=k)) for k in (1, 0))
    box = np.s_[max(rows[0] - 8, 0):rows[-1] + 9, max(columns[0] - 8, 0):columns[-1] + 9]
    known, hole, part = mask[box], holes[box], values[box]
    _, labels = cv2.distanceTransformWithLabels(1 - known.astype(np.uint8), cv2.DIST_L2, 5,
                                                labelType=cv2.DIST_LABEL_PIXEL)
    place = np.zeros(labels.max() + 1, np.intp)
    place[labels[known]] = np.flatnonzero(known)
    part[hole] = part.reshape(-1, part.shape[2])[place[labels[hole]]]
    return mask | holes


def _carried(value, weight):
    """Carries values from where they are known outwards, ever smoother and towards 0 far away.

    Pull-push, as fitting.texture.pull_push, which goes towards the mean instead.

    value : (h, w, 2), weight : (h, w) in [0, 1] -> (h, w, 2) float32
    """
    height, width = weight.shape
    step = max(1.0, max(height, width) / SPREAD_SIZE)
    size = (max(round(width / step), 2), max(round(height / step), 2))
    values = [cv2.resize(value * weight[..., None], size, interpolation=cv2.INTER_AREA)]
    weights = [cv2.resize(weight, size, interpolation=cv2.INTER_AREA)]
    while min(weights[-1].shape) > 3:
        half = tuple(-(-s // 2) for s in weights[-1].shape[::-1])
        values.append(cv2.resize(values[-1], half, interpolation=cv2.INTER_AREA))
        weights.append(cv2.resize(weights[-1], half, interpolation=cv2.INTER_AREA))
    out = np.zeros_like(values[-1])
    for v, w in zip(values[::-1], weights[::-1]):
        coarse = cv2.resize(out, w.shape[::-1], interpolation=cv2.INTER_LINEAR)
        share = np.clip(w * 4, 0, 1)[..., None]
        out = cv2.GaussianBlur(coarse + share * (v / np.maximum(w, 1e-6)[..., None] - coarse), (0, 0), 1.0)
    return cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR)


def _beyond(values, limit):
    """Where some channel of (h, w, K) lies more than `limit` from 0: (h, w) bool."""
    bound = (limit,) * values.shape[2]
    return cv2.inRange(values, tuple(-x for x in bound), bound) == 0


def _grid(shape):
    """Centres of the pixels: (h, w, 2) float32, x and y."""
    y, x = np.indices(shape, np.float32)
    return np.stack([x, y], axis=-1) + np.float32(0.5)
