"""Visibility by the rules of facemodel.rasterizer, settled on any torch device from another rasteriser's proposal.

Graphics hardware and its software copies move corners to a grid (nvdiffrast: 1/16 pixel) before they decide which
pixel centres a triangle covers, so that a pixel near an edge may go to a neighbour, and a thin triangle may be lost.
`settle` keeps a proposal where that can't have mattered and decides the other pixels in float64. Its answer does not
depend on the proposal: a bad one only leaves more pixels to decide.
"""
from __future__ import annotations

import torch

MARGIN = 1 / 16             # pixels; corners rounded to a grid of 1/16 move by at most sqrt(2) / 32, and edges no more
MIN_AREA = 1e-9             # twice the area, square pixels; triangles below it are left out, as in facemodel.rasterizer
PAIRS_AT_ONCE = 1 << 22     # triangle-pixel pairs worked on together; those that may cover are kept of all, few a pixel


def front_triangles(xy, z, triangles, cull_backfaces):
    """Triangles that facemodel.rasterizer would draw: before the camera, with area, and facing it if asked for.

    Parameters
    ----------
    xy : (V, 2) float64 tensor, pixels
    z : (V,) float64 tensor, camera depth
    triangles : (T, 3) int64 tensor
    cull_backfaces : bool

    Returns
    -------
    (K,) int64 tensor, ascending indices into triangles
    """
    a, b, c = xy[triangles].unbind(1)
    area = _cross(b - a, c - a)
    keep = (z[triangles] > 0).all(dim=1) & (area.abs() >= MIN_AREA)
    if cull_backfaces:
        keep &= area < 0                 # y points down: counter-clockwise seen from outside is a negative area
    return keep.nonzero()[:, 0]


def settle(xy, z, triangles, proposal):
    """The triangle that each pixel sees, by the rules of facemodel.rasterizer.

    Parameters
    ----------
    xy : (V, 2) float64 tensor, pixels
    z : (V,) float64 tensor, camera depth
    triangles : (T, 3) int64 tensor, all of them to be drawn (front_triangles)
    proposal : (H, W) int64 tensor, row of `triangles` that each pixel is said to see, -1 where none

    Returns
    -------
    triangle : (H, W) int64 tensor, row of `triangles`, -1 where none
    decided : int, number of pixels that were decided in float64
    """
    height, width = proposal.shape
    said, corners = proposal.reshape(-1), xy[triangles]
    normals = _edge_normals(corners)
    nearest, furthest = z[triangles].min(dim=1).values, z[triangles].max(dim=1).values
    undecided = torch.zeros_like(said, dtype=torch.bool)
    confirmed = said < 0
    kept = []
    for owner, rows, columns in _pairs(corners, height, width):
        distance = _edge_distance(corners[owner], normals[owner], rows, columns)
        possible = distance >= -MARGIN
        owner, pixel, inside = owner[possible], (rows * width + columns)[possible], distance[possible] > MARGIN
        other = said[pixel]
        same = owner == other
        # another triangle that surely covers the pixel does no harm if all of it lies behind the proposed one
        harmless = inside & (same | ((other >= 0) & (nearest[owner] > furthest[other.clamp(min=0)])))
        undecided[pixel[~harmless]] = True
        confirmed[pixel[inside & same]] = True
        kept.append((owner, pixel))
    undecided |= ~confirmed
    best = torch.full_like(said, torch.iinfo(torch.int64).max)
    for owner, pixel in kept:
        open_ = undecided[pixel]
        owner, pixel = owner[open_], pixel[open_]
        rows = torch.div(pixel, width, rounding_mode="floor")
        weights = screen_weights(xy, triangles[owner], rows, pixel - rows * width)
        covers = (weights >= 0).all(dim=1)
        owner, pixel = owner[covers], pixel[covers]
        depth = (1 / (weights[covers] / z[triangles[owner]]).sum(dim=1)).float()
        # the bits of a positive float32 order like its value: the nearest wins, then the lower index
        key = (depth.view(torch.int32).long() << 32) | owner
        best.scatter_reduce_(0, pixel, key, "amin")
    none = best == torch.iinfo(torch.int64).max
    exact = torch.where(none, -1, best & 0xFFFFFFFF)
    return torch.where(undecided, exact, said).reshape(height, width), int(undecided.sum())


