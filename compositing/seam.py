"""From rendered face to finished frame: what each vertex looks like in both pictures, and the blend along the cut."""
from __future__ import annotations

import cv2
import numpy as np

from facemodel.rasterizer import interpolate

INNER_REGIONS = ("eyes", "eyelids", "eyebrows", "nose", "lips", "mouth_interior")
BLEND_WIDTH = 0.10           # of the face's width: width of the linear blend across the seam
DEPTH_TOLERANCE = 4.0        # mm
REACH = 0.02                 # price of a vertex that shows the source though it could show the target
BEARD_REACH = 0.2            # likewise, in a beard
FOREIGN = 0.25               # ratio's logarithm from which on a vertex is rather left to the source
BEARD_WIDTH = 50.0           # mm to each side of the face's middle: hair beside it hangs
GAMMA = 2.2                  # of the code values, for blending


def seam_regions(model):
    """Vertices that are always target and always source, on the model's coarse mesh: two (V1,) bool."""
    nodes = model.coarse_index
    inner = np.zeros(len(nodes), bool)
    for name in INNER_REGIONS:
        inner |= model.regions[name][nodes] > 0.3
    outer = model.regions["face"][nodes] < 0.25
    return inner & ~outer, outer


def visible_vertices(rendering, which):
    """Which of the vertices `which` (N,) int the camera sees, not too aslant and inside the frame: (N,) bool."""
    left, top, right, bottom = rendering.window
    posed, depth = rendering.posed, rendering.raster.depth
    xy = posed.xy[which] - np.float32([left, top])
    column, row = np.floor(xy).astype(int).T
    inside = (column >= 1) & (row >= 1) & (column < right - left - 1) & (row < bottom - top - 1)
    column, row = column.clip(0, right - left - 1), row.clip(0, bottom - top - 1)
    near = posed.vertices[which, 2] < depth[row, column] + DEPTH_TOLERANCE
    return inside & near & (posed.cosine[which] > 0.2)


def label_mask(labels, model, rendering):
    """Labels (V1,) bool drawn into the rendering's window: (h, w) float32, 1 where all around is target."""
    weight = model.coarse_refine @ labels.astype(np.float32)
    return interpolate(weight[:, None], model.triangles, rendering.raster)[..., 0]


def blend_alpha(labels, model, rendering):
    """Weight of the rendered face per pixel: a linear ramp across the projected seam.

    The ramp's width is a share of the face's width in the picture; it ends at the rendering's own outline.

    Returns
    -------
    (h, w) float32 in [0, 1]
    """
    soft = label_mask(labels, model, rendering)
    target = (soft > 0.5).astype(np.uint8)
    if not target.any():
        return np.zeros(target.shape, np.float32)
    columns = np.flatnonzero(target.any(axis=0))
    width = max(BLEND_WIDTH * (columns[-1] - columns[0] + 1), 2.0)
    padded = np.pad(target, 1)                        # the frame's edge is no seam for what lies inside it
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    outside = cv2.distanceTransform(1 - target, cv2.DIST_L2, 5)
    alpha = np.clip(0.5 + (inside - outside) / width, 0, 1)
    drawn = cv2.distanceTransform(np.pad(rendering.mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.minimum(alpha, np.clip((drawn - 1) / (width / 2), 0, 1)).astype(np.float32)


def below_nose(model):
    """The part of the coarse mesh where beards grow: (V1,) bool."""
    return model.mean[model.coarse_index, 1] > model.mean[model.landmarks[33], 1]


def beard_region(model):
    """Where hair is a beard, of the coarse mesh: below the nose, not beside the face: (V1,) bool."""
    return below_nose(model) & (np.abs(model.mean[model.coarse_index, 0]) < BEARD_WIDTH)


def reach(source_colours, target_colours, beard, bearded=None):
    """Price of showing the source at vertices where both could be shown, in units of the seam's cost: (V1,) float64.

    A seam costs by its length, so the least would hug the features and leave most of the source's face. REACH draws it
    out to where the pictures differ by more than FOREIGN though their tones are matched: hair in either of them. The
    target's own beard, and a chin that is darker than one that shines, are not left out.

    Parameters
    ----------
    source_colours, target_colours : (V1, 3) float in [0, 1], the target's with its tone matched
    beard : (V1,) bool, see beard_region
    bearded : optional (V1,) bool, where the target has one for sure
    """
    ratio = np.log(np.maximum(source_colours, 0.02) / np.maximum(target_colours, 0.02))
    foreign = np.minimum((np.abs(ratio).mean(axis=1) / FOREIGN) ** 2, 2)
    price = REACH * (1 - np.where(beard & (ratio.mean(axis=1) > 0), 0, foreign))
    return price if bearded is None else np.where(bearded, BEARD_REACH, price)


def tint(model, rendering, gain):
    """Multiplies a rendering's colours, in place, by a gain given at the coarse mesh's vertices: (V1, 3) float."""
    factor = interpolate((model.coarse_refine @ gain).astype(np.float32), model.triangles, rendering.raster)
    np.clip(rendering.rgb * factor, 0, 1, out=rendering.rgb)


def composite(frame, rendering, alpha):
    """The finished window: (h, w, 3) float32 from the frame's window (h, w, 3) in [0, 1] and the rendering.

    Blends in linear light: half of white and half of black is what the eye sees of a fine raster of both, not the
    darker middle of the code values.
    """
    out = np.where(alpha[..., None] > 0.5, rendering.rgb, frame)
    mixed = (alpha > 0) & (alpha < 1)
    a = alpha[mixed, None]
    light = (1 - a) * frame[mixed] ** GAMMA + a * rendering.rgb[mixed] ** GAMMA
    out[mixed] = light ** np.float32(1 / GAMMA)
    return out
