"""What of a face can be believed: where the picture is not the face that the model draws, it is something before it.

A hand, hair or a microphone leaves residuals far above what the clip is used to. They are gathered on a small grid over
the chart, so that they stay with the skin they cover from frame to frame, and take weight from the colour term there.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

GRID = 48                        # cells of the chart, each way
EXPLAINED, FOREIGN = 2.5, 6.0    # residuals in units of the noise: up to here skin, from here on something else
MEMORY = 0.5                     # share of a cell's past that is kept from frame to frame
LEAST_NOISE = 0.012
LEAST_WEIGHT = 0.02              # of skin that something covers


@dataclass(frozen=True)
class Trust:
    """How well the last frames' skin was explained.

    grid : (GRID, GRID) float32 in [0, 1] over the chart, row 0 at the top
    cell : (V,) int32, each vertex's cell
    noise : float, usual residual (RMS over the channels) of the clip
    """

    grid: np.ndarray
    cell: np.ndarray
    noise: float

    @classmethod
    def start(cls, model, noise):
        """Trusts everything; noise: median residual of frames that are fitted well."""
        column = np.clip((model.uv[:, 0] * GRID).astype(np.int32), 0, GRID - 1)
        row = np.clip(((1 - model.uv[:, 1]) * GRID).astype(np.int32), 0, GRID - 1)
        return cls(np.ones((GRID, GRID), np.float32), row * GRID + column, max(float(noise), LEAST_NOISE))

    def weights(self, model):
        """(V,) float32: model.sampling_weight, less where something lies before the skin."""
        believed = np.clip((self.grid - 0.3) / 0.4, LEAST_WEIGHT, 1)
        return model.sampling_weight * believed.ravel()[self.cell]

    def explained(self, residual):
        """(N, 3) colour residuals -> (N,) in [0, 1], 1 where they are noise."""
        size = np.sqrt((residual * residual).mean(axis=1)) / self.noise
        return np.clip((FOREIGN - size) / (FOREIGN - EXPLAINED), 0, 1)

    def after(self, model, samples, residual):
        """The Trust after a frame, from its samples (drawn with model.sampling_weight) and their residuals."""
        nearest = model.triangles[samples.triangle, samples.barycentric.argmax(axis=1)]
        cell, good = self.cell[nearest], self.explained(residual)
        count = np.bincount(cell, samples.weight, GRID * GRID).reshape(GRID, GRID)
        total = np.bincount(cell, samples.weight * good, GRID * GRID).reshape(GRID, GRID)
        count, total = (cv2.GaussianBlur(x.astype(np.float32), (0, 0), 1.0) for x in (count, total))
        seen = count > 0.5
        share = np.where(seen, total / np.maximum(count, 1e-6), self.grid)
        return replace(self, grid=(MEMORY * self.grid + (1 - MEMORY) * share).astype(np.float32))
