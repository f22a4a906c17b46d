"""Writes what a fit found for other programs: a mesh, a texture or points.

    python -m fitting.export photo.npz --neutral -o face.ply
    python -m fitting.export photo.npz --image photo.jpg -o face.glb
    python -m fitting.export clip.npz --frame 40 --image clip.mp4 -o albedo.png
    python -m fitting.export photo.npz -o points.json

The suffix decides. Meshes (.obj, .ply, .glb) are in millimetres, in .glb too, where readers expect metres; x to the
subject's left, y up, z out of the face, unposed. They carry texture coordinates, and colours: with --image what the
picture shows with its light divided out, otherwise the fitted albedo. .png is the UV albedo texture. .json holds
landmarks, pose, camera and coefficients.
"""
from __future__ import annotations

import argparse
import json
import re
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import map_coordinates

from facemodel import commands
from facemodel.atlas import build_atlas, uv_to_pixels
from facemodel.camera import project, rotation_matrix, to_camera
from facemodel.device import backend_for
from facemodel.errors import InputError
from facemodel.files import whole
from facemodel.morphable import FLIP, load_model
from fitting.images import read_image, to_uint8
from fitting.progress import progress_bar
from fitting.solver import outline_vertices
from fitting.texture import albedo_texture, extract, fill, pose
from fitting.trackfile import load_track
from fitting.video_reader import VideoReader, check_file, media_kind

MESHES = (".obj", ".ply", ".glb")
SUFFIXES = (*MESHES, ".png", ".json")
TEXTURE_SIZES = (64, 8192)
CONVENTION = (
    "pixels: x right, y down, centre of the first one at (0.5, 0.5). Camera: x right, y down, z forward. "
    "X_camera = rotation @ X + translation with X in millimetres as in exported meshes (x to the subject's left, y up, "
    "z out of the face); x_pixel = focal * X_camera[:2] / X_camera[2] + principal_point. "
    "rotation = diag(1,-1,-1) Rz(roll) Rx(pitch) Ry(yaw): yaw > 0 turns the face to the right of the picture, "
    "pitch > 0 downwards, roll > 0 counter-clockwise. FIT.npz holds rotation @ diag(1,-1,-1), since the model in "
    "memory has y down and z into the face."
)


def choose_row(track, frame, path):
    """Row of a track that shows a face: the one of source frame `frame`, or by default the first that is ok.

    Raises
    ------
    InputError : no such frame, or no face in it
    """
    seen = np.flatnonzero(track.status != "no_face")
    if not len(seen):
        raise InputError(f"{path}: no frame has a face; fit another picture")
    if frame is None:
        trusted = np.flatnonzero(track.status == "ok")
        return int(trusted[0] if len(trusted) else seen[0])
    row = row_of(track, frame, path)
    if row not in seen:
        nearest = track.frame_index[seen[np.argmin(np.abs(seen - row))]]
        raise InputError(f"{path}: frame {frame} shows no face; the nearest that does is --frame {nearest}")
    return row


def row_of(track, frame, path):
    """Row of source frame `frame`; raises InputError when the track doesn't have it."""
    rows = np.flatnonzero(track.frame_index == frame)
    if not len(rows):
        raise InputError(f"{path}: --frame {frame}: the file has frames {track.frame_index.min()} to "
                         f"{track.frame_index.max()}")
    return int(rows[0])


def read_frame(path, frame):
    """The picture that a fit came from: a photo, or frame `frame` of a video -> (H, W, 3) uint8 RGB.

    Raises
    ------
    InputError : when it can't be read or the video has fewer frames
    """
    path = check_file(path, "photo or video")
    if media_kind(path) != "video":
        return read_image(path)
    count = 0
    with VideoReader(path) as reader, progress_bar(frame + 1, "reading", show=frame >= 50) as bar:
        for picture in reader:
            if picture.index == frame:
                return picture.rgb
            count = picture.index + 1
            bar.update()
    raise InputError(f"{path}: has {count} frames, the fit is of frame {frame}; give the video that was tracked")


def frame_shape(model, track, row):
    """Vertices (V, 3) float32 of one frame's face, model space, millimetres."""
    return model.shape(track.identity, track.expression[row])


def frame_texture(model, track, row, image, size, path="image"):
    """The albedo texture of one frame, completed where it was not seen.

    Parameters
    ----------
    model : MorphableModel
    track : Track
    row : int
    image : (H, W, 3) uint8, the frame itself
    size : int, texels per side
    path : what the error names

    Returns
    -------
    (size, size, 3) float32 in [0, 1]

    Raises
    ------
    InputError : a picture of another size, or one that doesn't show the fitted face
    """
    height, width = (int(n) for n in track.image_size)
    if image.shape[:2] != (height, width):
        raise InputError(f"{path}: is {image.shape[1]} x {image.shape[0]} pixels, the fit is of a picture of {width} x "
                         f"{height}; give the picture or video that was fitted")
    posed = pose(model, frame_shape(model, track, row), track.rotation[row], track.translation[row], track.focal,
                 track.principal_point)
    atlas = build_atlas(model, size)
    texture, validity = extract(image, posed, track.light[row], model, atlas)
    if validity.max() < 0.5:
        raise InputError(f"{path}: the fitted face lies outside the picture; fit it again or leave --image out")
    return np.clip(fill(texture, validity, model, atlas, albedo_texture(model, track.albedo, atlas)), 0, 1)


