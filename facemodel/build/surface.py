"""Turns the MakeHuman head into one surface: neck cut off, mouth and eyes closed by membranes, slit open at the back.

The mouth's membrane hangs behind the lips and the eyes' membranes lie on the eyeballs, so that the inside of the mouth
and the eyes are texels of the same chart as the skin (section 5.4 of the paper). The slit makes the surface a disc,
which a chart without overlaps needs; it runs where no camera that sees the face looks.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facemodel.membrane import RECESS, bulge, fit_sphere
from facemodel.mesh import closed_loops

NECK_HEIGHT = 590.0      # mm in the base mesh: quads whose centre is lower are left out
MOUTH_ROWS, EYE_ROWS = 6, 6


@dataclass(frozen=True)
class ControlMesh:
    """The control mesh and how its vertices come from the base mesh.

    source : (V,) int, vertex of the base mesh, -1 for membrane vertices
    quads : (Q, 4) int, counter-clockwise seen from outside
    mouth, left_eye, right_eye : (rows, columns) int, grids of vertices that close the holes, border included
    mirror : (V,) int, the vertex on the other side
    """

    source: np.ndarray
    quads: np.ndarray
    mouth: np.ndarray
    left_eye: np.ndarray
    right_eye: np.ndarray
    mirror: np.ndarray


def boundary_loops(quads):
    """Closed loops of border vertices, in the direction in which the quads run along them."""
    directed = {(a, b) for q in quads for a, b in zip(q, np.roll(q, -1))}
    follower = {a: b for a, b in directed if (b, a) not in directed}
    return closed_loops(follower)


def _corners(loop, positions):
    """The loop turned so that it starts at its leftmost vertex and runs over the top; position of the rightmost one."""
    loop = np.roll(loop, -int(np.argmin(positions[loop, 0])))
    right = int(np.argmax(positions[loop, 0]))
    if positions[loop[1:right], 1].mean() < positions[loop[right + 1:], 1].mean():
        loop = np.roll(loop[::-1], 1)
        right = len(loop) - right
    return loop, right


def _grid_border(loop, positions, rows):
    """Splits a loop into the four sides of a grid.

    The grid's vertical sides have rows - 1 edges and lie about the hole's corners (outermost in x), shared between the
    upper and the lower chain so that both keep the same number of edges: the lips have 24 edges above, 14 below.

    Returns
    -------
    top, bottom (from left to right), left, right (from top to bottom) : (n,) int, corners of the grid included
    """
    loop, right = _corners(loop, positions)
    n, side = len(loop), rows - 1
    surplus = 2 * right - n                                     # edges that the upper chain has more
    takes = [(side + surplus // 2 + odd) for odd in (0, surplus % 2)]
    if any(t % 2 or not 0 <= t <= 2 * side for t in takes):
        raise ValueError(f"a hole with {right} edges above and {n - right} below has no grid with {rows} rows")
    left_top, right_top = (t // 2 for t in takes)
    top = loop[left_top:right - right_top + 1]
    bottom = loop[np.arange(n - (side - left_top), right + (side - right_top) - 1, -1) % n]
    left_side = loop[np.arange(left_top, left_top - side - 1, -1) % n]
    right_side = loop[np.arange(right - right_top, right - right_top + side + 1)]
    return top, bottom, left_side, right_side


def hole_grid(loop, positions, rows, first_new):
    """Grid of vertex indices that fills a hole; new vertices are numbered from first_new.

    Returns
    -------
    grid : (rows, columns) int
    """
    top, bottom, left, right = _grid_border(loop, positions, rows)
    grid = np.full((rows, len(top)), -1)
    grid[0], grid[-1], grid[:, 0], grid[:, -1] = top, bottom, left, right
    empty = grid < 0
    grid[empty] = first_new + np.arange(empty.sum())
    return grid


def grid_quads(grid):
    """Quads of a grid, counter-clockwise seen from +z when columns run along +x and rows run down."""
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    return np.stack([a, b, c, d], axis=-1).reshape(-1, 4)


def coons(border_values, grid):
    """Fills the inside of a grid from its border by transfinite (Coons) interpolation.

    Parameters
    ----------
    border_values : (V, K) float, values at the vertices; only those on the grid's border are read
    grid : (rows, columns) int

    Returns
    -------
    (rows, columns, K) float
    """
    p = border_values[np.where(grid < len(border_values), grid, 0)]
    u = np.linspace(0, 1, grid.shape[1])[None, :, None]
    v = np.linspace(0, 1, grid.shape[0])[:, None, None]
    ruled = (1 - v) * p[:1] + v * p[-1:] + (1 - u) * p[:, :1] + u * p[:, -1:]
    corners = ((1 - u) * (1 - v) * p[0, 0] + u * (1 - v) * p[0, -1] + (1 - u) * v * p[-1, 0] + u * v * p[-1, -1])
    return ruled - corners


def build_control_mesh(base):
    """The control mesh of the head, from facemodel.build.makehuman.BaseMesh."""
    p = base.vertices
    outer = base.quads[~base.cavities & (p[base.quads].mean(axis=1)[:, 1] > NECK_HEIGHT)]
    midline_back = _slit_vertices(base, outer)

    used = np.unique(outer)
    new_index = np.full(len(p), -1)
    new_index[used] = np.arange(len(used))
    source = used
    quads = new_index[outer]
    mirror = new_index[base.mirror[used]]

    # slit: vertices behind the crown get a twin for the quads on the -x side
    cut = new_index[midline_back]
    twin = np.full(len(used), -1)
    inner_cut = cut[:-1]                                        # the crown, where the slit ends, stays one vertex
    twin[inner_cut] = len(used) + np.arange(len(inner_cut))
    source = np.concatenate([source, source[inner_cut]])
    right_side = p[used][quads].mean(axis=1)[:, 0] < 0
    touched = (twin[quads] >= 0) & right_side[:, None]
    quads = np.where(touched, twin[quads], quads)
    mirror = np.concatenate([mirror, inner_cut])
    mirror[inner_cut] = twin[inner_cut]

    positions = p[source]
    holes = [loop for loop in boundary_loops(quads) if len(loop) < 45 and positions[loop, 2].mean() > 100]
    mouth_loop = min(holes, key=lambda loop: positions[loop, 1].mean())
    left_loop = max(holes, key=lambda loop: positions[loop, 0].mean())
    right_loop = min(holes, key=lambda loop: positions[loop, 0].mean())
    grids, count = [], len(source)
    for loop, rows in ((mouth_loop, MOUTH_ROWS), (left_loop, EYE_ROWS), (right_loop, EYE_ROWS)):
        grid = hole_grid(loop, positions, rows, count)
        count += (grid.shape[0] - 2) * (grid.shape[1] - 2)
        quads = np.concatenate([quads, grid_quads(grid)])
        grids.append(grid)
    mouth, left, right = grids
    mirror = np.concatenate([mirror, np.arange(len(mirror), count)])
    mirror[mouth] = mouth[:, ::-1]
    mirror[left], mirror[right] = right[:, ::-1], left[:, ::-1]
    source = np.concatenate([source, np.full(count - len(source), -1)])
    return ControlMesh(source, quads, mouth, left, right, mirror)


def _slit_vertices(base, outer):
    """Midline vertices of the base mesh from the neck's back up to the crown (the highest point), in that order."""
    edges = np.concatenate([outer[:, [k, (k + 1) % 4]] for k in range(4)])
    on_plane = (base.mirror == np.arange(len(base.mirror)))
    along = edges[on_plane[edges].all(axis=1)]
    p = base.vertices
    neighbours = {}
    for a, b in along:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    ends = [v for v, n in neighbours.items() if len(n) == 1 and p[v, 1] < NECK_HEIGHT + 40]
    at = min(ends, key=lambda v: p[v, 2])
    crown = max(neighbours, key=lambda v: p[v, 1])
    path, seen = [at], {at}
    while at != crown:
        at = next(v for v in neighbours[at] if v not in seen)
        path.append(at)
        seen.add(at)
    return np.array(path)


