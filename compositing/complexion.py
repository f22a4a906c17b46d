"""A dark skin on a paler head: its colours drawn together, so far as a paler skin's lie together.

The darker a skin, the more its colour varies from place to place, in ratios: among the 63 people of the London set the
spread about the median colour halves while brightness grows by e^0.5. compositing.tone gives a face the source's tone
by a factor, which leaves ratios as they are, and a dark skin made pale by that has orange lids and a grey brow. What is
light and dark in the face, and with it most of the likeness, stays.
"""
from __future__ import annotations

import cv2
import numpy as np

from facemodel.atlas import build_atlas
from fitting.lift import BRIGHTEST, Texture
from fitting.texture import region_texture, skin_weight

SPREAD, SLOPE = 0.0415, -1.4         # of a skin's colour, fitted to the set: SPREAD * exp(SLOPE * (brightness + 0.4))
SURE = 0.1                   # by how much the source has to be brighter for all of it to be done
PORES = 1 / 128              # of the chart's side: what is finer does not count


def skin_colour(texture, skin):
    """A skin's median colour and how far others are from it.

    Parameters
    ----------
    texture : fitting.lift.Texture
    skin : (S, S) float32 in [0, 1]

    Returns
    -------
    brightness : float, mean over the channels of the logarithm of the median
    spread : float, root mean square of the logarithms' distance from the median's, without what is common to channels
    None for a texture that shows no skin
    """
    seen = texture.validity * skin > 0.5
    if not seen.any():
        return None
    smooth = cv2.GaussianBlur(texture.rgb, (0, 0), len(skin) * PORES)
    away = np.log(np.maximum(smooth[seen], 0.02))
    median = np.median(away, axis=0)
    away -= median
    away -= away.mean(axis=1, keepdims=True)
    return float(median.mean()), float(np.sqrt(np.square(away).sum(axis=1).mean()))


def drawn_together(model, texture, source):
    """A target's neutral texture with colours as alike as on a skin of the source's brightness.

    Nothing is done for a source that is as dark as the target, or to a skin that is as even as that.

    Parameters
    ----------
    texture, source : fitting.lift.Texture, neutral ones of the target and the source, of the model's chart

    Returns
    -------
    fitting.lift.Texture
    """
    atlas = build_atlas(model, len(texture.rgb))
    skin = skin_weight(model, atlas)
    own = skin_colour(texture, skin)
    other = skin_colour(source, skin_weight(model, build_atlas(model, len(source.rgb))))
    if own is None or other is None:
        return texture
    usual = SPREAD * np.exp(SLOPE * (other[0] + 0.4))
    share = np.clip((other[0] - own[0]) / SURE, 0, 1) * (1 - min(1.0, usual / max(own[1], 1e-6)))
    if share == 0:
        return texture
    region = lambda name: np.clip(region_texture(model, name, atlas), 0, 1)
    lips, face = region("lips"), region("face") * (1 - region("eyes")) * (1 - region("mouth_interior"))
    log = np.log(np.maximum(texture.rgb, 0.02))
    tint = log - log.mean(axis=2, keepdims=True)
    out = log
    for part, inside in ((face * (1 - lips), skin > 0.5), (face * lips, face * lips > 0.5)):
        middle = np.median(tint[inside], axis=0)
        out = out - np.float32(share) * part[..., None] * (tint - (middle - middle.mean()))
    rgb = np.where(face[..., None] > 0, np.exp(out), texture.rgb)
    return Texture(rgb.clip(0, BRIGHTEST).astype(np.float32), texture.validity)
