"""From a RawModel to a MorphableModel: one disc-like surface with mouth and eyes closed, regions, landmarks, a chart.

The embedded model serves as the guide: laid over the other mean face (facemodel.registration), it lends its regions,
the paths of the jaw line, landmarks that no table names, and its albedo where the other model has none.
"""
from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from facemodel import membrane, mesh
from facemodel.build.chart import chart_importance, embed
from facemodel.errors import InputError
from facemodel.morphable import FLIP, MorphableModel
from facemodel.readers.coarse import coarse_graph
from facemodel.readers.raw import IDENTITY_COUNT
from facemodel.registration import carry_over, nearest_vertices, register

VERSION = 1                  # enters the model's hash; raise it when coefficients change their meaning
BEHIND, BELOW = 115.0, 40.0  # mm: what lies further behind the eyes or below the chin is left out
CHART_ITERATIONS = 60
FINE_ENOUGH = 20_000         # vertices; a coarser mesh is split once, so that albedo and shading are fine enough
ASTRAY, JAW_ASTRAY = 12.0, 30.0     # mm that lists differ in where they put a landmark, at most
HOLE_REACH = 12.5            # mm, from a hole's middle to the mouth corners' or to an eyeball's, seen from the front


def _head_front(raw):
    """(V,) bool, what is kept of a head: its front with ears and some neck."""
    v, marks = raw.vertices, raw.landmarks
    eyes = v[[marks[k] for k in (36, 39, 42, 45)]].mean(axis=0)
    mouth = v[[marks[48], marks[54]]].mean(axis=0)
    chin = mouth[1] - 0.62 * (eyes[1] - mouth[1])
    return (v[:, 2] > eyes[2] - BEHIND) & (v[:, 1] > chin - BELOW)


def _take(raw, used, triangles):
    """The RawModel with only the vertices `used`."""
    new = np.full(len(raw.vertices), -1)
    new[used] = np.arange(len(used))
    cut = lambda a: None if a is None else a[used]
    return replace(raw, vertices=raw.vertices[used], identity=raw.identity[used], expression=raw.expression[used],
                   albedo_mean=cut(raw.albedo_mean), albedo_basis=cut(raw.albedo_basis), triangles=triangles,
                   landmarks={k: int(new[i]) for k, i in raw.landmarks.items() if new[i] >= 0})


def _holes(raw):
    """The surface's holes, all borders but the longest: [(kind, number of the eyeball or -1, loop)].

    kind is 'mouth', 'eye' or 'other'.
    """
    loops = mesh.border_loops(raw.triangles)
    length = [np.linalg.norm(np.diff(raw.vertices[np.append(x, x[0])], axis=0), axis=1).sum() for x in loops]
    outer = int(np.argmax(length))
    lips = raw.vertices[[raw.landmarks[48], raw.landmarks[54]]].mean(axis=0)
    out, mouth = [], None
    for k in np.argsort(length)[::-1]:
        if k == outer:
            continue
        loop, centre = loops[k], raw.vertices[loops[k]].mean(axis=0)
        kind = ("other", -1)
        if mouth is None and np.linalg.norm((centre - lips)[:2]) < HOLE_REACH:
            kind, mouth = ("mouth", -1), k
        for number, (eyeball, _) in enumerate(raw.eyeballs):
            if np.linalg.norm((centre - eyeball)[:2]) < HOLE_REACH:
                kind = ("eye", number)
        out.append((*kind, loop))
    return out


def close_holes(raw):
    """Fills mouth, eyes and whatever else is open inside the outer border.

    Returns
    -------
    RawModel with the sheets' vertices at its end
    mouth, eyes : (V,) bool, vertices of the mouth's and the eyes' sheets
    """
    count = len(raw.vertices)
    parts = {name: [getattr(raw, name)] for name in ("vertices", "identity", "expression", "triangles")}
    colours = raw.albedo_mean is not None
    if colours:
        parts |= {"albedo_mean": [raw.albedo_mean], "albedo_basis": [raw.albedo_basis]}
    kinds = [np.full(count, "skin", "U5")]
    for kind, number, loop in _holes(raw):
        sheet = membrane.close_hole(loop[::-1], raw.vertices)
        points = membrane.follow(sheet, raw.vertices)
        moved = membrane.follow(sheet, raw.expression)
        if kind == "mouth":
            points = membrane.recede(sheet, points)
        elif kind == "eye":
            points = membrane.bulge(points, *raw.eyeballs[number])
            moved = np.zeros_like(moved)                    # the eyeball stays where it is when its lids move
        parts["vertices"].append(points.astype(np.float32))
        parts["identity"].append(membrane.follow(sheet, raw.identity).astype(np.float32))
        parts["expression"].append(moved.astype(np.float32))
        if colours:
            for name in ("albedo_mean", "albedo_basis"):
                parts[name].append(membrane.follow(sheet, getattr(raw, name)).astype(np.float32))
        index = np.concatenate([sheet.loop, count + np.arange(len(points))])
        parts["triangles"].append(index[sheet.triangles].astype(np.int32))
        kinds.append(np.full(len(points), kind, "U5"))
        count += len(points)
    kinds = np.concatenate(kinds)
    closed = replace(raw, **{name: np.concatenate(arrays) for name, arrays in parts.items()})
    return closed, kinds == "mouth", kinds == "eye"


