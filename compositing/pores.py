"""Pores where a photo shows no skin: what hair or glasses hid is filled smoothly, and would look like wax beside skin.

Fine detail of skin is a micro-texture, known by its spectrum: white noise, convolved with a piece of the skin that is
seen, looks like that skin (asymptotic discrete spot noise: B. Galerne, Y. Gousseau, J.-M. Morel, "Random phase
textures: theory and synthesis", 2011, doi:10.1109/TIP.2010.2052822).
"""
from __future__ import annotations

import cv2
import numpy as np
from scipy.signal import fftconvolve

from compositing.complexion import PORES
from fitting.lift import BRIGHTEST, Texture
from fitting.texture import log_albedo, region_texture, share_known, skin_weight

PIECE = 1 / 16               # of the chart's side: a piece of skin
USUAL = 0.5                  # quantile of the pieces' detail that is taken: neither the smoothest nor a beard
LEAST = 4                    # pieces that have to be seen


def with_pores(model, texture, atlas):
    """A neutral texture with its own skin's fine detail where neither half of the face was seen.

    Parameters and result as of compositing.complexion.without_shine; the same bytes every time, and the texture itself
    where all was seen, or too little skin.
    """
    known = share_known(texture.validity)
    skin = skin_weight(model, atlas)
    hidden = (1 - known) * (1 - atlas.mirrored(known)) * region_texture(model, "face", atlas)
    hidden *= np.clip(4 * skin - 1, 0, 1)                       # no brows, lips and eyes; lids, which weigh by half
    log = log_albedo(texture.rgb)
    fine = log - cv2.GaussianBlur(log, (0, 0), PORES * atlas.size)
    piece = _usual_piece(fine, known * skin, round(PIECE * atlas.size))
    if piece is None or hidden.max() < 0.5:
        return texture
    noise = np.random.default_rng(0).standard_normal(hidden.shape)
    spot = (piece - piece.mean(axis=(0, 1))) * np.outer(*[np.hanning(len(piece))] * 2)[..., None]
    spot *= piece.std() / max(float(np.sqrt(np.square(spot).sum(axis=(0, 1)).mean())), 1e-9)
    pores = np.stack([fftconvolve(noise, spot[..., k], mode="same") for k in range(3)], axis=-1)
    rgb = texture.rgb * np.exp(hidden[..., None] * (pores - fine))
    return Texture(rgb.clip(0, BRIGHTEST).astype(np.float32), texture.validity)


def _usual_piece(fine, seen, side):
    """The piece (side, side, 3) of seen skin whose detail is as strong as usual, or None."""
    pieces = [fine[y:y + side, x:x + side] for y in range(0, len(fine) - side, side // 2)
              for x in range(0, len(fine) - side, side // 2) if seen[y:y + side, x:x + side].min() > 0.9]
    if len(pieces) < LEAST:
        return None
    pieces.sort(key=np.var)
    return pieces[int(USUAL * (len(pieces) - 1))]
