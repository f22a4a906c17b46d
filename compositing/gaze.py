"""Where eyes look, read from textures: the direction in which a disc of an iris' size best parts dark from bright.

On the chart an eye is a sheet between the lids, which narrows as they close, and an iris becomes whatever the lids make
of it. Over the eyeball, a sphere behind the middle of the eye's corners, it is a disc of nearly the same size in
everybody: 11.7 mm across (P. Rüfer et al. 2005, doi:10.1097/01.ico.0000148312.01805.53) on an eyeball of 24 mm
(I. Bekerman et al. 2014, doi:10.1155/2014/503645).

A gaze is two angles, across (towards x, the picture's right) and down, relative to straight out of the face.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from facemodel.atlas import build_atlas
from fitting.texture import region_texture

EYEBALL, IRIS = 12.0, 5.85           # mm, radii
EYES = slice(36, 42), slice(42, 48)   # landmarks of both, iBUG's numbers
REACH = (56, 38), (0, -10)           # degrees searched across and down, to both sides of a middle
STEPS = (6, 2, 0.7)                  # degrees between the gazes tried, coarse to fine
SOFT = 0.02                          # of a cosine: width of the disc's border
CONTRAST = 0.1               # least standard deviation of an eye's brightness: a closed lid has less
AHEAD = np.radians([0, -19])         # gaze read from fitted photos of people who look ahead: corners lie low
DOUBT = np.radians([70, 60])         # how far from there all evidence is worth nothing: a lid's shadow is dark as well
PLAIN = 0.3                          # evidence from which on an iris is believed
LEAST_OPEN = 1.5                     # mm between the lids from which on a gaze is read
LEAST_SEEN = 0.3                     # share of the eye that has to be seen


@dataclass(frozen=True)
class EyeChart:
    """One eye on a chart.

    size : int, texels of the chart per side
    window : two slices of a texture
    weight : (h, w) float32 in [0, 1], the eye between its lids
    vertices : (n,) int, that the window shows
    corners : (h, w, 3) int, which of `vertices` each texel lies between, and barycentric : (h, w, 3) float32
    triangles : (t, 3) int, as numbers of `vertices`
    marks : (6,) int, vertices of the landmarks around it, in iBUG's order: corner, upper lid, corner, lower lid
    """

    size: int
    window: tuple
    weight: np.ndarray
    vertices: np.ndarray
    corners: np.ndarray
    barycentric: np.ndarray
    triangles: np.ndarray
    marks: np.ndarray

    def of(self, array):
        """Its part of a texture or map of `size` texels per side or a multiple, averaged by areas: (h, w, ...)."""
        times = len(array) // self.size
        if times == 1:
            return array[self.window]
        rows, columns = (slice(w.start * times, w.stop * times) for w in self.window)
        return cv2.resize(array[rows, columns], self.weight.shape[::-1], interpolation=cv2.INTER_AREA)

    @property
    def rows(self):
        """All vertices that it looks at, for MorphableModel.shape."""
        return np.concatenate([self.vertices, self.marks])

    def points(self, shape):
        """Where its vertices lie before the eyeball: (V, 3) mm -> (n, 2) float32, x and y, of its radius."""
        centre = shape[self.marks[[0, 3]], :2].mean(axis=0)
        return ((shape[self.vertices, :2] - centre) / EYEBALL).astype(np.float32)

    def directions(self, shape):
        """Unit vectors from the eyeball's centre to every texel, z out of the face: (V, 3) mm -> (h, w, 3) float32."""
        return on_sphere((self.points(shape)[self.corners] * self.barycentric[..., None]).sum(axis=2))

    def lid(self, shape):
        """How far down the lower lid lies, as the gaze (2,) that looks there from the eye's middle, radians."""
        y = shape[self.marks, 1].astype(np.float64)
        return np.array([0, np.arcsin(np.clip((y[[4, 5]].mean() - y[[0, 3]].mean()) / EYEBALL, -1, 1))])

    def gap(self, shape):
        """How far the lids are apart, mm; negative where they cross."""
        y = shape[self.marks, 1].astype(np.float64)
        return float(y[[4, 5]].mean() - y[[1, 2]].mean())


