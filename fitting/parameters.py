"""The unknowns of the fit, and where each block stands in a vector of increments."""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from facemodel.camera import axis_angle, rotation_matrix

SHARED = ("identity", "albedo", "focal")
PER_FRAME = ("expression", "rotation", "translation", "light")


@dataclass(frozen=True)
class Shared:
    """What all frames of a person and camera have in common.

    identity : (n_id,) float64 standard deviations
    albedo : (n_alb,) float64 standard deviations
    focal : float, pixels
    """

    identity: np.ndarray
    albedo: np.ndarray
    focal: float


@dataclass(frozen=True)
class Frame:
    """What changes from frame to frame.

    expression : (n_exp,) float64
    rotation : (3, 3) float64, model to camera
    translation : (3,) float64, millimetres
    light : (9, 3) float64
    """

    expression: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    light: np.ndarray

    @classmethod
    def of(cls, track, t=0):
        """What a fitting.trackfile.Track holds of one of its frames."""
        value = lambda name: np.asarray(getattr(track, name)[t], float)
        return cls(value("expression"), rotation_matrix(value("rotation")), value("translation"), value("light"))

    @property
    def axis_angle(self):
        return axis_angle(self.rotation)


@dataclass(frozen=True)
class Layout:
    """Columns of the active blocks: name -> slice. Shared blocks come first."""

    slices: dict
    shared_size: int
    size: int

    @classmethod
    def build(cls, model, active):
        """Layout for the blocks named in `active`, in the order of SHARED + PER_FRAME."""
        sizes = {"identity": model.identity_count, "albedo": model.albedo_count, "focal": 1,
                 "expression": model.expression_count, "rotation": 3, "translation": 3, "light": 27}
        slices, at, shared = {}, 0, 0
        for name in SHARED + PER_FRAME:
            if name in active:
                slices[name] = slice(at, at + sizes[name])
                at += sizes[name]
            if name == SHARED[-1]:
                shared = at
        return cls(slices, shared, at)

    def __contains__(self, name):
        return name in self.slices

    def __getitem__(self, name):
        return self.slices[name]


# an increment of the translation is in metres and one of the focal length in its own size, so that one damping fits all
TRANSLATION_UNIT = 1000.0


def advance_shared(shared, step, layout):
    """Shared unknowns after an increment (layout.shared_size,)."""
    changes = {}
    for name in ("identity", "albedo"):
        if name in layout:
            changes[name] = getattr(shared, name) + step[layout[name]]
    if "focal" in layout:
        changes["focal"] = float(shared.focal * np.exp(np.clip(step[layout["focal"]][0], -0.3, 0.3)))
    return replace(shared, **changes)


def advance_frame(frame, step, layout):
    """A frame's unknowns after an increment; step (layout.size,) or its per-frame part starting at shared_size.

    The rotation turns in camera space: R <- exp(step) R.
    """
    at = lambda name: step[layout[name].start - layout.shared_size:layout[name].stop - layout.shared_size]
    changes = {}
    if "expression" in layout:
        changes["expression"] = frame.expression + at("expression")
    if "rotation" in layout:
        changes["rotation"] = rotation_matrix(at("rotation")) @ frame.rotation
    if "translation" in layout:
        changes["translation"] = frame.translation + TRANSLATION_UNIT * at("translation")
    if "light" in layout:
        changes["light"] = frame.light + at("light").reshape(9, 3)
    return replace(frame, **changes)
