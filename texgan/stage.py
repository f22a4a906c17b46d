"""A virtual head with all its parts: ICT-FaceKit's geometry, and where on the embedded model's chart its skin lies.

Skin, teeth, gums, tongue, mouth lining and eyeballs are those of ICT-FaceKit (R. Li et al., CVPR 2020, MIT licence; the
user downloads it, see facemodel.readers.ict). Polygon ranges of the parts are those of its README. A skin is a texture
in the chart of the embedded model: every skin vertex gets the chart's coordinates of the closest point of the embedded
surface, once. File orientation: x to the subject's left, y up, z out of the face; millimetres.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from facemodel.atlas import build_atlas, uv_to_pixels
from facemodel.errors import InputError
from facemodel.membrane import fit_sphere
from facemodel.mesh import vertex_normals
from facemodel.rasterizer import interpolate, rasterize
from facemodel.readers import ict
from texgan.correspondence import carry_inwards, correspondence, laid_over

# polygons of the parts that are drawn (README of https://github.com/ICT-VGL/ICT-FaceKit)
FACE, HEAD, MOUTH, SOCKETS, GUMS, TEETH = (0, 9230), (9230, 11144), (11144, 13226), (13226, 14034), (14034, 17006), (
    17006, 21496)
BALLS = ((21496, 22296), (23094, 23894))
SKIN, LINING, GUM, TOOTH, EYE_LEFT, EYE_RIGHT = range(6)         # materials
OPENING = (60, 61, 62, 63, 64, 65, 66, 67)                       # landmarks around the mouth's opening
TONGUE_SINKS = -4.0              # mm, when the jaw opens; throat and palate stay
CHART_SIZE = 512                 # texels per side of the chart's mask


@dataclass(frozen=True)
class Stage:
    """What all actors share; V vertices of ICT-FaceKit, T triangles.

    mean : (V, 3) float32; identity : (n, V, 3) float32 per standard deviation
    expression : (m, V, 3) float32 per unit; expression_names : tuple of str, ARKit's
    triangles : (T, 3) int32; material : (T,) int32
    uv : (V, 2) float32, embedded chart, v up; meaningful for SKIN, and for the LINING next to it
    inner : (V,) float32 in [0, 1], 0 outer skin, 1 mucous membrane
    tongue : (V,) float32 in [-1, 1], on the gums' mesh 1 for the tongue, 0 for gums, -1 for palate and throat
    landmarks : (68,) int, iBUG order
    centres, axes : (2, 3) float32, centres of the eyeballs, left and right, of the mean head, and where they look
    balls : two (N,) int, their vertices
    margins : two (M,) int, vertices on the rim of the lids
    lids : two (L,) int, skin vertices around the eyes that may not sink into the ball
    inside : (N,) int, vertices in the mouth
    static : (V, 8) float32, what texgan.shading.shade_pixels takes: uv, mean, inner, tongue, light that
        gets there at rest
    chart : (CHART_SIZE, CHART_SIZE) float32, 1 where the embedded chart is
    lid_chart : the same, 1 on the skin over the eyes, 0 on the lids' rims
    embedded : (N, 3) float64, the embedded model's vertices laid over the mean head
    """

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    expression_names: tuple
    triangles: np.ndarray
    material: np.ndarray
    uv: np.ndarray
    inner: np.ndarray
    tongue: np.ndarray
    landmarks: np.ndarray
    centres: np.ndarray
    axes: np.ndarray
    balls: tuple
    margins: tuple
    lids: tuple
    inside: np.ndarray
    static: np.ndarray
    chart: np.ndarray
    lid_chart: np.ndarray
    embedded: np.ndarray

    def weights(self, named):
        """Weights by name -> (m,) float32; a name without Left or Right stands for both sides.

        Raises
        ------
        ValueError : for a name that is no expression
        """
        out = np.zeros(len(self.expression_names), np.float32)
        for name, value in named.items():
            hits = [k for k, n in enumerate(self.expression_names) if n in (name, name + "Left", name + "Right")]
            if not hits:
                raise ValueError(f"{name}: no expression of ICT-FaceKit")
            out[hits] = value
        return out


def load_stage(ict_path, guide):
    """Loads ICT-FaceKit with all parts.

    Parameters
    ----------
    ict_path : str or Path, folder or .npz as facemodel.readers.ict takes it
    guide : MorphableModel, the embedded model, whose chart the skins are in

    Raises
    ------
    InputError : when there is no ICT-FaceKit at the path
    """
    place = ict.find(ict_path)
    if place is None:
        raise InputError(f"{ict_path}: holds no ICT-FaceKit; {ict.WHERE}")
    raw, polygons = ict.read(place), ict.polygons(place)
    triangles, material = _parts(polygons)
    of = lambda *ranges: np.unique(np.concatenate([polygons[a:b] for a, b in ranges]))
    moved = lambda name: np.ascontiguousarray(raw.expression[..., raw.expression_names.index(name)])
    teeth, gums = of(TEETH), of(GUMS)
    lining, sockets, face = of(MOUTH), of(SOCKETS), of(FACE)
    laid = laid_over(raw, guide)
    uv = correspondence(raw, guide, moved, laid)
    uv = carry_inwards(uv, polygons[:SOCKETS[1]], of(FACE, HEAD), np.union1d(lining, sockets), raw.vertices)
    balls = tuple(of(b) for b in BALLS)
    centres, axes = np.stack([_eye(raw.vertices[b].astype(np.float64)) for b in balls], axis=1).astype(np.float32)
    rim, skin = np.intersect1d(face, sockets), raw.vertices[face]
    side = lambda x, k: (x > 0) == (k == 0)
    mouth = raw.vertices[[raw.landmarks[k] for k in OPENING]]
    tongue = np.zeros(len(raw.vertices), np.float32)
    away = np.clip((cKDTree(raw.vertices[teeth]).query(raw.vertices[gums])[0] - 3.5) / 3, 0, 1)
    tongue[gums] = away * np.where(moved("jawOpen")[gums, 1] < TONGUE_SINKS, 1, -1)
    rows = lambda basis: np.ascontiguousarray(np.moveaxis(basis, 2, 0), np.float32)
    inner = _inner(raw, face, lining, mouth)
    skin_triangles = triangles[material == SKIN]
    open_ = np.ones(len(raw.vertices))
    still = np.setdiff1d(skin_triangles, np.union1d(np.flatnonzero(inner > 0), np.concatenate(_around_eyes(rim, raw))))
    open_[still] = sky(raw.vertices, skin_triangles)[still]
    static = np.concatenate([uv, raw.vertices, inner[:, None], tongue[:, None], open_[:, None]], axis=1)
    static[np.concatenate(balls), 2:5] = 0
    return Stage(
        mean=raw.vertices.astype(np.float32), identity=rows(raw.identity), expression=rows(raw.expression),
        expression_names=raw.expression_names, triangles=triangles, material=material, uv=uv.astype(np.float32),
        inner=inner, tongue=tongue,
        landmarks=np.array([raw.landmarks[k] for k in range(68)]), centres=centres, axes=axes,
        balls=balls,
        margins=tuple(rim[side(raw.vertices[rim, 0], k)] for k in (0, 1)),
        lids=tuple(face[np.linalg.norm(skin - centres[k], axis=1) < 24] for k in (0, 1)),
        inside=np.unique(np.concatenate([teeth, gums, lining])), static=static.astype(np.float32),
        chart=build_atlas(guide, CHART_SIZE).mask.astype(np.float32),
        lid_chart=_lid_chart(raw.vertices, rim, skin_triangles, uv), embedded=laid.vertices)


def _parts(polygons):
    """Triangles (T, 3) int32 of everything that is drawn, and their materials (T,) int32."""
    ranges = [(FACE, SKIN), (HEAD, SKIN), (MOUTH, LINING), (SOCKETS, SKIN), (GUMS, GUM), (TEETH, TOOTH),
              (BALLS[0], EYE_LEFT), (BALLS[1], EYE_RIGHT)]
    triangles = [ict.triangles_from(polygons[a:b]) for (a, b), _ in ranges]
    material = [np.full(len(t), m, np.int32) for t, (_, m) in zip(triangles, ranges)]
    return np.concatenate(triangles), np.concatenate(material)


def _eye(ball):
    """Centre of an eyeball's (N, 3) rear, and the unit vector from there to its cornea, which stands out."""
    middle = fit_sphere(ball)[0]
    centre = fit_sphere(ball[ball[:, 2] < middle[2] - 2])[0] if len(ball) > 100 else middle
    front = ball - centre
    axis = front[np.argsort(-front[:, 2])[:25]].mean(axis=0)
    return centre, axis / np.linalg.norm(axis)


