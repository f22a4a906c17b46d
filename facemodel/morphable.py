"""The parametric face: a mean plus linear identity, expression and albedo (equations 1 and 2)."""
from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numba import njit

import assets
from facemodel.errors import InputError
from facemodel.files import stored_arrays
from facemodel.subdivision import catmull_clark, subdivide, triangulate, unique_edges
from facemodel.symmetry import mirrored_uv

FLIP = np.float32([1, -1, -1])     # files have y up and z out of the face; in memory y is down and z points away
GEOMETRY, SKIN = "commons_face.npz", "albedo.npz"
DAMAGED = "is damaged, or of another model; install dynatex again, or build it with python -m facemodel.build and " \
          "python -m fitting.learn_albedo"


@njit(cache=True, fastmath=True, nogil=True)
def _multiply_rows(indptr, indices, data, control, rows, out):
    """Some rows of a csr matrix times control (C, 3)."""
    for row in rows:
        x, y, z = np.float32(0), np.float32(0), np.float32(0)
        for k in range(indptr[row], indptr[row + 1]):
            c = indices[k]
            x += data[k] * control[c, 0]
            y += data[k] * control[c, 1]
            z += data[k] * control[c, 2]
        out[row, 0], out[row, 1], out[row, 2] = x, y, z


@dataclass(frozen=True)
class MorphableModel:
    """A linear face model on a control mesh that is refined by a sparse matrix.

    Model space is in millimetres with its origin inside the head, in memory oriented like the camera (x to the
    subject's left, y down, z into the face), so that an identity rotation looks into the camera.

    name, hash : str, what a file of coefficients was made with
    control_mean : (C, 3) float32
    control_identity : (C, 3, n_id) float32, displacement per standard deviation
    control_expression : (C, 3, n_exp) float32, displacement per unit of the coefficient
    expression_names : tuple of str
    expression_range : (2,) lowest and highest value of an expression coefficient
    refine : (V, C) csr float32, control mesh to surface
    triangles : (T, 3) int32, counter-clockwise seen from outside
    albedo_mean : (V, 3) float32 in [0, 1] (values as in the photo, sRGB)
    albedo_basis : (V, 3, n_alb) float32, change per standard deviation
    uv : (V, 2) float32 in [0, 1], v up
    landmarks : (68,) int32, vertices in iBUG order
    contour_paths : (17, K) int32, vertices over which each jaw landmark slides
    spread : (S,) int32, vertices spread evenly over the face, for dense landmarks
    regions : dict name -> (V,) float32 in [0, 1]
    coarse_edges : (E, 2) int32, edges of a coarser mesh, for graphs over the surface
    coarse_refine : (V, V1) csr float32, from the coarser mesh to the surface
    coarse_index : (V1,) int32, the surface's vertex at each vertex of the coarser mesh
    """

    name: str
    hash: str
    control_mean: np.ndarray
    control_identity: np.ndarray
    control_expression: np.ndarray
    expression_names: tuple
    expression_range: tuple
    refine: sp.csr_matrix
    triangles: np.ndarray
    albedo_mean: np.ndarray
    albedo_basis: np.ndarray
    uv: np.ndarray
    landmarks: np.ndarray
    contour_paths: np.ndarray
    spread: np.ndarray
    regions: dict = field(repr=False)
    coarse_edges: np.ndarray = field(repr=False)
    coarse_refine: sp.csr_matrix = field(repr=False)
    coarse_index: np.ndarray = field(repr=False)

    @property
    def identity_count(self):
        return self.control_identity.shape[2]

    @property
    def expression_count(self):
        return self.control_expression.shape[2]

    @property
    def albedo_count(self):
        return self.albedo_basis.shape[2]

    @property
    def vertex_count(self):
        return self.refine.shape[0]

    @property
    def dense_landmarks(self):
        """(51 + S,) int32, vertices that fitting.dense_landmarks sees: inner landmarks (iBUG 17 to 67), the spread."""
        return np.concatenate([self.landmarks[17:], self.spread])

    @cached_property
    def identity_hash(self):
        """What identity coefficients mean, as 16 hexadecimal digits; other models' mean something else."""
        return hashlib.sha256(self.control_mean.tobytes() + self.control_identity.tobytes()).hexdigest()[:16]

    @cached_property
    def mean(self):
        """(V, 3) float32, the mean face."""
        return self.express(self.control_mean)

    @cached_property
    def identity_basis(self):
        """(V, 3, n_id) float32."""
        return self._refined(self.control_identity)

    @cached_property
    def expression_basis(self):
        """(V, 3, n_exp) float32."""
        return self._refined(self.control_expression)

    @cached_property
    def mirrored_uv(self):
        """(V, 2) float32, where on the chart each vertex's mirror image lies; None where the chart is symmetric."""
        return mirrored_uv(self)

    def _refined(self, basis):
        count = basis.shape[2]
        return np.ascontiguousarray((self.refine @ basis.reshape(len(basis), -1)).reshape(-1, 3, count))

    @cached_property
    def sampling_weight(self):
        """(V,) float32, what a colour term looks at: skin of the face, less so eyes, hardly the mouth's inside."""
        r = self.regions
        weight = r["face"] * (1 - 0.97 * r["mouth_interior"]) * (1 - 0.6 * r["eyes"]) * (1 - r["ears"])
        return weight.astype(np.float32)

    @cached_property
    def sampled_index(self):
        """(F,) int32, the triangles with some sampling_weight."""
        return np.flatnonzero((self.sampling_weight[self.triangles] > 0.02).any(axis=1)).astype(np.int32)

    @cached_property
    def sampled_triangles(self):
        """(F, 3) int32, triangles[sampled_index]."""
        return self.triangles[self.sampled_index]

    @cached_property
    def sampled_vertices(self):
        """(V,) bool, the corners of sampled_triangles."""
        sampled = np.zeros(self.vertex_count, bool)
        sampled[self.sampled_triangles] = True
        return sampled

    def shape(self, identity=None, expression=None, rows=None):
        """Vertices of a face (equation 1).

        Parameters
        ----------
        identity : (n,) float, n <= n_id, standard deviations; default the mean
        expression : (n_exp,) float; default neutral
        rows : (R,) int, optional: only these vertices are computed, the others are zero

        Returns
        -------
        (V, 3) float32, model space, millimetres
        """
        return self.express(self.neutral(identity), expression, rows)

    def neutral(self, identity=None):
        """Control mesh of a face without expression: (n,) standard deviations -> (C, 3) float32."""
        if identity is None:
            return self.control_mean
        basis = self.control_identity[..., :len(identity)]
        return self.control_mean + basis @ np.asarray(identity, np.float32)

    def express(self, control, expression=None, rows=None):
        """Vertices (V, 3) of a face whose control mesh without expression (`neutral`) is known; see `shape`."""
        if expression is not None:
            control = control + self.control_expression @ np.asarray(expression, np.float32)
        rows = np.arange(self.vertex_count) if rows is None else rows
        vertices = np.zeros((self.vertex_count, 3), np.float32)
        _multiply_rows(self.refine.indptr, self.refine.indices, self.refine.data, control, rows, vertices)
        return vertices

    def albedo(self, coefficients=None):
        """Vertex albedo (equation 2): (n,) standard deviations -> (V, 3) float32."""
        if coefficients is None:
            return self.albedo_mean
        return self.albedo_mean + self.albedo_basis[..., :len(coefficients)] @ np.asarray(coefficients, np.float32)


