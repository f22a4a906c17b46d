"""What a smile presses into a photo's cheeks: folds that would stay when the mouth on the other head does not smile.

The model says how much a photo smiles, but its shape has no folds, so that they are in the texture, with the shade of
cheeks that were lifted. The generator adds the folds of the source's smile, so that a smiling photo would have both.
"""
from __future__ import annotations

import cv2
import numpy as np

from compositing.complexion import log_luminance, smoothed
from compositing.ramps import ramp
from fitting.lift import BRIGHTEST, Texture
from fitting.texture import skin_weight, weight_texture

SMILES = 0.2, 0.4            # coefficient with which a photo begins to smile, and fully; most neutral ones have < .08
FINE, BROAD = 1 / 256, 1 / 28            # of the chart's side: folds are between pores and shading
DARK, LIGHT = 0.65, 0.35     # share that is taken from what is darker than around, and from what is lighter
BELOW_EYES, BESIDE = (14.0, 24.0), (50.0, 62.0)      # mm below the eyes and from the middle: begins, and ends
SOFT = 1 / 170               # of the chart's side
SEEN = 0.15                  # validity


def smile_of(model, expression):
    """How much an expression (n_exp,) smiles, in [0, 1]; 0 for a model whose expressions have no names for that."""
    smiles = [k for k, name in enumerate(model.expression_names) if str(name).startswith("mouthSmile")]
    return float(ramp(np.mean(np.asarray(expression)[smiles]), *SMILES)) if smiles else 0.0


def without_folds(model, texture, atlas, smile, beard=None):
    """A neutral texture with less of the folds around nose and mouth than a smile has.

    Light and dark between FINE and BROAD are brought nearer to what is around; pores, marks finer than that, lips and
    nose stay. Parameters and result as of compositing.complexion.without_shine, otherwise

    smile : float in [0, 1], see smile_of; with 0 nothing changes
    beard : optional (S, S) float32 in [0, 1], skin that stays as it is
    """
    if smile == 0:
        return texture
    skin = skin_weight(model, atlas) * (texture.validity > SEEN)
    if beard is not None:
        skin = skin * (1 - beard)
    luminance = log_luminance(texture.rgb)
    fine, broad = (smoothed(luminance, skin, share * atlas.size) for share in (FINE, BROAD))
    fold = fine - broad
    where = skin * cv2.GaussianBlur(_cheeks(model, atlas), (0, 0), SOFT * atlas.size)
    change = -smile * where * np.where(fold < 0, DARK, LIGHT) * fold
    rgb = texture.rgb * np.exp(change)[..., None]
    return Texture(rgb.clip(0, BRIGHTEST).astype(np.float32), texture.validity)


def _cheeks(model, atlas):
    """From below the eyes to the chin, without the nose: (S, S) float32 in [0, 1]."""
    aside, down = np.abs(model.mean[:, 0]), model.mean[:, 1]
    eyes = model.mean[model.landmarks[[36, 45]], 1].mean()
    weight = ramp(down - eyes, *BELOW_EYES) * ramp(aside, *BESIDE[::-1])
    return weight_texture(model, np.float32(weight * model.regions["face"] * (1 - model.regions["nose"])), atlas)