def barycentrics(xy, z, triangles, triangle):
    """Perspective-correct barycentric coordinates and depth of the pixels' triangles.

    Parameters
    ----------
    xy, z, triangles : as in settle
    triangle : (H, W) int64 tensor, -1 where none

    Returns
    -------
    barycentric : (H, W, 3) float32 tensor, zero where there is no triangle
    depth : (H, W) float32 tensor, inf where there is none
    """
    rows, columns = (triangle >= 0).nonzero().unbind(1)
    corners = triangles[triangle[rows, columns]]
    weights = screen_weights(xy, corners, rows, columns) / z[corners]
    along = 1 / weights.sum(dim=1)
    barycentric = torch.zeros((*triangle.shape, 3), dtype=torch.float32, device=triangle.device)
    depth = torch.full(triangle.shape, torch.inf, dtype=torch.float32, device=triangle.device)
    barycentric[rows, columns] = (weights * along[:, None]).float()
    depth[rows, columns] = along.float()
    return barycentric, depth


def screen_weights(xy, corners, rows, columns):
    """Barycentric coordinates in the picture, not perspective-correct, of pixel centres.

    xy (V, 2) float64; corners (N, 3) vertices; rows, columns (N,) pixels -> (N, 3) float64, all >= 0 inside.
    """
    a, b, c = (xy[corners] - torch.stack([columns, rows], dim=1)[:, None] - 0.5).unbind(1)
    return torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=1) / _cross(b - a, c - a)[:, None]


def _cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _pairs(corners, height, width):
    """Triangles (K, 3, 2) and the pixels of their boxes, grown by MARGIN: yields (owner, rows, columns), (N,) int64."""
    limit = corners.new_tensor([width - 1, height - 1])
    low = torch.ceil(corners.amin(dim=1) - 0.5 - MARGIN).clamp(min=0)
    high = torch.minimum(torch.floor(corners.amax(dim=1) - 0.5 + MARGIN), limit)
    size = (high - low + 1).clamp(min=0).long()
    low, count = low.long(), size.prod(dim=1)
    end = count.cumsum(0)
    first, at = 0, 0
    while first < len(corners):
        last = max(int(torch.searchsorted(end, at + PAIRS_AT_ONCE, right=True)), first + 1)
        owner = torch.repeat_interleave(torch.arange(first, last, device=corners.device), count[first:last])
        k = torch.arange(len(owner), device=corners.device) + at - (end - count)[owner]
        row = torch.div(k, size[owner, 0], rounding_mode="floor")
        yield owner, low[owner, 1] + row, low[owner, 0] + k - row * size[owner, 0]
        first, at = last, int(end[last - 1])


def _edge_normals(corners):
    """Inward unit normals of the edges from each corner to the next: (K, 3, 2) float64 -> (K, 3, 2) float32."""
    along = corners.roll(-1, dims=1) - corners
    side = torch.sign(_cross(along[:, 0], along[:, 1]))
    along = along * (side[:, None] / along.square().sum(dim=2).sqrt())[..., None]
    return torch.stack([-along[..., 1], along[..., 0]], dim=2).float()


def _edge_distance(corners, normals, rows, columns):
    """Signed distance of pixel centres to the nearest of their triangle's edge lines, positive inside.

    corners (N, 3, 2) float64, normals (N, 3, 2) float32, rows, columns (N,) -> (N,) float32. Good to 1e-3 pixel in
    pictures of a few thousand, far below MARGIN; float32 because many graphics cards are slow in double precision.
    """
    # the difference comes first, so that float32 keeps its digits
    offset = (torch.stack([columns, rows], dim=1)[:, None] + 0.5 - corners).float()
    return (offset * normals).sum(dim=2).amin(dim=1)
