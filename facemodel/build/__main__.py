"""Builds `assets/commons_face/commons_face.npz`, the geometry of the embedded model, from CC0 data.

Needs the build-time extra:  pip install -e ".[build]"
The albedo beside it (`albedo.npz`) is learned from photographs:  python -m fitting.learn_albedo --help
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from facemodel import commands
from facemodel.build import chart, landmarks, makehuman, regions, statistics, surface
from facemodel.files import whole
from facemodel.subdivision import subdivide

LEVELS = 2
SCALE = 1.085     # MakeHuman's heads are small: eye corners and chin against the mean head of ICT-FaceKit (MIT)
DEFAULT_OUT = Path(__file__).parents[2] / "assets/commons_face/commons_face.npz"


def symmetric_units(units, mirror):
    """Makes each face unit the mirror image of its partner (Left and Right exchanged): name -> (V, 3)."""
    swap = {"Left": "Right", "Right": "Left"}
    out = {}
    for name, d in units.items():
        side = next((s for s in swap if name.endswith(s)), None)
        partner = units[name.removesuffix(side) + swap[side]] if side else d
        out[name] = (d + partner[mirror] * [-1, 1, 1]) / 2
    return out


def build(draws, components, seed, log=print):
    """The model's arrays by name, ready to be stored (see facemodel.morphable for their meaning)."""
    base = makehuman.read_base_mesh()
    mesh = surface.build_control_mesh(base)
    neutral = surface.place(mesh, base, base.vertices, close_lips=True)
    matrix, fine_quads = subdivide(mesh.quads, len(mesh.source), LEVELS)
    log(f"control mesh {len(neutral)} vertices, {len(mesh.quads)} quads; "
        f"surface {matrix.shape[0]} vertices, {2 * len(fine_quads)} triangles")

    units = {n: surface.displace(mesh, base.target(p)) for n, p in base.face_units().items()}
    units = symmetric_units({n: d for n, d in units.items() if np.abs(d).max() > 0.3}, mesh.mirror)
    # ARKit's mouthClose undoes what jawOpen does to the lips; alone it would pull them through the nose. Here it brings
    # its jawOpen along, so that every unit is a face by itself: a lowered chin behind closed lips.
    units["mouthClose"] = units["mouthClose"] + units["jawOpen"]
    region = regions.build_regions(base, mesh, neutral)
    weight = 0.02 + np.clip(region["face"] + 0.5 * region["forehead"], 0, 1)

    shapes = statistics.draw_shapes(base, mesh, draws, seed)
    mirrored = shapes[:, mesh.mirror] * np.float32([-1, 1, 1])     # people have no preferred side
    aligned = statistics.align(np.concatenate([shapes, mirrored]), weight)
    mean, identity, kept = statistics.principal_components(aligned, components, weight)
    mean = (mean + mean[mesh.mirror] * [-1, 1, 1]) / 2
    log(f"identity: {components} components keep {100 * kept:.2f} % of the variance of {draws} draws")

    open_face = neutral + 0.8 * units["jawOpen"] + 0.3 * (units["eyeWideLeft"] + units["eyeWideRight"])
    uv = chart.embed(open_face, mesh.quads, chart.chart_importance(region))
    uv = (uv + np.stack([1 - uv[mesh.mirror, 0], uv[mesh.mirror, 1]], axis=1)) / 2
    for name, grid in (("mouth interior", mesh.mouth), ("left eye", mesh.left_eye), ("right eye", mesh.right_eye)):
        width, height = chart.texels(uv, grid)
        log(f"chart at 256 x 256: {name} {width:.0f} x {height:.0f} texels")

    half_open = matrix @ (neutral + 0.5 * units["jawOpen"])
    points = landmarks.landmark_vertices(half_open)
    fine_region = {n: np.clip(matrix @ w, 0, 1) for n, w in region.items()}
    mean_fine = matrix @ mean
    jaw_skin = (fine_region["ears"] < 0.05) & (mean_fine[:, 2] > mean_fine[points[0], 2] - 25)
    paths = landmarks.contour_paths(mean_fine, points, jaw_skin)
    spread = landmarks.spread_vertices(mean_fine, points, fine_region)

    names = sorted(units)
    origin = mean_fine[points[[36, 39, 42, 45]]].mean(axis=0) - [0, 0, 60]
    return {
        "format_version": np.int32(1), "model_name": "commons", "levels": np.int32(LEVELS),
        "quads": mesh.quads.astype(np.int16), "mean": ((mean - origin) * SCALE).astype(np.float32),
        "identity_basis": (identity * SCALE).astype(np.float16),
        "expression_basis": (np.stack([units[n] for n in names]) * SCALE).astype(np.float16),
        "expression_names": np.array(names), "uv": uv.astype(np.float32), "mirror": mesh.mirror.astype(np.int16),
        "landmarks": points, "contour_paths": paths, "spread": spread, "region_names": np.array(regions.NAMES),
        "regions": np.round(255 * np.stack([region[n] for n in regions.NAMES])).astype(np.uint8),
    }


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m facemodel.build", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--draws", type=int, default=1500, help="random heads that identity is learned from")
    parser.add_argument("--components", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    commands.add_verbose(parser)
    args = parser.parse_args(argv)
    commands.check_writable(args.out)
    arrays = build(args.draws, args.components, args.seed)
    with whole(args.out) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"wrote {args.out} ({args.out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    commands.run(main)
