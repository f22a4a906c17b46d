"""A photo's skin, made ready to be lit by another light on another head.

What falls into the forehead, what shines or is mirrored in glasses, and what only the photo's light makes uneven would
stay where it is: hair goes, as does a rim of background, shine and reflections are dimmed, and the two halves of a face
are as bright as each other.
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

from facemodel.atlas import build_atlas
from fitting.lift import BRIGHTEST, Texture
from fitting.texture import albedo_texture, bare_lips, fill, log_albedo, region_texture, skin_weight, weight_texture

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
TEETH_REACH, TEETH_MARGIN = 0.03, 0.005  # of the chart's side, from the mouth's inside, and around teeth
OPEN, LESS_RED = 0.1, 0.08   # share of the mouth that a smile shows; of log redness less than skin's
LENS, MIRRORED = 30.0, 0.2    # mm around the eyes; of log luminance: what lenses mirror is brighter than that
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
LUMA = np.float32([0.299, 0.587, 0.114])     # ITU-R BT.601
PORES = 1 / 128              # of the chart's side: what is finer is no skin's colour
AROUND = 0.02                # of the chart's side, from which brows, lips and eyes take over what happens to skin
BELOW_NOSE = 6.0             # mm below the nose's base over which a beard begins


def without_hair(model, texture, atlas):
    """A neutral texture whose forehead and temples are bare: hair there would stay on another head's forehead.

    Above and beside the brows what is much darker than the face's skin counts as hair, or a hat, as do narrow upright
    strands that are darker than what lies beside them (folds lie across), and their surroundings for the light they
    take, and what hangs down from it over brows, lids and beside the eyes. How much darker is measured by how uneven
    the skin is below the brows: dark skin that shines is twice as uneven as pale skin. Dots are no hair. What is hair
    is filled like what the photo does not show.

    Parameters
    ----------
    texture : fitting.lift.Texture of the model's chart
    atlas : facemodel.atlas.Atlas of its size

    Returns
    -------
    fitting.lift.Texture, validity 0 where hair was
    """
    forehead, skin = forehead_and_temples(model, atlas), skin_weight(model, atlas)
    luminance, seen = texture.rgb.mean(axis=2), texture.validity > 0.5
    reference = luminance[seen & (skin > 0.5) & (forehead < 0.1)]
    if not reference.size:
        return texture
    step = atlas.size / 1024
    soft = cv2.GaussianBlur(luminance, (0, 0), 2 * step) / np.median(reference)
    width = STRAND * atlas.size
    depth = _dips(soft, width)
    below = seen & (_between(model, atlas) * skin > 0.5) & (forehead < 0.1)
    uneven = np.clip(np.quantile(depth[below], 0.9) / UNEVEN, 1, MOST_UNEVEN) if below.any() else 1.0
    dark = soft < HAIR ** uneven
    sure = (dark | (depth > uneven * STRAND_DEPTH[1])) & (forehead > 0.5)
    _, label, found, _ = cv2.connectedComponentsWithStats(sure.astype(np.uint8))
    dots = (found[:, cv2.CC_STAT_AREA] < width ** 2) & (found[:, cv2.CC_STAT_HEIGHT] < 2 * width)
    sure = (sure & ~dots[label]).astype(np.float32)
    maybe = (cv2.dilate(sure, _disc(NEAR_HAIR, atlas)) > 0) & (depth > uneven * STRAND_DEPTH[0]) & (forehead > 0.5)
    hair = cv2.morphologyEx(np.maximum(sure, maybe.astype(np.float32)), cv2.MORPH_CLOSE, _disc(2 * HAIR_MARGIN, atlas))
    over = _under_forehead(model, atlas, forehead > 0.5, dark, hair > 0.5, seen)
    hanging = np.float32(_connected(dark & ((forehead > 0.5) | (over > 0.5)), hair > 0.5) * (over > 0.5))
    wider = lambda found: cv2.dilate(np.float32(found), _disc(HAIR_MARGIN, atlas))
    hair, where = wider(np.maximum(hair, hanging)), np.maximum(forehead, wider(hanging) * over)
    beside = wider(_strands_beside(model, texture, atlas, soft, hair * where > 0.5))
    return _filled(model, texture, atlas, np.maximum(hair, beside), np.maximum(where, beside))


def _strands_beside(model, texture, atlas, soft, hair):
    """Hair that hangs down beside the eyes and over the cheeks, of any colour, from what was found: (S, S) bool.

    There it need not be dark: it is of another colour than skin, and darker if by little, or narrow and darker than
    what lies beside it.

    soft : (S, S) float32, luminance over the skin's
    hair : (S, S) bool
    """
    if not hair.any():
        return hair
    aside, down = np.abs(model.mean[:, 0]), model.mean[:, 1]
    corner, nose = aside[model.landmarks[[36, 45]]].mean(), down[model.landmarks[33]]
    skin = model.regions["face"] * (1 - np.maximum(model.regions["eyes"], model.regions["eyelids"]))
    skin = skin * (model.regions["eyebrows"] < 0.05) * (aside > corner + CORNER_MARGIN) * (down < nose)
    log = log_albedo(cv2.GaussianBlur(texture.rgb, (0, 0), atlas.size / 512))
    tint = log - log.mean(axis=2, keepdims=True)
    reference = (texture.validity * skin_weight(model, atlas) > 0.5) & (forehead_and_temples(model, atlas) < 0.1)
    away = np.linalg.norm(tint - np.median(tint[reference], axis=0), axis=2)
    other = away > max(OTHER_COLOUR, OTHER_SKIN * float(np.quantile(away[reference], 0.9)))
    strand = (soft < HAIR) | (other & (soft < HARDLY_DARKER)) | (_dips(soft, STRAND * atlas.size) > STRAND_DEPTH[1])
    strand &= (weight_texture(model, np.float32(skin), atlas) > 0.5) & (texture.validity > 0.15)
    reach = cv2.dilate(np.uint8(hair), _disc(BRIDGED, atlas)) > 0
    return _connected(strand, strand & reach)


def _dips(soft, width):
    """By how much what is narrower than 2 `width` + 1 texels across is darker than what lies beside it: (S, S)."""
    return cv2.morphologyEx(soft, cv2.MORPH_BLACKHAT, np.ones((1, 2 * round(width) + 1), np.uint8))


def _disc(radius, atlas):
    """Kernel of a radius in shares of the chart's side."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(radius * atlas.size) + 1,) * 2)


