"""A photo's skin, made ready to be lit by another light on another head.

What shines and what only the photo's light makes uneven would stay where it is: shine is dimmed, the two halves of a
face are as bright as each other, and what is left of hard light is drawn in to what skins have.
Colour varies from place to place in every skin, the more the darker it is: in ratios, the spread about the median
colour halves while brightness grows by e^0.5, among the 63 people of the London set, and in one of twenty it is a third
as large again. More than that is light of several colours, and the more there is of that, the nearer is all of it drawn
to the usual: nothing tells which of it is skin. So is a dark skin's on a paler head, since compositing.tone gives a
face the source's tone by a factor, which leaves ratios as they are: orange lids and a grey brow. Light and dark go the
same way: what of a skin is lighter or darker than on the mean face is so the more the darker the skin is, and on a
paler head would be blotches, the dark parts at least.
"""
from __future__ import annotations

import cv2
import numpy as np

from compositing.ramps import ramp
from facemodel.atlas import build_atlas
from fitting.lift import BRIGHTEST, Texture
from fitting.texture import albedo_texture, bare_lips, log_albedo, region_texture, skin_weight, weight_texture
from fitting.yuv import LUMINANCE

SHINE_WIDTH = 0.06           # of the chart's side: broader spots are no highlights
SHINY = 1.5, 1.7             # highlights of skin over the darker skin around it, luminance
MATT, SHINIEST = 1.15, 1.45  # likewise: what is left alone, and the brightest that is left
HALVES_WIDTH = 0.03          # of the chart's side: what is finer than that may differ between a face's halves
HALVES_DIFFER = 0.015        # of log colour, as may what is less
SPREAD, SLOPE = 0.0415, -1.4             # of a skin's colour, fitted to the set, see usual_spread
FAR = 2.5                    # spreads: colours further out are drawn in all the more
MOST, BEYOND = 1.33, 2.0     # times that: what hardly a skin has more of, and from which on what is light has hidden it
LIGHT, LIGHT_SLOPE = 0.053, -1.45        # of how far a skin's log luminance is from the mean face's, likewise
MOST_LIGHT = 1.5             # times that: with more, the photo's light is in it
IN_BEARDS = 0.5              # share with which such light is taken out of what may be a beard
LIGHT_PART = 0.3             # share of that with which what is lighter is evened: it tells more of a face than it mars
FINE = 0.5                   # share of that with which dark pores and lines are evened
MARK = 0.3                   # of log luminance: what is further off is a beard or a mole, and changes no more
SHADOW = 0.5                 # likewise, where light is taken out
LIPS_VARY, LIPS_SLOPE = 0.101, -0.73     # of lips' log luminance, fitted to the set likewise
SURE = 0.1                   # by how much the source has to be brighter for all of it to be done
PORES = 1 / 128              # of the chart's side: what is finer is no skin's colour
AROUND = 0.02                # of the chart's side, from which brows, lips and eyes take over what happens to skin
BELOW_NOSE = 6.0             # mm below the nose's base over which a beard begins


def without_shine(model, texture, atlas):
    """A neutral texture whose highlights are no stronger than those of matt skin.

    Shine is light off the skin's surface. It adds to what the skin's colour gives back, so that beside dark skin it is
    twice as bright, and a texture that is lit again multiplies it: metal. Where skin is brighter than the darker skin
    around it (a grey opening) by more than MATT, the rest is scaled down so that all but a thousandth of the skin stays
    below SHINIEST. That is done to skins beyond SHINY, wholly from its second value on.

    Parameters
    ----------
    texture : fitting.lift.Texture of the model's chart
    atlas : facemodel.atlas.Atlas of its size

    Returns
    -------
    fitting.lift.Texture, of the same validity
    """
    skin, luminance = skin_weight(model, atlas), texture.rgb.mean(axis=2)
    step = max(1, atlas.size // 256)
    small = cv2.resize(luminance, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(skin, small.shape[::-1], interpolation=cv2.INTER_AREA) > 0.9
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(SHINE_WIDTH * len(small)) + 1,) * 2)
    low = cv2.erode(np.where(inside, cv2.GaussianBlur(small, (0, 0), 1.0), np.float32(9)), kernel)
    low = cv2.dilate(np.where(low < 9, low, 0), kernel)
    known = (low > 0).astype(np.float32)
    blur = lambda a: cv2.GaussianBlur(a, (0, 0), SHINE_WIDTH * len(small) / 2)
    base = cv2.resize(blur(low) / np.maximum(blur(known), 0.01), luminance.shape[::-1])
    ratio = luminance / np.maximum(base, 0.02)
    seen = (texture.validity * skin > 0.5) & (base > 0)
    if not seen.any() or (most := float(np.quantile(ratio[seen], 0.999))) <= SHINY[0]:
        return texture
    dimmed = MATT + (ratio - MATT) * (SHINIEST - MATT) / (most - MATT)
    much = min(1.0, (most - SHINY[0]) / (SHINY[1] - SHINY[0]))
    cover = np.minimum(skin + region_texture(model, "eyebrows", atlas), 1)          # skin shines between hairs, too
    gain = np.where(ratio > MATT, dimmed / np.maximum(ratio, MATT), 1) ** (cover * np.float32(much))
    shine = luminance * (1 - gain)                              # as white as the light, whatever the skin's colour
    return Texture(np.maximum(texture.rgb - shine[..., None], 0.5 * texture.rgb).astype(np.float32), texture.validity)


