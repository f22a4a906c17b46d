"""The photometric term of fitting.energy in torch, on any device: residuals, Jacobian, normal equations.

The same samples, the same formulas and the same columns (fitting.parameters.Layout). The model's bases are sent to the
device once, a view's picture and samples once per look; a linearisation sends vertices and vertex albedo, and only the
normal equations, a matrix as wide as the unknowns, come back.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from facemodel.light import C0, C1, C2, C3, C4
from fitting.energy import ROBUST_EPSILON
from fitting.parameters import TRANSLATION_UNIT


@dataclass(frozen=True)
class DeviceSamples:
    """A picture and the points of the surface that the term looks at, on a device.

    image : (H, W, 3) tensor in [0, 1], H and W at least 4
    triangle_vertices : (N, 3) int64 tensor, the vertices of each sample's triangle
    barycentric : (N, 3) tensor
    weight : (N,) tensor >= 0
    """

    image: torch.Tensor
    triangle_vertices: torch.Tensor
    barycentric: torch.Tensor
    weight: torch.Tensor


@dataclass(frozen=True)
class NormalEquations:
    """Second-order model of scale times the robust colour energy.

    hessian : (n, n) float64, J^T W J
    gradient : (n,) float64, J^T W r
    residual : (N, 3) tensor on the device
    """

    hessian: np.ndarray
    gradient: np.ndarray
    residual: torch.Tensor


class TorchPhotometric:
    """The photometric term of one model on one device; make it once, its bases take some 130 MB in float32.

    Parameters
    ----------
    model : MorphableModel
    device : str, of torch
    dtype : torch.float32 or torch.float64
    """

    def __init__(self, model, device="cpu", dtype=torch.float32):
        self.device, self.dtype = torch.device(device), dtype
        self._triangles = np.asarray(model.triangles, np.int64)
        self._bases = {name: self._send(getattr(model, f"{name}_basis"))
                       for name in ("identity", "expression", "albedo")}

    def _send(self, array):
        return torch.as_tensor(np.asarray(array), dtype=self.dtype, device=self.device)

    def prepare(self, image, samples):
        """What stays the same while the energy is linearised.

        image : (H, W, 3) float in [0, 1]
        samples : fitting.energy.Samples

        Returns
        -------
        DeviceSamples
        """
        corners = torch.as_tensor(self._triangles[samples.triangle], device=self.device)
        return DeviceSamples(self._send(image), corners, self._send(samples.barycentric), self._send(samples.weight))

    def photometric(self, vertices, albedo, samples, shared, frame, principal_point, layout=None):
        """Colour residuals of equation 4 and, if asked for, their Jacobian, as fitting.photometric.photometric.

        Parameters
        ----------
        vertices, albedo : (V, 3) float
        samples : DeviceSamples
        shared, frame : fitting.parameters.Shared, Frame; shared.focal in pixels of the picture
        principal_point : (2,) float, pixels of the picture
        layout : Layout, optional

        Returns
        -------
        residual : (N, 3) tensor, image minus model
        jacobian : (3 N, layout.size) tensor or None; row 3 n + c is channel c of sample n
        """
        at, bary = samples.triangle_vertices, samples.barycentric
        corners = self._send(vertices)[at]                                       # (N, 3 corners, 3)
        edges = corners[:, 1:] - corners[:, :1]
        normals = torch.linalg.cross(edges[:, 0], edges[:, 1])
        lengths = normals.norm(dim=1, keepdim=True) + 1e-12
        normals = normals / lengths
        base = (bary[:, :, None] * self._send(albedo)[at]).sum(dim=1)
        rotation, light, centre = self._send(frame.rotation), self._send(frame.light), self._send(principal_point)
        focal = float(shared.focal)

        turned = (bary[:, :, None] * corners).sum(dim=1) @ rotation.T
        camera = turned + self._send(frame.translation)
        depth = camera[:, 2:]
        offset = focal * camera[:, :2] / depth
        colour, gradient = sample_image(samples.image, offset + centre)
        normals_camera = normals @ rotation.T
        basis, basis_gradient = sh_basis_and_gradient(normals_camera)
        shading = basis @ light
        residual = colour - base * shading
        if layout is None:
            return residual, None

        n = len(at)
        jacobian = torch.empty((n, 3, layout.size), dtype=self.dtype, device=self.device)
        # image through the projection: d colour / d camera position, (N, 3 channels, 3 axes)
        through = gradient * (focal / depth)[:, None]
        through = torch.cat([through, -(through * (camera[:, :2] / depth)[:, None]).sum(dim=2, keepdim=True)], dim=2)
        # model through the normal: d colour / d unit normal, (N, 3 channels, 3 axes), camera space
        bend = base[:, :, None] * torch.einsum("nka,kc->nca", basis_gradient, light)
        if "rotation" in layout:
            # d(exp(w) v) / dw = -[v]x, so g . dv = (v x g) . w
            jacobian[:, :, layout["rotation"]] = (torch.linalg.cross(turned[:, None], through)
                                                  - torch.linalg.cross(normals_camera[:, None], bend))
        if "translation" in layout:
            jacobian[:, :, layout["translation"]] = through * TRANSLATION_UNIT
        if "focal" in layout:
            jacobian[:, :, layout["focal"]] = (gradient * offset[:, None]).sum(dim=2, keepdim=True)    # by log f
        if "light" in layout:
            jacobian[:, :, layout["light"]] = (basis[:, None, :, None] * torch.diag_embed(-base)[:, :, None]
                                               ).reshape(n, 3, 27)
        if "albedo" in layout:
            blend = torch.einsum("nv,nvck->nck", bary, self._bases["albedo"][at])
            jacobian[:, :, layout["albedo"]] = -shading[:, :, None] * blend
        if "identity" in layout or "expression" in layout:
            # d(n/|n|) = (I - n n^T) dn / |n| with dn = de1 x e2 + e1 x de2
            bend = bend @ rotation
            tangent = (bend - (bend * normals[:, None]).sum(dim=2, keepdim=True) * normals[:, None]) / lengths[:, None]
            first = torch.linalg.cross(edges[:, None, 1], tangent)               # factor of the second corner's step
            second = torch.linalg.cross(tangent, edges[:, None, 0])              # factor of the third corner's
            per_corner = bary[:, None, :, None] * (through @ rotation)[:, :, None]       # (N, channel, corner, axis)
            per_corner = per_corner + torch.stack([first + second, -first, -second], dim=2)
            for name in ("identity", "expression"):
                if name in layout:
                    jacobian[:, :, layout[name]] = per_corner.reshape(n, 3, 9) @ self._bases[name][at].reshape(n, 9, -1)
        return residual, jacobian.reshape(3 * n, layout.size)

    def energy(self, vertices, albedo, samples, shared, frame, principal_point):
        """Equation 4 as fitting.energy.colour_energy: the weighted mean of the colour distances, float."""
        residual, _ = self.photometric(vertices, albedo, samples, shared, frame, principal_point)
        distance, weight = residual.double().norm(dim=1), samples.weight.double()
        near = distance ** 2 / (2 * ROBUST_EPSILON) + ROBUST_EPSILON / 2
        distance = torch.where(distance < ROBUST_EPSILON, near, distance)
        return float((weight * distance).sum() / weight.sum().clamp(min=1e-9))

    def normal_equations(self, vertices, albedo, samples, shared, frame, principal_point, layout, scale=1.0):
        """Gauss-Newton equations with the IRLS weights of the l2,1 norm (fitting.energy.robust_weights).

        scale : float, weight of the term (w_colour); other arguments as in photometric

        Returns
        -------
        NormalEquations
        """
        residual, jacobian = self.photometric(vertices, albedo, samples, shared, frame, principal_point, layout)
        robust = 1 / residual.norm(dim=1).clamp(min=ROBUST_EPSILON)
        root = (scale * samples.weight * robust / samples.weight.sum()).sqrt().repeat_interleave(3)
        rows = torch.cat([jacobian, residual.reshape(-1, 1)], dim=1) * root[:, None]
        product = (rows.T @ rows).double().cpu().numpy()
        return NormalEquations(product[:-1, :-1], product[:-1, -1], residual)


def sample_image(image, xy):
    """Catmull-Rom samples of image (H, W, 3) at xy (N, 2) pixels, and the interpolant's derivative (N, 3, 2)."""
    height, width = image.shape[:2]
    x, j = _cell(xy[:, 0], width)
    y, i = _cell(xy[:, 1], height)
    (wx, dx), (wy, dy) = _catmull_rom(x), _catmull_rom(y)
    tap = torch.arange(-1, 3, device=image.device)
    taps = image[(i[:, None] + tap)[:, :, None], (j[:, None] + tap)[:, None]]       # (N, 4 rows, 4 columns, 3)
    mix = lambda along_y, along_x: torch.einsum("na,nb,nabc->nc", along_y, along_x, taps)
    return mix(wy, wx), torch.stack([mix(wy, dx), mix(dy, wx)], dim=2)


