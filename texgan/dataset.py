"""Data sets of aligned UV textures on disk.

    DATASET/manifest.json          what is in it and how it was made, for people to read
    DATASET/clips/NAME/clip.json   one person's pictures: source, identity, rights, neutral frame, quality per frame
                       textures.npy    (F, 256, 256, 3) uint8, albedo * 255 / BRIGHTEST, complete
                       validity.npy    (F, 256, 256) uint8, where it was seen
                       confidence.npy  (F, 256, 256) uint8, where it was seen and looks like the person's skin
                       expression.npy  (F, n_exp) float32
                       full/NNNNNN.png and full/NNNNNN_validity.png, full-size textures of chosen frames

A clip is written beside its place and renamed when it is whole, so a folder that is there can be used. Arrays are
opened as memory maps: a data set may be larger than memory.
"""
from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from facemodel.atlas import chart_hash
from facemodel.errors import InputError
from facemodel.files import whole
from fitting.lift import BRIGHTEST

FORMAT = 1
MANIFEST = "manifest.json"
SIZE = 256
ARRAYS = ("textures", "validity", "confidence", "expression")


@dataclass(frozen=True)
class ClipInfo:
    """What clip.json says.

    name : str, of its folder
    identity : str, who it shows; data are split by it
    source : list of str, file names of all that was given
    sha256 : list of str, of these files
    rights : str, as the user gave them
    frames : list of str, name of each frame: its number in a video, the expression's name of a photo
    quality : list of float in [0, 1], per frame: share of the visible face that the fit explains, less for a turned
        head
    neutral : int, frame that is the neutral one
    model_hash : str, of the face model that was fitted
    chart_hash : str, of its chart (facemodel.atlas.chart_hash)
    every : int, of a video one frame in so many was taken, 0 for photos
    script : str, clips of one script show the same expression in frames of the same name; "" for none
    left_out : list of str, file names of photos that could not be fitted
    """

    name: str
    identity: str
    source: list
    sha256: list
    rights: str
    frames: list
    quality: list
    neutral: int
    model_hash: str
    chart_hash: str
    every: int = 1
    script: str = ""
    left_out: list = field(default_factory=list)
    format: int = FORMAT


@dataclass(frozen=True)
class Clip:
    """A ClipInfo with its arrays (see the module's docstring), memory maps when it was read from disk."""

    info: ClipInfo
    textures: np.ndarray
    validity: np.ndarray
    confidence: np.ndarray
    expression: np.ndarray

    def __len__(self):
        return len(self.textures)


def encode(rgb):
    """Albedo in [0, BRIGHTEST] -> uint8."""
    return np.clip(np.round(rgb * (255 / BRIGHTEST)), 0, 255).astype(np.uint8)


def decode(codes):
    """uint8 -> float32 albedo in [0, BRIGHTEST]."""
    return codes.astype(np.float32) * np.float32(BRIGHTEST / 255)


def write_clip(dataset, clip, full=None):
    """Writes a Clip into a data set; full : dict frame number -> fitting.lift.Texture at full size."""
    place = Path(dataset) / "clips" / clip.info.name
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    for name in ARRAYS:
        np.save(beside / f"{name}.npy", np.ascontiguousarray(getattr(clip, name)))
    for t, texture in (full or {}).items():
        (beside / "full").mkdir(exist_ok=True)
        write_picture(beside / "full" / f"{t:06d}.png", encode(texture.rgb))
        write_picture(beside / "full" / f"{t:06d}_validity.png", np.round(texture.validity * 255).astype(np.uint8))
    _write_json(beside / "clip.json", asdict(clip.info))
    shutil.rmtree(place, ignore_errors=True)
    os.rename(beside, place)


def write_info(dataset, info):
    """Replaces what clip.json says of a clip whose arrays stay."""
    _write_json(Path(dataset) / "clips" / info.name / "clip.json", asdict(info))


def write_picture(path, picture):
    """Writes an (H, W, 3) RGB or (H, W) uint8 picture; raises InputError when that fails, as on a full disk."""
    if not cv2.imwrite(str(path), picture[..., ::-1] if picture.ndim == 3 else picture):
        raise InputError(f"{path}: can't be written; make room there")


def _write_json(path, content):
    with whole(path, "make room there") as beside:
        beside.write_text(json.dumps(content, indent=1) + "\n")


def read_info(folder):
    """The ClipInfo in a clip's folder; raises InputError when it can't be read."""
    path = Path(folder) / "clip.json"
    try:
        info = ClipInfo(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: can't be read ({error}); delete its folder and run texgan.extract again") from error
    if info.format != FORMAT:
        raise InputError(f"{path}: is of format {info.format}, this version reads {FORMAT}; extract it again")
    return info


def read_clip(folder):
    """The Clip in a folder, its arrays as memory maps; raises InputError when something is missing or damaged."""
    folder, info, arrays = Path(folder), read_info(folder), {}
    for name in ARRAYS:
        path = folder / f"{name}.npy"
        try:
            arrays[name] = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: can't be read ({error}); delete its folder and run texgan.extract "
                             "again") from error
        if len(arrays[name]) != len(info.frames):
            raise InputError(f"{path}: holds {len(arrays[name])} frames, clip.json {len(info.frames)}; delete its "
                             "folder and run texgan.extract again")
    return Clip(info, **arrays)


def finished(dataset):
    """Folders of the finished clips of a data set, by name; there may be none."""
    clips = Path(dataset) / "clips"
    return sorted(p for p in clips.glob("*") if not p.name.startswith(".") and p.is_dir()) if clips.is_dir() else []


def clip_folders(dataset):
    """Folders of the finished clips of a data set, by name; raises InputError when there are none."""
    found = finished(dataset)
    if not found:
        raise InputError(f"{dataset}: holds no data set; make one with python -m texgan.extract INPUT... -o {dataset}")
    return found


def read_dataset(*datasets):
    """All Clips of one or more data sets, as a list."""
    return [read_clip(folder) for dataset in datasets for folder in clip_folders(dataset)]


def write_manifest(dataset, settings):
    """Writes manifest.json: settings, and a line for every clip with its identity, frames, neutral frame, quality."""
    infos = [read_info(folder) for folder in finished(dataset)]
    clips = [{"name": i.name, "identity": i.identity, "source": i.source, "rights": i.rights, "frames": len(i.frames),
              "neutral": i.frames[i.neutral], "median_quality": round(float(np.median(i.quality)), 3)} for i in infos]
    manifest = {"format": FORMAT, "settings": settings, "identities": len({i.identity for i in infos}),
                "frames": sum(len(i.frames) for i in infos), "clips": clips}
    _write_json(Path(dataset) / MANIFEST, manifest)
    return manifest


def read_settings(dataset):
    """The settings in manifest.json; {} where there is none that can be read."""
    try:
        return dict(json.loads((Path(dataset) / MANIFEST).read_text())["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def check_chart(clips, model):
    """Raises InputError when one of the Clips is not on the model's chart."""
    chart = chart_hash(model)
    if other := next((c for c in clips if c.info.chart_hash != chart), None):
        raise InputError(f"clip {other.info.name}: is on the chart of another face model than {model.name}; extract it "
                         "again with the same --model")
