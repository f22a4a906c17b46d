"""Miniature files in the layouts of public face models: the embedded head's control mesh with a hole for a mouth."""
from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import scipy.io

import assets
from facemodel import mesh
from facemodel.morphable import FLIP, load_model
from facemodel.subdivision import triangulate

MODES = {"identity": 6, "expression": 5, "albedo": 4}
SIGMA = np.array([40.0, 25, 18, 12, 8, 5])            # of a whole head, mm


@dataclass(frozen=True)
class Head:
    """What the miniature files hold; file orientation, millimetres, colours in [0, 1].

    vertices (V, 3), triangles (T, 3), landmarks dict; identity, expression, albedo: orthonormal (3 V, n) and sigma (n,)
    """

    vertices: np.ndarray
    triangles: np.ndarray
    landmarks: dict
    colour: np.ndarray
    identity: tuple
    expression: tuple
    albedo: tuple

    def mode(self, name, k):
        """(V, 3), displacement of one standard deviation."""
        basis, sigma = getattr(self, name)
        return (basis[:, k] * sigma[k]).reshape(-1, 3)


def head():
    """The embedded model's control mesh without the mouth's membrane; the eyes stay closed by their eyeballs."""
    model = load_model()
    with np.load(assets.path("commons_face") / "commons_face.npz") as d:
        triangles = triangulate(d["quads"].astype(np.int64))
        inside = d["regions"][list(d["region_names"]).index("mouth_interior")] > 127
    vertices = model.control_mean * FLIP
    used, triangles = mesh.cut_out(vertices, triangles, ~inside)
    vertices = vertices[used].astype(np.float64)
    surface = model.mean[model.landmarks] * FLIP
    landmarks = {k: int(np.linalg.norm(vertices - p, axis=1).argmin()) for k, p in enumerate(surface)}
    rng = np.random.default_rng(0)
    identity = model.control_identity[used, :, :MODES["identity"]] * FLIP[:, None]
    names = [("jawOpen",), ("mouthSmileLeft", "mouthSmileRight"), ("eyeBlinkLeft", "eyeBlinkRight"), ("browInnerUp",),
             ("mouthPucker",)]
    expression = sum_of_units(model, names)[used] * FLIP[:, None]
    colour = np.clip(0.6 + 0.002 * vertices, 0.1, 0.9)
    albedo = rng.normal(0, 0.02, (len(used), 3, MODES["albedo"]))
    return Head(vertices, triangles, landmarks, colour, *(_orthonormal(b) for b in (identity, expression, albedo)))


def sum_of_units(model, names):
    """(C, 3, n), per entry of names the sum of those face units."""
    index = model.expression_names.index
    return np.stack([model.control_expression[..., [index(n) for n in group]].sum(axis=2) for group in names], axis=2)


def _orthonormal(basis):
    """Directions and lengths of the principal components of (V, 3, n): (3 V, n) orthonormal, (n,)."""
    u, s, _ = np.linalg.svd(basis.reshape(-1, basis.shape[2]), full_matrices=False)
    return u, s


def write_bfm2009(folder, head, left_out=25):
    """01_MorphableModel.mat, Exp_Pca.bin, std_exp.txt and BFM_exp_idx.mat; `left_out` vertices have no expression.

    Returns the (W,) vertices that have one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    column = lambda a: np.asarray(a, np.float32).reshape(-1, 1)
    scipy.io.savemat(folder / "01_MorphableModel.mat", {
        "shapeMU": column(head.vertices * 1000), "shapePC": head.identity[0].astype(np.float32),
        "shapeEV": column(head.identity[1] * 1000), "texMU": column(head.colour * 255),
        "texPC": head.albedo[0].astype(np.float32), "texEV": column(head.albedo[1] * 255),
        "tl": (head.triangles[:, ::-1] + 1).astype(np.float64),
        "segbin": np.zeros((len(head.vertices), 4), np.uint8)})
    index = np.sort(np.random.default_rng(1).permutation(len(head.vertices))[left_out:])
    scipy.io.savemat(folder / "BFM_exp_idx.mat", {"trimIndex": (index + 1).reshape(-1, 1)})
    modes, sigma = head.expression
    modes = modes.reshape(-1, 3, len(sigma))[index].reshape(-1, len(sigma))
    offset = np.full(3 * len(index), 7.0)                     # a mean that must not move the neutral face
    with open(folder / "Exp_Pca.bin", "wb") as file:
        file.write(np.int32(len(sigma)).tobytes())
        file.write(offset.astype(np.float32).tobytes())
        file.write(np.ascontiguousarray(modes.T, np.float32).tobytes())
    np.savetxt(folder / "std_exp.txt", sigma[None] * 1000)
    return index


def write_basel(path, head, names, landmarks=True, byte_string=True):
    """A statismo .h5 of 2017 or 2019; names : dict, point's name -> iBUG index."""
    import h5py
    with h5py.File(path, "w") as file:
        for name, mean, (basis, sigma) in (("shape", head.vertices, head.identity),
                                           ("expression", np.full_like(head.vertices, 0.3), head.expression),
                                           ("color", head.colour, head.albedo)):
            file[f"{name}/model/mean"] = mean.astype(np.float32).ravel()
            file[f"{name}/model/pcaBasis"] = basis.astype(np.float32)
            file[f"{name}/model/pcaVariance"] = (sigma ** 2).astype(np.float32)
            file[f"{name}/representer/points"] = head.vertices.T.astype(np.float32)
            file[f"{name}/representer/cells"] = head.triangles.T.astype(np.int32)
        if landmarks:
            text = json.dumps([{"id": n, "coordinates": head.vertices[head.landmarks[k]].tolist()}
                               for n, k in names.items()])
            file["metadata/landmarks/json"] = (np.frombuffer(text.encode(), np.int8) if byte_string else text)


def write_ict(folder, head, units, eyeball):
    """FaceXModel's .obj files, centimetres, and vertex_indices.json.

    units : dict, expression -> (V, 3) mm; eyeball : (M, 3) mm, vertices that follow the skin's
    """
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"generic_neutral_mesh": 0 * head.vertices}
    shapes |= {f"identity{k:03d}": head.mode("identity", k) for k in range(MODES["identity"])} | units
    for name, moved in shapes.items():
        points = np.concatenate([head.vertices + moved, eyeball]) / 10
        lines = [f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in points] + ["vt 0 0"]
        lines += [f"f {a + 1}/1 {b + 1}/1 {c + 1}/1" for a, b, c in head.triangles]
        (folder / f"{name}.obj").write_text("\n".join(["mtllib none.mtl", *lines, ""]))
    (folder / "vertex_indices.json").write_text(json.dumps(
        {"expressions": sorted(units), "idx_to_landmark_verts": [head.landmarks[k] for k in range(68)]}))
