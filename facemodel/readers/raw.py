"""A face model as its files hold it, in common units and orientation."""
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from facemodel.errors import InputError

# as many coefficients as the paper solves for (K. Olszewski et al., ICCV 2017, section 4)
IDENTITY_COUNT, EXPRESSION_COUNT, ALBEDO_COUNT = 80, 29, 80
PCA_EXPRESSION_RANGE = (-3.0, 3.0)     # standard deviations
NEEDED_LANDMARKS = (30, 36, 39, 42, 45, 48, 54)


@dataclass(frozen=True)
class RawModel:
    """A linear face model on any triangle mesh.

    File orientation: x to the subject's left, y up, z out of the face; millimetres.

    name : str
    hash : str, of the files
    vertices : (V, 3) float32, the mean face
    identity : (V, 3, n_id) float32, displacement per standard deviation
    expression : (V, 3, n_exp) float32, displacement per unit of the coefficient
    expression_names : tuple of str
    expression_range : (2,) lowest and highest value of an expression coefficient
    triangles : (T, 3) int
    landmarks : dict, iBUG index (from 0) -> vertex; holds at least NEEDED_LANDMARKS, the others are transferred
    albedo_mean, albedo_basis : (V, 3), (V, 3, n) float32 in [0, 1], or None where the model has no colour
    eyeballs : tuple of (centre (3,), radius), spheres that fill the eyelids' holes, where the lids are open
    orthogonal : bool, whether the identity modes are orthogonal; others are rotated until they are on the face
    """

    name: str
    hash: str
    vertices: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    expression_names: tuple
    expression_range: tuple
    triangles: np.ndarray
    landmarks: dict
    albedo_mean: np.ndarray | None = None
    albedo_basis: np.ndarray | None = None
    eyeballs: tuple = field(default=())
    orthogonal: bool = True

    def check(self, source):
        """Raises InputError, naming `source`, when sizes disagree or indices lie outside the mesh."""
        count = len(self.vertices)
        arrays = [("identity", self.identity), ("expression", self.expression)]
        if self.albedo_mean is not None:
            arrays += [("albedo mean", self.albedo_mean), ("albedo", self.albedo_basis)]
        for what, array in arrays:
            if array.shape[:2] != (count, 3):
                raise InputError(f"{source}: {what} is for {array.shape[0]} vertices, the mean face has {count}")
            if not np.isfinite(array).all():
                raise InputError(f"{source}: {what} holds values that are no numbers")
        if not np.isfinite(self.vertices).all():
            raise InputError(f"{source}: the mean face holds values that are no numbers")
        if self.triangles.ndim != 2 or self.triangles.shape[1] != 3 or len(self.triangles) == 0:
            raise InputError(f"{source}: its triangles have the shape {self.triangles.shape}, expected (T, 3)")
        if self.triangles.min() < 0 or self.triangles.max() >= count:
            raise InputError(f"{source}: triangles name vertices beyond the {count} that there are")
        missing = [k for k in NEEDED_LANDMARKS if k not in self.landmarks]
        if missing:
            raise InputError(f"{source}: no vertices known for the iBUG landmarks {missing}")
        if max(self.landmarks.values()) >= count or min(self.landmarks.values()) < 0:
            raise InputError(f"{source}: landmarks name vertices beyond the {count} that there are; "
                             "is this mesh a trimmed version of the model?")
        return self


def basis_from_columns(columns, scale, count, unit=1.0):
    """Columns of stacked coordinates (3 V, N), scaled per column -> (V, 3, min(N, count)) float32."""
    n = min(columns.shape[1], count)
    scaled = columns[:, :n] * (np.asarray(scale, np.float64).ravel()[:n] * unit)
    return np.ascontiguousarray(scaled.reshape(-1, 3, n), np.float32)