def _lid_chart(vertices, rim, triangles, uv):
    """Skin over the eyes, but for the lids' rims, on the chart: (CHART_SIZE, CHART_SIZE) float32."""
    distance, nearest = cKDTree(vertices[rim]).query(vertices)
    above = np.clip((vertices[:, 1] - vertices[rim, 1][nearest]) / 1.5 + 0.5, 0, 1)
    upper = vertices[rim, 1][nearest] > vertices[rim, 1].mean() - 1
    weight = above * upper * np.clip((distance - 0.8) / 1.2, 0, 1) * np.clip((10.0 - distance) / 3, 0, 1)
    raster = rasterize(uv_to_pixels(uv, CHART_SIZE), np.ones(len(uv)), triangles, CHART_SIZE, CHART_SIZE, False)
    return interpolate(weight[:, None], triangles, raster)[..., 0]


def _around_eyes(rim, raw):
    """Vertices (N,) within 6 mm of the lids' rims."""
    return cKDTree(raw.vertices[rim]).query_ball_point(raw.vertices, 6.0, return_length=True).nonzero()


def sky(vertices, triangles, directions=48, per_mm=1.5):
    """Light that gets to each vertex at rest: (V,) float64, dark deep in the nostrils, 1 where half of the sky is seen.

    Seen from `directions` of the half space in front, without perspective; what skin hides more than 2 mm is dark.
    """
    k = np.arange(directions) + 0.5
    z, turn = k / directions, np.pi * (1 + 5 ** 0.5) * k                      # a spiral, even over the half sphere
    normals = vertex_normals(vertices.astype(np.float64), triangles)
    seen, total = np.zeros(len(vertices)), np.zeros(len(vertices))
    for d in np.stack([np.sqrt(1 - z * z) * np.cos(turn), np.sqrt(1 - z * z) * np.sin(turn), z], axis=1):
        right = np.cross([0, 1, 0], d) / np.linalg.norm(np.cross([0, 1, 0], d))
        view = vertices @ np.stack([right, -np.cross(d, right), -d], axis=1)
        low = view.min(axis=0)
        xy, depth = (view[:, :2] - low[:2]) * per_mm + 2, view[:, 2] - low[2] + 100
        size = np.ceil(xy.max(axis=0)).astype(int) + 2
        first = rasterize(xy, depth, triangles, size[1], size[0], cull_backfaces=False).depth
        at = np.floor(xy).astype(int)
        weight = np.maximum(normals @ d, 0) + 0.05
        seen += weight * (depth < first[at[:, 1], at[:, 0]] + 2)
        total += weight
    return np.clip((seen / total - 0.04) / 0.4, 0.25, 1)


def _inner(raw, face, lining, mouth):
    """How far a skin vertex belongs to the mouth's inside: lips that look backwards, and the lining: (V,) float32."""
    normals = vertex_normals(raw.vertices.astype(np.float64), raw.triangles)
    near = np.linalg.norm((raw.vertices - mouth.mean(axis=0)) * [0.6, 1, 1], axis=1) < 16
    ramp = np.clip((0.15 - normals[:, 2]) / 0.6, 0, 1)
    out = np.zeros(len(raw.vertices), np.float32)
    chosen = face[near[face]]
    out[chosen] = ramp[chosen]
    out[lining] = 1
    return out
