"""Who is put into the video: a person's shape, and the texture that a photo shows, made ready for another head."""
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from compositing.bare_face import with_shut_mouth, without_background, without_hair, without_reflections
from compositing.beard import find_beard, without_beard
from compositing.complexion import evenly_coloured, evenly_lit, evenly_shaded, without_shine
from compositing.monochrome import coloured, toning_of
from compositing.occlusion import Occlusion, least, wears_glasses
from compositing.pores import with_pores
from compositing.smile import smile_of, without_folds
from facemodel.atlas import uv_to_pixels
from facemodel.sampling import samples
from fitting.detection import eye_distance
from fitting.fit import relit
from fitting.lift import Lifter, Texture
from texgan.transfer import shrunk

TEXTURE_SIZE = 1024
RIM_WIDER = 0.05             # of the eyes' distance, to each side: the shadow of a frame of glasses


@dataclass(frozen=True)
class TargetFace:
    """A person to be shown.

    identity : (n_id,) standard deviations
    expression : (n_exp,) float32, expression of the photo that the texture was taken in
    texture : fitting.lift.Texture, the neutral albedo, (S, S, 3)
    beard : (V,) float32 in [0, 1], where the texture shows one; None: nowhere
    """

    identity: np.ndarray
    expression: np.ndarray
    texture: Texture
    beard: np.ndarray | None = None


def target_from_photo(model, image, track, size=TEXTURE_SIZE, things=None, open_mouth=False, beard="keep"):
    """The person in a fitted photo.

    Parameters
    ----------
    image : (H, W, 3) uint8
    track : Track of the photo (one frame)
    size : int, texels per side
    things : optional compositing.occlusion.OcclusionDetector: what it finds before the face, glasses and hands, is
        left out
    open_mouth : bool, keep what a smile shows of the mouth's inside, and its folds
    beard : one of compositing.beard.MODES, what becomes of a beard

    Returns
    -------
    TargetFace
    """
    glasses = things is not None and wears_glasses(model, track, {0: image}, things)
    lifter, free = Lifter(model, size), things and _free(model, image, track, things, glasses)
    mean = np.zeros(model.albedo_count)                           # the photo's albedo is that of the glasses as well
    lifted = lambda track, apart=None: lifter.neutral(image, track, free=free, apart=apart,
                                                      albedo=None if free is None else mean)
    texture = lifted(track)
    found, bearded = find_beard(model, texture, lifter.atlas), None
    if found is not None:
        bearded = samples(found, uv_to_pixels(model.uv, size) - 0.5)
        texture = lifted(relit(model, image, track, 1 - bearded), found)
    unsmiled = partial(without_folds, smile=smile_of(model, track.expression[0]), beard=found)
    steps = [without_reflections, without_background, without_hair, with_shut_mouth, without_shine, evenly_lit,
             evenly_coloured, evenly_shaded, unsmiled, with_pores]
    if not glasses:
        steps.remove(without_reflections)
    if found is not None and beard == "off":
        steps.insert(steps.index(without_hair), partial(without_beard, beard=found))
        bearded = None
    if open_mouth:
        steps.remove(with_shut_mouth)
        steps.remove(unsmiled)
    if toning_of([image], track.landmarks):
        steps.insert(0, coloured)
    for better in steps:
        texture = better(model, texture, lifter.atlas)
    return TargetFace(track.identity, track.expression[0], texture, bearded)


def _free(model, image, track, things, glasses):
    """Where nothing lies before the face in a photo: (H, W) float32, or None where that is everywhere."""
    thing, rim = Occlusion(model, track, things, glasses).keep(image, 0)
    if rim is not None:
        reach = max(1, round(RIM_WIDER * eye_distance(track.landmarks[0])))
        rim = cv2.erode(rim, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return least(thing, rim)


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
    return replace(target, texture=Texture(shrunk(target.texture.rgb, size), shrunk(target.texture.validity, size)))