def place(mesh, base, vertices, close_lips=False):
    """Positions of the control mesh for a shape of the base mesh.

    Parameters
    ----------
    mesh : ControlMesh
    base : BaseMesh, for the eyeballs' vertices
    vertices : (19158, 3) float, a shape of the base mesh in millimetres
    close_lips : bool, bring the lips' inner border together (the base mesh leaves a gap of 1 mm)

    Returns
    -------
    (V, 3) float
    """
    out = np.where(mesh.source[:, None] >= 0, vertices[mesh.source], 0.0)
    if close_lips:
        out = _close_lips(mesh, out)
    out[mesh.mouth] = mouth_membrane(out, mesh.mouth)
    for grid, name in ((mesh.left_eye, "helper-l-eye"), (mesh.right_eye, "helper-r-eye")):
        out[grid[1:-1, 1:-1]] = bulge(coons(out, grid)[1:-1, 1:-1], *fit_sphere(vertices[base.group(name)]))
    return out


def _close_lips(mesh, positions):
    """Moves the lips' inner border, upper and lower, halfway to each other."""
    grid = mesh.mouth
    loop = np.concatenate([grid[0], grid[1:, -1], grid[-1, -2::-1], grid[-2:0:-1, 0]])
    loop, right = _corners(loop, positions)
    upper, lower = loop[:right + 1], np.append(loop[right:], loop[0])[::-1]
    out = positions.copy()
    for chain, other in ((upper, lower), (lower, upper)):
        x = positions[chain, 0]
        for axis in (1, 2):
            opposite = np.interp(x, positions[other, 0], positions[other, axis])
            out[chain, axis] = (positions[chain, axis] + opposite) / 2
    return out


def displace(mesh, displacement):
    """Displacements of the control mesh for displacements of the base mesh: membranes follow their borders."""
    out = np.where(mesh.source[:, None] >= 0, displacement[mesh.source], 0.0)
    for grid in (mesh.mouth, mesh.left_eye, mesh.right_eye):
        out[grid[1:-1, 1:-1]] = coons(out, grid)[1:-1, 1:-1]
    return out


def mouth_membrane(positions, grid):
    """The mouth's membrane: Coons patch of the lips' inner border, pushed back by a smooth bump."""
    u = np.linspace(-1, 1, grid.shape[1])[None, :]
    v = np.linspace(-1, 1, grid.shape[0])[:, None]
    out = coons(positions, grid)
    out[..., 2] -= RECESS * np.sqrt(np.maximum(1 - v ** 2, 0)) * (1 - u ** 4)
    return out
