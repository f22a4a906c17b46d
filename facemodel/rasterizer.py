"""A z-buffer over triangles: which triangle each pixel sees, where on it, and how far away.

Pixel (i, j) covers [j, j+1) x [i, i+1); it is covered by a triangle when its centre (j + 0.5, i + 0.5) lies inside or
on an edge. Of several triangles the nearest wins; at equal depth the one with the lower index. Barycentric
coordinates are perspective-correct, so any vertex quantity may be interpolated with them. Nothing here is
differentiable: visibility is held fixed while an energy is linearised.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

FAR = np.float32(np.inf)


@dataclass(frozen=True)
class Raster:
    """What every pixel sees.

    triangle : (H, W) int32, index of the visible triangle, -1 where there is none
    barycentric : (H, W, 3) float32, weights of its three corners, undefined where triangle is -1
    depth : (H, W) float32, camera z in millimetres, inf where triangle is -1
    """

    triangle: np.ndarray
    barycentric: np.ndarray
    depth: np.ndarray

    @property
    def mask(self):
        """(H, W) bool, True where something is seen."""
        return self.triangle >= 0


@njit(cache=True, fastmath=True, nogil=True)
def _rasterize(xy, z, triangles, cull, index, bary, depth):
    height, width = index.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        za, zb, zc = z[a], z[b], z[c]
        if za <= 0 or zb <= 0 or zc <= 0:
            continue
        # in float64 the products below are all but exact, so triangles that share an edge leave no pixel out
        ax, ay, bx, by = np.float64(xy[a, 0]), np.float64(xy[a, 1]), np.float64(xy[b, 0]), np.float64(xy[b, 1])
        cx, cy = np.float64(xy[c, 0]), np.float64(xy[c, 1])
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # y points down: counter-clockwise seen from outside is a negative area in the image
        if abs(area) < 1e-9 or (cull and area > 0):
            continue
        left = max(0, int(np.ceil(min(ax, bx, cx) - 0.5)))
        right = min(width - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
        top = max(0, int(np.ceil(min(ay, by, cy) - 0.5)))
        bottom = min(height - 1, int(np.floor(max(ay, by, cy) - 0.5)))
        # edge functions, not negative inside; they are affine in the pixel: start at the row's left end, step in x
        side = 1.0 if area > 0 else -1.0
        step0, step1, step2 = side * (by - cy), side * (cy - ay), side * (ay - by)
        ra, rb, rc = 1.0 / (za * abs(area)), 1.0 / (zb * abs(area)), 1.0 / (zc * abs(area))
        for i in range(top, bottom + 1):
            px, py = left + 0.5, i + 0.5
            w0 = side * ((bx - px) * (cy - py) - (by - py) * (cx - px))
            w1 = side * ((cx - px) * (ay - py) - (cy - py) * (ax - px))
            w2 = side * ((ax - px) * (by - py) - (ay - py) * (bx - px))
            for j in range(left, right + 1):
                if w0 >= 0 and w1 >= 0 and w2 >= 0:
                    u0, u1, u2 = w0 * ra, w1 * rb, w2 * rc
                    d = np.float32(1.0 / (u0 + u1 + u2))
                    if d < depth[i, j]:
                        depth[i, j] = d
                        index[i, j] = t
                        bary[i, j, 0] = u0 * d
                        bary[i, j, 1] = u1 * d
                        bary[i, j, 2] = u2 * d
                w0 += step0
                w1 += step1
                w2 += step2


def rasterize(xy, z, triangles, height, width, cull_backfaces=True):
    """Rasterises projected triangles.

    Parameters
    ----------
    xy : (V, 2) float, projected vertices in pixels
    z : (V,) float, camera depth; triangles with a corner at z <= 0 are left out
    triangles : (T, 3) int32, counter-clockwise seen from outside
    height, width : int, size of the picture in pixels
    cull_backfaces : bool, leave out triangles that are seen from behind

    Returns
    -------
    Raster
    """
    index = np.full((height, width), -1, np.int32)
    bary = np.zeros((height, width, 3), np.float32)
    depth = np.full((height, width), FAR, np.float32)
    _rasterize(np.ascontiguousarray(xy, np.float32), np.ascontiguousarray(z, np.float32),
               np.ascontiguousarray(triangles, np.int32), cull_backfaces, index, bary, depth)
    return Raster(index, bary, depth)


@njit(cache=True, fastmath=True, nogil=True)
def _interpolate(values, triangles, index, bary, out):
    height, width = index.shape
    for i in range(height):
        for j in range(width):
            t = index[i, j]
            if t < 0:
                continue
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            w0, w1, w2 = bary[i, j, 0], bary[i, j, 1], bary[i, j, 2]
            for k in range(values.shape[1]):
                out[i, j, k] = w0 * values[a, k] + w1 * values[b, k] + w2 * values[c, k]


def interpolate(values, triangles, raster):
    """Vertex values at the pixels: (V, K) float -> (H, W, K) float32, zero where nothing is seen."""
    values = np.ascontiguousarray(values, np.float32)
    out = np.zeros((*raster.triangle.shape, values.shape[1]), np.float32)
    _interpolate(values, np.ascontiguousarray(triangles, np.int32), raster.triangle, raster.barycentric, out)
    return out
