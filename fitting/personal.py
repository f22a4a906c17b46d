"""A person's own albedo, beyond what the basis can say, from several fitted pictures.

Brows, lip lines, beards, moles and the frames of glasses are not in a few principal components. What the pictures
themselves show there, light divided out, steadies the tracking of that person; it says nothing about other pictures.
"""
from __future__ import annotations

import numpy as np

from facemodel.light import shade
from facemodel.rasterizer import rasterize
from facemodel.sampling import samples
from fitting.texture import pose

SURFACE = 1.5            # mm, a vertex that lies further behind what its pixel shows is hidden
LARGEST = 0.4            # of the difference to the model's albedo
DOUBT = 1.0              # pictures' worth of trust in the model's albedo


def sample_vertices(view, posed):
    """Colours of the picture at projected vertices: (V, 3) float32."""
    return samples(view.image, posed.xy)


def vertex_visibility(model, posed, height, width):
    """(V,) float32 in [0, 1]: 0 where a vertex is hidden or outside the picture, less at grazing angles."""
    raster = rasterize(posed.xy, posed.vertices[:, 2], model.triangles, height, width)
    column, row = np.floor(posed.xy).astype(int).T
    inside = (column >= 1) & (column < width - 1) & (row >= 1) & (row < height - 1)
    depth = raster.depth[row.clip(0, height - 1), column.clip(0, width - 1)]
    seen = inside & (posed.vertices[:, 2] < depth + SURFACE)
    return (np.clip((posed.cosine - 0.2) / 0.5, 0, 1) * seen).astype(np.float32)


def weighted_median(values, weights):
    """Median over the first axis: (N, V, 3) and (N, V) -> (V, 3); 0 where all weights are."""
    order = np.argsort(values, axis=0)
    sorted_values = np.take_along_axis(values, order, axis=0)
    share = np.cumsum(np.take_along_axis(np.broadcast_to(weights[..., None], values.shape), order, axis=0), axis=0)
    middle = (share < 0.5 * share[-1:]).sum(axis=0)[None].clip(max=len(values) - 1)
    return np.where(share[-1] > 0, np.take_along_axis(sorted_values, middle, axis=0)[0], 0)


def personal_albedo(model, views, shared, frames):
    """Albedo of a person from fitted pictures.

    Parameters
    ----------
    model : MorphableModel
    views : list of View
    shared : Shared
    frames : list of Frame, one per view

    Returns
    -------
    (V, 3) float32: the difference to model.albedo(shared.albedo), 0 where no picture shows the surface
    """
    base = model.albedo(shared.albedo)
    colours, weights = [], []
    for view, frame in zip(views, frames):
        focal, centre = view.camera(shared.focal)
        posed = pose(model, model.shape(shared.identity, frame.expression), frame.rotation, frame.translation, focal,
                     centre)
        colours.append(sample_vertices(view, posed) / shade(posed.normals, frame.light) - base)
        weights.append(vertex_visibility(model, posed, *view.image.shape[:2]))
    colours, weights = np.stack(colours), np.stack(weights)
    total = weights.sum(axis=0)
    trust = (total / (total + DOUBT) * (model.sampling_weight > 0))[:, None]
    return (np.clip(weighted_median(colours, weights), -LARGEST, LARGEST) * trust).astype(np.float32)