def evenly_lit(model, texture, atlas):
    """A neutral texture whose halves are, broadly, within HALVES_DIFFER of their common colour.

    The fit explains light by second-order harmonics, which know no shadows. What is left of them lies on one half of
    the face, where skin is alike. Parameters and result as of without_shine.
    """
    seen = texture.validity * skin_weight(model, atlas)
    both = np.minimum(seen, atlas.mirrored(seen))
    log, step = log_albedo(texture.rgb), max(1, atlas.size // 256)
    small = lambda a: cv2.resize(a, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
    broad = lambda a: cv2.GaussianBlur(small(a), (0, 0), HALVES_WIDTH * atlas.size / step)
    away = broad((log - atlas.mirrored(log)) * both[..., None]) / (2 * broad(both) + 0.04)[..., None]
    away = np.sign(away) * np.maximum(np.abs(away) - HALVES_DIFFER, 0)
    away = cv2.resize(away, both.shape, interpolation=cv2.INTER_LINEAR)
    face = region_texture(model, "face", atlas)[..., None]
    return Texture((texture.rgb * np.exp(-face * away)).clip(0, BRIGHTEST).astype(np.float32), texture.validity)


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
    away = log_albedo(smooth[seen])
    median = np.median(away, axis=0)
    away -= median
    away -= away.mean(axis=1, keepdims=True)
    return float(median.mean()), float(np.sqrt(np.square(away).sum(axis=1).mean()))


def usual_spread(brightness):
    """How far a skin's colours usually lie from their median, as skin_colour measures both."""
    return SPREAD * np.exp(SLOPE * (brightness + 0.4))


def evenly_coloured(model, texture, atlas):
    """A neutral texture whose skin has no more colours than skins have. Parameters and result as of without_shine."""
    own = skin_colour(texture, skin_weight(model, atlas))
    if own is None:
        return texture
    usual = usual_spread(own[0])
    wanted = usual * np.interp(own[1] / usual, [MOST, BEYOND], [MOST, 1])
    return _drawn_together(model, texture, atlas, own[1], wanted)


def evenly_shaded(model, texture, atlas):
    """A neutral texture with no more light and dark next to the mean face than skins have.

    What is hard about a photo's light, or was made hard afterwards, the fit's harmonics do not explain: shadows beside
    the nose and under lips, contrast. It is measured where no beard grows, and drawn in everywhere, in what may be a
    beard by IN_BEARDS, and by SHADOW at most. Brows, lips and eyes change like the skin around them; what is finer than
    PORES, by less. Parameters and result as of without_shine.
    """
    nose = model.mean[model.landmarks[33], 1]
    below = weight_texture(model, np.float32(ramp(model.mean[:, 1], nose, nose + BELOW_NOSE)), atlas)
    skin = skin_weight(model, atlas)
    bare = (texture.validity * skin > 0.5) & (below == 0) & (region_texture(model, "eyelids", atlas) < 0.1)
    if not bare.any():
        return texture
    luminance, usual = log_luminance(texture.rgb), log_luminance(albedo_texture(model, None, atlas))
    inside = np.minimum(2 * skin, 1)
    away = luminance - usual
    away -= np.median(away[bare])
    broad = smoothed(away, inside, PORES * atlas.size)
    own = float(np.sqrt(np.square(broad[bare]).mean()))
    most = MOST_LIGHT * LIGHT * float(np.exp(LIGHT_SLOPE * (np.median(luminance[bare]) + 0.4)))
    if own <= most:
        return texture
    share, weight = most / own, inside * (1 - (1 - IN_BEARDS) * below)
    change = -(1 - _nearer(share, np.abs(broad) / own)) * SHADOW * np.tanh(broad / SHADOW)
    around = smoothed(change, weight, AROUND * atlas.size) * (1 - inside)
    gain = weight * (change - (1 - np.sqrt(share)) * (away - broad)) + around
    gain *= region_texture(model, "face", atlas)
    return Texture((texture.rgb * np.exp(gain)[..., None]).clip(0, BRIGHTEST).astype(np.float32), texture.validity)


def suited_to(model, texture, source):
    """A target's neutral texture as even in colour and brightness as a skin of the source's tone, if that is paler.

    Parameters
    ----------
    texture, source : fitting.lift.Texture, neutral ones of the target and the source, of the model's chart

    Returns
    -------
    fitting.lift.Texture
    """
    atlas = build_atlas(model, len(texture.rgb))
    own = skin_colour(texture, skin_weight(model, atlas))
    other = skin_colour(source, skin_weight(model, build_atlas(model, len(source.rgb))))
    if own is None or other is None:
        return texture
    share = float(np.clip((other[0] - own[0]) / SURE, 0, 1))
    if share == 0:
        return texture
    texture = _drawn_together(model, texture, atlas, own[1], own[1] + share * (usual_spread(other[0]) - own[1]))
    fade = share * (1 - np.exp(LIGHT_SLOPE * (other[0] - own[0])))
    return _evened(model, texture, atlas, fade, share, LIPS_VARY * np.exp(LIPS_SLOPE * (other[0] + 0.4)))


def _drawn_together(model, texture, atlas, spread, wanted):
    """A texture whose colours lie as near their median as is wanted of those with this spread; light and dark stay."""
    if wanted >= spread:
        return texture
    share = np.float32(wanted / spread)
    region = lambda name: region_texture(model, name, atlas)
    lips = weight_texture(model, bare_lips(model), atlas)
    face = region("face") * (1 - region("eyes")) * (1 - region("mouth_interior"))
    log, luminance = log_albedo(texture.rgb), np.maximum(texture.rgb, 0) @ LUMINANCE
    tint = log - log.mean(axis=2, keepdims=True)
    for part, inside in ((face * (1 - lips), skin_weight(model, atlas) > 0.5), (face * lips, face * lips > 0.5)):
        if not inside.any():
            continue
        middle = np.median(tint[inside], axis=0)
        away = tint - (middle - middle.mean())
        nearer = _nearer(share, np.linalg.norm(away, axis=2, keepdims=True) / spread)
        log = log - part[..., None] * (1 - nearer) * away
    rgb = np.exp(log)
    # not the logarithms' mean, which of what has lost a channel in a photo's shadows is darker than it looks
    rgb *= (luminance / np.maximum(rgb @ LUMINANCE, 1e-3))[..., None]
    rgb = np.where(face[..., None] > 0, rgb, texture.rgb)
    return Texture(rgb.clip(0, BRIGHTEST).astype(np.float32), texture.validity)


def _nearer(share, distance):
    """By what a distance from the usual, in usual ones, is multiplied: `share`, and less where it is FAR."""
    far = distance / FAR
    return share * (share + (1 - share) * np.tanh(far) / np.maximum(far, 1e-6))


def smoothed(values, inside, width):
    """Means of what is inside around every place: (S, S) float32 of values and weights (S, S); width in texels."""
    blur = lambda a: cv2.GaussianBlur(a, (0, 0), width)
    return blur(values * inside) / np.maximum(blur(inside), 1e-3)


def log_luminance(rgb):
    """(S, S) float32, of the luminance of colours (S, S, 3)."""
    return np.log(np.maximum(rgb @ LUMINANCE, 0.02))


def _evened(model, texture, atlas, fade, share, lips_usual):
    """A texture whose skin is nearer to the mean face in what is dark, by `fade` of the way, and less in what is light.

    Marks change by MARK at most, what is dark and finer than PORES by FINE of all that: a face without it looks
    retouched. Lips that vary by more than is usual come as near to that as `share` says.
    """
    skin, lips = skin_weight(model, atlas), weight_texture(model, bare_lips(model), atlas)
    lips = lips * region_texture(model, "face", atlas)
    log = log_albedo(texture.rgb).mean(axis=2)
    away = log - log_albedo(albedo_texture(model, None, atlas)).mean(axis=2)
    broad = lambda a, inside: smoothed(a, inside, PORES * atlas.size)
    gain = np.zeros_like(log)
    if (seen := texture.validity * skin > 0.5).any():
        off = MARK * np.tanh((away - np.median(away[seen])) / MARK)
        off += (FINE - 1) * np.minimum(off - broad(off, skin), 0)
        brows = region_texture(model, "eyebrows", atlas)                  # of which only what is light is skin
        dark, light, inside = np.minimum(off, 0), np.maximum(off, 0), np.minimum(2 * skin, 1)
        gain -= fade * (inside * (dark + LIGHT_PART * light) + (1 - inside) * brows * light)
    if (seen := texture.validity * lips > 0.5).any():
        off = broad(log, lips) - np.median(log[seen])
        gain -= share * max(0.0, 1 - lips_usual / max(float(off[seen].std()), 1e-6)) * lips * off
    return Texture((texture.rgb * np.exp(gain)[..., None]).clip(0, BRIGHTEST).astype(np.float32), texture.validity)
