"""A photo's face as it is when nothing is before it: no hair, no glasses' reflections, no wall beside it, lips shut.

All that would stay where it is on another head: hair falls into the forehead and hangs beside the eyes, lenses mirror a
window, a rim of the texture is background where the fitted head is too wide, and a smile's teeth are a white line when
the lips close. What goes is filled like what the photo does not show; only reflections are dimmed.
"""
from __future__ import annotations

import cv2
import numpy as np

from compositing.complexion import PORES
from compositing.masks import connected, grown
from compositing.ramps import ramp
from fitting.lift import BRIGHTEST, Texture
from fitting.texture import albedo_texture, bare_lips, fill, log_albedo, region_texture, skin_weight, weight_texture
from fitting.yuv import LUMINANCE

HAIR = 0.72                  # of the skin's median luminance: darker is hair, on the forehead
STRAND = 0.014               # half a strand's width at most, of the chart's side
STRAND_DEPTH = 0.05, 0.12    # by how much strands are darker: near other hair, and anywhere
UNEVEN = 0.06                # how deep nine in ten dips as narrow as strands are, in most skin between brows and mouth
MOST_UNEVEN = 2.0            # times that; with more, hair lies there, too
NEAR_HAIR = 0.06             # of the chart's side
HAIR_MARGIN = 0.012          # of the chart's side: what lies in the hair's shadow
BROW_MARGIN = 3.0            # mm
FRINGE, FRINGE_HALF = 0.7, 0.3   # share of the forehead, and of what is around a brow: with more, it is hidden
BESIDE = 10.0                # mm below the eyes, down to which hair is followed beside them
OUTER_BROW = 0.6             # of the way from the face's middle to a brow's tail: outside, hair may hang over the brow
CORNER_MARGIN = 4.0          # mm beside the eyes' corners, from which on strands are followed down to the nose's base
OTHER_COLOUR, OTHER_SKIN = 0.13, 1.6     # log colour's least distance from the skin's; and over nine in ten of its own
HARDLY_DARKER = 0.95         # of the skin's median luminance: hair of another colour is darker than that
BRIDGED = 0.02               # of the chart's side: brows interrupt a strand
BACKGROUND = 1.5             # of the skin's median luminance: brighter is background, at the outline
OUTLINE = 0.04               # of the chart's side, from where nothing is seen inwards
TEETH_REACH, TEETH_MARGIN = 0.035, 0.008  # of the chart's side, from the mouth's inside, and around teeth
OPEN, LESS_RED = 0.1, 0.08   # share of the mouth that a smile shows; of log redness less than skin's
TOOTH = 1.1                  # of the lips' median luminance: brighter and less red than lips is a tooth
GAP = 0.6                    # of the lips' median luminance: darker is what lies between and beside teeth
LENS, MIRRORED = 30.0, 0.2    # mm around the eyes; of log luminance: what lenses mirror is brighter than that


