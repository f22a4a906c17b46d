"""The target's face, moving as the source's: target identity and texture, source expression, pose and light."""
from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from compositing.lids import follow_lids
from facemodel.atlas import texture_to_image, to_texture
from facemodel.light import shade
from facemodel.rasterizer import Raster, interpolate
from fitting.lift import BRIGHTEST, Lifter, Texture
from fitting.texture import Posed, albedo_texture, face_window, fill, pose, skin_weight

TEXTURE_SIZE = 1024
HAIR = 0.72                  # of the skin's median luminance: darker is hair, on the forehead
STRAND, STRAND_DEPTH = 0.014, 0.12                            # half a strand's width at most, of the chart's side
HAIR_MARGIN = 0.012          # of the chart's side: what lies in the hair's shadow
BROW_MARGIN = 3.0            # mm
SHINE_WIDTH = 0.06           # of the chart's side: broader spots are no highlights
SHINY = 1.5, 1.7             # highlights of skin over the darker skin around it, luminance
MOST_AT_REST = 0.35          # of a coefficient of the eyes
MATT, SHINIEST = 1.15, 1.45  # likewise: what is left alone, and the brightest that is left


@dataclass(frozen=True)
class TargetFace:
    """A person to be shown.

    identity : (n_id,) standard deviations
    expression : (n_exp,) float32, expression of the photo that the texture was taken in
    texture : fitting.lift.Texture, the neutral albedo, (S, S, 3)
    """

    identity: np.ndarray
    expression: np.ndarray
    texture: Texture


@dataclass(frozen=True)
class Rendering:
    """A rendered face in a window of the frame.

    window : (4,) int, left, top, right, bottom in the frame
    rgb : (h, w, 3) float32, undefined where mask is False
    raster : Raster of the window
    posed : Posed, in the frame's pixels
    """

    window: tuple
    rgb: np.ndarray
    raster: Raster
    posed: Posed

    @property
    def mask(self):
        return self.raster.mask


def target_from_photo(model, image, track, size=TEXTURE_SIZE):
    """The person in a fitted photo.

    Parameters
    ----------
    image : (H, W, 3) uint8
    track : Track of the photo (one frame)
    size : int, texels per side

    Returns
    -------
    TargetFace
    """
    lifter = Lifter(model, size)
    texture = without_hair(model, lifter.neutral(image, track), lifter.atlas, track.albedo)
    return TargetFace(track.identity, track.expression[0], without_shine(model, texture, lifter.atlas))


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
    fitting.lift.Texture
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
    gain = np.where(ratio > MATT, dimmed / ratio, 1) ** (skin * np.float32(much))
    shine = luminance * (1 - gain)                              # as white as the light, whatever the skin's colour
    return Texture(np.maximum(texture.rgb - shine[..., None], 0.5 * texture.rgb).astype(np.float32), texture.validity)


def without_hair(model, texture, atlas, albedo):
    """A neutral texture whose forehead is bare: hair that falls into it would stay on another head's forehead.

    Above the brows what is much darker than the face's skin counts as hair, as do narrow upright strands that are
    darker than what lies beside them (folds lie across), and their surroundings for the light they take. It is filled
    like what the photo does not show.

    Parameters
    ----------
    texture : fitting.lift.Texture of the model's chart
    atlas : facemodel.atlas.Atlas of its size
    albedo : (n_alb,) coefficients of the person, what is filled in

    Returns
    -------
    fitting.lift.Texture, validity 0 where hair was
    """
    forehead, skin = above_brows(model, atlas), skin_weight(model, atlas)
    luminance = texture.rgb.mean(axis=2)
    reference = luminance[(texture.validity * skin > 0.5) & (forehead < 0.1)]
    if not reference.size:
        return texture
    step = atlas.size / 1024
    soft = cv2.GaussianBlur(luminance, (0, 0), 2 * step) / np.median(reference)
    across = np.ones((1, 2 * round(STRAND * atlas.size) + 1), np.uint8)
    dark = (soft < HAIR) | (cv2.morphologyEx(soft, cv2.MORPH_BLACKHAT, across) > STRAND_DEPTH)
    around = 2 * round(HAIR_MARGIN * atlas.size) + 1
    hair = cv2.dilate((dark & (forehead > 0.5)).astype(np.float32),
                      cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (around, around)))
    hair = cv2.GaussianBlur(hair, (0, 0), HAIR_MARGIN * atlas.size / 2) * forehead
    if hair.max() < 0.5:
        return texture
    validity = texture.validity * (1 - np.clip(2 * hair, 0, 1))
    fallback = albedo_texture(model, albedo, atlas)
    return Texture(fill(texture.rgb, validity, model, atlas, fallback).clip(0, BRIGHTEST), validity)


