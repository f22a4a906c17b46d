"""The UV atlas both ways: image -> texture with visibility, texture -> image.

A texture has row 0 at the top (v = 1); texel (i, j) covers u in [j, j+1) / size. Besides its colours it carries a
validity map: 0 where the camera did not see the surface, 1 where it saw it well, from less than 50 degrees aslant.
"""
from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numba import njit

from facemodel.rasterizer import interpolate, rasterize
from facemodel.sampling import sampled


@dataclass(frozen=True)
class Atlas:
    """Where on the surface every texel lies.

    size : int, texels per side
    triangle : (size, size) int32, -1 outside the chart
    barycentric : (size, size, 3) float32
    opposite : (size, size, 2) float32, x and y of the point that mirrors a texel on the face, texel centres at +0.5;
        None where the chart is symmetric, so that it is the same row's texel as far from the other side
    """

    size: int
    triangle: np.ndarray
    barycentric: np.ndarray
    opposite: np.ndarray | None = None

    @property
    def mask(self):
        """(size, size) bool, texels of the chart."""
        return self.triangle >= 0

    def mirrored(self, texture):
        """The texture (size, size) or (size, size, K) of the mirrored face: what each texel's other half shows."""
        return texture[:, ::-1] if self.opposite is None else sampled(texture, self.opposite)


def build_atlas(model, size):
    """The atlas of a model's chart at a resolution."""
    xy = uv_to_pixels(model.uv, size)
    raster = rasterize(xy, np.ones(len(xy), np.float32), model.triangles, size, size, cull_backfaces=False)
    atlas = Atlas(size, raster.triangle, raster.barycentric)
    if model.mirrored_uv is None:
        return atlas
    opposite = to_texture(uv_to_pixels(model.mirrored_uv, size), model.triangles, atlas)
    rows, columns = np.nonzero(~atlas.mask)                    # beyond the chart nothing is known but the way
    opposite[rows, columns] = np.stack([size - 0.5 - columns, rows + 0.5], axis=1)
    return replace(atlas, opposite=opposite)


def chart_hash(model):
    """What identifies a model's chart, whatever its coefficients and albedo are: 16 hex digits."""
    digest = hashlib.sha256()
    for array in (model.triangles.astype(np.int32), np.round(model.uv * 65536).astype(np.int32)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def uv_to_pixels(uv, size):
    """(V, 2) texture coordinates, v up -> (V, 2) pixel positions, y down, texel centres at +0.5."""
    return np.stack([uv[:, 0] * size, (1 - uv[:, 1]) * size], axis=1).astype(np.float32)


@njit(cache=True, fastmath=True, nogil=True)
def _locate(values, triangles, triangle, bary, out):
    for i in range(triangle.shape[0]):
        for j in range(triangle.shape[1]):
            t = triangle[i, j]
            if t < 0:
                for k in range(values.shape[1]):
                    out[i, j, k] = -1e6
                continue
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            for k in range(values.shape[1]):
                out[i, j, k] = (bary[i, j, 0] * values[a, k] + bary[i, j, 1] * values[b, k]
                                + bary[i, j, 2] * values[c, k])


def to_texture(values, triangles, atlas):
    """Vertex values as a texture: (V, K) float -> (size, size, K) float32, -1e6 outside the chart."""
    out = np.empty((atlas.size, atlas.size, values.shape[1]), np.float32)
    _locate(np.ascontiguousarray(values, np.float32), triangles, atlas.triangle, atlas.barycentric, out)
    return out


@njit(cache=True, fastmath=True, nogil=True)
def _visible(points, depth, tolerance, out):
    """points (H, W, 4): pixel x, y, camera z, cosine of the view angle."""
    height, width = depth.shape
    for i in range(points.shape[0]):
        for j in range(points.shape[1]):
            x, y, z, cosine = points[i, j, 0], points[i, j, 1], points[i, j, 2], points[i, j, 3]
            column, row = int(np.floor(x)), int(np.floor(y))
            seen = np.float32(0)
            if 1 <= column < width - 1 and 1 <= row < height - 1 and cosine > 0:
                seen = 1
                for a in range(row - 1, row + 2):
                    for b in range(column - 1, column + 2):
                        if depth[a, b] < z - tolerance:
                            seen = 0
                # soft in the view angle: 0 at 80 degrees, 1 from 50 degrees on
                ramp = min(max((cosine - np.float32(0.17)) / np.float32(0.47), np.float32(0)), np.float32(1))
                seen *= ramp
            out[i, j] = seen


def image_to_texture(image, xy, z, cosine, depth, model, atlas, depth_tolerance=4.0):
    """Lifts an image onto the chart.

    Parameters
    ----------
    image : (H, W, 3) float32
    xy, z : (V, 2) projected vertices in pixels and (V,) camera depth in mm
    cosine : (V,) cosine between the normal and the direction to the camera
    depth : (H, W) float32, depth of what the camera sees (Raster.depth)
    model : MorphableModel
    atlas : Atlas
    depth_tolerance : float, mm by which something must lie in front to hide a texel

    Returns
    -------
    texture : (size, size, 3) float32, bicubic samples, also where validity is 0
    validity : (size, size) float32 in [0, 1], z-test times view angle, pulled in by one texel and soft
    """
    points = to_texture(np.concatenate([xy, z[:, None], cosine[:, None]], axis=1), model.triangles, atlas)
    validity = np.zeros((atlas.size, atlas.size), np.float32)
    _visible(points, depth, np.float32(depth_tolerance), validity)
    validity = cv2.blur(cv2.erode(validity, np.ones((3, 3), np.uint8)), (3, 3)) * atlas.mask
    return np.clip(sampled(image, points, cv2.INTER_CUBIC), 0, 1), validity


def texture_to_image(texture, model, raster, interpolation=cv2.INTER_LINEAR):
    """Draws a texture where a raster sees the model: (S, S, K) -> (H, W, K) float32, zero elsewhere."""
    where = interpolate(uv_to_pixels(model.uv, texture.shape[0]), model.triangles, raster)
    out = sampled(texture, where, interpolation)
    out[~raster.mask] = 0
    return out
