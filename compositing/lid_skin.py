"""The skin of upper lids, which a photo with open eyes does not show.

Where it does, it shows a narrow strip under lashes, in a fold. As the eyes close that strip is drawn out over the whole
lid: streaks, dark as a bruise. What is drawn out far is therefore covered, as far as the eye is closed, with what the
skin around is like. The edge of the lid with its lashes stays.
"""
from __future__ import annotations

import numpy as np

from compositing.lids import closed_further
from compositing.ramps import ramp
from facemodel.atlas import build_atlas
from fitting.texture import bare_skin, pull_push, weight_texture

DRAWN_OUT = 1.4, 2.2         # times as large as in the photo: from which on lid skin is covered, wholly
LASHES = 0.8, 1.6            # mm from the edge of a closed lid that its lashes take
AROUND = 0.04                # of the chart's side: skin that tells what a lid's is like
UNSEEN = 0.02                # weight of skin that is filled in
CLOSED = 0.35, 0.9           # share by which the lids have approached each other: from which on, wholly


class LidSkin:
    """Covers the upper lids of a target's textures.

    Parameters
    ----------
    model : MorphableModel
    target : compositing.target.TargetFace
    charts : list of compositing.gaze.EyeChart of its texture's size, for each eye
    """

    def __init__(self, model, target, charts):
        atlas = build_atlas(model, len(target.texture.rgb))
        as_texture = lambda weights: weight_texture(model, weights, atlas)
        lids = model.regions["eyelids"]
        closed = closed_further(model, target.identity, target.expression, 1.0)
        open_, shut = (model.shape(target.identity, e) for e in (target.expression, closed))
        drawn_out = lids * ramp(stretch(model, open_, shut), *DRAWN_OUT)
        known = as_texture(bare_skin(model) * (lids < 0.05)) * np.maximum(target.texture.validity, UNSEEN)
        self._covers = []
        for chart in charts:
            corners, upper, lower = (shut[chart.marks[k]] for k in ([0, 3], [1, 2], [4, 5]))
            edge = min(upper[:, 1].mean(), lower[:, 1].mean())               # y is down; lids cross where they can
            here = np.abs(shut[:, 0] - corners[:, 0].mean()) < np.ptp(corners[:, 0])
            weight = as_texture(drawn_out * here * ramp(edge - shut[:, 1], *LASHES))
            rows, columns = (np.flatnonzero((weight > 0.01).any(axis=k)) for k in (1, 0))
            if len(rows):
                margin = round(AROUND * atlas.size)
                top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
                window = np.s_[top:rows[-1] + margin, left:columns[-1] + margin]
                skin = pull_push(target.texture.rgb[window], known[window])
                self._covers.append((chart, window, weight[window][..., None], skin, max(chart.gap(open_), 1.0)))

    def cover(self, texture, shape):
        """Covers lids in a texture (S, S, 3), in place, as far as they are closed in a shape (V, 3)."""
        for chart, window, weight, skin, gap in self._covers:
            share = ramp(1 - chart.gap(shape) / gap, *CLOSED)
            if share > 0:
                before = texture[window]
                before += np.float32(share) * weight * (skin - before)


def stretch(model, before, after):
    """How many times as large the surface around each vertex becomes from one shape (V, 3) to another: (V,) float32."""
    corner = lambda shape: (shape[model.triangles[:, 1]] - shape[model.triangles[:, 0]],
                            shape[model.triangles[:, 2]] - shape[model.triangles[:, 0]])
    area = [np.linalg.norm(np.cross(*corner(shape)), axis=1) for shape in (before, after)]
    total = [np.bincount(model.triangles.ravel(), np.repeat(a, 3), len(before)) for a in area]
    return (total[1] / np.maximum(total[0], 1e-6)).astype(np.float32)
