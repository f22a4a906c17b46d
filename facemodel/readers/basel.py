"""Basel Face Models 2017 and 2019, in the HDF5 layout of statismo and scalismo.

T. Gerig et al., "Morphable Face Models - An Open Framework", 2018, doi:10.1109/FG.2018.00021. For shape, color and
expression: /NAME/model/mean (3 V,), pcaBasis (3 V, n) with orthonormal columns and pcaVariance (n,);
/shape/representer/cells (3, T) triangles from 0; millimetres, colours in [0, 1]. /metadata/landmarks/json holds
named points of the mean face. Compare github.com/patrikhuber/eos, share/scripts/convert-bfm2017-to-eos.py.

The expression model's mean is left out, as in scalismo's neutral model: coefficients of zero are the neutral face.
"""
from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from facemodel.errors import InputError
from facemodel.readers.files import BASEL_LICENCE, digest
from facemodel.readers.landmark_tables import BASEL_NAMES, BFM_2017_NOMOUTH, BFM_2017_NOMOUTH_VERTICES
from facemodel.readers.raw import (
    ALBEDO_COUNT,
    EXPRESSION_COUNT,
    IDENTITY_COUNT,
    PCA_EXPRESSION_RANGE,
    RawModel,
    basis_from_columns,
)

FURTHEST_MARK = 10.0         # mm that a named point may lie off its nearest vertex


def find(path):
    """The .h5 file at `path`, itself or the only one in a folder, or None.

    Raises
    ------
    InputError : when a folder holds several
    """
    path = Path(path)
    if path.is_file():
        return path if path.suffix in (".h5", ".hdf5") else None
    found = sorted(path.glob("*.h5"))
    if len(found) > 1:
        raise InputError(f"{path}: holds several models ({', '.join(p.name for p in found)}); give the path of one")
    return found[0] if found else None


def files(place):
    """The files that are read."""
    return [place]


def _h5py(path):
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise InputError(f"{path}: reading it needs h5py; install it with: pip install 'dynatex[bfm]' "
                         "(or pip install h5py)") from error


def _columns(file, name, count, unit=1.0):
    """Mean (V, 3) float32 and basis (V, 3, n) float32 per standard deviation of one of the three models."""
    mean = np.asarray(file[f"{name}/model/mean"], np.float64).ravel()
    basis = np.asarray(file[f"{name}/model/pcaBasis"], np.float64)
    variance = np.asarray(file[f"{name}/model/pcaVariance"], np.float64).ravel()
    if basis.ndim != 2 or basis.shape[1] != len(variance) or basis.shape[0] != len(mean) or len(mean) % 3:
        raise ValueError(f"/{name}/model has a basis of {basis.shape}, a mean of {mean.shape} and "
                         f"{len(variance)} variances")
    basis = basis[:, :count]
    length = np.linalg.norm(basis, axis=0)          # statismo before 0.81 stored columns times standard deviations
    return ((mean.reshape(-1, 3) * unit).astype(np.float32),
            basis_from_columns(basis / np.maximum(length, 1e-12), np.sqrt(variance[:count].clip(0)), count, unit))


def _three_columns(array):
    """(N, 3) from (3, N) or (N, 3)."""
    return array.T if array.shape[0] == 3 and array.shape[1] != 3 else array


def _named_points(file):
    """Points of /metadata/landmarks/json: name -> (3,); empty when the file has none."""
    if "metadata/landmarks/json" not in file:
        return {}
    text = file["metadata/landmarks/json"][()]
    text = text.tobytes() if isinstance(text, np.ndarray) else text
    marks = json.loads(text.decode("utf-8") if isinstance(text, bytes) else str(text))
    return {m["id"]: np.asarray(m["coordinates"], float) for m in marks}


def landmarks_from(points, vertices, path):
    """iBUG index -> vertex, from named points of the mean face and, for its mesh, the public list; the points count."""
    out = dict(BFM_2017_NOMOUTH) if len(vertices) == BFM_2017_NOMOUTH_VERTICES else {}
    known = {k: points[name] for name, k in BASEL_NAMES.items() if name in points}
    if known:
        distance, vertex = cKDTree(vertices).query(np.stack(list(known.values())))
        if distance.max() > FURTHEST_MARK:
            raise InputError(f"{path}: its landmarks lie up to {distance.max():.0f} mm off its mean face")
        out |= dict(zip(known, (int(v) for v in vertex)))
    if not out:
        raise InputError(f"{path}: has no /metadata/landmarks/json and is not the mesh of model2017-1_bfm_nomouth.h5; "
                         f"use a file as released; {BASEL_LICENCE}")
    return out


def read(place, landmarks=None):
    """Reads the .h5 file `place`.

    Parameters
    ----------
    landmarks : dict, iBUG index -> vertex; default what the file or the public list for its mesh says

    Returns
    -------
    RawModel with up to 80 identity, 29 expression and 80 albedo components, in standard deviations
    """
    h5py = _h5py(place)
    try:
        with h5py.File(place, "r") as file:
            vertices, identity = _columns(file, "shape", IDENTITY_COUNT)
            expression = _columns(file, "expression", EXPRESSION_COUNT)[1]
            colour_mean, colour = _columns(file, "color", ALBEDO_COUNT)
            cells = _three_columns(np.asarray(file["shape/representer/cells"])).astype(np.int64)
            points = _named_points(file)
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{place}: not a Basel Face Model of 2017 or 2019 with shape, color and expression "
                         f"({error}); {BASEL_LICENCE}") from error
    if colour_mean.max() > 2:                       # 0..255
        colour_mean, colour = colour_mean / 255, colour / 255
    return RawModel(
        name=place.stem, hash=digest(files(place)), vertices=vertices, identity=identity, expression=expression,
        expression_names=tuple(f"expression{k:02d}" for k in range(expression.shape[2])),
        expression_range=PCA_EXPRESSION_RANGE, triangles=cells,
        landmarks=landmarks_from(points, vertices, place) if landmarks is None else landmarks,
        albedo_mean=colour_mean, albedo_basis=colour,
    ).check(str(place))