def _cell(position, size):
    """Offset in [0, 1) from the pixel centre before a position, and that pixel's index, kept off the border."""
    position = (position - 0.5).clamp(1.0, size - 2.001)
    index = position.floor().clamp(max=size - 3)
    return position - index, index.long()


def _catmull_rom(t):
    """Weights of the samples at -1, 0, 1, 2 for t (N,) in [0, 1), and their derivatives, each (N, 4)."""
    weight = torch.stack([((-0.5 * t + 1.0) * t - 0.5) * t, (1.5 * t - 2.5) * t * t + 1.0,
                          ((-1.5 * t + 2.0) * t + 0.5) * t, (0.5 * t - 0.5) * t * t], dim=1)
    slope = torch.stack([(-1.5 * t + 2.0) * t - 0.5, (4.5 * t - 5.0) * t, (-4.5 * t + 4.0) * t + 0.5,
                         (1.5 * t - 1.0) * t], dim=1)
    return weight, slope


def sh_basis_and_gradient(normals):
    """facemodel.light.sh_basis and sh_gradient of unit normals (N, 3) in torch: (N, 9), (N, 9, 3)."""
    x, y, z = normals.unbind(1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    basis = torch.stack([C0 * one, C1 * y, C1 * z, C1 * x, C2 * x * y, C2 * y * z, C3 * (3 * z * z - 1), C2 * x * z,
                         C4 * (x * x - y * y)], dim=1)
    along_x = torch.stack([zero, zero, zero, C1 * one, C2 * y, zero, zero, C2 * z, 2 * C4 * x], dim=1)
    along_y = torch.stack([zero, C1 * one, zero, zero, C2 * x, C2 * z, zero, zero, -2 * C4 * y], dim=1)
    along_z = torch.stack([zero, zero, C1 * one, zero, zero, C2 * y, 6 * C3 * z, C2 * x, zero], dim=1)
    return basis, torch.stack([along_x, along_y, along_z], dim=2)
