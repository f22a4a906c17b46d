"""A performance measured from its performer's own rest, so that it can be put on somebody else's."""
from __future__ import annotations

import numpy as np

from compositing.key_frames import calm_frames
from compositing.lids import follow_lids, usual_expression
from facemodel.camera import axis_angle, rotation_matrix

MAX_TURN = 6.0              # degrees that a turn of the head never reaches


def resting_frames(model, track):
    """Frames in which a clip's person rests: face to the camera, mouth relaxed, eyes and brows as they mostly are.

    Returns
    -------
    (n,) int, at least one, n <= compositing.key_frames.NEUTRAL_FRAMES
    """
    usual = usual_expression(model, track.expression[track.status == "ok"])
    return calm_frames(track, np.where(_eyes_and_brows(model), usual, 0))


def relative_expression(model, track, fit):
    """The source's deviation from its own rest, put on the rest that a photo shows.

    In the source's resting frames the result is the photo's expression: who smiles in the photo does so at rest. (Eyes
    and brows rest at what they mostly are, for a calm mouth often comes with lowered eyes.) What
    the source adds is added, less of it the further the photo has already gone, so that what is full stays full; what
    the source takes off is taken off, in proportion where the photo has less to give. Eyes narrow in proportion to
    their own opening, and close when the source's do.

    Parameters
    ----------
    model : MorphableModel
    track : Track of the source
    fit : Track of the photo

    Returns
    -------
    (F, n_exp) float32 in model.expression_range; where the photo's own lies outside, up to there
    """
    low, high = model.expression_range
    own, given = fit.expression[0].astype(np.float64), track.expression.astype(np.float64)
    usual = usual_expression(model, given[track.status == "ok"])
    rest = np.where(_eyes_and_brows(model), usual, np.median(given[resting_frames(model, track)], axis=0))
    if low != 0:
        out = own + given - rest
        return np.clip(out, np.minimum(low, own), np.maximum(high, own)).astype(np.float32)
    rest, own = np.clip(rest, 0, 0.9 * high), np.clip(own, 0, high)
    reach = _eyes_and_brows(model) | (own > rest)
    more = np.where(reach, (high - own) / (high - rest), 1.0)
    less = np.where(own < rest, own / np.maximum(rest, 1e-6), 1.0)
    change = given - rest
    out = np.clip(own + change * np.where(change > 0, more, less), 0, high)
    followed = follow_lids(model, track.identity, given, rest, fit.identity, out, own, widen=False)
    return followed.astype(np.float32)


def turns(model, track, limit=MAX_TURN):
    """How the head turns relative to where it rests, softly limited.

    limit : degrees; a turn of angle a becomes one of limit * tanh(a / limit) about the same axis

    Returns
    -------
    (F, 3) float32, axis-angle in radians, in the camera's axes
    """
    resting = resting_frames(model, track)
    back = rotation_matrix(track.rotation[resting[len(resting) // 2]]).T
    out = np.array([axis_angle(rotation_matrix(r) @ back) for r in track.rotation])
    angle = np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
    return (out / angle * np.tanh(angle / np.radians(limit)) * np.radians(limit)).astype(np.float32)


def _eyes_and_brows(model):
    return np.array([name.startswith(("eye", "brow")) for name in model.expression_names])
