"""A performance measured from its performer's own rest, so that it can be put on somebody else's."""
from __future__ import annotations

import numpy as np

from compositing.replace import calm_frames
from facemodel.camera import axis_angle, rotation_matrix

MAX_TURN = 6.0              # degrees that a turn of the head never reaches
UPPER_LIDS, LOWER_LIDS = ((37, 38), (43, 44)), ((41, 40), (47, 46))      # of both eyes, iBUG's numbers
BLINKS = ("eyeBlinkRight", "eyeBlinkLeft")                               # of the same eyes
SHUT = 1.0                  # mm between lids' landmarks in fits of closed eyes (their lashes)
SHUT_HERE = 0.3             # mm that closed eyes are drawn with


def resting_frames(model, track):
    """Frames in which a clip's person rests: face to the camera, mouth relaxed, eyes and brows as they mostly are.

    Returns
    -------
    (n,) int, at least one, n <= compositing.replace.NEUTRAL_FRAMES
    """
    usual = np.median(track.expression[track.status == "ok"], axis=0)
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
    usual = np.median(given[track.status == "ok"], axis=0)
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
    return _with_lids(model, track, rest, fit.identity, own, out).astype(np.float32)


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


def lid_gaps(model, identity, expressions):
    """Mean distance of upper from lower lid, downwards, in mm, negative where they cross: (F, n_exp) -> (F, 2)."""
    marks = model.landmarks
    out = []
    for expression in expressions:
        y = model.shape(identity, expression, rows=marks)[marks, 1]
        out.append([np.mean(y[list(b)] - y[list(a)]) for a, b in zip(UPPER_LIDS, LOWER_LIDS)])
    return np.array(out, np.float64)


def _with_lids(model, track, rest, identity, own, out):
    """Expressions `out` (F, n_exp) with the blinks that narrow the eyes by the source's factor.

    Coefficients add up differently on differently shaped eyes: the same sum shuts one and leaves a slit in another.
    """
    if not set(BLINKS) <= set(model.expression_names):
        return out
    share = (lid_gaps(model, track.identity, track.expression) - SHUT) / np.maximum(
        lid_gaps(model, track.identity, rest[None]) - SHUT, 1.0)
    share = np.clip(share, 0, 1)
    wanted = SHUT_HERE + share * (lid_gaps(model, identity, own[None]) - SHUT_HERE)
    gaps = lid_gaps(model, identity, out)
    certain = np.clip((1 - share) / 0.3, 0, 1)
    for eye, name in enumerate(BLINKS):
        k = model.expression_names.index(name)
        step = np.zeros(model.expression_count)
        step[k] = 0.5
        closing = (lid_gaps(model, identity, own[None]) - lid_gaps(model, identity, (own + step)[None]))[0, eye] / 0.5
        blink = out[:, k] + certain[:, eye] * (gaps[:, eye] - wanted[:, eye]) / max(closing, 1.0)
        out[:, k] = np.clip(blink, 0, max(model.expression_range[1], own[k]))
    return out