def regions_from(guide, registration, vertices, normals, mouth, eyes):
    """The guide's regions on another surface: dict name -> (V,) float32 in [0, 1].

    Sheets over mouth and eyes are those regions themselves; where there is none, the guide's region is carried over.
    """
    inside, seeing = guide.regions["mouth_interior"] > 0.5, guide.regions["eyes"] > 0.5
    allowed = np.ones(guide.vertex_count, bool)
    if mouth.any():
        allowed &= ~inside
    if eyes.any():
        allowed &= ~seeing
    names = list(guide.regions)
    values = np.stack([guide.regions[n] for n in names], axis=1)
    found = carry_over(registration, values, allowed, vertices, normals).clip(0, 1)
    out = {n: np.ascontiguousarray(found[:, k]) for k, n in enumerate(names)}
    sheet = mouth | eyes
    for name in names:
        if sheet.any():
            out[name][sheet] = 1.0 if name == "face" else 0.0
    if mouth.any():
        out["mouth_interior"] = mouth.astype(np.float32)
    if eyes.any():
        out["eyes"] = eyes.astype(np.float32)
    return out


def _albedo(raw, surface, guide, registration, mouth, eyes):
    """The model's own colours, or the guide's; the mouth's sheet always takes the guide's mouth.

    mouth, eyes : (V,) bool, sheets on the surface. Returns (V, 3) and (V, 3, n) float32.
    """
    inside, seeing = guide.regions["mouth_interior"] > 0.5, guide.regions["eyes"] > 0.5
    v = surface.vertices
    if raw.albedo_mean is not None:
        mean = surface.straight @ raw.albedo_mean
        basis = surface.straight @ raw.albedo_basis.reshape(len(raw.vertices), -1)
        basis = np.ascontiguousarray(basis.reshape(len(v), 3, -1), np.float32)
        if mouth.any():
            mean[mouth] = carry_over(registration, guide.albedo_mean, inside, v[mouth])
            basis[mouth] = 0
        return mean, basis
    mean, basis = np.zeros((len(v), 3), np.float32), np.zeros((len(v), 3, guide.albedo_count), np.float32)
    skin = ~(mouth | eyes)
    for here, there, facing in ((skin, ~(inside | seeing), surface.normals), (mouth, inside, None),
                                (eyes, seeing, None)):
        if here.any():
            n = None if facing is None else facing[here]
            mean[here] = carry_over(registration, guide.albedo_mean, there, v[here], n)
            basis[here] = carry_over(registration, guide.albedo_basis, there, v[here], n)
    return mean, basis


def orthogonal_modes(modes, weight, count=IDENTITY_COUNT):
    """Rotates linear modes so that they are orthogonal where `weight` is, strongest first.

    Coefficients that are independent with unit variance stay so under a rotation; hence the new modes describe the very
    same distribution of shapes, and the first `count` keep most of its variance in the weighted region.

    Parameters
    ----------
    modes : (V, 3, n) float, displacement per standard deviation
    weight : (V,) float >= 0

    Returns
    -------
    (V, 3, min(n, count)) float32
    """
    flat = modes.reshape(-1, modes.shape[2]).astype(np.float64)
    weighted = flat * np.sqrt(np.repeat(weight, 3))[:, None]
    values, vectors = np.linalg.eigh(weighted.T @ weighted)
    vectors = vectors[:, np.argsort(values)[::-1][:count]]
    vectors = vectors * np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])] < 0, -1, 1)
    return (flat @ vectors).reshape(*modes.shape[:2], -1).astype(np.float32)


def _mouth_opened(raw, lips, wanted=18.0):
    """The mean face with its mouth open, by the expression that parts two vertices `lips` most: (V, 3)."""
    if not raw.expression.shape[2]:
        return raw.vertices.astype(np.float64)
    part = raw.expression[lips[0], 1] - raw.expression[lips[1], 1]
    low, high = raw.expression_range
    reach = np.maximum(part * high, part * low)
    k = int(np.argmax(reach))
    limit = high if part[k] > 0 else low
    share = min(0.8, wanted / max(reach[k], 1e-6))
    return raw.vertices + share * limit * raw.expression[..., k].astype(np.float64)


def check_landmarks(known, transferred, vertices):
    """Raises ValueError when a table's landmarks lie where a face doesn't have them: it belongs to another mesh.

    known : dict, iBUG index -> vertex; transferred : (68,) vertices by the embedded model; vertices : (V, 3) mm
    """
    away = {k: float(np.linalg.norm(vertices[i] - vertices[transferred[k]])) for k, i in known.items()}
    wrong = [k for k, d in away.items() if d > (JAW_ASTRAY if k < 17 else ASTRAY)]
    if wrong:
        raise ValueError(f"the list of landmarks is for another mesh: number {wrong[0]} lies {away[wrong[0]]:.0f} mm "
                         "from where a face has it")


