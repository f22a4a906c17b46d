"""A photo's beard: where it grows, the light without it, and how it is taken off.

Skin is matched to the mean face's and to the source's by how bright it is. A beard that is taken for skin is taken for
shade, and comes out bleached: light from above and a tone that pales towards the jaw explain it. So it is found first,
by how much finer light and dark change there than on the skin between eyes and nose, and by being much darker.
"""
from __future__ import annotations

import cv2
import numpy as np

from compositing.complexion import log_luminance, smoothed
from compositing.masks import closed, connected, grown
from compositing.ramps import ramp
from fitting.lift import BRIGHTEST, Texture
from fitting.texture import albedo_texture, bare_lips, fill, region_texture, skin_weight, weight_texture

MODES = ("keep", "off")
FINE, AROUND = 1 / 340, 1 / 170        # of the chart's side: what is finer is detail, and where it is gathered
HAIRY = 2.6                  # times the detail of bare skin: as much as hair has
LEAST_DETAIL = 0.004         # of log luminance, of bare skin: with less a photo is blurred
DARK = 0.22                  # of log luminance next to the mean face: darker than bare skin by so much is hair
BEARDED = 0.65, 0.4, 0.4     # share of upper lip (beside nose and lips), chin or jaws from which on hair is a beard
CLOSE, MARGIN = 0.03, 0.012  # of the chart's side: gaps in a beard, and what lies in its shadow
SHORT = 3.0                  # mm below the nose, beyond the mouth's corners and so on: what is no part of the areas
SIDEBURN = 50.0, 65.0        # mm from the face's middle between which a beard's upper edge rises to the eyes
UNDER_NOSE = 5.0             # mm by which a photo's nose may be seen above the model's
EDGE = 4.0                   # mm of the nose's base that say nothing about bare skin


def find_beard(model, texture, atlas):
    """Where a photo shows a beard: (S, S) float32 in [0, 1] with a soft edge, or None when it shows none.

    Parameters
    ----------
    texture : fitting.lift.Texture of the model's chart
    atlas : facemodel.atlas.Atlas of its size
    """
    skin, seen = skin_weight(model, atlas) > 0.9, texture.validity > 0.5
    bare = seen & skin & (_between_eyes_and_nose(model, atlas) > 0.5)
    if not bare.any():
        return None
    hair, dark = _hair(model, texture, atlas, bare)
    parts = [seen & skin & (part > 0.5) for part in _parts(model, atlas)]
    if not any(part.any() and hair[part].mean() > least for part, least in zip(parts, BEARDED)):
        return None
    area, higher = _beard_area(model, atlas), _beard_area(model, atlas, UNDER_NOSE)
    hair = closed(np.uint8(hair & (area > 0.1)), CLOSE) > 0
    over = connected(dark & (higher > 0.5), hair)               # a moustache reaches up to where the nose is seen
    near = np.float32(grown(hair, MARGIN)) * area
    near = np.maximum(near, grown(over, MARGIN / 2) * higher)
    return np.clip(2 * cv2.GaussianBlur(near, (0, 0), MARGIN * atlas.size / 2) * higher, 0, 1)


def without_beard(model, texture, atlas, beard):
    """A neutral texture whose beard is shaved: filled like what the photo does not show, with validity 0.

    beard : (S, S) float32 in [0, 1], see find_beard. Other parameters and result as of
    compositing.complexion.without_shine
    """
    lips, mouth = (f(model, part, atlas) for f, part in ((weight_texture, bare_lips(model)),
                                                         (region_texture, "mouth_interior")))
    mouth = closed(np.maximum(ramp(lips, 0.4, 0.7), np.minimum(20 * mouth, 1)), CLOSE / 2)
    beard = np.maximum(beard, atlas.mirrored(beard)) * (1 - mouth)       # what is filled from the other half, too
    base = weight_texture(model, np.float32(model.mean[:, 1] > model.mean[model.landmarks[33], 1] - EDGE), atlas)
    bare = texture.validity * (1 - beard) * (lips < 0.05) * (1 - region_texture(model, "nose", atlas) * base)
    filled = fill(texture.rgb, bare, model, atlas, albedo_texture(model, None, atlas)).clip(0, BRIGHTEST)
    rgb = texture.rgb + beard[..., None] * (filled - texture.rgb)
    return Texture(rgb.astype(np.float32), (texture.validity * (1 - beard)).astype(np.float32))


def _hair(model, texture, atlas, bare):
    """Texels that may be hair, and those that are as dark: two (S, S) bool. bare : (S, S) bool, to compare with."""
    blur = lambda a, share: cv2.GaussianBlur(a, (0, 0), share * atlas.size)
    luminance = log_luminance(texture.rgb)
    detail = np.sqrt(blur((luminance - blur(luminance, FINE)) ** 2, AROUND))
    away = luminance - log_luminance(albedo_texture(model, None, atlas))
    away = smoothed(away, skin_weight(model, atlas), AROUND * atlas.size)
    usual = max(float(np.median(detail[bare])), LEAST_DETAIL)
    dark = away < np.median(away[bare]) - DARK
    return (detail > HAIRY * usual) | dark, dark


def _between_eyes_and_nose(model, atlas):
    """(S, S) float32: where no beard grows."""
    eyes, nose = model.mean[model.landmarks[[36, 45]], 1].mean(), model.mean[model.landmarks[33], 1]
    return weight_texture(model, np.float32((model.mean[:, 1] > eyes) & (model.mean[:, 1] < nose)), atlas)


def _parts(model, atlas):
    """The upper lip, the chin and the jaws, three (S, S) float32, without what lies beside nose and lips."""
    aside, down = np.abs(model.mean[:, 0]), model.mean[:, 1]
    place = lambda landmark: model.mean[model.landmarks[landmark]]
    corner, chin = np.abs(place(48)[0]), place(8)[1]
    middle = aside < 0.8 * corner
    parts = (middle & (down > place(33)[1] + SHORT) & (down < place(51)[1] + SHORT),
             middle & (down > place(57)[1] + SHORT) & (down < chin + SHORT),
             (aside > corner + SHORT) & (aside < SIDEBURN[1]) & (down > place(48)[1]) & (down < chin + SHORT))
    return [weight_texture(model, np.float32(part), atlas) for part in parts]


def _beard_area(model, atlas, more=0.0):
    """Where beards grow: below the nose, a little higher on the cheeks, up to the eyes beside the ears: (S, S).

    more : float, mm that the nose's base lies higher
    """
    aside, down = np.abs(model.mean[:, 0]), model.mean[:, 1]
    eyes, nose = model.mean[model.landmarks[[36, 45]], 1].mean(), model.mean[model.landmarks[33], 1]
    corner = np.abs(model.mean[model.landmarks[48], 0])
    top = np.interp(aside, [corner / 2, corner, *SIDEBURN], [nose - more, nose - 4, nose - 8, eyes])
    skin = model.regions["face"] * (1 - model.regions["mouth_interior"]) * (1 - model.regions["eyes"])
    return weight_texture(model, np.float32(skin * ramp(down - top, -1, 1)), atlas)
