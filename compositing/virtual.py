"""A face that belongs to nobody, drawn from the model, for making a person anonymous.

    python -m compositing.virtual SEED -o nobody.png

draws a portrait of it; compositing.replace --virtual SEED puts it into a video.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from compositing.report import write_whole
from compositing.retarget import render
from compositing.target import TEXTURE_SIZE, TargetFace
from facemodel import commands
from facemodel.atlas import build_atlas
from facemodel.device import backend_for
from facemodel.errors import InputError
from facemodel.light import ambient_light
from facemodel.morphable import load_model
from fitting.lift import Texture
from fitting.texture import albedo_texture, region_texture

IDENTITY_SPREAD, ALBEDO_SPREAD = 0.9, 0.8     # standard deviations; 1 is the model's own spread
GRAIN = 0.012                                 # of the albedo
PORTRAIT_SIZE = 640
VISIBLE_HEIGHT = 265.0                        # mm from the picture's upper to its lower edge


def virtual_face(model, seed, size=TEXTURE_SIZE):
    """Samples identity and albedo: int seed -> TargetFace; the same seed gives the same face.

    Skin grain is added, since a face model's albedo has none: band-limited noise.
    """
    rng = np.random.default_rng(seed)
    identity = rng.normal(0, IDENTITY_SPREAD, model.identity_count).clip(-2, 2)
    albedo = rng.normal(0, ALBEDO_SPREAD, model.albedo_count).clip(-2, 2)
    atlas = build_atlas(model, size)
    texture = albedo_texture(model, albedo, atlas)
    grain = rng.normal(0, 1, (size, size)).astype(np.float32)
    grain *= region_texture(model, "face", atlas)                # the scalp's texels are long and narrow
    grain = cv2.GaussianBlur(grain, (0, 0), 0.8) - cv2.GaussianBlur(grain, (0, 0), 2.5)
    texture = texture * (1 + GRAIN / grain.std() * grain[..., None])
    seen = atlas.mask * (1 - region_texture(model, "mouth_interior", atlas))      # as in a photo with lips closed
    return TargetFace(identity.astype(np.float32), np.zeros(model.expression_count, np.float32),
                      Texture(texture.clip(0, 1.2).astype(np.float32), seen.astype(np.float32)))


def portrait(model, face, size=PORTRAIT_SIZE):
    """A frontal picture of a TargetFace under soft light before a grey ground: (size, size, 3) uint8."""
    large = 2 * size
    focal = 2.0 * large
    light = ambient_light(0.78)
    light[1:4] = np.array([-0.10, -0.22, 0.06])[:, None]        # from above, the front and one side (y, z, x)
    distance = focal * VISIBLE_HEIGHT / large
    drawn = render(model, face.identity, face.texture.rgb, face.expression, np.zeros(3),
                   np.array([0.0, -4.0, distance]), light, focal, (large / 2, large / 2),
                   (large, large))
    left, top, right, bottom = drawn.window
    picture = np.full((large, large, 3), [0.55, 0.58, 0.60], np.float32)
    picture[top:bottom, left:right][drawn.mask] = drawn.rgb[drawn.mask]
    return np.round(255 * cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)).astype(np.uint8)


def check_seed(seed, option):
    """Raises InputError for a seed that NumPy does not take."""
    if seed < 0:
        raise InputError(f"{option} {seed}: give 0 or more")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m compositing.virtual", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=int, metavar="SEED", help="number of the face, 0 or more")
    parser.add_argument("-o", "--out", type=Path, metavar="OUT.png", help="default: nobody_SEED.png")
    commands.add_common(parser)
    args = parser.parse_args(argv)
    if args.device == "cuda":                 # every command takes --device; this one has little to compute
        backend_for(args.device)
    check_seed(args.seed, "SEED")
    out = args.out or Path(f"nobody_{args.seed}.png")
    commands.check_writable(out)
    if out.suffix.lower() != ".png":
        raise InputError(f"{out}: the portrait is a PNG; name the output {out.stem}.png")
    model = load_model(args.model)
    _, data = cv2.imencode(".png", portrait(model, virtual_face(model, args.seed))[..., ::-1])
    write_whole(out, data.tobytes())
    print(f"wrote {out}")


if __name__ == "__main__":
    commands.run(main)