def above_brows(model, atlas):
    """The forehead and the temples beside it, above the brows: (S, S) float32 in [0, 1]."""
    brows = model.regions["eyebrows"] > 0.5
    top = model.mean[brows, 1].min() - BROW_MARGIN              # y is down
    weight = model.regions["face"] * np.clip((top - model.mean[:, 1]) / 4, 0, 1) * (model.regions["eyebrows"] < 0.05)
    return np.clip(to_texture(weight[:, None].astype(np.float32), model.triangles, atlas)[..., 0], 0, 1)


def retarget_expression(model, track, target):
    """The source's expressions as the target performs them.

    Mouth and jaw are taken over as they are. What eyes and brows rest at belongs to the person: the source's resting
    value (its median over trusted frames, of eyes no more than MOST_AT_REST: wider is acted) is mapped to the one in
    the target's photo, 0 stays 0 and fully closed or raised stays so, with straight lines between. Without this a
    narrow-eyed actor half closes the target's eyes.
    How far the lids then part follows the source's (compositing.lids).

    Parameters
    ----------
    track : Track of the source
    target : TargetFace

    Returns
    -------
    (F, n_exp) float32
    """
    out = track.expression.copy()
    low, high = model.expression_range
    usable = track.status == "ok"
    if low != 0 or not usable.any():
        return out
    rest = np.median(track.expression[usable], axis=0).astype(np.float64)
    own = rest.copy()
    for k, name in enumerate(model.expression_names):
        if name.startswith(("eye", "brow")):
            most = MOST_AT_REST if name.startswith("eye") else 0.9
            rest[k], own[k] = np.clip(rest[k], 0.02, most), np.clip(target.expression[k], 0, 0.9)
            out[:, k] = np.interp(track.expression[:, k], [0, rest[k], high], [0, own[k], high])
    return follow_lids(model, track.identity, track.expression, rest, target.identity, out, own).astype(np.float32)


def texture_size_for(model, track, largest=TEXTURE_SIZE, smallest=256):
    """Texels per side that a clip shows: the power of two with about a texel per pixel of the nearest trusted face.

    A texture with many texels to the pixel would glitter when it is drawn without being reduced first.
    """
    usable = track.status == "ok"
    pixels_per_mm = float(track.focal / track.translation[usable, 2].min())
    skin = (model.regions["face"] > 0.9) & (model.regions["mouth_interior"] < 0.1)
    chosen = model.triangles[skin[model.triangles].all(axis=1)]
    surface, chart = model.mean[chosen], model.uv[chosen]
    area = np.linalg.norm(np.cross(surface[:, 1] - surface[:, 0], surface[:, 2] - surface[:, 0]), axis=1).sum()
    e, f = chart[:, 1] - chart[:, 0], chart[:, 2] - chart[:, 0]
    share = np.abs(e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]).sum()
    wanted = pixels_per_mm * np.sqrt(area / share)
    size = smallest
    while size < largest and size < 0.9 * wanted:
        size *= 2
    return size


def reduced(target, size):
    """A TargetFace with its texture at `size` texels per side, or as it is when that is not smaller."""
    if size >= target.texture.rgb.shape[0]:
        return target
    shrink = lambda a: cv2.resize(a, (size, size), interpolation=cv2.INTER_AREA)
    return replace(target, texture=Texture(shrink(target.texture.rgb), shrink(target.texture.validity)))


def render(model, identity, texture, expression, rotation, translation, light, focal, principal_point, frame_size,
           seat=None):
    """Draws a face into a frame.

    Parameters
    ----------
    model : MorphableModel
    identity, expression : coefficients of the shape
    texture : (S, S, 3) float32 albedo
    rotation, translation, light, focal, principal_point : of the frame's track
    frame_size : (2,) int, height and width
    seat : compositing.seat.Seat of the face on the head whose pose this is; default its own

    Returns
    -------
    Rendering, or None when the face lies outside the frame
    """
    vertices = model.shape(identity, expression)
    vertices = vertices if seat is None else seat(vertices)
    posed = pose(model, vertices, rotation, translation, focal, principal_point)
    height, width = int(frame_size[0]), int(frame_size[1])
    left, top, right, bottom = face_window(posed, model, height, width)
    raster = posed.raster(model, bottom - top, right - left, (left, top))
    if not raster.mask.any():
        return None
    colour = texture_to_image(texture, model, raster)
    shading = interpolate(shade(posed.normals, light), model.triangles, raster)
    return Rendering((left, top, right, bottom), np.clip(colour * shading, 0, 1), raster, posed)
