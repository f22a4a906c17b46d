"""Basel Face Model 2009: P. Paysan et al., "A 3D Face Model for Pose and Illumination Invariant Face Recognition".

01_MorphableModel.mat: shapeMU (3 V, 1) and shapePC (3 V, 199), micrometres, per unit of shapeEV (199, 1), the standard
deviations; texMU, texPC, texEV likewise in 0..255; tl (T, 3) triangles counted from 1; V = 53,490, T = 106,466.

Expressions come from FaceWarehouse (C. Cao et al., 2014, doi:10.1109/TVCG.2013.249), carried to this mesh by Y. Guo et
al., "CNN-based Real-time Dense Face Reconstruction", 2018 (doi:10.1109/TPAMI.2018.2837742), in the files that
github.com/Juyong/3DFace releases as CoarseData: Exp_Pca.bin holds an int32 count n, float32 (3 W) a mean offset and
float32 (n, 3 W) the modes, micrometres, for W = 53,215 vertices; std_exp.txt the n standard deviations.
BFM_exp_idx.mat, trimIndex (W,) from 1, of github.com/microsoft/Deep3DFaceReconstruction (load_data.py there describes
the layout) says which of the V vertices these are; the others, in the nostrils, follow their neighbours. As there,
the mean offset is left out, so that coefficients of zero are the neutral face.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io
from scipy.spatial import cKDTree

from facemodel.errors import InputError
from facemodel.readers.files import BASEL_LICENCE, digest, need
from facemodel.readers.landmark_tables import BFM_2009
from facemodel.readers.raw import (
    ALBEDO_COUNT,
    EXPRESSION_COUNT,
    IDENTITY_COUNT,
    PCA_EXPRESSION_RANGE,
    RawModel,
    basis_from_columns,
)

MODEL, MODES, SIGMAS, VERTEX_MAP = "01_MorphableModel.mat", "Exp_Pca.bin", "std_exp.txt", "BFM_exp_idx.mat"
MM = 1e-3
WHERE_EXPRESSION = ("put it beside 01_MorphableModel.mat: it is in CoarseData of https://github.com/Juyong/3DFace, "
                    "under FaceWarehouse's licence from http://kunzhou.net/zjugaps/facewarehouse/")
WHERE_MAP = "put it beside 01_MorphableModel.mat: it is in https://github.com/microsoft/Deep3DFaceReconstruction, BFM/"


def find(path):
    """The folder that holds a BFM 2009 at `path`, its folder or the .mat itself, or None."""
    path = Path(path)
    if path.is_file() and path.suffix == ".mat":
        return path.parent if path.name == MODEL else None
    return path if (path / MODEL).is_file() else None


def files(place):
    """The files that are read; raises InputError, naming it and where to get it, when one is missing."""
    return [need(place / MODEL, BASEL_LICENCE), need(place / MODES, WHERE_EXPRESSION),
            need(place / SIGMAS, WHERE_EXPRESSION), need(place / VERTEX_MAP, WHERE_MAP)]


def _load_mat(path, keys, where):
    try:
        d = scipy.io.loadmat(path, variable_names=keys)
        return [np.asarray(d[k]) for k in keys]
    except KeyError as error:
        raise InputError(f"{path}: holds no {error.args[0]}; {where}") from error
    except (OSError, ValueError, TypeError, NotImplementedError, scipy.io.matlab.MatReadError) as error:
        raise InputError(f"{path}: can't be read as a MATLAB file ({error}); {where}") from error


def read_expression_modes(modes, sigmas, count=EXPRESSION_COUNT):
    """Expression modes of Exp_Pca.bin and std_exp.txt.

    Returns
    -------
    (W, 3, min(n, count)) float32, millimetres per standard deviation

    Raises
    ------
    InputError : when the files are cut short or don't belong together
    """
    raw = np.fromfile(modes, np.int32)
    n = int(raw[0]) if len(raw) else 0
    if n < 1 or (len(raw) - 1) % (3 * (n + 1)):
        raise InputError(f"{modes}: {4 * len(raw)} bytes don't hold {n} modes; is the download complete?")
    values = raw[1:].view(np.float32).reshape(n + 1, -1)[1:]                  # the first row is the mean offset
    try:
        deviation = np.loadtxt(sigmas, dtype=np.float64).ravel()
    except ValueError as error:
        raise InputError(f"{sigmas}: not a list of numbers ({error})") from error
    if len(deviation) < n:
        raise InputError(f"{sigmas}: {len(deviation)} standard deviations for {n} modes of {modes.name}")
    return basis_from_columns(values.T, deviation, count, MM)


def spread_over_mesh(modes, index, vertices):
    """Modes known at vertices `index` (W,), on all: (W, 3, n) -> (V, 3, n); others follow the nearest known vertex."""
    if len(index) != len(modes):
        raise InputError(f"{VERTEX_MAP}: {len(index)} vertices, but {MODES} has {len(modes)}")
    if index.min() < 0 or index.max() >= len(vertices):
        raise InputError(f"{VERTEX_MAP}: names vertices beyond the {len(vertices)} of {MODEL}")
    out = modes[cKDTree(vertices[index]).query(vertices)[1]]
    out[index] = modes
    return out


def read(place, landmarks=BFM_2009):
    """Reads the model in the folder `place`.

    Parameters
    ----------
    landmarks : dict, iBUG index -> vertex

    Returns
    -------
    RawModel with 80 identity, 29 expression and 80 albedo components, in standard deviations
    """
    model, modes, sigmas, vertex_map = files(place)
    keys = ["shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV", "tl"]
    mean, shape, shape_sigma, colour_mean, colour, colour_sigma, triangles = _load_mat(model, keys, BASEL_LICENCE)
    if mean.size % 3 or shape.shape[0] != mean.size or colour.shape[0] != mean.size:
        raise InputError(f"{model}: shapeMU, shapePC and texPC have {mean.size}, {shape.shape[0]} and "
                         f"{colour.shape[0]} rows, expected the same multiple of 3")
    vertices = (mean.reshape(-1, 3) * MM).astype(np.float32)
    index = _load_mat(vertex_map, ["trimIndex"], WHERE_MAP)[0].astype(np.int64).ravel() - 1
    expression = spread_over_mesh(read_expression_modes(modes, sigmas), index, vertices)
    return RawModel(
        name="bfm2009", hash=digest(files(place)), vertices=vertices,
        identity=basis_from_columns(shape, shape_sigma, IDENTITY_COUNT, MM), expression=expression,
        expression_names=tuple(f"expression{k:02d}" for k in range(expression.shape[2])),
        expression_range=PCA_EXPRESSION_RANGE, triangles=triangles.astype(np.int64) - 1, landmarks=landmarks,
        albedo_mean=(colour_mean.reshape(-1, 3) / 255).astype(np.float32),
        albedo_basis=basis_from_columns(colour, colour_sigma, ALBEDO_COUNT, 1 / 255),
    ).check(str(model))
