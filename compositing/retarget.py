"""The target's face, moving as the source's: its expressions, and the rendering under the source's pose and light."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compositing.lids import follow_lids, usual_expression
from facemodel.atlas import texture_to_image
from facemodel.light import shade
from facemodel.rasterizer import Raster, interpolate
from fitting.texture import Posed, face_window, pose

MOST_AT_REST = 0.35          # of a coefficient of the eyes


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


def retarget_expression(model, track, target):
    """The source's expressions as the target performs them.

    Mouth and jaw are taken over as they are. What eyes and brows rest at belongs to the person: the source's resting
    value (compositing.lids.usual_expression of trusted frames, of eyes no more than MOST_AT_REST: wider is acted) is
    mapped to the one in the target's photo, 0 stays 0 and fully closed or raised stays so, with straight lines between.
    Without this a narrow-eyed actor half closes the target's eyes.
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
    rest = usual_expression(model, track.expression[usable])
    own = rest.copy()
    for k, name in enumerate(model.expression_names):
        if name.startswith(("eye", "brow")):
            most = MOST_AT_REST if name.startswith("eye") else 0.9
            rest[k], own[k] = np.clip(rest[k], 0.02, most), np.clip(target.expression[k], 0, 0.9)
            out[:, k] = np.interp(track.expression[:, k], [0, rest[k], high], [0, own[k], high])
    return follow_lids(model, track.identity, track.expression, rest, target.identity, out, own).astype(np.float32)


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
