"""Things that lie before faces, drawn over pictures to learn from: hands, microphones, other objects, glasses.

All is drawn in millimetres on a frontal view of the face, with what goes with it: light that falls off towards a
finger's side, creases, nails and sleeves; bridge, pads and temples of glasses; the shadow on the skin, which is not
part of the thing. Everything random is drawn from a numpy Generator that is passed in.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

FINGERS = ((45, 26, 20), (50, 31, 22), (46, 29, 21), (36, 21, 18))   # mm, bones from index to little finger
SHADES = ((.02, .02, .02), (.05, .05, .06), (.10, .07, .05), (.22, .13, .07), (.35, .35, .37), (.62, .62, .64),
          (.80, .80, .80), (.65, .50, .28), (.75, .55, .45), (.30, .05, .06), (.08, .12, .30), (.85, .83, .78))


@dataclass(frozen=True)
class Layer:
    """Something drawn: rgb (h, w, 3), alpha (h, w) and shadow (h, w), what light it leaves, float32 in [0, 1]."""

    rgb: np.ndarray
    alpha: np.ndarray
    shadow: np.ndarray

    def over(self, picture):
        """A picture (h, w, 3) float32 with this laid over it."""
        a = self.alpha[..., None]
        return picture * self.shadow[..., None] * (1 - a) + self.rgb * a


def noise(rng, shape, octaves=(2, 4, 8), spread=1.0):
    """Smooth noise of deviation `spread`: (h, w) float32; octaves: cells across the shorter side."""
    out = np.zeros(shape, np.float32)
    for cells in octaves:
        step = min(shape) / cells
        small = rng.standard_normal((max(2, round(shape[0] / step)) + 1, max(2, round(shape[1] / step)) + 1))
        out += cv2.resize(small.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return out * np.float32(spread / np.sqrt(len(octaves)) / 0.7)


def cast_shadow(rng, alpha, reach, darkest):
    """The light that a thing with this alpha leaves on what lies behind it: (h, w) float32 in [0, 1]."""
    shift = rng.normal(0, reach, 2)
    moved = cv2.warpAffine(alpha, np.float32([[1, 0, shift[0]], [0, 1, shift[1]]]), alpha.shape[::-1],
                           borderMode=cv2.BORDER_REPLICATE)
    return 1 - np.float32(rng.uniform(0, darkest)) * cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.4, 1.2) * reach)


class _Heights:
    """A height field of rounded cones, and which of them is seen."""

    def __init__(self, shape):
        self.z = np.full(shape, -np.inf, np.float32)
        self.part = np.full(shape, -1, np.int16)
        self.along = np.zeros(shape, np.float32)

    def cone(self, part, a, b, ra, rb):
        """A cone between two balls: centres a, b (3,) pixels, radii ra, rb."""
        height, width = self.z.shape
        r = max(ra, rb) + 1
        x0, x1 = (int(np.clip(v, 0, width)) for v in (min(a[0], b[0]) - r, max(a[0], b[0]) + r + 1))
        y0, y1 = (int(np.clip(v, 0, height)) for v in (min(a[1], b[1]) - r, max(a[1], b[1]) + r + 1))
        if x1 <= x0 or y1 <= y0:
            return
        box = np.s_[y0:y1, x0:x1]
        x, y = np.arange(x0, x1, dtype=np.float32) - a[0], np.arange(y0, y1, dtype=np.float32)[:, None] - a[1]
        dx, dy = b[0] - a[0], b[1] - a[1]
        t = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-3), 0, 1)
        radius = ra + t * (rb - ra)
        inside = radius * radius - (x - t * dx) ** 2 - (y - t * dy) ** 2
        z = np.where(inside > 0, a[2] + t * (b[2] - a[2]) + np.sqrt(np.maximum(inside, 0)), -np.inf)
        nearer = z > self.z[box]
        self.z[box][nearer] = z[nearer]
        self.part[box][nearer] = part
        self.along[box][nearer] = t[nearer]


def _bend(start, angle, bones, curl, flat, turn=0.0):
    """Joints (n + 1, 3) of a finger that curls in depth and turns in the picture at each joint."""
    joints, pitch = [np.asarray(start, float)], 0.0
    for bone in bones:
        pitch, angle = pitch + curl, angle + (turn if len(joints) > 1 else 0.25 * turn)
        step = bone * np.array([np.cos(angle) * np.cos(pitch), np.sin(angle) * np.cos(pitch), flat * np.sin(pitch)])
        joints.append(joints[-1] + step)
    return np.array(joints)


def _gesture(rng):
    """What a hand does: how far each finger curls in depth (4,) and turns in the picture, radians at each joint."""
    kind, bent = rng.random(), 0.0
    if rng.random() < 0.4:                                                   # seen from its edge
        bent = rng.choice([-1, 1]) * rng.uniform(0.2, 1.5)
    if kind < 0.3:                                                           # open
        curls = np.full(4, rng.uniform(0, 0.25))
    elif kind < 0.55:                                                        # at rest
        curls = np.full(4, rng.uniform(0.2, 0.9))
    elif kind < 0.85:                                                        # a fist, before a mouth that coughs
        curls = np.full(4, rng.uniform(0.9, 1.7))
    else:                                                                    # pointing, or holding on to a chin
        curls = np.full(4, rng.uniform(0.8, 1.6))
        curls[:rng.integers(1, 3)] = rng.uniform(0, 0.4)
    return curls, bent


def draw_hand(rng, shape, scale, tip, skin):
    """A hand with its forearm.

    Parameters
    ----------
    shape : (2,) int, height and width
    scale : float, pixels per mm
    tip : (2,) pixels, about where the middle finger ends
    skin : (3,) float, colour

    Returns
    -------
    Layer
    """
    s, heights = scale * rng.uniform(0.9, 1.65), _Heights(shape)
    way = rng.normal(-np.pi / 2, 0.9) if rng.random() < 0.6 else rng.uniform(-np.pi, np.pi)
    side, curls, bent = rng.choice([-1, 1]), *_gesture(rng)
    ahead, across = np.array([np.cos(way), np.sin(way)]), np.array([-np.sin(way), np.cos(way)]) * side
    thin = rng.uniform(0.85, 1.15)
    length = 95 * s + sum(FINGERS[1]) * s * max(np.cos(min(2 * curls[1], 1.6)), 0.25)
    wrist = np.asarray(tip) - ahead * length
    spread, creases = rng.uniform(-0.02, 0.03) if rng.random() < 0.5 else rng.uniform(0, 0.16), []
    towards = rng.choice([-1.0, 1.0])
    for k, bones in enumerate(FINGERS):
        off = (1.5 - k) * 20 * s
        knuckle = wrist + ahead * (92 - 3 * abs(k - 1)) * s + across * off
        angle = way + side * (1.5 - k) * spread + rng.normal(0, 0.05)
        own, flat = max(0.0, curls[k] + rng.normal(0, 0.12)), towards if rng.random() < 0.8 else -towards
        joints = _bend([*knuckle, rng.normal(0, 2) * s], angle, np.array(bones) * s, own, flat,
                       bent * rng.uniform(0.7, 1.2))
        radius = np.array([10.5, 9.2, 8.3, 6.8]) * s * thin * (0.86 if k == 3 else 1)
        for j in range(3):
            heights.cone(4 * k + j, joints[j], joints[j + 1], radius[j], radius[j + 1])
            creases.append((joints[j + 1, :2], radius[j + 1], angle, j == 2))
        heights.cone(20, [*wrist, 0], [*knuckle, 0], 21 * s, 12 * s)
    angle = way + side * rng.uniform(0.2, 1.0)
    root = wrist + ahead * 25 * s + across * 24 * s
    joints = _bend([*root, 0], angle, np.array([40, 32, 26]) * s, rng.uniform(0, 0.3), 1.0)
    for j, (ra, rb) in enumerate(((17, 12), (12, 10), (10, 7.5))):
        heights.cone(16 + j, joints[j], joints[j + 1], ra * s * thin, rb * s * thin)
    creases.append((joints[3, :2], 8 * s, angle, True))
    elbow = wrist - ahead * 300 * s
    heights.cone(21, [*wrist, -4 * s], [*elbow, -10 * s], 25 * s, 38 * s)
    return _lit_hand(rng, heights, creases, s, skin, rng.random() < 0.4)


def _lit_hand(rng, heights, creases, s, skin, sleeve):
    solid = heights.part >= 0
    z = np.where(solid, heights.z, 0)
    soft = cv2.GaussianBlur(z, (0, 0), 0.8)
    dy, dx = np.gradient(soft)
    normal = np.stack([-dx, -dy, np.ones_like(dx)])
    normal /= np.linalg.norm(normal, axis=0)
    light = np.array([rng.normal(0, 0.6), rng.normal(-0.5, 0.6), rng.uniform(0.6, 1.6)])
    lit = np.einsum("k,kij->ij", light / np.linalg.norm(light), normal)
    ambient = rng.uniform(0.35, 0.9)
    shade = (ambient + (1 - ambient) * np.clip(lit, 0, 1)) * np.maximum(normal[2], 0.3) ** rng.uniform(0.0, 0.35)
    deep = cv2.GaussianBlur(z, (0, 0), 5 * s / 2) - z
    shade *= 1 - rng.uniform(0.2, 0.6) * np.clip(deep / (8 * s), 0, 1)
    shade *= 1 + noise(rng, z.shape, (6, 20, 60), rng.uniform(0.01, 0.06))
    shade *= rng.uniform(0.9, 1.1) / max(float(shade[solid].mean()) if solid.any() else 1.0, 0.1)
    rgb = shade[..., None] * np.asarray(skin, np.float32)
    dorsal, nail = rng.random() < 0.6, np.clip(np.asarray(skin) * [1.1, 1.02, 1.05] + rng.uniform(0, 0.12), 0, 1)
    if rng.random() < 0.2:
        nail = rng.uniform(0, 0.9, 3)
    marks = np.zeros(z.shape, np.float32)
    for (x, y), radius, angle, end in creases:
        turn = np.degrees(angle)
        if end and dorsal:
            centre = (int(x), int(y))
            mask = np.zeros(z.shape, np.uint8)
            cv2.ellipse(mask, centre, (max(1, int(0.75 * radius)), max(1, int(0.6 * radius))), turn, 0, 360, 1, -1)
            at = mask.astype(bool)
            rgb[at] = shade[at, None] ** 0.5 * nail.astype(np.float32)
        elif not end:
            for shift in rng.normal(0, 0.15, rng.integers(1, 4)):
                a = np.array([-np.sin(angle), np.cos(angle)]) * radius * 0.8
                middle = np.array([x, y]) + np.array([np.cos(angle), np.sin(angle)]) * shift * radius
                ends = (tuple(int(v) for v in p) for p in (middle - a, middle + a))
                cv2.line(marks, *ends, 1.0, max(1, int(0.12 * radius)))
    rgb *= 1 - rng.uniform(0, 0.3) * cv2.GaussianBlur(marks, (0, 0), 0.6)[..., None]
    if sleeve:
        cloth = (heights.part == 21) & (heights.along > rng.uniform(0.0, 0.25))
        rgb[cloth] = shade[cloth, None] * rng.uniform(0.02, 0.9, 3).astype(np.float32)
    inside = cv2.GaussianBlur(solid.astype(np.float32), (0, 0), 0.6)
    colour = cv2.GaussianBlur((rgb * solid[..., None]).astype(np.float32), (0, 0), 0.6)
    colour = np.clip(colour / np.maximum(inside, 1e-3)[..., None], 0, 1)
    return Layer(colour, inside, cast_shadow(rng, inside, 6 * s, 0.6))


def draw_object(rng, shape, scale, tip, texture):
    """A microphone, a stick, a cup, a phone or a rag: a Layer; texture : (h, w, 3) float32, may cover it."""
    mask, mm = np.zeros(shape, np.uint8), scale
    kind = rng.random()
    way = rng.normal(np.pi / 2, 0.8)
    ahead = np.array([np.cos(way), np.sin(way)])
    point = lambda p: tuple(int(v) for v in np.round(p))
    base = np.full((*shape, 3), rng.uniform(0, 0.9, 3) if rng.random() < 0.5 else rng.uniform(0.02, 0.3), np.float32)
    if kind < 0.4:
        radius = rng.uniform(4, 30) * mm
        cv2.line(mask, point(tip), point(tip + ahead * 300 * mm), 1, max(1, int(radius * rng.uniform(0.3, 1.6))))
        if rng.random() < 0.7:
            cv2.circle(mask, point(tip), max(1, int(radius)), 1, -1)
    elif kind < 0.75:
        half = rng.uniform(18, 60, 2) * mm
        box = cv2.boxPoints((tuple(map(float, tip + ahead * half[0])), tuple(map(float, 2 * half)),
                             float(np.degrees(way))))
        cv2.fillConvexPoly(mask, np.int32(box), 1)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 9)))
        radii = rng.uniform(15, 60, len(angles)) * mm
        cv2.fillPoly(mask, [np.int32(tip + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1))], 1)
    if rng.random() < 0.35:
        base = texture.copy()
    gradient = 1 + noise(rng, shape, (2, 3), 0.15)
    if rng.random() < 0.6:                                               # round: darker towards its sides
        deep = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        gradient *= 1 - rng.uniform(0.3, 0.9) * (1 - np.minimum(deep / max(float(deep.max()), 1), 1)) ** 2
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.5)
    return Layer(np.clip(base * gradient[..., None], 0, 1), alpha, cast_shadow(rng, alpha, 6 * mm, 0.5))


def draw_glasses(rng, shape, scale, eyes):
    """A pair of glasses.

    Parameters
    ----------
    shape : (2,) int, height and width
    scale : float, pixels per mm
    eyes : (2, 2) float, pixels, centres of the eyes, left one in the picture first

    Returns
    -------
    layer : Layer of frame, bridge, pads and temples
    mask : (h, w) float32 in [0, 1], where they are, also where they are of clear plastic
    lenses : (h, w, 4) float32, colour and alpha of what the lenses reflect
    """
    big = 4
    s = scale * big
    apart = np.linalg.norm(eyes[1] - eyes[0]) / scale
    turn, drop = np.arctan2(*(eyes[1] - eyes[0])[::-1]) + rng.normal(0, 0.02), rng.uniform(-3, 9)
    yaw, wrap, ahead = rng.normal(0, 0.16), rng.uniform(0, 0.003), rng.uniform(8, 18)
    frame = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = eyes.mean(axis=0)

    def place(points, behind=0.0):
        """(n, 2) mm before the face -> pixels, seen under the yaw."""
        x, y = np.asarray(points, float).T
        z = ahead - wrap * x * x - behind
        return (middle + (np.stack([x * np.cos(yaw) + z * np.sin(yaw), y + drop], 1) @ frame.T) * scale) * big

    half, high = rng.uniform(20, 30), rng.uniform(14, 27)
    high = min(high, half * 1.05)
    centre = max(apart / 2 + rng.normal(0.5, 1.5), half + rng.uniform(5, 9))
    power, taper = rng.choice([2.0, 2.3, 3.0, 4.5]), rng.uniform(0, 0.18)
    angle = np.linspace(0, 2 * np.pi, 97)
    c, sn = np.cos(angle), np.sin(angle)
    x, y = np.sign(c) * np.abs(c) ** (2 / power) * half, np.sign(sn) * np.abs(sn) ** (2 / power) * high
    x = x * (1 - taper * np.clip(y / high, 0, 1)) - taper * y * 0.3
    wire = rng.random() < 0.6
    thick = rng.uniform(0.35, 1.5) if wire else rng.uniform(1.8, 5.5)
    mask = np.zeros((shape[0] * big, shape[1] * big), np.float32)
    lens = np.zeros_like(mask)
    line = lambda p, width: cv2.polylines(mask, [np.int32(np.round(p))], False, 1.0, max(1, round(width * s)),
                                          cv2.LINE_AA)
    half_rim = rng.random() < 0.12
    for sign in (-1, 1):
        rim = np.stack([sign * (centre + x), y], 1)
        cv2.fillPoly(lens, [np.int32(place(rim))], 1.0)
        part = rim[(y < 0.15 * high)][np.argsort(sign * rim[y < 0.15 * high, 0])] if half_rim else rim
        line(place(part), thick)
        if not wire and rng.random() < 0.7:
            top = rim[y < -0.4 * high]
            line(place(top[np.argsort(top[:, 0])]), thick * rng.uniform(1.1, 1.7))
        hinge = np.array([sign * (centre + half * 0.93), -high * rng.uniform(0.15, 0.6)])
        end = hinge + [sign * rng.uniform(3, 9), 0]
        line(place(np.stack([hinge, end])), thick * rng.uniform(1, 2.0))
        ear = np.array([sign * rng.uniform(66, 84), hinge[1] + rng.uniform(-4, 6)])
        back = rng.uniform(15, 75)
        line(np.stack([place(end[None])[0], place(ear[None], back)[0]]), rng.uniform(0.8, 1.6) * max(thick, 1.2))
        if rng.random() < 0.7:
            at = np.array([sign * (centre - half * 0.92), high * rng.uniform(0.0, 0.5)])
            pad = at + [-sign * rng.uniform(1, 5), rng.uniform(1, 7)]
            line(place(np.stack([at, (at + pad) / 2 - [sign, 0], pad])), 0.8)
            cv2.ellipse(mask, tuple(int(v) for v in place(pad[None], 6)[0]), (max(1, int(1.3 * s)), max(1, int(3 * s))),
                        15 * sign, 0, 360, float(rng.uniform(0.2, 0.8)), -1, cv2.LINE_AA)
    for k in range(2 if rng.random() < 0.12 else 1):
        inner, level = centre - half * 0.95, -high * rng.uniform(0.1, 0.45) - 7 * k
        t = np.linspace(-1, 1, 15)
        line(place(np.stack([t * inner, level - rng.uniform(0, 4) * (1 - t * t)], 1)), thick * rng.uniform(0.9, 1.6))
    size = shape[1], shape[0]
    alpha, lens = (cv2.resize(a, size, interpolation=cv2.INTER_AREA) for a in (mask, lens))
    shade = np.array(SHADES[rng.integers(len(SHADES))], np.float32) * rng.uniform(0.7, 1.3)
    if rng.random() < 0.15:
        shade = rng.uniform(0, 0.9, 3).astype(np.float32)
    shine = np.exp(noise(rng, shape, (8, 30), rng.uniform(0.2, 0.8 if wire else 0.35)))
    clear = shade.mean() > 0.7 and rng.random() < 0.6
    opaque = rng.uniform(0.35, 0.75) if clear else rng.uniform(0.4, 1) if wire else 1.0
    rgb = np.clip(shade * shine[..., None], 0, 1)
    shadow = cast_shadow(rng, alpha, 2.5 * scale, 0.45)
    glow = np.clip(noise(rng, shape, (3, 6), 0.5) - 0.2, 0, 1) * lens * rng.uniform(0, 0.6) * (rng.random() < 0.5)
    tint = rng.choice([[.9, .95, 1.], [.6, .9, .7], [.7, .7, 1.], [1., 1., 1.]])
    lenses = np.concatenate([np.broadcast_to(np.float32(tint), (*shape, 3)), glow[..., None]], axis=2)
    return Layer(rgb.astype(np.float32), alpha * np.float32(opaque), shadow), alpha, lenses.astype(np.float32)
