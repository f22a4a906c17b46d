"""The z-buffer on an NVIDIA graphics card: nvdiffrast proposes what each pixel sees, facemodel.visibility settles it.

nvdiffrast (S. Laine and others, 2020, doi:10.1145/3414685.3417861) rounds corners to 1/16 pixel, gives a centre on an
edge to one side by a top-left rule, and computes in float32. The result here follows the rules of facemodel.rasterizer
all the same; see facemodel.visibility for how.
"""
from __future__ import annotations

import sys

import numpy as np
import torch

from facemodel.errors import InputError
from facemodel.rasterizer import Raster
from facemodel.visibility import barycentrics, front_triangles, settle


class NvdiffrastRasterizer:
    """Holds nvdiffrast's context, which is costly to make; called like facemodel.rasterizer.rasterize.

    device : str, a CUDA device of torch

    Raises
    ------
    InputError : when nvdiffrast can't be compiled, which it is on first use, or finds no GPU
    """

    def __init__(self, device="cuda"):
        import nvdiffrast.torch
        self.device = torch.device(device)
        self._draw = nvdiffrast.torch.rasterize
        try:
            _load_plugin(nvdiffrast.torch.ops)
            self._context = nvdiffrast.torch.RasterizeCudaContext(device=self.device)
        except (ImportError, OSError, RuntimeError) as error:      # compiler, toolkit or driver
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"--device cuda: nvdiffrast does not start ({reason}); it is compiled with "
                             "the CUDA toolkit of torch's CUDA version and a C++ compiler; "
                             "--device cpu needs neither") from error

    def __call__(self, xy, z, triangles, height, width, cull_backfaces=True):
        """Rasterises projected triangles; arguments and result as in facemodel.rasterizer.rasterize."""
        upload = lambda a: torch.as_tensor(np.asarray(a, np.float32), device=self.device).double()
        xy, z = upload(xy), upload(z)
        triangles = torch.as_tensor(np.asarray(triangles, np.int64), device=self.device)
        front = front_triangles(xy, z, triangles, cull_backfaces)
        corners = triangles[front]
        proposal = self._propose(xy, z, corners, height, width)
        triangle, _ = settle(xy, z, corners, proposal)
        barycentric, depth = barycentrics(xy, z, corners, triangle)
        if len(front):
            triangle = torch.where(triangle >= 0, front[triangle.clamp(min=0)], -1)
        return Raster(triangle.int().cpu().numpy(), barycentric.cpu().numpy(), depth.cpu().numpy())

    def _propose(self, xy, z, triangles, height, width):
        """(H, W) int64, the row of triangles that nvdiffrast sees at each pixel, -1 where none."""
        if not len(triangles):
            return torch.full((height, width), -1, device=self.device)
        position = clip_positions(xy, z, triangles, height, width)[None].contiguous()
        out, _ = self._draw(self._context, position, triangles.int().contiguous(), (height, width), grad_db=False)
        return out[0, ..., 3].long() - 1


def clip_positions(xy, z, triangles, height, width):
    """Homogeneous positions that nvdiffrast projects to the pixels xy, row 0 of its output being the picture's top.

    nvdiffrast's row 0 lies at y = -1 of the unit square, so a y that points down needs no flip. Depth is spread over
    the range of the triangles' corners, with some room, so that nothing is clipped and few bits are lost.

    Parameters
    ----------
    xy : (V, 2) float64 tensor, pixels
    z : (V,) float64 tensor, camera depth, positive at the corners of triangles
    triangles : (K, 3) int64 tensor
    height, width : int

    Returns
    -------
    (V, 4) float32 tensor
    """
    used = z[triangles]
    near, far = 0.99 * used.min(), 1.01 * used.max()
    unit = 2 * xy / xy.new_tensor([width, height]) - 1
    depth = ((far + near) * z - 2 * far * near) / (far - near)      # over w = z: -1 at near, 1 at far
    return torch.cat([unit * z[:, None], depth[:, None], z[:, None]], dim=1).float()


def _load_plugin(ops):
    """Compiles nvdiffrast's kernels where that has not been done, and loads them.

    nvdiffrast 0.3.3 then imports them by name, which fails with torch 2.12: extensions built with pybind11 3 no longer
    enter themselves in sys.modules. Their folder on the path for that one import makes up for it.
    """
    try:
        ops._get_plugin()
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("nvdiffrast_plugin"):
            raise
        from torch.utils.cpp_extension import _get_build_directory
        folder = _get_build_directory(error.name, False)
        sys.path.append(folder)
        try:
            ops._get_plugin()
        finally:
            sys.path.remove(folder)
