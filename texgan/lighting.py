"""Where a virtual person is filmed: light, camera, pose and background, drawn at random."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from facemodel.light import C0, sh_basis

SIZE = 512                       # pixels per side, unless asked for otherwise; focal lengths are for this
FACE_HEIGHT = 150.0              # mm, chin to the hair, of which the picture's share is drawn
LOBE = np.array([np.pi] + [2 * np.pi / 3] * 3 + [np.pi / 4] * 5)      # clamped cosine (Ramamoorthi, Hanrahan 2001)


@dataclass(frozen=True)
class Setup:
    """A place where a performance is filmed.

    light : (9, 3) float32, spherical harmonics in camera space
    lamps : (L, 6) float32, directions to the lamps (camera space) and their colours
    focal : float, pixels; distance : float, mm; rotation : (3,) radians, base pose (axis-angle, camera space)
    background : (SIZE, SIZE, 3) float32
    shine : float, strength of the skin's speculars; noise : float, standard deviation of the sensor's noise
    """

    light: np.ndarray
    lamps: np.ndarray
    focal: float
    distance: float
    rotation: np.ndarray
    background: np.ndarray
    shine: float
    noise: float


def draw_setup(rng):
    """Light, camera, pose and background: Setup."""
    ambient = rng.uniform(0.42, 0.62)
    warm = rng.normal(0, 0.05)
    tint = np.array([1 + warm, 1, 1 - warm])
    key = rng.uniform(0.3, 0.62)
    side = rng.uniform(-70, 70)
    lamps = [_lamp(side, rng.uniform(5, 50), key * tint)]
    if rng.random() < 0.7:
        lamps.append(_lamp(-side + rng.normal(0, 20), rng.uniform(-5, 30), rng.uniform(0.08, 0.25) * (2 - tint)))
    lamps = np.array(lamps)
    light = np.zeros((9, 3))
    light[0] = ambient / C0 * (2 - tint) ** 0.5
    for lamp in lamps:
        light += (LOBE * sh_basis(lamp[:3]))[:, None] * lamp[3:]
    light *= rng.uniform(0.82, 1.0) / (sh_basis(np.array([0.0, 0, -1])) @ light).mean()
    focal = rng.uniform(900, 2400)
    distance = focal * FACE_HEIGHT / (rng.uniform(0.45, 0.65) * SIZE)
    rotation = np.radians(rng.normal(0, 1, 3) * [4, 7, 3])
    return Setup(light.astype(np.float32), lamps.astype(np.float32), focal, distance, rotation, _background(rng),
                 rng.uniform(0.02, 0.09), rng.uniform(0.002, 0.008))


def _lamp(azimuth, elevation, colour):
    """Direction to a lamp (degrees from the camera, up), in camera space, and its colour: (6,)."""
    a, e = np.radians([azimuth, elevation])
    return np.array([np.sin(a) * np.cos(e), -np.sin(e), -np.cos(a) * np.cos(e), *colour])


def _background(rng):
    """A smooth picture: large patches of colour, some with a grain of smaller ones: (SIZE, SIZE, 3) float32."""
    out = np.zeros((SIZE, SIZE, 3), np.float32)
    for cells, strength in ((2, 0.25), (5, 0.12), (17, rng.choice([0.0, 0.06]))):
        patches = rng.normal(size=(cells, cells, 1)) + 0.35 * rng.normal(size=(cells, cells, 3))
        out += strength * cv2.resize(patches.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return np.clip(out + rng.uniform(0.2, 0.8), 0.02, 0.98).astype(np.float32)