def projected_landmarks(model, track, row):
    """The fitted model's landmarks in the frame, jaw points on the outline: (68, 2) float32 pixels."""
    vertices = frame_shape(model, track, row)
    pose_of = track.rotation[row], track.translation[row]
    chosen = model.landmarks.copy()
    chosen[:17] = outline_vertices(model, vertices, *pose_of, track.focal, track.principal_point)
    return project(to_camera(vertices[chosen], *pose_of), track.focal, track.principal_point)


def euler_degrees(rotation):
    """Yaw, pitch, roll of a rotation (3, 3) from file orientation: diag(1,-1,-1) Rz(roll) Rx(pitch) Ry(yaw)."""
    m = np.diag(FLIP) @ rotation
    return np.degrees([np.arctan2(-m[2, 0], m[2, 2]), np.arcsin(np.clip(m[2, 1], -1, 1)),
                       np.arctan2(-m[0, 1], m[1, 1])])


def describe(model, track, row):
    """What X.json holds for one frame (see CONVENTION): a dict of plain numbers, lists and strings."""
    number = lambda x: float(x) if np.isfinite(x) else None
    points = lambda p: [[number(round(float(x), 5)) for x in q] for q in p]
    numbers = lambda v: [float(x) for x in v]
    rotation = rotation_matrix(track.rotation[row]) * FLIP.astype(float)
    return {
        "model_name": str(track.model_name), "model_hash": str(track.model_hash), "convention": CONVENTION,
        "frame": int(track.frame_index[row]), "status": str(track.status[row]),
        "image_size": [int(n) for n in track.image_size],
        "photometric_error": number(track.photometric_error[row]), "landmark_error": number(track.landmark_error[row]),
        "landmarks_projected": points(projected_landmarks(model, track, row)),
        "landmarks_detected": points(track.landmarks[row]),
        "landmarks_neutral": points(model.shape(track.identity)[model.landmarks] * FLIP),
        "rotation_deg": dict(zip(("yaw", "pitch", "roll"), numbers(euler_degrees(rotation)))),
        "camera": {"focal": float(track.focal), "principal_point": numbers(track.principal_point),
                   "rotation": rotation.tolist(), "translation": numbers(track.translation[row])},
        "expression": dict(zip((str(n) for n in track.expression_names), numbers(track.expression[row]))),
        "identity": numbers(track.identity), "albedo": numbers(track.albedo),
    }