def without_hair(model, texture, atlas):
    """A neutral texture whose forehead and temples are bare: hair there would stay on another head's forehead.

    Above and beside the brows what is much darker than the face's skin counts as hair, or a hat, as do narrow upright
    strands that are darker than what lies beside them (folds lie across), and their surroundings for the light they
    take, and what hangs down from it over brows, lids and beside the eyes. How much darker is measured by how uneven
    the skin is below the brows: dark skin that shines is twice as uneven as pale skin. Dots are no hair. What is hair
    is filled like what the photo does not show, and its validity is 0. Parameters and result as of
    compositing.complexion.without_shine otherwise.
    """
    forehead, skin = forehead_and_temples(model, atlas), skin_weight(model, atlas)
    luminance, seen = texture.rgb.mean(axis=2), texture.validity > 0.5
    reference = seen & (skin > 0.5) & (forehead < 0.1)
    if not reference.any():
        return texture
    soft = cv2.GaussianBlur(luminance, (0, 0), atlas.size / 512) / np.median(luminance[reference])
    width = STRAND * atlas.size
    depth = cv2.morphologyEx(soft, cv2.MORPH_BLACKHAT, np.ones((1, 2 * round(width) + 1), np.uint8))
    below = seen & (_between(model, atlas) * skin > 0.5) & (forehead < 0.1)
    uneven = np.clip(np.quantile(depth[below], 0.9) / UNEVEN, 1, MOST_UNEVEN) if below.any() else 1.0
    dark = soft < HAIR ** uneven
    dark_or_narrow = dark | (depth > uneven * STRAND_DEPTH[1])
    sure = dark_or_narrow & (forehead > 0.5)
    _, label, found, _ = cv2.connectedComponentsWithStats(sure.astype(np.uint8))
    dots = (found[:, cv2.CC_STAT_AREA] < width ** 2) & (found[:, cv2.CC_STAT_HEIGHT] < 2 * width)
    sure &= ~dots[label]
    hair = sure | (grown(sure, NEAR_HAIR) & (depth > uneven * STRAND_DEPTH[0]) & (forehead > 0.5))
    hair = ~grown(~grown(hair, 2 * HAIR_MARGIN), 2 * HAIR_MARGIN)           # with what it encloses
    over = _under_forehead(model, atlas, forehead > 0.5, dark, hair, seen)
    hanging = connected(dark & ((forehead > 0.5) | (over > 0.5)), hair) & (over > 0.5)
    hair = grown(hair | hanging, HAIR_MARGIN)
    where = np.maximum(forehead, grown(hanging, HAIR_MARGIN) * over)
    beside = _strands_beside(model, texture, atlas, reference, soft, dark_or_narrow, hair & (where > 0.5))
    beside = grown(beside, HAIR_MARGIN)
    return _filled(model, texture, atlas, hair | beside, np.maximum(where, beside))


def _strands_beside(model, texture, atlas, reference, soft, dark, hair):
    """Hair that hangs down beside the eyes and over the cheeks, of any colour, from what was found: (S, S) bool.

    There it need not be dark: it is of another colour than skin, and darker if by little.

    reference : (S, S) bool, skin without hair
    soft : (S, S) float32, luminance over the skin's
    dark, hair : (S, S) bool, dark as hair or strands are, and found
    """
    if not hair.any():
        return hair
    aside, down = np.abs(model.mean[:, 0]), model.mean[:, 1]
    corner, nose = aside[model.landmarks[[36, 45]]].mean(), down[model.landmarks[33]]
    skin = model.regions["face"] * (1 - np.maximum(model.regions["eyes"], model.regions["eyelids"]))
    skin = skin * (model.regions["eyebrows"] < 0.05) * (aside > corner + CORNER_MARGIN) * (down < nose)
    log = log_albedo(cv2.GaussianBlur(texture.rgb, (0, 0), atlas.size / 512))
    tint = log - log.mean(axis=2, keepdims=True)
    away = np.linalg.norm(tint - np.median(tint[reference], axis=0), axis=2)
    other = away > max(OTHER_COLOUR, OTHER_SKIN * float(np.quantile(away[reference], 0.9)))
    strand = dark | (other & (soft < HARDLY_DARKER))
    strand &= (weight_texture(model, np.float32(skin), atlas) > 0.5) & (texture.validity > 0.15)
    return connected(strand, strand & grown(hair, BRIDGED))


