"""Eyes that open and close as far, for their size, as the source's do.

Coefficients add up differently on differently shaped eyes: the same sum shuts one and leaves a slit in another. What is
carried over is the distance of the lids, as a share of what it is at rest.
"""
from __future__ import annotations

import numpy as np

UPPER_LIDS, LOWER_LIDS = ((37, 38), (43, 44)), ((41, 40), (47, 46))      # of both eyes, iBUG's numbers
BLINKS, WIDE = ("eyeBlinkRight", "eyeBlinkLeft"), ("eyeWideRight", "eyeWideLeft")      # of the same eyes
SHUT = 1.0                  # mm between lids' landmarks in fits of closed eyes (their lashes)
SHUT_HERE = 0.3             # mm that closed eyes are drawn with
SURE = 0.3                  # change of the share from which on it alone decides
WIDEST = 1.8                # largest share
OPEN_QUANTILE = 0.2         # of blinks' coefficients, at which eyes rest
BROWS = ("browDownRight", "browDownLeft"), ("browOuterUpRight", "browOuterUpLeft")
UNEVEN = 0.2                # of a coefficient that resting brows differ by at most
STEP = 0.5                  # of a coefficient, over which its effect is measured


def lid_gaps(model, identity, expressions):
    """Mean distance of upper from lower lid, downwards, in mm, negative where they cross: (F, n_exp) -> (F, 2)."""
    place = model.refine[model.landmarks].astype(np.float64)
    y = place @ model.neutral(identity)[:, 1] + np.asarray(expressions) @ (place @ model.control_expression[:, 1]).T
    return np.column_stack([(y[:, b] - y[:, a]).mean(axis=1) for a, b in zip(UPPER_LIDS, LOWER_LIDS)])


def usual_expression(model, expressions):
    """What a person's face does at rest, by many frames: (F, n_exp) -> (n_exp,) float64.

    The median, of blinks the OPEN_QUANTILE: eyes may be lowered for most of a clip, but do not rest so. Nor does a brow
    that is raised or knit far more than the other one.
    """
    out = np.median(expressions, axis=0).astype(np.float64)
    blinks = [k for k, name in enumerate(model.expression_names) if name in BLINKS]
    out[blinks] = np.quantile(expressions[:, blinks], OPEN_QUANTILE, axis=0)
    for pair in BROWS:
        both = [k for k, name in enumerate(model.expression_names) if name in pair]
        out[both] = np.minimum(out[both], out[both].min(initial=np.inf) + UNEVEN)
    return out


def follow_lids(model, source, given, rest, identity, out, own, widen=True):
    """Expressions whose blinks, and with `widen` wide eyes, give the lids the source's share of their resting distance.

    Parameters
    ----------
    source, identity : (n_id,) of the source and of who takes over its expressions
    given, out : (F, n_exp) the source's expressions, and those of the other so far
    rest, own : (n_exp,) what the two rest at

    Returns
    -------
    (F, n_exp) float64, in the model's range but for what `own` has beyond; `out` where the model has no blinks
    """
    out, names = np.array(out, np.float64), list(model.expression_names)
    if not set(BLINKS) <= set(names):
        return out
    share = (lid_gaps(model, source, given) - SHUT) / np.maximum(lid_gaps(model, source, rest[None]) - SHUT, 1.0)
    share = np.clip(share, 0, WIDEST if widen else 1)
    at_rest = lid_gaps(model, identity, own[None])
    wanted = SHUT_HERE + share * (at_rest - SHUT_HERE)
    missing = np.clip(np.abs(1 - share) / SURE, 0, 1) * (wanted - lid_gaps(model, identity, out))
    for eye, name in enumerate(BLINKS):
        k = names.index(name)
        before, closing = out[:, k].copy(), _opening(model, identity, own, at_rest, k, eye, -1)
        out[:, k] = np.clip(before - missing[:, eye] / closing, 0, max(model.expression_range[1], own[k]))
        if widen and WIDE[eye] in names:
            left = missing[:, eye] - (before - out[:, k]) * closing
            k = names.index(WIDE[eye])
            wider = out[:, k] + np.maximum(left, 0) / _opening(model, identity, own, at_rest, k, eye, 1)
            out[:, k] = np.clip(wider, 0, max(model.expression_range[1], own[k]))
    return out


def closed_further(model, identity, expression, share):
    """An expression whose lids are nearer to each other by a share of their distance.

    Parameters
    ----------
    identity, expression : (n_id,), (n_exp,)
    share : float in [0, 1], or (2,) of each eye, 1 closes them

    Returns
    -------
    (n_exp,) float32; `expression` itself where the model has no blinks or share is 0
    """
    names, share = list(model.expression_names), np.broadcast_to(share, 2)
    if not share.any() or not set(BLINKS) <= set(names):
        return expression
    out, gaps = np.array(expression, np.float64), lid_gaps(model, identity, expression[None])
    for eye, name in enumerate(BLINKS):
        k, missing = names.index(name), share[eye] * max(gaps[0, eye] - SHUT_HERE, 0)
        out[k] += missing / _opening(model, identity, expression, gaps, k, eye, -1)
        out[k] = min(out[k], max(model.expression_range[1], expression[k]))
    return out.astype(np.float32)


def _opening(model, identity, own, at_rest, k, eye, sign):
    """Millimetres by which a unit of coefficient k opens (sign 1) or closes (sign -1) an eye, at least 1."""
    step = np.zeros(model.expression_count)
    step[k] = STEP
    gap = lid_gaps(model, identity, (own + step)[None])[0, eye]
    return max(1.0, sign * (gap - at_rest[0, eye]) / STEP)
