"""UV albedo textures: lift a frame onto the chart, divide the light out, fill what was not seen."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from facemodel.atlas import image_to_texture, to_texture
from facemodel.camera import project, to_camera
from facemodel.light import sh_basis, shade
from facemodel.mesh import vertex_normals
from facemodel.rasterizer import rasterize

PYRAMID = 6                  # halvings over which values are carried on, at most
LIP = 0.3, 0.7               # share of the lips' log redness over skin from which on skin becomes lip
LEAST_RED = 0.05             # of it: with less nothing tells them apart


@dataclass(frozen=True)
class Posed:
    """A posed face in a picture.

    vertices : (V, 3) float32 camera space, mm
    normals : (V, 3) float32 camera space
    xy : (V, 2) float32 pixels
    """

    vertices: np.ndarray
    normals: np.ndarray
    xy: np.ndarray

    @property
    def cosine(self):
        """(V,) cosine between normal and direction to the camera."""
        along, square = (np.einsum("vk,vk->v", self.vertices, a) for a in (self.normals, self.vertices))
        return -along / np.sqrt(square)

    def raster(self, model, height, width, offset=(0, 0)):
        """What a picture of this size sees; offset moves its corner, pixels."""
        return rasterize(self.xy - np.asarray(offset, np.float32), self.vertices[:, 2], model.triangles, height, width)


def pose(model, vertices_model, rotation, translation, focal, principal_point):
    """Poses vertices (V, 3) in front of a camera -> Posed. rotation is axis-angle (3,) or a matrix."""
    camera = to_camera(vertices_model.astype(np.float32), rotation, translation)
    normals = vertex_normals(camera, model.triangles).astype(np.float32)
    return Posed(camera, normals, project(camera, np.float32(focal), principal_point).astype(np.float32))


def face_window(posed, model, height, width, margin=8):
    """Smallest window that holds the projected surface: (left, top, right, bottom) int pixels, inside the picture."""
    x, y = posed.xy.T                       # each by itself: NumPy is slow to reduce along the longer axis
    low = np.floor([x.min() - margin, y.min() - margin]).astype(int)
    high = np.ceil([x.max() + margin, y.max() + margin]).astype(int)
    left, top = np.clip(low, 0, [width - 1, height - 1])
    right, bottom = np.clip(high, [left + 1, top + 1], [width, height])
    return int(left), int(top), int(right), int(bottom)


def extract(image, posed, light, model, atlas):
    """The albedo texture that a picture shows.

    Parameters
    ----------
    image : (H, W, 3) uint8 or float32 in [0, 1]
    posed : Posed
    light : (9, 3) float, divided out
    model : MorphableModel
    atlas : facemodel.atlas.Atlas

    Returns
    -------
    texture : (S, S, 3) float32, albedo, may exceed 1 where the light was underestimated
    validity : (S, S) float32 in [0, 1]
    """
    height, width = image.shape[:2]
    left, top, right, bottom = face_window(posed, model, height, width)
    crop = image[top:bottom, left:right]
    crop = crop.astype(np.float32) / 255 if crop.dtype == np.uint8 else crop
    raster = posed.raster(model, bottom - top, right - left, (left, top))
    xy = posed.xy - np.float32([left, top])
    texture, validity = image_to_texture(crop, xy, posed.vertices[:, 2], posed.cosine, raster.depth, model, atlas)
    return texture / texel_shading(posed, light, model, atlas), validity


def texel_shading(posed, light, model, atlas):
    """Shading at every texel: (S, S, 3) float32, computed at the vertices, 1 outside the chart."""
    shading = to_texture(shade(posed.normals, light), model.triangles, atlas)
    shading[~atlas.mask] = 1
    return shading


def fill(texture, validity, model, atlas, fallback):
    """Completes a texture where it was not seen: first from the other half of the face, then from a fallback.

    Both are joined in the gradient sense: the fill is shifted by the smooth difference to what was seen.

    Parameters
    ----------
    texture, validity : (S, S, 3), (S, S)
    fallback : (S, S, 3) float32, for instance the fitted albedo as a texture

    Returns
    -------
    (S, S, 3) float32
    """
    known = share_known(validity)
    mirrored, mirrored_known = atlas.mirrored(texture), atlas.mirrored(known)
    base = fallback + pull_push(texture - fallback, known)
    trust = mirrored_known * (1 - known)
    side = mirrored + pull_push(texture - mirrored, known * mirrored_known)
    soft = cv2.GaussianBlur(trust, (0, 0), atlas.size / 128)[..., None] * trust[..., None]
    filled = base * (1 - soft) + side * soft
    out = texture * known[..., None] + filled * (1 - known[..., None])
    return out.astype(np.float32)


def share_known(validity):
    """How far `fill` believes what was seen at a texel: (S, S) float32 in [0, 1] from a validity map (S, S)."""
    return np.clip((validity - 0.15) / 0.35, 0, 1).astype(np.float32)


def log_albedo(rgb):
    """Logarithm of an albedo, of 0.02 at least: an array of any shape."""
    return np.log(np.maximum(rgb, 0.02))


def pull_push(values, known):
    """Values carried on smoothly from where they are known (pull-push over a pyramid): (h, w, K) float32, K > 1.

    values : (h, w, K). known : (h, w) float32 >= 0, how far each counts
    """
    value, weight = [values * known[..., None]], [known]
    for _ in range(min(PYRAMID, int(np.log2(min(known.shape))))):
        value.append(cv2.resize(value[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        weight.append(cv2.resize(weight[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    total = value[-1].sum(axis=(0, 1)) / max(float(weight[-1].sum()), 1e-6)
    out = np.broadcast_to(total, value[-1].shape).astype(np.float32)
    for v, w in zip(value[::-1], weight[::-1]):
        size = v.shape[1::-1]
        coarse = cv2.resize(np.ascontiguousarray(out), size, interpolation=cv2.INTER_LINEAR)
        share = np.clip(w * 4, 0, 1)[..., None]
        out = coarse * (1 - share) + share * v / np.maximum(w, 1e-6)[..., None]
        out = cv2.GaussianBlur(out, (0, 0), 1.0)
    return out


class ResidualLight:
    """What of a texture still looks like light: smooth brightness that follows the surface's direction.

    Light and albedo explain brightness together, and the fit shares it out only by its priors. What second-order
    harmonics of the mean face's normals explain of the log luminance, relative to a reference, is given to the light.
    """

    def __init__(self, model, atlas):
        step = max(1, atlas.size // 128)
        normals = vertex_normals(model.mean, model.triangles)
        self._basis = sh_basis(to_texture(normals, model.triangles, atlas)).astype(np.float32)
        self._mask, self._chosen = atlas.mask, np.s_[::step, ::step]

    def gain(self, texture, weight, reference=None, brightness=False):
        """What to multiply a texture by to have it lit as the reference.

        Parameters
        ----------
        texture : (S, S, 3) float32
        weight : (S, S) float32, where skin was seen
        reference : (S, S, 3) float32, default the same everywhere
        brightness : bool, bring its mean brightness and colour to the reference's, too

        Returns
        -------
        (S, S, 3) float32 in [exp(-0.5), exp(0.5)], times the colour's; ones where too little was seen to tell
        """
        chosen = self._chosen
        texture, w = texture[chosen], (weight * self._mask)[chosen].ravel()
        luminance = lambda t: np.log(np.maximum(t.mean(axis=2), 0.02))
        ratio = luminance(texture) - (luminance(reference[chosen]) if reference is not None else 0)
        seen = w > 0.05
        if seen.sum() < 100:
            return np.ones((*self._mask.shape, 3), np.float32)
        a, b, w = self._basis[chosen].reshape(-1, 9)[seen].astype(np.float64), ratio.ravel()[seen], w[seen]
        ridge = 0.01 * w.sum() * np.diag([1e-6] + [1.0] * 8)
        robust = w
        for _ in range(5):
            x = np.linalg.solve((a * robust[:, None]).T @ a + ridge, (a * robust[:, None]).T @ b)
            robust = w / np.maximum(np.abs(b - a @ x), 0.05)
        middle = 0.0 if brightness else np.average(a @ x, weights=w)
        smooth = np.exp(np.clip(middle - self._basis @ x.astype(np.float32), -0.5, 0.5))[..., None]
        if not brightness:
            return np.repeat(smooth, 3, axis=2)
        mean = lambda t: np.average(t.reshape(-1, 3)[seen], axis=0, weights=w)
        colour = mean(reference[chosen]) / np.maximum(mean(texture * smooth[chosen]), 0.02)
        return smooth * np.clip(colour, 0.6, 1.6).astype(np.float32)


def weight_texture(model, weights, atlas):
    """Weights of the vertices, (V,) in [0, 1], as a texture: (S, S) float32 in [0, 1], 0 outside the chart."""
    return np.clip(to_texture(weights[:, None], model.triangles, atlas)[..., 0], 0, 1)


def region_texture(model, name, atlas):
    """A region's weights as a texture: (S, S) float32 in [0, 1]."""
    return weight_texture(model, model.regions[name], atlas)