@dataclass(frozen=True)
class Surface:
    """The surface that is drawn: the closed mesh itself, or split once where it is coarse.

    refine : (V, C) csr float32, positions; straight : (V, C) csr float32, everything that is not smoothed
    vertices : (V, 3) float32, the mean face; normals : (V, 3); triangles : (T, 3) int32
    coarse_index, coarse_edges, coarse_refine : see MorphableModel
    """

    refine: sp.csr_matrix
    straight: sp.csr_matrix
    vertices: np.ndarray
    normals: np.ndarray
    triangles: np.ndarray
    coarse_index: np.ndarray
    coarse_edges: np.ndarray
    coarse_refine: sp.csr_matrix


def surface_of(raw):
    """The Surface of a closed RawModel."""
    n = len(raw.vertices)
    if n < FINE_ENOUGH:
        straight, refine, triangles = mesh.split(raw.triangles, n)
        coarse = np.arange(n, dtype=np.int32), mesh.undirected_edges(raw.triangles).astype(np.int32), straight
    else:
        straight = refine = sp.identity(n, np.float32, "csr")
        triangles, coarse = raw.triangles.astype(np.int32), coarse_graph(raw.vertices, raw.triangles)
    vertices = refine @ raw.vertices
    normals = mesh.vertex_normals(vertices.astype(np.float64), triangles)
    return Surface(refine, straight, vertices, normals, triangles, *coarse)


def prepare(raw, guide):
    """Makes a model of a file's contents.

    Parameters
    ----------
    raw : RawModel
    guide : MorphableModel, the embedded model

    Returns
    -------
    MorphableModel; its control mesh is the file's, cut out and closed

    Raises
    ------
    InputError : when the mesh is no face with one outer border
    """
    try:
        marked = np.isin(np.arange(len(raw.vertices)), list(raw.landmarks.values()))
        raw = replace(raw, triangles=mesh.face_outwards(raw.vertices, raw.triangles, marked))
        raw = _take(raw, *mesh.cut_out(raw.vertices, raw.triangles, _head_front(raw)))
        raw.check(f"{raw.name}: front of the head")
        raw, mouth, eyes = close_holes(raw)
        surface = surface_of(raw)
        v, t = surface.vertices, surface.triangles
        registration = register(guide, v, t, raw.landmarks)
        landmarks = nearest_vertices(registration, guide.landmarks, v, t)
        check_landmarks(raw.landmarks, landmarks, v)
        for k, vertex in raw.landmarks.items():
            landmarks[k] = vertex
        paths = nearest_vertices(registration, guide.contour_paths.ravel(), v, t)
        spread = nearest_vertices(registration, guide.spread, v, t)
        normals = mesh.vertex_normals(raw.vertices.astype(np.float64), raw.triangles)
        coarse_regions = regions_from(guide, registration, raw.vertices, normals, mouth, eyes)
        lips = nearest_vertices(registration, guide.landmarks[[62, 66]], raw.vertices, raw.triangles)
        uv = embed(_mouth_opened(raw, lips), raw.triangles, chart_importance(coarse_regions), CHART_ITERATIONS)
    except ValueError as error:
        raise error if isinstance(error, InputError) else InputError(
            f"{raw.name}: its mesh can't be used as a face: {error}") from error
    mouth, eyes = (surface.straight @ sheet.astype(np.float32) > 0.4 for sheet in (mouth, eyes))
    regions = regions_from(guide, registration, v, surface.normals, mouth, eyes)
    albedo_mean, albedo_basis = _albedo(raw, surface, guide, registration, mouth, eyes)
    identity = raw.identity if raw.orthogonal else orthogonal_modes(raw.identity, coarse_regions["face"])
    borrowed = "" if raw.albedo_mean is not None else guide.hash
    flipped = lambda basis: np.ascontiguousarray(basis * FLIP[:, None], np.float32)
    return MorphableModel(
        name=raw.name, hash=hashlib.sha256(f"{raw.hash} {borrowed} {VERSION}".encode()).hexdigest()[:16],
        control_mean=np.ascontiguousarray(raw.vertices * FLIP, np.float32),
        control_identity=flipped(identity[..., :IDENTITY_COUNT]), control_expression=flipped(raw.expression),
        expression_names=raw.expression_names, expression_range=raw.expression_range, refine=surface.refine,
        triangles=t, albedo_mean=albedo_mean.clip(0, 1), albedo_basis=albedo_basis,
        uv=(surface.straight @ uv).astype(np.float32), landmarks=landmarks.astype(np.int32),
        contour_paths=paths.reshape(guide.contour_paths.shape).astype(np.int32), spread=spread, regions=regions,
        coarse_edges=surface.coarse_edges, coarse_refine=surface.coarse_refine, coarse_index=surface.coarse_index)