def load_model(name="commons"):
    """Loads a face model.

    Parameters
    ----------
    name : str, 'commons' for the embedded model, or the path of a model file or folder: the embedded model's format, or
        one that facemodel.readers knows (BFM 2009, 2017, 2019, ICT-FaceKit). Those are prepared on their first use,
        which takes up to a minute and says so on stderr, and kept in the user's cache

    Raises
    ------
    InputError : when there is no such model or it can't be read
    """
    if name == "commons":
        return _load_commons(assets.path("commons_face"))
    path = Path(name)
    if not path.exists():
        raise InputError(f"{name}: no such model; give 'commons' or the path of a model file or folder")
    if (path / GEOMETRY).is_file():
        return _load_commons(path)
    from facemodel.readers import cache  # its modules build on this one
    model = cache.load(path)
    if model is None:
        raise InputError(f"{name}: not a model that this version reads; it must be a folder with commons_face.npz and "
                         "albedo.npz, a Basel Face Model (01_MorphableModel.mat or a .h5 of 2017 or 2019) or "
                         "ICT-FaceKit's FaceXModel")
    return model


def commons_files(folder=None):
    """The two files of the embedded model, or of a model in its format in `folder`."""
    folder = assets.path("commons_face") if folder is None else folder
    return folder / GEOMETRY, folder / SKIN


def _load_commons(folder):
    geometry, skin = commons_files(folder)
    for file in (geometry, skin):
        if not file.is_file():
            raise InputError(f"{file} is missing; build it with: python -m facemodel.build "
                             "and python -m fitting.learn_albedo")
    with stored_arrays(geometry, DAMAGED) as d:
        return _commons(d, geometry, skin)


def _commons(d, geometry, skin):
    quads = d["quads"].astype(np.int64)
    count, levels = len(d["mean"]), int(d["levels"])
    refine, fine_quads = subdivide(quads, count, levels)
    basis = lambda b: np.ascontiguousarray(np.moveaxis(b.astype(np.float32) * FLIP, 0, -1))
    coarse, coarse_quads = subdivide(quads, count, levels - 1)
    coarse_refine = catmull_clark(coarse_quads, coarse.shape[0])[0].astype(np.float32)
    albedo_mean, albedo_basis = read_albedo(skin, coarse_refine)
    regions = refine @ (d["regions"].astype(np.float32) / 255).T
    digest = hashlib.sha256(geometry.read_bytes() + skin.read_bytes()).hexdigest()[:16]
    return MorphableModel(
        name=str(d["model_name"]), hash=digest, control_mean=d["mean"] * FLIP,
        control_identity=basis(d["identity_basis"]), control_expression=basis(d["expression_basis"]),
        expression_names=tuple(str(n) for n in d["expression_names"]), expression_range=(0.0, 1.0), refine=refine,
        triangles=triangulate(fine_quads), albedo_mean=albedo_mean, albedo_basis=albedo_basis,
        uv=refine @ d["uv"], landmarks=d["landmarks"], contour_paths=d["contour_paths"],
        spread=d["spread"],
        regions={str(n): np.clip(regions[:, i], 0, 1) for i, n in enumerate(d["region_names"])},
        coarse_edges=unique_edges(coarse_quads)[0].astype(np.int32), coarse_refine=coarse_refine,
        coarse_index=np.arange(coarse_refine.shape[1], dtype=np.int32))


def read_albedo(path, coarse_refine):
    """Albedo on the surface from a file that stores it one level coarser: (V, 3) mean, (V, 3, n) basis, float32."""
    with stored_arrays(path, DAMAGED) as d:
        coarse, scale, mean = d["basis"], d["scale"], d["mean"]
    components = coarse.astype(np.float32) * scale[:, None, None]          # (n, V1, 3)
    basis = coarse_refine @ np.moveaxis(components, 0, -1).reshape(len(mean), -1)
    return coarse_refine @ mean.astype(np.float32), np.ascontiguousarray(basis.reshape(coarse_refine.shape[0], 3, -1))