def _filled(model, texture, atlas, gone, where=1.0):
    """A texture that is filled, where the photo does not show the skin, with what is around, and validity 0 there.

    gone, where : (S, S) float32 in [0, 1]; the first is softened, the second bounds that
    """
    gone = cv2.GaussianBlur(gone, (0, 0), HAIR_MARGIN * atlas.size / 2) * where
    if gone.max() < 0.5:
        return texture
    validity = texture.validity * (1 - np.clip(2 * gone, 0, 1))
    fallback = albedo_texture(model, None, atlas)               # the mean face: this one's has in it what goes
    return Texture(fill(texture.rgb, validity, model, atlas, fallback).clip(0, BRIGHTEST), validity)


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
    outside = _connected(unseen, edge & unseen)                 # and not the inside of the mouth
    near = cv2.dilate(np.uint8(outside), _disc(OUTLINE, atlas)) > 0
    eyes, lips = model.mean[model.landmarks[[36, 45]], 1].mean(), region_texture(model, "lips", atlas)
    near &= (weight_texture(model, np.float32(model.mean[:, 1] > eyes), atlas) > 0.5) & (lips < 0.1) & ~outside
    luminance = texture.rgb.mean(axis=2)
    soft = cv2.GaussianBlur(luminance, (0, 0), atlas.size / 512)
    caught = _connected(near & (soft > BACKGROUND * np.median(luminance[inside])), outside)
    return _filled(model, texture, atlas, cv2.dilate(np.float32(caught), _disc(HAIR_MARGIN, atlas)))


def with_shut_mouth(model, texture, atlas):
    """A neutral texture without the inside of the mouth and the teeth that a smile shows.

    Inside the mouth the source is drawn; where it shows nothing, a smile's teeth would be a white line between shut
    lips. Some are on the chart's lips: what is bright, less red than skin, and connected to such inside. All that is
    filled like what the photo does not show. Parameters and result as of without_hair.
    """
    inside = region_texture(model, "mouth_interior", atlas) > 0.5
    near = (cv2.dilate(np.uint8(inside), _disc(TEETH_REACH, atlas)) > 0) & ~inside
    seen, lips = texture.validity > 0.5, weight_texture(model, bare_lips(model), atlas) > 0.6
    lips &= seen & (cv2.dilate(np.uint8(inside), _disc(HAIR_MARGIN, atlas)) == 0)
    skin = seen & (skin_weight(model, atlas) > 0.5)
    if not (lips.any() and skin.any()) or seen[inside].mean() < OPEN:
        return texture
    soft = cv2.GaussianBlur(texture.rgb, (0, 0), atlas.size / 730)
    log, luminance = log_albedo(soft), soft @ LUMA
    red = log[..., 0] - log[..., 1]
    white = (near | inside) & (red < np.median(red[skin]) - LESS_RED) & (luminance > np.median(luminance[lips]))
    teeth = cv2.dilate(np.uint8(_connected(white, white & inside)), _disc(TEETH_MARGIN, atlas)) > 0
    gone = inside | (near & teeth)
    validity = np.where(gone, 0, texture.validity).astype(np.float32)
    filled = fill(texture.rgb, validity, model, atlas, albedo_texture(model, None, atlas)).clip(0, BRIGHTEST)
    return Texture(np.where(gone[..., None], filled, texture.rgb), validity)