def to_linear(srgb):
    """sRGB values in [0, 1] -> linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def mesh_files(path, vertices_model, model, texture, vertex_albedo):
    """Files of a mesh.

    Parameters
    ----------
    path : Path of the mesh; its suffix is one of MESHES
    vertices_model : (V, 3) float32, model space, millimetres
    model : MorphableModel
    texture : (S, S, 3) float32 or None
    vertex_albedo : (V, 3) float32 in [0, 1], used where there is no texture

    Returns
    -------
    dict Path -> bytes, the mesh last; .obj with a texture has a material and a picture beside it
    """
    import trimesh
    from PIL import Image
    from trimesh.visual.material import PBRMaterial, SimpleMaterial
    mesh = trimesh.Trimesh(vertices_model * FLIP, model.triangles, process=False)
    mesh.units = "mm"
    picture = None if texture is None else Image.fromarray(to_uint8(texture))
    textured = lambda material: trimesh.visual.TextureVisuals(uv=model.uv, material=material)
    if path.suffix == ".ply":
        if texture is not None:
            where = uv_to_pixels(model.uv, len(texture)).T[::-1] - 0.5
            vertex_albedo = np.stack([map_coordinates(channel, where, order=1, mode="nearest")
                                      for channel in np.moveaxis(texture, 2, 0)], axis=1)
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=to_uint8(vertex_albedo))
        mesh.vertex_attributes.update(s=model.uv[:, 0], t=model.uv[:, 1])
        return {path: mesh.export(file_type="ply")}
    if path.suffix == ".glb":
        mesh.visual = textured(PBRMaterial(baseColorTexture=picture, baseColorFactor=[255] * 4, metallicFactor=0.0,
                                           roughnessFactor=1.0))
        if picture is None:          # glTF: colours of vertices are linear, textures are sRGB
            colours = np.full((len(vertices_model), 4), 255, np.uint8)
            colours[:, :3] = to_uint8(to_linear(np.clip(vertex_albedo, 0, 1)))
            mesh.visual.vertex_attributes["color"] = colours
        return {path: mesh.export(file_type="glb")}
    name = re.sub(r"[^\w.-]", "_", path.stem)
    mesh.visual = textured(SimpleMaterial(image=picture, name=f"{name}_texture", diffuse=[255] * 4, ambient=[0] * 4,
                                          specular=[0] * 4))
    text, beside = trimesh.exchange.obj.export_obj(mesh, return_texture=True, mtl_name=f"{name}.mtl", digits=6,
                                                   header="vertices in millimetres")
    if picture is None:
        text, beside = re.sub(r"^(mtllib|usemtl) .*\n", "", text, flags=re.MULTILINE), {}
    return {**{path.with_name(n): data for n, data in beside.items()}, path: text.encode()}


def write_files(files):
    """Writes files (dict Path -> bytes) beside their places, then renames them in their order.

    Raises
    ------
    InputError : when one can't be written; then none is
    """
    with ExitStack() as stack:
        for path, data in reversed(files.items()):                 # what is entered first is renamed last
            stack.enter_context(whole(path)).write_bytes(data)


def export(model, track, out, frame=None, neutral=False, image=None, size=1024, name="fit"):
    """Writes one file, or for a textured .obj three.

    Parameters
    ----------
    model : MorphableModel
    track : Track
    out : Path, its suffix is one of SUFFIXES
    frame : int, index in the source; default the first frame that is ok
    neutral : bool, meshes without expression
    image : path of the photo or video that was fitted, for its texture
    size : int, texels per side
    name : what errors call the track

    Returns
    -------
    str, one line about what was written

    Raises
    ------
    InputError : a frame or a picture that can't be used, or a place that can't be written
    """
    suffix = out.suffix
    needs_face = suffix == ".json" or image is not None or (suffix in MESHES and not neutral)
    row = None
    if needs_face:
        row = choose_row(track, frame, name)
    elif frame is not None:
        row_of(track, frame, name)
    about = "" if row is None else f"frame {track.frame_index[row]} ({track.status[row]}), "
    if suffix == ".json":
        write_files({out: (json.dumps(describe(model, track, row), indent=1, allow_nan=False) + "\n").encode()})
        return f"wrote {out}: {about}landmarks, pose, camera, coefficients"
    texture = None
    if image is not None:
        picture = read_frame(image, int(track.frame_index[row]))
        texture = frame_texture(model, track, row, picture, size, image)
    if suffix == ".png":
        if texture is None:
            texture = np.clip(albedo_texture(model, track.albedo, build_atlas(model, size)), 0, 1)
        write_files({out: cv2.imencode(".png", to_uint8(texture)[..., ::-1])[1].tobytes()})
        return f"wrote {out}: {about}albedo, {size} x {size} texels"
    vertices = model.shape(track.identity) if neutral else frame_shape(model, track, row)
    write_files(mesh_files(out, vertices, model, texture, model.albedo(track.albedo)))
    return (f"wrote {out}: {about}{'neutral, ' if neutral else ''}{len(vertices)} vertices, {len(model.triangles)} "
            "triangles, mm")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m fitting.export", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fit", type=Path, metavar="FIT.npz", help="what fitting.fit or fitting.track wrote")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="X", help="suffix: " + ", ".join(SUFFIXES))
    parser.add_argument("--frame", type=int, metavar="N", help="frame of the clip, counted from 0; default: the first "
                        "that is ok")
    parser.add_argument("--neutral", action="store_true", help="meshes: the person's shape without expression")
    parser.add_argument("--image", type=Path, metavar="PHOTO_OR_VIDEO",
                        help="what the fit came from, to take the texture from; .json doesn't need it")
    parser.add_argument("--size", type=int, default=1024, metavar="TEXELS", help="side of the texture; default 1024")
    commands.add_common(parser)
    args = parser.parse_args(argv)
    if args.device == "cuda":                 # every command takes --device; this one has little to compute
        backend_for(args.device)
    out = args.out
    if out.suffix not in SUFFIXES:
        raise InputError(f"{out}: can't write {out.suffix or 'a file without suffix'}; give a name that ends in "
                         + ", ".join(SUFFIXES))
    if not TEXTURE_SIZES[0] <= args.size <= TEXTURE_SIZES[1]:
        raise InputError(f"--size {args.size}: give {TEXTURE_SIZES[0]} to {TEXTURE_SIZES[1]}")
    commands.check_writable(out, inputs=[args.fit, args.image])
    model = load_model(args.model)
    track = load_track(args.fit, model)
    image = None if out.suffix == ".json" else args.image
    print(export(model, track, out, args.frame, args.neutral, image, args.size, args.fit))


if __name__ == "__main__":
    commands.run(main)