def skin_weight(model, atlas):
    """(S, S) float32, bare_skin on the chart."""
    return weight_texture(model, bare_skin(model), atlas)


def bare_skin(model):
    """(V,) float32 in [0, 1], skin of the face without brows, eyes, lips and mouth, lids by half."""
    r = model.regions
    skin = r["face"] * (1 - r["eyebrows"]) * (1 - r["eyes"]) * (1 - r["lips"]) * (1 - r["mouth_interior"])
    return (skin * (1 - 0.5 * r["eyelids"])).astype(np.float32)


def bare_lips(model):
    """(V,) float32 in [0, 1], lips without the skin that their region takes in at the mouth's corners, and its inside.

    Lips are redder than skin in the mean albedo. Where they hardly are, all of the region counts.
    """
    red = np.log(np.maximum(model.albedo_mean[:, 0], 0.01) / np.maximum(model.albedo_mean[:, 1], 0.01))
    region = np.float32(model.regions["lips"] * (1 - model.regions["mouth_interior"]))
    skin, inside = bare_skin(model) > 0.5, region > 0.5
    if not (skin.any() and inside.any()):
        return region
    usual = np.median(red[skin])
    redder = np.quantile(red[inside], 0.75) - usual
    return region * np.float32(np.interp((red - usual) / redder, LIP, [0, 1])) if redder > LEAST_RED else region


def albedo_texture(model, coefficients, atlas):
    """The model's own albedo as a texture: (S, S, 3) float32."""
    texture = to_texture(model.albedo(coefficients), model.triangles, atlas)
    texture[~atlas.mask] = 0.5
    return texture
