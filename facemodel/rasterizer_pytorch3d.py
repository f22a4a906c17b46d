"""The z-buffer of PyTorch3D: a third implementation, slow, that the others are compared with.

It decides in float32 in a space where the shorter side of the picture spans [-1, 1]: a centre within about 1e-5 pixel
of an edge may go to either side (TOLERANCE counts it as covered by both), triangles with an area below 1e-8 in that
space are lost, and barycentrics of triangles far smaller than a pixel are off by a few 1e-4. Nothing is settled
afterwards, so that the comparison stays independent.
"""
from __future__ import annotations

import numpy as np
import torch
from pytorch3d.renderer.mesh import rasterize_meshes
from pytorch3d.structures import Meshes

from facemodel.rasterizer import Raster
from facemodel.visibility import front_triangles

TOLERANCE = 1e-5            # pixels; a centre as close to an edge is covered, so that one exactly on it is


def rasterize(xy, z, triangles, height, width, cull_backfaces=True):
    """Rasterises projected triangles; arguments and result as in facemodel.rasterizer.rasterize."""
    xy = torch.as_tensor(np.asarray(xy, np.float32)).double()
    z = torch.as_tensor(np.asarray(z, np.float32)).double()
    triangles = torch.as_tensor(np.asarray(triangles, np.int64))
    front = front_triangles(xy, z, triangles, cull_backfaces)
    if not len(front):
        return Raster(np.full((height, width), -1, np.int32), np.zeros((height, width, 3), np.float32),
                      np.full((height, width), np.inf, np.float32))
    # x to the left, y up, the middle of the picture at 0
    unit = 2 / min(height, width)
    space = torch.cat([(xy.new_tensor([width, height]) / 2 - xy) * unit, z[:, None]], dim=1).float()
    face, depth, barycentric, _ = rasterize_meshes(
        Meshes([space], [triangles[front]]), image_size=(height, width), blur_radius=(TOLERANCE * unit) ** 2,
        faces_per_pixel=1, bin_size=0, perspective_correct=True, clip_barycentric_coords=True)
    face, depth, barycentric = face[0, ..., 0], depth[0, ..., 0], barycentric[0, ..., 0, :]
    seen = face >= 0
    triangle = torch.where(seen, front[face.clamp(min=0)], -1).int()
    depth = torch.where(seen, depth, torch.inf)
    barycentric = torch.where(seen[..., None], barycentric, 0.0)
    return Raster(triangle.numpy(), barycentric.numpy(), depth.numpy())