def without_reflections(model, texture, atlas):
    """A neutral texture, of a photo with glasses, without what their lenses mirror on the skin around the eyes.

    There what is brighter than elsewhere, next to the mean face, is brought down to MIRRORED, and takes the tint of the
    skin instead of the light's. Parameters and result as of without_shine.
    """
    middle = [model.mean[model.landmarks[k:k + 6]].mean(axis=0) for k in (36, 42)]
    distance = np.min([np.linalg.norm(model.mean - m, axis=1) for m in middle], axis=0)
    inside = np.clip((LENS - distance) / 4, 0, 1) * (1 - model.regions["eyes"]) * (1 - model.regions["eyebrows"])
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


def forehead_and_temples(model, atlas):
    """The forehead above the brows, and the temples beside them down to the eyes: (S, S) float32 in [0, 1]."""
    brows, aside, down = model.regions["eyebrows"] > 0.5, np.abs(model.mean[:, 0]), model.mean[:, 1]
    top, tail, eyes = down[brows].min() - BROW_MARGIN, aside[brows].max(), down[model.landmarks[[36, 45]]].mean()
    fade = lambda distance: np.clip(distance / 4, 0, 1)
    above, beside = fade(top - down), fade(aside - tail) * fade(eyes - down)
    weight = model.regions["face"] * np.maximum(above, beside) * (model.regions["eyebrows"] < 0.05)
    return weight_texture(model, weight, atlas)


