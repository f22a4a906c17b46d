"""Colours of a virtual head's pixels: what material each triangle is of, and how it looks under light.

Values are those of a picture (not linear light), as everywhere in this project: colour = albedo * shading.
"""
from __future__ import annotations

import numpy as np
from numba import njit

from texgan.stage import GUM, LINING, SKIN, TOOTH

FAST = dict(cache=True, fastmath=True, nogil=True, error_model="numpy")
STATIC, MOVING = 8, 6     # columns of the tables that `shade_pixels` takes
BOUNCE = 0.25             # exponent that deepens colours deep in the mouth
LEAST_COSINE = 0.6        # below it the dullest gloss is less than 0.001
SMOOTH_DEPTH = 2.5        # mm within a pixel; more is taken for an edge
NEAR_COSINE = 0.994       # of the angle to eyeball vertices that hold a lid away
STEEP = 0.8               # largest slope of a fold's side
IRIS_RADIUS, PUPIL_RADIUS, LIMBUS = 5.9, 1.9, 0.7              # mm


@njit(**FAST)
def openness(points, rim):
    """How much of the outside a point in the mouth sees: form factor of the opening.

    J. H. Lambert's formula for a polygon: the sum over its edges of the angle under which an edge is seen, times the
    component along z of the normal of the plane through point and edge, over 2 pi.

    Parameters
    ----------
    points : (N, 3) float32
    rim : (K, 3) float32, corners of the opening in order, which lies across z

    Returns
    -------
    (N,) float32 in [0, 1]
    """
    out = np.zeros(len(points), np.float32)
    for i in range(len(points)):
        total = 0.0
        px, py, pz = points[i]
        ax, ay, az = rim[-1, 0] - px, rim[-1, 1] - py, rim[-1, 2] - pz
        for k in range(len(rim)):
            bx, by, bz = rim[k, 0] - px, rim[k, 1] - py, rim[k, 2] - pz
            cx, cy, cz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
            lc = np.sqrt(cx * cx + cy * cy + cz * cz) + 1e-9
            total += cz / lc * np.arctan2(lc, ax * bx + ay * by + az * bz)
            ax, ay, az = bx, by, bz
        out[i] = min(1.0, abs(total) / (2 * np.pi))
    return out


@njit(**FAST)
def nearest_distance(points, others):
    """Distance of each point (N, 3) to the nearest of others (M, 3): (N,) float32."""
    out = np.empty(len(points), np.float32)
    for i in range(len(points)):
        best = np.float32(1e12)
        for k in range(len(others)):
            x, y, z = points[i, 0] - others[k, 0], points[i, 1] - others[k, 1], points[i, 2] - others[k, 2]
            best = min(best, x * x + y * y + z * z)
        out[i] = np.sqrt(best)
    return out


@njit(**FAST)
def _bilinear(image, x, y, channel):
    """A channel of an image at a pixel position, centres at +0.5, clamped at the border."""
    height, width = image.shape[0], image.shape[1]
    x, y = min(max(x - 0.5, 0.0), width - 1.001), min(max(y - 0.5, 0.0), height - 1.001)
    j, i = int(x), int(y)
    fx, fy = x - j, y - i
    return ((image[i, j, channel] * (1 - fx) + image[i, j + 1, channel] * fx) * (1 - fy)
            + (image[i + 1, j, channel] * (1 - fx) + image[i + 1, j + 1, channel] * fx) * fy)


@njit(**FAST)
def fold_heights(triangles, material, index, bary, static, moving, grooves, plane, out):
    """Height of the skin's folds at every pixel: grooves of both layers times how far they are pressed together.

    grooves : (S, S, 2) float32 mm, over the rest face seen from the front
    plane : (left, top, texels per mm) of it
    out : (H, W) float32 mm, zero where there is no skin
    """
    for i in range(index.shape[0]):
        for j in range(index.shape[1]):
            t = index[i, j]
            if t < 0 or material[t] != 0:
                continue
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wa, wb, wc = bary[i, j, 0], bary[i, j, 1], bary[i, j, 2]
            first = wa * moving[a, 4] + wb * moving[b, 4] + wc * moving[c, 4]
            second = wa * moving[a, 5] + wb * moving[b, 5] + wc * moving[c, 5]
            if first < 0.01 and second < 0.01:
                continue
            x = (wa * static[a, 2] + wb * static[b, 2] + wc * static[c, 2] - plane[0]) * plane[2]
            y = (plane[1] - wa * static[a, 3] - wb * static[b, 3] - wc * static[c, 3]) * plane[2]
            if 1 < x < grooves.shape[1] - 2 and 1 < y < grooves.shape[0] - 2:
                out[i, j] = (first * _bilinear(grooves, x, y, 0) + second * _bilinear(grooves, x, y, 1))


