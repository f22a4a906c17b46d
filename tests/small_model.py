"""A small face-free model in float64 for tests of derivatives: a bumpy sheet with random linear bases."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SmallModel:
    """The parts of MorphableModel that the energy reads."""

    mean: np.ndarray
    identity_basis: np.ndarray
    expression_basis: np.ndarray
    albedo_mean: np.ndarray
    albedo_basis: np.ndarray
    triangles: np.ndarray

    identity_count = property(lambda self: self.identity_basis.shape[2])
    expression_count = property(lambda self: self.expression_basis.shape[2])
    albedo_count = property(lambda self: self.albedo_basis.shape[2])
    vertex_count = property(lambda self: len(self.mean))

    def shape64(self, identity, expression):
        return self.mean + self.identity_basis @ identity + self.expression_basis @ expression

    def albedo64(self, coefficients):
        return self.albedo_mean + self.albedo_basis @ coefficients


def small_model(rng, side=12):
    y, x = np.mgrid[:side, :side] / (side - 1) * 50 - 25
    mean = np.stack([x, y, 4 * np.sin(x / 9) + 3 * np.cos(y / 7)], axis=2).reshape(-1, 3)
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = index[:-1, :-1].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel(), index[:-1, 1:].ravel()
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype(np.int32)
    v = len(mean)
    return SmallModel(mean, rng.normal(0, 0.4, (v, 3, 5)), rng.normal(0, 0.4, (v, 3, 4)), rng.uniform(0.3, 0.8, (v, 3)),
                      rng.normal(0, 0.05, (v, 3, 3)), triangles)
