"""From the source's texture in a frame and the target's neutral texture to the target's texture in that expression.

One signature for every method; the generator of section 5 takes its place beside these two baselines.
"""
from __future__ import annotations

import cv2
import numpy as np


def static(target_neutral, source=None, source_neutral=None, source_validity=None):
    """The target's neutral texture as it is (the left pairs of the paper's figure 6)."""
    return target_neutral


def delta(target_neutral, source, source_neutral, source_validity):
    """Direct delta transfer, the baseline of the paper's Table 1: the source's change is added to the target.

    Parameters
    ----------
    target_neutral : (S, S, 3) float32
    source : (s, s, 3) float32, the source's albedo texture in this frame; s may be smaller than S
    source_neutral : (s, s, 3) float32, the source's neutral texture
    source_validity : (s, s) float32 in [0, 1], where both source textures were seen

    Returns
    -------
    (S, S, 3) float32
    """
    change = (source - source_neutral) * source_validity[..., None]
    size = target_neutral.shape[0]
    if change.shape[0] != size:
        change = cv2.resize(change, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.clip(target_neutral + change, 0, 1.3)


METHODS = {"static": static, "delta": delta}
