"""Pictures without colours: black and white, or toned, as old photos and films are.

In them a pixel's colour says no more than its brightness. A photo of that kind gets the colours that the model's people
have where they are as bright; and in a video of that kind a face loses its own.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from facemodel.atlas import uv_to_pixels
from facemodel.sampling import samples
from fitting.detection import around
from fitting.lift import BRIGHTEST, Texture
from fitting.texture import albedo_texture, region_texture
from fitting.yuv import LUMINANCE

LEVELS = 64                  # of luminance, that colours are told for
OWN_COLOUR = 0.02            # of the mean luminance, root mean square: with less a face has no colours of its own.
                             # Toned photos have .01, clips in colour from .03 on, photos of 77 people from .05 on
FACE_SIDE = 200              # pixels, to which larger faces are reduced: grain is no colour
GREY = 0.06                  # standard deviation of luminance about what the albedo's components explain of it
TELLING = 2000               # so many vertices' worth is what a face's texels tell, most of which go together


@dataclass(frozen=True)
class Toning:
    """What colour pictures of one kind have at each luminance.

    colours : (LEVELS, 3) float32 in [0, 1], at luminances evenly spread over [0, 1]
    """

    colours: np.ndarray

    def __call__(self, rgb):
        """A picture (..., 3) float32 in [0, 1] in these tones; its luminance is kept."""
        at = np.clip(rgb @ LUMINANCE, 0, 1) * (LEVELS - 1)
        low = np.minimum(at.astype(np.int32), LEVELS - 2)
        share = (at - low)[..., None].astype(np.float32)
        return self.colours[low] * (1 - share) + self.colours[low + 1] * share


def toning_of(pictures, landmarks):
    """What faces in pictures are toned with, or None where most of them have colours of their own.

    Parameters
    ----------
    pictures : sequence of (H, W, 3) uint8
    landmarks : sequence of (68, 2) pixels, one face in each

    Returns
    -------
    Toning, or None
    """
    faces = [_face(picture, points) for picture, points in zip(pictures, landmarks)]
    faces = [face for face in faces if face is not None and _own_colour(face) < OWN_COLOUR]
    if 2 * len(faces) <= len(pictures):
        return None
    pixels = np.concatenate(faces)
    luminance = pixels @ LUMINANCE
    # a cubic in luminance that is black at 0, so that it is known beyond the face's own range, too
    powers = luminance[:, None] ** np.arange(1, 4)
    held = 0.05 * len(pixels) ** 0.5 * np.eye(3)[1:]
    away = pixels - luminance[:, None]
    found = np.linalg.lstsq(np.concatenate([powers, held]), np.concatenate([away, np.zeros((2, 3))]), rcond=None)[0]
    grey = np.linspace(0, 1, LEVELS)
    colours = grey[:, None] + grey[:, None] ** np.arange(1, 4) @ found
    colours += (grey - colours @ LUMINANCE)[:, None]
    return Toning(np.clip(colours, 0, 1).astype(np.float32))


def _face(picture, landmarks):
    """Pixels (N, 3) in [0, 1] of a face, of the rectangle around its landmarks; None where it is outside."""
    crop = picture[around(landmarks)]
    if min(crop.shape[:2]) < 2:
        return None
    scale = FACE_SIDE / max(crop.shape[:2])
    if scale < 1:
        crop = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return crop.reshape(-1, 3).astype(np.float64) / 255


def _own_colour(pixels):
    """How far colours are from what luminance tells of them, over the mean luminance."""
    luminance = pixels @ LUMINANCE
    away = pixels - luminance[:, None]
    level = np.minimum((luminance * LEVELS).astype(int), LEVELS - 1)
    count = np.maximum(np.bincount(level, minlength=LEVELS), 1)
    usual = np.stack([np.bincount(level, away[:, c], LEVELS) for c in range(3)], axis=1) / count[:, None]
    return np.sqrt(((away - usual[level]) ** 2).sum(axis=1).mean()) / max(luminance.mean(), 1e-3)


def coloured(model, texture, atlas):
    """A neutral texture without colours in those that the model's people have where they are as bright.

    The albedo's components are fitted to the texture's luminance, as regression with their standard deviations as
    prior; the texture keeps its luminance and takes the fitted albedo's ratios of colours. Parameters and result as of
    compositing.complexion.without_shine.
    """
    luminance, at = texture.rgb @ LUMINANCE, uv_to_pixels(model.uv, atlas.size)
    weight = samples(texture.validity * region_texture(model, "face", atlas)
                     * (1 - region_texture(model, "mouth_interior", atlas)), at)
    weight = weight * TELLING / max(weight.sum(), 1e-6) / GREY ** 2
    basis = np.einsum("vcn,c->vn", model.albedo_basis, LUMINANCE)
    away = samples(luminance, at) - model.albedo_mean @ LUMINANCE
    normal = (basis * weight[:, None]).T @ basis + np.eye(basis.shape[1])
    fitted = albedo_texture(model, np.linalg.solve(normal, basis.T @ (weight * away)), atlas)
    ratio = luminance / np.maximum(fitted @ LUMINANCE, 0.02)
    return Texture((fitted * ratio[..., None]).clip(0, BRIGHTEST).astype(np.float32), texture.validity)
