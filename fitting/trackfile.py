"""FIT.npz and TRACK.npz: what the fit found, one file for a photo (one frame) or a clip."""
from __future__ import annotations

import hashlib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

import numpy as np

from facemodel.errors import InputError
from facemodel.files import stored_arrays, whole

FORMAT_VERSION = 1
STATUS = ("ok", "no_face", "lost", "low_confidence")


@dataclass(frozen=True)
class Track:
    """A fitted photo or clip; F frames, float32 unless said.

    model_name, model_hash : str, the model that the coefficients belong to
    image_size : (2,) int, height and width of the frames
    frame_index : (F,) int, index in the source
    status : (F,) str, one of STATUS; coefficients of frames without a face repeat the last ones
    identity, albedo : (n,) standard deviations
    expression : (F, n_exp)
    expression_names : (n_exp,) str
    rotation : (F, 3) axis-angle in radians; translation : (F, 3) mm: X_cam = R X_model + t
    focal : scalar, principal_point : (2,), pixels
    light : (F, 9, 3)
    landmarks : (F, 68, 2) detected, pixels, nan where none
    photometric_error : (F,) RMS over the visible face; landmark_error : (F,) mean distance over the eye distance
    confidence : (F,) share of the visible face that the fit explains, in [0, 1]; empty for a photo
    albedo_offset : (V, 3) float16, the person's albedo beyond the basis, by which a clip was tracked; empty for a photo
    source_sha256 : str, of the clip's bytes, "" for a photo; face : str, the choice among its faces
    stopped_at : int, the frame before which tracking was told to end, -1: it went on to the clip's end
    """

    model_name: str
    model_hash: str
    image_size: np.ndarray
    frame_index: np.ndarray
    status: np.ndarray
    identity: np.ndarray
    albedo: np.ndarray
    expression: np.ndarray
    expression_names: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    focal: np.ndarray
    principal_point: np.ndarray
    light: np.ndarray
    landmarks: np.ndarray
    photometric_error: np.ndarray
    landmark_error: np.ndarray
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    albedo_offset: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float16))
    source_sha256: str = ""
    face: str = "largest"
    stopped_at: int = -1
    format_version: int = FORMAT_VERSION

    def __len__(self):
        return len(self.frame_index)

    def repeated(self):
        """Which frames have landmarks and unknowns of the one before, to the bit: (F,) bool; see fitting.follow."""
        out, ok = np.zeros(len(self), bool), self.status == "ok"
        out[1:] = ok[1:] & ok[:-1]
        for each in (self.landmarks.reshape(len(self), -1), self.expression, self.rotation, self.translation):
            out[1:] &= (each[1:] == each[:-1]).all(axis=1)
        return out


def file_hash(path):
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def save_track(track, path):
    """Writes a track beside its place, then renames.

    Raises
    ------
    InputError : when the path can't be written
    """
    with whole(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **{x.name: getattr(track, x.name) for x in fields(track)})


def load_track(path, model=None):
    """Reads a track; with a model, checks that it was made for that one.

    Raises
    ------
    InputError : missing or unreadable file, other format, or another model
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with python -m fitting.fit or fitting.track")
    with stored_arrays(path, "is no FIT.npz or TRACK.npz of dynatex, or damaged; make it again with "
                       "python -m fitting.fit or fitting.track") as values:
        version = int(values["format_version"])
        if version != FORMAT_VERSION:
            raise InputError(f"{path}: format version {version}, this program reads {FORMAT_VERSION}; fit again")
        needed = [x.name for x in fields(Track) if x.default is MISSING and x.default_factory is MISSING]
        track = Track(**{x.name: values[x.name] for x in fields(Track) if x.name in values or x.name in needed})
    if model is not None and str(track.model_hash) != model.hash:
        raise InputError(f"{path}: was fitted with model {track.model_name} ({track.model_hash}), not with "
                         f"{model.name} ({model.hash}); fit again or give that model with --model")
    return track
