"""A face that belongs to nobody, drawn from the model, for making a person anonymous."""
from __future__ import annotations

import cv2
import numpy as np

from compositing.retarget import TEXTURE_SIZE, TargetFace
from facemodel.atlas import build_atlas
from fitting.texture import albedo_texture

IDENTITY_SPREAD, ALBEDO_SPREAD = 0.9, 0.8     # standard deviations; 1 is the model's own spread


def virtual_face(model, seed, size=TEXTURE_SIZE):
    """Samples identity and albedo: int seed -> TargetFace; the same seed gives the same face.

    Skin grain is added, since a face model's albedo has none: band-limited noise of 1 % of the albedo.
    """
    rng = np.random.default_rng(seed)
    identity = rng.normal(0, IDENTITY_SPREAD, model.identity_count).clip(-2, 2)
    albedo = rng.normal(0, ALBEDO_SPREAD, model.albedo_count).clip(-2, 2)
    atlas = build_atlas(model, size)
    texture = albedo_texture(model, albedo, atlas)
    grain = rng.normal(0, 1, (size, size)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.8) - cv2.GaussianBlur(grain, (0, 0), 2.5)
    texture = texture * (1 + 0.01 / grain.std() * grain[..., None])
    return TargetFace(identity.astype(np.float32), np.zeros(model.expression_count, np.float32),
                      texture.clip(0, 1.2).astype(np.float32), atlas.mask.astype(np.float32))