def eye_charts(model, size):
    """The eyes of a model's chart with `size` texels per side, the subject's right one first: list of EyeChart."""
    atlas = build_atlas(model, size)
    weight = region_texture(model, "eyes", atlas)
    count, labels, stats, _ = cv2.connectedComponentsWithStats((weight > 0.5).astype(np.uint8))
    middles = np.array([model.mean[model.landmarks[eye]].mean(axis=0) for eye in EYES])
    charts = {}
    for k in sorted(range(1, count), key=lambda k: stats[k, cv2.CC_STAT_AREA]):         # the largest on a side stays
        left, top, width, height = (int(stats[k, i]) for i in range(4))
        window = np.s_[top:top + height, left:left + width]
        triangle = atlas.triangle[window]
        vertices, corners = np.unique(model.triangles[np.where(triangle < 0, triangle.max(), triangle)],
                                      return_inverse=True)
        number = np.full(model.vertex_count, -1)
        number[vertices] = np.arange(len(vertices))
        sheet = number[model.triangles]
        side = int(np.linalg.norm(middles - model.mean[vertices].mean(axis=0), axis=1).argmin())
        charts[side] = EyeChart(size, window, weight[window] * (labels[window] == k), vertices,
                                corners.reshape(*triangle.shape, 3), atlas.barycentric[window],
                                sheet[(sheet >= 0).all(axis=1)], model.landmarks[EYES[side]])
    return [charts[side] for side in sorted(charts)]


def on_sphere(flat):
    """Points before the unit sphere (..., 2), x and y, as unit vectors (..., 3); beside it, those of its edge."""
    flat = flat * np.minimum(1, 0.98 / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-6))
    z = np.sqrt(np.maximum(1 - np.square(flat).sum(axis=-1, keepdims=True), 0))
    return np.concatenate([flat, z], axis=-1).astype(np.float32)


def gaze_vector(gaze):
    """Gazes (..., 2) in radians as unit vectors (..., 3) float32."""
    across, down = np.asarray(gaze, np.float64)[..., 0], np.asarray(gaze, np.float64)[..., 1]
    return np.stack([np.sin(across) * np.cos(down), np.sin(down), np.cos(across) * np.cos(down)], -1).astype(np.float32)


def redness(rgb):
    """In what an iris, blue or brown, is darker than the white of the eye: (..., 3) -> (...), the logarithm of red."""
    return np.log(np.maximum(rgb[..., 0], 0.03))


def find_iris(directions, brightness, weight, radius=IRIS, ahead=AHEAD):
    """The gaze for which a dark disc of an iris' size explains most of an eye's brightness, rather ahead than aside.

    Parameters
    ----------
    directions : (h, w, 3), unit vectors to the texels
    brightness : (h, w), see `redness`
    weight : (h, w), how far each texel counts
    radius : mm, of the iris
    ahead : (2,) radians, what gazes are likely to be near

    Returns
    -------
    gaze : (2,) float64, radians
    evidence : float in [0, 1], share of the variance of brightness that disc and rest explain, less the doubt about a
        disc that stands high or low: lashes of closed eyes are dark as well
    """
    on = weight > 0.05
    if on.sum() < 20:
        return np.array(ahead, np.float64), 0.0
    d, x, w = directions[on], brightness[on].astype(np.float64), weight[on].astype(np.float64)
    w = w / w.sum()
    x = x - w @ x
    x = x / max(np.sqrt(w @ (x * x)), CONTRAST)
    edge = np.sqrt(1 - (radius / EYEBALL) ** 2)

    def explained(gazes):
        inside = np.clip((d @ gaze_vector(gazes).T - edge) / SOFT + 0.5, 0, 1)
        much, dark = w @ inside, -(w * x) @ inside
        return np.where(dark > 0, dark ** 2 / np.maximum(much * (1 - much), 1e-3), 0)

    best, halves = np.radians(REACH[1]), REACH[0]
    for step in STEPS:
        steps = [np.radians(np.arange(-half, half + step / 2, step)) for half in halves]
        tried = best + np.stack(np.meshgrid(*steps), -1).reshape(-1, 2)
        doubt, evidence = np.square((tried - ahead) / DOUBT), explained(tried)
        k = (evidence - doubt.sum(axis=-1)).argmax()
        best, value, halves = tried[k], float(evidence[k] - doubt[k, 1]), (step, step)
    return best, max(value, 0.0)


def read_gaze(chart, shape, texture, validity, ahead=AHEAD):
    """The gaze of one eye in a texture, and its evidence (see `find_iris`): None where its lids or what lies before it
    leave too little to see.

    Parameters
    ----------
    chart : EyeChart
    shape : (V, 3) mm, of the face that the texture was lifted from
    texture, validity : (s, s, 3), (s, s), of the chart's size or a multiple
    ahead : (2,) radians, what gazes are likely to be near
    """
    weight = chart.weight * chart.of(validity)
    if weight.sum() < LEAST_SEEN * chart.weight.sum() or chart.gap(shape) < LEAST_OPEN:
        return np.array(ahead, np.float64), None
    return find_iris(chart.directions(shape), redness(chart.of(texture)), weight, ahead=ahead)