@njit(**FAST)
def _eye_colour(x, y, z, red, green, blue, phase):
    """Colour (3 floats) of an eyeball at a point (mm) in the eye's own frame, z along the gaze; iris albedo, phase."""
    r = np.sqrt(x * x + y * y)
    white = min(max((r - IRIS_RADIUS + LIMBUS) / LIMBUS, 0.0), 1.0) if z > 0 else 1.0
    dark = min(max((r - PUPIL_RADIUS) / 0.4, 0.0), 1.0)
    angle = np.arctan2(y, x)
    streak = (1 + 0.10 * np.sin(29 * angle + 2.5 * np.sin(7 * angle + phase)) + 0.25 * (r - 3.2) / 3
              - 0.65 * min(max((r - 4.4) / 1.5, 0.0), 1.0)) * dark * (1 - white)
    vein = min(max((r - 7.0) / 6.0, 0.0), 1.0)
    pupil = 0.03 * (1 - dark) * (1 - white)
    return (pupil + red * streak + (0.80 - 0.06 * vein) * white, pupil + green * streak + (0.76 - 0.15 * vein) * white,
            pupil + blue * streak + (0.72 - 0.15 * vein) * white)


@njit(**FAST)
def shade_pixels(triangles, material, index, bary, depth, focal, centre, static, moving, texture, shades, iris, light,
                 lamps, shine, heights, picture):
    """Draws the head over a picture of half the raster's size: four samples at edges, two on smooth ground.

    Parameters
    ----------
    triangles, material : (T, 3), (T,) int32
    index, bary, depth : Raster's arrays (2 H, 2 W), (2 H, 2 W, 3), (2 H, 2 W)
    focal, centre : of the raster, pixels; centre is its principal point, alike in x and y
    static : (V, 8) float32: chart u, v; rest x, y, z (eyeballs: in the eye's own frame); inner (0 skin, 1 mucous
        membrane); tongue (-1 throat, 0 gums, 1 tongue); light that gets there at rest
    moving : (V, 6) float32: normal in camera space, light that gets there in [0, 1], folds of two layers in [0, 1]
    texture : (S, S, 3) float32 albedo
    shades : (4, 3) float32, albedo of mucous membrane, gums, tongue, teeth
    iris : (4,) float32, its albedo and a phase of its streaks
    light : (9, 3) float32, spherical harmonics in camera space
    lamps : (L, 6) float32, directions to the lamps in camera space and their colours, for speculars
    shine : float, strength of the skin's
    heights : (2 H, 2 W) float32 mm, folds
    picture : (H, W, 3) float32, the background; drawn over
    """
    lamp_count = len(lamps)
    p, q = np.zeros(STATIC, np.float32), np.zeros(MOVING, np.float32)
    colour, total, inks = np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    # one long body: calls that take arrays cost more here than what they do
    for row in range(picture.shape[0]):
        for column in range(picture.shape[1]):
            seen, first, alike = 0, -1, True
            low, high = np.float32(1e12), np.float32(0)
            for s in range(4):
                t = index[2 * row + s // 2, 2 * column + s % 2]
                if t >= 0:
                    seen += 1
                    first = material[t] if first < 0 else first
                    alike = alike and material[t] == first
                    z = depth[2 * row + s // 2, 2 * column + s % 2]
                    low, high = min(low, z), max(high, z)
            if seen == 0:
                continue
            smooth = seen == 4 and alike and high - low < SMOOTH_DEPTH
            total[0], total[1], total[2] = 0, 0, 0
            for s in range(4):
                i, j = 2 * row + s // 2, 2 * column + s % 2
                t = index[i, j]
                if t < 0 or (smooth and (s == 1 or s == 2)):
                    continue
                m, a, b, c = material[t], triangles[t, 0], triangles[t, 1], triangles[t, 2]
                wa, wb, wc = bary[i, j, 0], bary[i, j, 1], bary[i, j, 2]
                for k in range(STATIC):
                    p[k] = wa * static[a, k] + wb * static[b, k] + wc * static[c, k]
                for k in range(MOVING):
                    q[k] = wa * moving[a, k] + wb * moving[b, k] + wc * moving[c, k]
                # normal, tilted by the folds, and direction to the camera
                nx, ny, nz, reach, groove = q[0], q[1], q[2], q[3], np.float32(0)
                if m == SKIN and q[4] + q[5] > 0.01 and 0 < i < index.shape[0] - 1 and 0 < j < index.shape[1] - 1:
                    per_mm = np.float32(0.5 * focal) / depth[i, j]
                    nx -= min(max((heights[i, j + 1] - heights[i, j - 1]) * per_mm, -STEEP), STEEP)
                    ny -= min(max((heights[i + 1, j] - heights[i - 1, j]) * per_mm, -STEEP), STEEP)
                    groove = max(-heights[i, j], np.float32(0))
                length = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
                nx, ny, nz = nx * length, ny * length, nz * length
                vx, vy = np.float32((centre - j - 0.5) / focal), np.float32((centre - i - 0.5) / focal)
                # albedo, gloss and its exponent
                if m == SKIN or m == LINING:
                    x, y = p[0] * texture.shape[1] - np.float32(0.5), (1 - p[1]) * texture.shape[0] - np.float32(0.5)
                    h = int(min(max(x, 0), texture.shape[1] - 2))
                    v = int(min(max(y, 0), texture.shape[0] - 2))
                    fx = min(max(x - h, np.float32(0)), np.float32(1))
                    fy = min(max(y - v, np.float32(0)), np.float32(1))
                    shade = p[7] * (1 - min(np.float32(0.55), groove * np.float32(0.45)))
                    for k in range(3):
                        above = texture[v, h, k] * (1 - fx) + texture[v, h + 1, k] * fx
                        below = texture[v + 1, h, k] * (1 - fx) + texture[v + 1, h + 1, k] * fx
                        skin = above * (1 - fy) + below * fy
                        colour[k] = (skin + (shades[0, k] - skin) * p[5]) * shade
                    gloss, power = shine * (1 - p[5]) * shade + 0.12 * p[5], 14.0 + 30.0 * p[5]
                elif m == GUM:
                    other, share = 2 if p[6] > 0 else 0, abs(p[6])
                    for k in range(3):
                        colour[k] = shades[1, k] * (1 - share) + shades[other, k] * share
                    gloss, power = 0.14 - 0.07 * share, 35.0
                elif m == TOOTH:
                    colour[0], colour[1], colour[2] = shades[3, 0], shades[3, 1], shades[3, 2]
                    gloss, power = 0.22, 60.0
                else:
                    colour[0], colour[1], colour[2] = _eye_colour(p[2], p[3], p[4], iris[0], iris[1], iris[2], iris[3])
                    gloss, power = 0.75, 180.0
                # spherical harmonics, see facemodel.light
                xy, yz, xz = 1.092548 * nx * ny, 1.092548 * ny * nz, 1.092548 * nx * nz
                zz, xx = 0.315392 * (3 * nz * nz - 1), 0.546274 * (nx * nx - ny * ny)
                for k in range(3):
                    lit = (0.282095 * light[0, k] + 0.488603 * (ny * light[1, k] + nz * light[2, k] + nx * light[3, k])
                           + xy * light[4, k] + yz * light[5, k] + zz * light[6, k] + xz * light[7, k]
                           + xx * light[8, k])
                    inks[k] = colour[k] * max(lit, 0.05) * reach
                if reach < 0.99 and (m == LINING or m == GUM or m == TOOTH):
                    for k in range(3):      # light that went around in the mouth has the colour of its walls
                        wall = shades[1, k] / shades[1, 0] if m == TOOTH else colour[k]
                        inks[k] *= wall ** (BOUNCE * (1 - reach))
                for lamp in range(lamp_count):
                    hx, hy, hz = vx + lamps[lamp, 0], vy + lamps[lamp, 1], lamps[lamp, 2] - 1
                    cosine = (nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz)
                    if cosine > LEAST_COSINE:
                        spark = gloss * reach * cosine ** power
                        for k in range(3):
                            inks[k] += spark * lamps[lamp, 3 + k]
                for k in range(3):
                    total[k] += inks[k]
            for k in range(3):
                picture[row, column, k] = (total[k] / 2 if smooth else
                                           (total[k] + (4 - seen) * picture[row, column, k]) / 4)


@njit(**FAST)
def push_out(vertices, chosen, centre, ball, gap):
    """Skin that a sum of shapes moved into an eyeball is put in front of it, along the radius, in place.

    vertices (V, 3) float32; chosen (L,) int, those that may move; centre (3,), ball (N, 3) the eyeball; gap mm
    """
    own = np.empty((len(ball), 4), np.float32)
    for n in range(len(ball)):
        x, y, z = ball[n, 0] - centre[0], ball[n, 1] - centre[1], ball[n, 2] - centre[2]
        r = np.sqrt(x * x + y * y + z * z)
        own[n] = x / r, y / r, z / r, r
    for v in chosen:
        x, y, z = vertices[v, 0] - centre[0], vertices[v, 1] - centre[1], vertices[v, 2] - centre[2]
        r = np.sqrt(x * x + y * y + z * z)
        if z < 2 or r > 20:
            continue
        x, y, z = x / r, y / r, z / r
        least = np.float32(0)
        for n in range(len(own)):
            if x * own[n, 0] + y * own[n, 1] + z * own[n, 2] > NEAR_COSINE:
                least = max(least, own[n, 3] + gap)
        if r < least:
            vertices[v, 0], vertices[v, 1], vertices[v, 2] = (centre[0] + x * least, centre[1] + y * least,
                                                              centre[2] + z * least)
