"""What the generator and the discriminator minimise (section 5.2)."""
from __future__ import annotations

import torch
import torch.nn.functional as F

from fitting.lift import BRIGHTEST

GRAIN_WINDOW = 16            # texels


def to_network(textures):
    """(N, 3, s, s) or (..., 3) albedo in [0, BRIGHTEST] -> the same in [-1, 1]."""
    return textures * (2 / BRIGHTEST) - 1


def masked_l1(predicted, truth, weight):
    """Mean absolute difference in [-1, 1] units over weighted texels; weight (N, 1, s, s)."""
    return ((predicted - truth).abs().mean(dim=1, keepdim=True) * weight).sum() / weight.sum().clamp_min(1e-6)


def grain_loss(predicted, truth, weight):
    """Difference in mean local gradient, over windows of GRAIN_WINDOW texels.

    Two textures of one skin are never aligned to the texel, so that L1 alone pays for blurring it; how much fine
    structure there is in a neighbourhood does not depend on where exactly it lies.
    """
    known = (weight > 0).float()
    pool = lambda x: F.avg_pool2d(x, GRAIN_WINDOW, GRAIN_WINDOW // 4)
    size = lambda x: torch.sqrt(((x[..., 1:, :-1] - x[..., :-1, :-1]) ** 2 + (x[..., :-1, 1:] - x[..., :-1, :-1]) ** 2)
                                .mean(dim=1, keepdim=True) + 1e-6)
    inside = known[..., 1:, 1:] * known[..., :-1, :-1]
    share = pool(inside)
    gap = (pool(size(predicted) * inside) - pool(size(truth) * inside)).abs()
    return gap.sum() / share.sum().clamp_min(1e-6)


def adversarial_loss(scores, real):
    """Cross entropy of eq. 7 for patches that should look real, or not."""
    return F.binary_cross_entropy_with_logits(scores.float(), torch.full_like(scores, float(real), dtype=torch.float))