def _under_forehead(model, atlas, forehead, dark, hair, seen):
    """Where hair hangs down from the forehead, over the eyes and beside them: (S, S) float32 in [0, 1].

    On the brows dark is a brow, unless most of the forehead is hidden, or, for the outer part of one, the skin around.

    forehead, dark, hair, seen : (S, S) bool, where hair was looked for, may be, was found, and what the photo shows
    """
    brows, aside, down = model.regions["eyebrows"], np.abs(model.mean[:, 0]), model.mean[:, 1]
    tail, eyes = aside[brows > 0.5].max(), down[model.landmarks[[36, 45]]].mean()
    free = model.regions["face"] * (1 - np.maximum(model.regions["eyes"], model.regions["eyelids"]))
    above, beside = free * _fade(eyes - down), free * _fade(aside - tail) * _fade(eyes + BESIDE - down)
    outer, brow = above * _fade(aside - OUTER_BROW * tail), (brows > 0.05).astype(np.float32)
    around = (outer > 0.5) & (aside < tail) & (brows < 0.01)
    above, beside, outer, brow, around = (weight_texture(model, np.float32(w), atlas)
                                          for w in (above, beside, outer, brow, around))
    over = np.maximum(above, beside) * (1 - brow)
    if (inside := seen & forehead).any() and hair[inside].mean() > FRINGE:
        return np.maximum(over, above)
    reached = connected(dark & (forehead | (over > 0.5)), hair)
    for half in (np.s_[:, :atlas.size // 2], np.s_[:, atlas.size // 2:]):
        inside = (seen & (around > 0.5))[half]
        if inside.any() and reached[half][inside].mean() > FRINGE_HALF:
            over[half] = np.maximum(over, outer)[half]
    return over


def forehead_and_temples(model, atlas):
    """The forehead above the brows, and the temples beside them down to the eyes: (S, S) float32 in [0, 1]."""
    brows, aside, down = model.regions["eyebrows"] > 0.5, np.abs(model.mean[:, 0]), model.mean[:, 1]
    top, tail, eyes = down[brows].min() - BROW_MARGIN, aside[brows].max(), down[model.landmarks[[36, 45]]].mean()
    above, beside = _fade(top - down), _fade(aside - tail) * _fade(eyes - down)
    weight = model.regions["face"] * np.maximum(above, beside) * (model.regions["eyebrows"] < 0.05)
    return weight_texture(model, weight, atlas)


def _between(model, atlas):
    """From the brows down to the nose's base, where hardly anyone has hair on the skin: (S, S) float32 in [0, 1]."""
    nose, brows = model.mean[model.landmarks[33], 1], model.mean[model.regions["eyebrows"] > 0.5, 1].max()
    inside = (model.mean[:, 1] > brows) & (model.mean[:, 1] < nose)
    return weight_texture(model, inside.astype(np.float32), atlas)


def without_background(model, texture, atlas):
    """A neutral texture without what bright background the outline of the cheeks and the jaw has caught.

    Where the fitted head is a little wider than the one in the photo, a rim of the texture is wall, sky or collar; a
    bright line at the jaw is what is seen of it. Below the eyes what is connected to where nothing is seen, no further
    away than OUTLINE, and brighter than BACKGROUND of the skin, is filled like what the photo does not show. Parameters
    and result as of without_hair.
    """
    unseen, inside = texture.validity < 0.15, texture.validity * skin_weight(model, atlas) > 0.5
    if not inside.any():
        return texture
    edge = np.zeros_like(unseen)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    outside = connected(unseen, edge & unseen)                 # and not the inside of the mouth
    near = grown(outside, OUTLINE)
    eyes, lips = model.mean[model.landmarks[[36, 45]], 1].mean(), region_texture(model, "lips", atlas)
    near &= (weight_texture(model, np.float32(model.mean[:, 1] > eyes), atlas) > 0.5) & (lips < 0.1) & ~outside
    luminance = texture.rgb.mean(axis=2)
    soft = cv2.GaussianBlur(luminance, (0, 0), atlas.size / 512)
    caught = connected(near & (soft > BACKGROUND * np.median(luminance[inside])), outside)
    return _filled(model, texture, atlas, grown(caught, HAIR_MARGIN))


def with_shut_mouth(model, texture, atlas):
    """A neutral texture without the inside of the mouth and the teeth that a smile shows.

    Inside the mouth the source is drawn; where it shows nothing, a smile's teeth would be a white line between shut
    lips. Some are on the chart's lips, for a fit opens the lips less than a broad smile does: near the inside, what is
    bright and less red than skin, and the dark of gaps and corners. All that is filled like what the photo does not
    show. Parameters and result as of without_hair.
    """
    inside = region_texture(model, "mouth_interior", atlas) > 0.5
    near = grown(inside, TEETH_REACH) & ~inside & (region_texture(model, "lips", atlas) > 0.5)
    seen, lips = texture.validity > 0.5, weight_texture(model, bare_lips(model), atlas) > 0.6
    lips &= seen & ~grown(inside, HAIR_MARGIN)
    skin = seen & (skin_weight(model, atlas) > 0.5)
    if not (lips.any() and skin.any()) or seen[inside].mean() < OPEN:
        return texture
    soft = cv2.GaussianBlur(texture.rgb, (0, 0), atlas.size / 730)
    log, luminance = log_albedo(soft), soft @ LUMINANCE
    red = log[..., 0] - log[..., 1]
    usual = np.median(luminance[lips])
    white = (luminance > usual) & (red < np.median(red[skin]) - LESS_RED)
    white |= (luminance > TOOTH * usual) & (red < np.median(red[lips]) - LESS_RED)
    other = white | (luminance < GAP * usual)
    teeth = grown(connected(other & near, other & near & grown(inside, HAIR_MARGIN)), TEETH_MARGIN)
    edge = cv2.GaussianBlur(np.float32(teeth), (0, 0), TEETH_MARGIN * atlas.size / 2)
    gone = np.maximum(np.clip(2 * edge, 0, 1) * ~inside, inside)
    validity = (texture.validity * (1 - gone)).astype(np.float32)
    filled = _completed(model, texture.rgb, validity, atlas)
    return Texture((texture.rgb + gone[..., None] * (filled - texture.rgb)).astype(np.float32), validity)


def without_reflections(model, texture, atlas):
    """A neutral texture, of a photo with glasses, without what their lenses mirror on the skin around the eyes.

    There what is brighter than elsewhere, next to the mean face, is brought down to MIRRORED, and takes the tint of the
    skin instead of the light's. Parameters and result as of compositing.complexion.without_shine.
    """
    middle = [model.mean[model.landmarks[k:k + 6]].mean(axis=0) for k in (36, 42)]
    distance = np.min([np.linalg.norm(model.mean - m, axis=1) for m in middle], axis=0)
    inside = _fade(LENS - distance) * (1 - model.regions["eyes"]) * (1 - model.regions["eyebrows"])
    behind = weight_texture(model, inside, atlas)
    log = log_albedo(texture.rgb)
    away = log.mean(axis=2) - log_albedo(albedo_texture(model, None, atlas)).mean(axis=2)
    seen = (texture.validity * skin_weight(model, atlas) > 0.5) & (behind == 0)
    if not seen.any():
        return texture
    away = cv2.GaussianBlur(away, (0, 0), PORES * atlas.size / 2) - np.median(away[seen])
    excess = (behind * np.maximum(away - MIRRORED, 0))[..., None]
    tint = log - log.mean(axis=2, keepdims=True)
    log = log - excess + np.minimum(excess / MIRRORED, 1) * (np.median(tint[seen], axis=0) - tint)
    rgb = np.where(excess > 0, np.exp(log), texture.rgb)
    return Texture(rgb.clip(0, BRIGHTEST).astype(np.float32), texture.validity)


def _filled(model, texture, atlas, gone, where=1.0):
    """A texture that is filled, where the photo does not show the skin, with what is around, and validity 0 there.

    gone : (S, S) bool; its edge is softened
    where : (S, S) float32 in [0, 1], what bounds that
    """
    gone = cv2.GaussianBlur(np.float32(gone), (0, 0), HAIR_MARGIN * atlas.size / 2) * where
    if gone.max() < 0.5:
        return texture
    validity = texture.validity * (1 - np.clip(2 * gone, 0, 1))
    return Texture(_completed(model, texture.rgb, validity, atlas), validity)


def _completed(model, rgb, validity, atlas):
    """fitting.texture.fill with the mean face: this one's albedo has in it what goes."""
    return fill(rgb, validity, model, atlas, albedo_texture(model, None, atlas)).clip(0, BRIGHTEST)


def _fade(distance):
    """From 0 to 1 over four millimetres."""
    return ramp(distance, 0, 4)