def _under_forehead(model, atlas, forehead, dark, hair, seen):
    """Where hair hangs down from the forehead, over the eyes and beside them: (S, S) float32 in [0, 1].

    On the brows dark is a brow, unless most of the forehead is hidden, or, for the outer part of one, the skin around.

    forehead, dark, hair, seen : (S, S) bool, where hair was looked for, may be, was found, and what the photo shows
    """
    brows, aside, down = model.regions["eyebrows"], np.abs(model.mean[:, 0]), model.mean[:, 1]
    tail, eyes = aside[brows > 0.5].max(), down[model.landmarks[[36, 45]]].mean()
    fade = lambda distance: np.clip(distance / 4, 0, 1)
    free = model.regions["face"] * (1 - np.maximum(model.regions["eyes"], model.regions["eyelids"]))
    above, beside = free * fade(eyes - down), free * fade(aside - tail) * fade(eyes + BESIDE - down)
    outer, brow = above * fade(aside - OUTER_BROW * tail), (brows > 0.05).astype(np.float32)
    around = (outer > 0.5) & (aside < tail) & (brows < 0.01)
    above, beside, outer, brow, around = (weight_texture(model, np.float32(w), atlas)
                                          for w in (above, beside, outer, brow, around))
    over = np.maximum(above, beside) * (1 - brow)
    if (inside := seen & forehead).any() and hair[inside].mean() > FRINGE:
        return np.maximum(over, above)
    reached = _connected(dark & (forehead | (over > 0.5)), hair)
    for half in (np.s_[:, :atlas.size // 2], np.s_[:, atlas.size // 2:]):
        inside = (seen & (around > 0.5))[half]
        if inside.any() and reached[half][inside].mean() > FRINGE_HALF:
            over[half] = np.maximum(over, outer)[half]
    return over


def _connected(inside, seeds):
    """What of a mask (h, w) bool is connected to where `seeds` (h, w) bool are."""
    _, label = cv2.connectedComponents((inside | seeds).astype(np.uint8), connectivity=4)
    reached = np.zeros(label.max() + 1, bool)
    reached[label[seeds]] = True
    reached[0] = False
    return reached[label] & inside


def _between(model, atlas):
    """From the brows down to the nose's base, where hardly anyone has hair on the skin: (S, S) float32 in [0, 1]."""
    nose, brows = model.mean[model.landmarks[33], 1], model.mean[model.regions["eyebrows"] > 0.5, 1].max()
    inside = (model.mean[:, 1] > brows) & (model.mean[:, 1] < nose)
    return weight_texture(model, inside.astype(np.float32), atlas)


def without_shine(model, texture, atlas):
    """A neutral texture whose highlights are no stronger than those of matt skin.

    Shine is light off the skin's surface. It adds to what the skin's colour gives back, so that beside dark skin it is
    twice as bright, and a texture that is lit again multiplies it: metal. Where skin is brighter than the darker skin
    around it (a grey opening) by more than MATT, the rest is scaled down so that all but a thousandth of the skin stays
    below SHINIEST. That is done to skins beyond SHINY, wholly from its second value on. Parameters and result as of
    without_hair, with the validity as it was.
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
    the face, where skin is alike; the chart's halves mirror each other. Parameters and result as of without_shine.
    """
    seen = texture.validity * skin_weight(model, atlas)
    both = np.minimum(seen, seen[:, ::-1])
    log = log_albedo(texture.rgb)
    broad = lambda a: cv2.GaussianBlur(a, (0, 0), HALVES_WIDTH * atlas.size)
    away = broad((log - log[:, ::-1]) * both[..., None]) / (2 * broad(both) + 0.04)[..., None]
    away = np.sign(away) * np.maximum(np.abs(away) - HALVES_DIFFER, 0)
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
    below = weight_texture(model, np.clip((model.mean[:, 1] - nose) / BELOW_NOSE, 0, 1).astype(np.float32), atlas)
    skin = skin_weight(model, atlas)
    bare = (texture.validity * skin > 0.5) & (below == 0) & (region_texture(model, "eyelids", atlas) < 0.1)
    if not bare.any():
        return texture
    luminance, usual = _log_luminance(texture.rgb), _log_luminance(albedo_texture(model, None, atlas))
    inside = np.minimum(2 * skin, 1)
    away = luminance - usual
    away -= np.median(away[bare])
    broad = _smoothed(away, inside, PORES * atlas.size)
    own = float(np.sqrt(np.square(broad[bare]).mean()))
    most = MOST_LIGHT * LIGHT * float(np.exp(LIGHT_SLOPE * (np.median(luminance[bare]) + 0.4)))
    if own <= most:
        return texture
    share, weight = most / own, inside * (1 - (1 - IN_BEARDS) * below)
    change = -(1 - _nearer(share, np.abs(broad) / own)) * SHADOW * np.tanh(broad / SHADOW)
    around = _smoothed(change, weight, AROUND * atlas.size) * (1 - inside)
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
    log, luminance = log_albedo(texture.rgb), np.maximum(texture.rgb, 0) @ LUMA
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
    rgb *= (luminance / np.maximum(rgb @ LUMA, 1e-3))[..., None]
    rgb = np.where(face[..., None] > 0, rgb, texture.rgb)
    return Texture(rgb.clip(0, BRIGHTEST).astype(np.float32), texture.validity)


def _nearer(share, distance):
    """By what a distance from the usual, in usual ones, is multiplied: `share`, and less where it is FAR."""
    far = distance / FAR
    return share * (share + (1 - share) * np.tanh(far) / np.maximum(far, 1e-6))


def _smoothed(values, inside, width):
    """Means of what is inside around every place: (S, S) float32 of values and weights (S, S); width in texels."""
    blur = lambda a: cv2.GaussianBlur(a, (0, 0), width)
    return blur(values * inside) / np.maximum(blur(inside), 1e-3)


def _log_luminance(rgb):
    """(S, S) float32, of the luminance of colours (S, S, 3)."""
    return np.log(np.maximum(rgb @ LUMA, 0.02))


def _evened(model, texture, atlas, fade, share, lips_usual):
    """A texture whose skin is nearer to the mean face in what is dark, by `fade` of the way, and less in what is light.

    Marks change by MARK at most, what is dark and finer than PORES by FINE of all that: a face without it looks
    retouched. Lips that vary by more than is usual come as near to that as `share` says.
    """
    skin, lips = skin_weight(model, atlas), weight_texture(model, bare_lips(model), atlas)
    lips = lips * region_texture(model, "face", atlas)
    log = log_albedo(texture.rgb).mean(axis=2)
    away = log - log_albedo(albedo_texture(model, None, atlas)).mean(axis=2)
    broad = lambda a, inside: _smoothed(a, inside, PORES * atlas.size)
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
