"""ICT-FaceKit (light): R. Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR 2020, MIT licence.

https://github.com/ICT-VGL/ICT-FaceKit: the folder of the repository or its FaceXModel/, with generic_neutral_mesh.obj,
identity000.obj ..., one .obj per expression and vertex_indices.json; or a folder that holds the same numbers as
ict_facekit_basis.npz (V, I, E, en, Fv) beside vertex_indices.json. Centimetres, y up, z out of the face. Indices of
the parts are those of the repository's README. Of the mesh only face, head and neck are used as a face model; mouth and
eyes are closed by sheets. texgan.stage draws the other parts too.
"""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from facemodel.errors import InputError
from facemodel.files import stored_arrays
from facemodel.membrane import fit_sphere
from facemodel.readers.files import digest, need
from facemodel.readers.raw import RawModel

WHERE = "get it from https://github.com/ICT-VGL/ICT-FaceKit"
MM = 10.0
SKIN_POLYGONS = 11144                                    # face, head and neck come first
EYEBALLS = ((21451, 22221), (23021, 23791))              # vertices of the scleras, left and right
NEUTRAL, BASIS, INDICES = "generic_neutral_mesh.obj", "ict_facekit_basis.npz", "vertex_indices.json"


def find(path):
    """The folder or .npz that holds an ICT model at `path`, or None."""
    path = Path(path)
    if path.is_file():
        return path if path.name == BASIS else None
    for candidate in (path / BASIS, path / "FaceXModel" / NEUTRAL, path / NEUTRAL):
        if candidate.is_file():
            return candidate if candidate.name == BASIS else candidate.parent
    return None


def files(place):
    """The files that are read, for `place` as `find` returns it; raises InputError when the markup is missing."""
    if place.is_file():
        return [place, need(place.parent / INDICES, WHERE)]
    return [*sorted(place.glob("*.obj")), need(place / INDICES, WHERE)]


def arkit_name(name):
    """The repository's name in ARKit's spelling: eyeBlink_L -> eyeBlinkLeft."""
    side = {"_L": "Left", "_R": "Right"}.get(name[-2:])
    return name[:-2] + side if side else name


def triangles_from(polygons):
    """(Q, 4) polygons, a triangle repeating a corner -> (T, 3) int32."""
    t = np.concatenate([polygons[:, [0, 1, 2]], polygons[:, [0, 2, 3]]])
    return t[(t[:, 0] != t[:, 1]) & (t[:, 1] != t[:, 2]) & (t[:, 2] != t[:, 0])].astype(np.int32)


def read_obj(path, faces=False):
    """Vertices (V, 3) float32 of a Wavefront .obj and, on request, its polygons (Q, 4) int from 0.

    A triangle repeats its last corner.
    """
    vertices, polygons = [], []
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("v "):
                vertices.append(line.split()[1:4])
            elif faces and line.startswith("f "):
                corner = [int(word.split("/")[0]) - 1 for word in line.split()[1:5]]
                polygons.append(corner if len(corner) == 4 else [*corner, corner[-1]])
    try:
        points = np.array(vertices, np.float32).reshape(-1, 3)
    except ValueError:
        points = np.zeros((0, 3), np.float32)
    if len(points) == 0:
        raise InputError(f"{path}: holds no vertices; is the download complete?")
    return (points, np.array(polygons, np.int64).reshape(-1, 4)) if faces else points


def _from_folder(place):
    """Mean (V, 3), identity (n, V, 3), expressions (m, V, 3), their names and polygons, in centimetres."""
    mean, polygons = read_obj(place / NEUTRAL, faces=True)
    named = [p for p in sorted(place.glob("*.obj")) if p.name != NEUTRAL]
    shapes = {}
    for path in named:
        points = read_obj(path)
        if points.shape != mean.shape:
            raise InputError(f"{path}: has {len(points)} vertices, {NEUTRAL} has {len(mean)}; {WHERE}")
        shapes[path.stem] = points - mean
    identity = [shapes[n] for n in shapes if n.startswith("identity")]
    names = [n for n in shapes if not n.startswith("identity")]
    if not identity or not names:
        raise InputError(f"{place}: holds no {'identity' if not identity else 'expression'} .obj files; {WHERE}")
    return mean, np.stack(identity), np.stack([shapes[n] for n in names]), names, polygons


def _from_npz(path):
    with stored_arrays(path, f"is no basis of ICT-FaceKit, or damaged; {WHERE}") as d:
        return (d["V"].astype(np.float32), d["I"], d["E"], [str(n) for n in d["en"]], d["Fv"].astype(np.int64) - 1)


def polygons(place):
    """All polygons (Q, 4) int of the model at `place` (see `find`), skin first; a triangle repeats its last corner."""
    return _from_npz(place)[-1] if place.is_file() else read_obj(place / NEUTRAL, faces=True)[1]


def read(place, skin_polygons=SKIN_POLYGONS, eyeballs=EYEBALLS):
    """Reads the model at `place` (see `find`).

    Parameters
    ----------
    place : Path of the folder or the .npz
    skin_polygons : int, how many polygons, from the first, are skin
    eyeballs : ((first, end), ...) vertices of the eyeballs

    Returns
    -------
    RawModel; 68 landmarks from vertex_indices.json, its `expressions` in [0, 1] with ARKit's names, no albedo.
    mouthClose brings jawOpen along, as in the embedded model: a lowered chin behind closed lips
    """
    indices = files(place)[-1]
    try:
        markup = json.loads(indices.read_text())
        landmarks, wanted = markup["idx_to_landmark_verts"], markup["expressions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{indices}: holds no idx_to_landmark_verts and expressions; {WHERE}") from error
    if len(landmarks) != 68:
        raise InputError(f"{indices}: {len(landmarks)} landmarks, expected 68")
    mean, identity, expression, names, polygons = _from_npz(place) if place.is_file() else _from_folder(place)
    missing = sorted(set(wanted) - set(names))
    if missing:
        raise InputError(f"{place}: lacks the expressions {', '.join(missing)}; {WHERE}")
    kept = [k for k, n in enumerate(names) if n in set(wanted)]
    if "mouthClose" in names and "jawOpen" in names:      # by itself it would pull the lips through the nose
        expression[names.index("mouthClose")] += expression[names.index("jawOpen")]
    mean = mean * MM
    basis = lambda shapes: np.ascontiguousarray(np.moveaxis(np.asarray(shapes, np.float32) * MM, 0, -1))
    return RawModel(
        name="ict_facekit", hash=digest(files(place)), vertices=mean, identity=basis(identity),
        expression=basis(expression[kept]), expression_names=tuple(arkit_name(names[k]) for k in kept),
        expression_range=(0.0, 1.0), triangles=triangles_from(polygons[:skin_polygons]),
        landmarks=dict(enumerate(int(i) for i in landmarks)),
        eyeballs=tuple(fit_sphere(mean[a:b].astype(np.float64)) for a, b in eyeballs), orthogonal=False,
    ).check(str(place))
