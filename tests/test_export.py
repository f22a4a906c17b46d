"""Exported files read back by other libraries, and what the command says when it can't write them."""
import json
import os
import subprocess
import sys
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from facemodel import commands
from facemodel.atlas import build_atlas
from facemodel.camera import project, rotation_matrix, to_camera
from facemodel.errors import InputError
from facemodel.light import ambient_light, shade
from facemodel.morphable import FLIP
from facemodel.rasterizer import interpolate
from fitting import export as exporting
from fitting.energy import Landmarks
from fitting.export import export, main, write_files
from fitting.parameters import Frame, Shared
from fitting.solver import View, slide_jaw
from fitting.texture import albedo_texture, extract, pose
from fitting.trackfile import Track, save_track

HEIGHT, WIDTH = 300, 260
YAW, PITCH, ROLL = 12.0, -7.0, 4.0


def file_rotation():
    """Rz(roll) Rx(pitch) Ry(yaw) in file orientation."""
    return Rotation.from_euler("ZXY", [ROLL, PITCH, YAW], degrees=True).as_matrix()


@pytest.fixture(scope="module")
def track(model):
    """Four frames: ok, no face, low confidence, ok."""
    rng = np.random.default_rng(0)
    f32 = lambda x: np.asarray(x, np.float32)
    flip = np.diag(FLIP).astype(float)
    turned = Rotation.from_matrix(flip @ file_rotation() @ flip).as_rotvec()
    light = ambient_light(0.9)
    light[1] += 0.1
    expression = np.zeros((4, model.expression_count))
    expression[:, model.expression_names.index("jawOpen")] = [0.2, 0.2, 0.5, 0.3]
    marks = rng.uniform(50, 200, (4, 68, 2))
    marks[1] = np.nan
    return Track(
        model_name=model.name, model_hash=model.hash, image_size=np.array([HEIGHT, WIDTH]), frame_index=np.arange(4),
        status=np.array(["ok", "no_face", "low_confidence", "ok"]),
        identity=f32(rng.normal(0, 0.7, model.identity_count)), albedo=f32(rng.normal(0, 0.5, model.albedo_count)),
        expression=f32(expression),
        expression_names=np.array(model.expression_names), rotation=f32([[0, 0, 0]] * 3 + [turned]),
        translation=f32([[0, -30, 640]] * 4), focal=np.float32(600), principal_point=f32([WIDTH / 2, HEIGHT / 2]),
        light=f32([light] * 4), landmarks=f32(marks), photometric_error=f32([0.05, np.nan, 0.2, 0.04]),
        landmark_error=f32([0.03, np.nan, 0.1, 0.02]))


@pytest.fixture(scope="module")
def fit_path(track, tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "fit.npz"
    save_track(track, path)
    return path


def posed(model, track, row):
    return pose(model, model.shape(track.identity, track.expression[row]), track.rotation[row], track.translation[row],
                track.focal, track.principal_point)


def picture(model, track, row):
    """The fitted face as a photo of it would show it: (H, W, 3) uint8 RGB."""
    face = posed(model, track, row)
    raster = face.raster(model, HEIGHT, WIDTH)
    colour = model.albedo(track.albedo) * shade(face.normals, track.light[row])
    return (np.clip(interpolate(colour, model.triangles, raster), 0, 1) * 255 + 0.5).astype(np.uint8)


@pytest.fixture(scope="module")
def photo(model, track, tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    cv2.imwrite(str(path), picture(model, track, 0)[..., ::-1])
    return path


@pytest.fixture(scope="module")
def clip(model, track, tmp_path_factory):
    """Four lossless frames; the last shows the turned face, the others are grey."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        for row in range(4):
            rgb = picture(model, track, 3) if row == 3 else np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        container.mux(stream.encode())
    return path


def load(path):
    options = {"maintain_order": True} if path.suffix == ".obj" else {}
    return trimesh.load(path, process=False, force="mesh", **options)


def texels_seen(model, track, row, size):
    atlas = build_atlas(model, size)
    return extract(picture(model, track, row), posed(model, track, row), track.light[row], model, atlas)[1] > 0.9, atlas


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
@pytest.mark.parametrize("neutral", [True, False])
def test_meshes_in_millimetres_and_file_orientation(model, track, tmp_path, suffix, neutral):
    out = tmp_path / f"face{suffix}"
    said = export(model, track, out, frame=2, neutral=neutral)
    assert str(out) in said and ("neutral" in said) == neutral
    mesh = load(out)
    expected = model.shape(track.identity, None if neutral else track.expression[2]) * FLIP
    np.testing.assert_allclose(mesh.vertices, expected, atol=1e-4)
    np.testing.assert_array_equal(mesh.faces, model.triangles)
    np.testing.assert_allclose(mesh.visual.uv, model.uv, atol=1e-5)
    marks = mesh.vertices[model.landmarks]
    assert marks[27, 1] > marks[8, 1] + 80 and marks[30, 2] > marks[27, 2]         # y up, the nose comes forward
    front = mesh.triangles_center[:, 2] > 60
    assert (mesh.face_normals[front, 2] > 0).mean() > 0.9                          # counter-clockwise from outside
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_ply_has_the_colours_of_the_albedo(model, track, tmp_path):
    export(model, track, tmp_path / "a.ply", neutral=True)
    data = trimesh.load(tmp_path / "a.ply", process=False).metadata["_ply_raw"]["vertex"]["data"]
    colours = np.stack([data[c] for c in ("red", "green", "blue")], 1) / 255
    np.testing.assert_allclose(colours, np.clip(model.albedo(track.albedo), 0, 1), atol=0.51 / 255)


def test_glb_has_the_colours_of_the_albedo_in_linear_light(model, track, tmp_path):
    export(model, track, tmp_path / "a.glb", neutral=True)
    (mesh,) = trimesh.load_scene(tmp_path / "a.glb", process=False).geometry.values()
    linear = mesh.visual.vertex_attributes["color"][:, :3] / 255
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    bright = linear.min(1) > 0.05
    np.testing.assert_allclose(srgb[bright], np.clip(model.albedo(track.albedo), 0, 1)[bright], atol=0.012)
    assert list(mesh.visual.material.baseColorFactor) == [255] * 4 and mesh.visual.material.metallicFactor == 0


@pytest.mark.parametrize("suffix", [".obj", ".glb"])
def test_textured_meshes(model, track, photo, tmp_path, suffix):
    out = tmp_path / f"my face{suffix}"
    export(model, track, out, image=photo, size=256)
    mesh = load(out)
    material = mesh.visual.material
    image = np.asarray((material.image if suffix == ".obj" else material.baseColorTexture).convert("RGB"))
    export(model, track, tmp_path / "t.png", image=photo, size=256)
    np.testing.assert_array_equal(image, cv2.imread(str(tmp_path / "t.png"))[..., ::-1])
    np.testing.assert_allclose(mesh.visual.uv, model.uv, atol=1e-5)
    # what the mesh shows at a vertex is the albedo there: v is up in both files
    seen, atlas = texels_seen(model, track, 0, 256)
    shown = mesh.visual.to_color().vertex_colors[:, :3] / 255
    column, row = (model.uv[:, 0] * 256).astype(int), ((1 - model.uv[:, 1]) * 256).astype(int)
    sure = cv2.erode(seen.astype(np.uint8), np.ones((3, 3), np.uint8))[row.clip(0, 255), column.clip(0, 255)] > 0
    assert sure.sum() > 5000
    assert np.abs(shown - model.albedo(track.albedo))[sure].mean() < 0.02
    beside = {p.name for p in tmp_path.iterdir()} - {out.name, "t.png"}
    assert beside == ({"my_face.mtl", "my_face_texture.png"} if suffix == ".obj" else set())


def test_ply_takes_its_colours_from_the_picture(model, track, photo, tmp_path):
    export(model, track, tmp_path / "a.ply", image=photo, size=256)
    data = trimesh.load(tmp_path / "a.ply", process=False).metadata["_ply_raw"]["vertex"]["data"]
    colours = np.stack([data[c] for c in ("red", "green", "blue")], 1) / 255
    face = model.regions["nose"] > 0.5
    assert np.abs(colours - model.albedo(track.albedo))[face].mean() < 0.02
    assert np.abs(colours - model.albedo(track.albedo)).max() > 1 / 255


def test_png_without_a_picture_is_the_fitted_albedo(model, track, tmp_path):
    export(model, track, tmp_path / "a.png", size=128)
    image = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    expected = albedo_texture(model, track.albedo, build_atlas(model, 128))
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(image / 255, np.clip(expected, 0, 1), atol=0.51 / 255)


@pytest.mark.parametrize("source, frame", [("photo", None), ("clip", 3)])
def test_png_from_a_picture_gives_its_albedo_back(model, track, tmp_path, request, source, frame):
    path, row = request.getfixturevalue(source), frame or 0
    export(model, track, tmp_path / "a.png", frame=frame, image=path, size=256)
    image = cv2.imread(str(tmp_path / "a.png"))[..., ::-1] / 255
    seen, atlas = texels_seen(model, track, row, 256)
    expected = albedo_texture(model, track.albedo, atlas)
    assert seen.sum() > 8000
    assert np.abs(image - expected)[seen].mean() < 0.015
    assert np.abs(image - expected)[atlas.mask].mean() < 0.08          # and is completed where nothing was seen


def test_json(model, track, tmp_path):
    out = tmp_path / "a.json"
    export(model, track, out, frame=3)
    data = json.loads(out.read_text())
    assert data["frame"] == 3 and data["status"] == "ok" and data["model_hash"] == model.hash
    assert data["image_size"] == [HEIGHT, WIDTH]
    assert data["photometric_error"] == pytest.approx(0.04) and data["landmark_error"] == pytest.approx(0.02)
    assert list(data["expression"]) == list(model.expression_names)
    assert data["expression"]["jawOpen"] == pytest.approx(0.3)
    np.testing.assert_allclose(data["identity"], track.identity)
    np.testing.assert_allclose(data["albedo"], track.albedo)
    np.testing.assert_allclose(data["landmarks_detected"], track.landmarks[3], atol=1e-4)
    assert data["rotation_deg"] == pytest.approx({"yaw": YAW, "pitch": PITCH, "roll": ROLL}, abs=1e-3)
    camera = data["camera"]
    np.testing.assert_allclose(camera["rotation"], np.diag(FLIP) @ file_rotation(), atol=1e-6)
    # landmarks_neutral lie on the exported neutral mesh
    export(model, track, tmp_path / "n.ply", neutral=True)
    neutral = np.asarray(data["landmarks_neutral"])
    np.testing.assert_allclose(load(tmp_path / "n.ply").vertices[model.landmarks], neutral, atol=1e-4)
    # the stated camera projects the exported mesh of this frame onto landmarks_projected
    export(model, track, tmp_path / "e.ply", frame=3)
    points = load(tmp_path / "e.ply").vertices @ np.transpose(camera["rotation"]) + camera["translation"]
    xy = camera["focal"] * points[:, :2] / points[:, 2:] + camera["principal_point"]
    projected = np.asarray(data["landmarks_projected"])
    assert projected.shape == (68, 2)
    np.testing.assert_allclose(projected[17:], xy[model.landmarks[17:]], atol=2e-3)
    for k in range(17):                                 # jaw points are vertices of their contour paths
        assert np.linalg.norm(xy[model.contour_paths[k]] - projected[k], axis=1).min() < 2e-3


def test_projected_jaw_is_the_solvers(model, track):
    frame = Frame(track.expression[3], rotation_matrix(track.rotation[3]), track.translation[3], track.light[3])
    shared = Shared(track.identity, track.albedo, float(track.focal))
    view = View(np.zeros((8, 8, 3), np.float32), 1.0, np.zeros(2), track.principal_point,
                Landmarks(model.landmarks.astype(np.int64), track.landmarks[3], np.ones(68), 100.0))
    vertices = model.shape(track.identity, track.expression[3])
    marks = slide_jaw(model, vertices, shared, frame, view)
    expected = project(to_camera(vertices[marks.vertices], frame.rotation, frame.translation), shared.focal,
                       view.principal_point)
    np.testing.assert_allclose(exporting.projected_landmarks(model, track, 3), expected, atol=2e-3)
    assert (marks.vertices[17:] == model.landmarks[17:]).all()


def test_yaw_to_the_right_of_the_picture_pitch_down_roll_counter_clockwise():
    flip = np.diag(FLIP).astype(float)
    for axis, angles in (("Y", (20, 0, 0)), ("X", (0, 20, 0)), ("Z", (0, 0, 20))):
        rotation = flip @ Rotation.from_euler(axis, 20, degrees=True).as_matrix()
        np.testing.assert_allclose(exporting.euler_degrees(rotation), angles, atol=1e-9)
        nose, left = rotation @ [0, 0, 1], rotation @ [1, 0, 0]          # camera: x right, y down
        assert {"Y": nose[0] > 0.3, "X": nose[1] > 0.3, "Z": left[1] < -0.3}[axis]


def test_frames_without_numbers_are_null(model, track, tmp_path):
    blind = replace(track, photometric_error=np.full(4, np.nan, np.float32))
    export(model, blind, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["photometric_error"] is None


def test_default_is_the_first_frame_that_is_ok(model, track):
    assert exporting.choose_row(track, None, "x") == 0
    for status, row in ((["no_face", "lost", "ok", "ok"], 2), (["no_face", "lost", "no_face", "low_confidence"], 1)):
        assert exporting.choose_row(replace(track, status=np.array(status)), None, "x") == row


def test_the_same_input_gives_the_same_bytes(model, track, photo, tmp_path):
    for suffix in (".glb", ".png", ".json", ".ply"):
        a, b = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        for out in (a, b):
            export(model, track, out, image=None if suffix == ".json" else photo, size=128)
        assert a.read_bytes() == b.read_bytes(), suffix


def call(capsys, *argv):
    """Runs the command as `python -m` does: (exit status, stdout, stderr)."""
    with pytest.raises(SystemExit) as stop:
        commands.run(main, [str(a) for a in argv])
    said = capsys.readouterr()
    return stop.value.code, said.out, said.err


def test_command_writes_what_is_asked_for(fit_path, photo, tmp_path, capsys):
    out = tmp_path / "a.png"
    status, said, wrong = call(capsys, fit_path, "--image", photo, "--size", 64, "-o", out)
    assert (status, wrong) == (0, "") and str(out) in said
    assert cv2.imread(str(out)).shape == (64, 64, 3)


@pytest.mark.parametrize("options, names, words", [
    (["-o", "{tmp}/a.stl"], "a.stl", [".ply", ".json"]),
    (["-o", "{tmp}/a"], "a", ["suffix"]),
    (["-o", "{tmp}/no/a.ply"], "no", ["no such folder"]),
    (["-o", "{tmp}/a.ply", "--frame", "9"], "fit.npz", ["--frame 9", "0 to 3"]),
    (["-o", "{tmp}/a.json", "--frame", "-1"], "fit.npz", ["0 to 3"]),
    (["-o", "{tmp}/a.ply", "--frame", "9", "--neutral"], "fit.npz", ["0 to 3"]),
    (["-o", "{tmp}/a.json", "--frame", "1"], "fit.npz", ["no face", "--frame 0"]),
    (["-o", "{tmp}/a.png", "--image", "{tmp}/gone.jpg"], "gone.jpg", ["does not exist"]),
    (["-o", "{tmp}/a.png", "--image", "{small}"], "small.png", ["64 x 48", f"{WIDTH} x {HEIGHT}"]),
    (["-o", "{tmp}/a.png", "--image", "{short}", "--frame", "3"], "short.mkv", ["has 2 frames", "frame 3"]),
    (["-o", "{tmp}/a.png", "--size", "9"], "--size 9", ["64 to 8192"]),
    (["-o", "{tmp}/a.ply", "--device", "cuda"], "--device cuda", ["CPU"]),
    (["-o", "{tmp}/a.ply", "--model", "{tmp}/nowhere"], "nowhere", ["no such model"]),
], ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_errors_are_one_line_that_names_the_file(fit_path, tmp_path, tmp_path_factory, capsys, options, names, words):
    extra = tmp_path_factory.mktemp("extra")
    small, short = extra / "small.png", extra / "short.mkv"
    if "{small}" in options:
        cv2.imwrite(str(small), np.zeros((48, 64, 3), np.uint8))
    if "{short}" in options:
        with av.open(str(short), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
            for _ in range(2):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
            container.mux(stream.encode())
    options = [o.format(tmp=tmp_path, small=small, short=short) for o in options]
    status, said, wrong = call(capsys, fit_path, *options)
    assert status == 1 and said == ""
    assert wrong.startswith("error: ") and wrong.count("\n") == 1
    assert names in wrong and all(w in wrong for w in words), wrong
    assert not list(tmp_path.iterdir())


def test_a_fit_of_another_model_or_none_at_all(track, tmp_path, capsys):
    other, out = tmp_path / "other.npz", tmp_path / "a.ply"
    save_track(replace(track, model_hash="0123456789abcdef"), other)
    status, _, wrong = call(capsys, other, "-o", out)
    assert status == 1 and "other.npz" in wrong and "0123456789abcdef" in wrong and wrong.count("\n") == 1
    for content in (b"", b"not a fit"):
        other.write_bytes(content)
        status, _, wrong = call(capsys, other, "-o", out)
        assert status == 1 and "other.npz" in wrong and wrong.count("\n") == 1
    other.unlink()
    assert call(capsys, other, "-o", out)[0] == 1
    assert not list(tmp_path.iterdir())


def test_neutral_shape_of_a_clip_whose_frame_has_no_face(fit_path, tmp_path, capsys):
    assert call(capsys, fit_path, "--frame", 1, "--neutral", "-o", tmp_path / "a.ply")[0] == 0


def test_a_face_outside_the_picture(model, track, photo, tmp_path, capsys):
    away = tmp_path / "away.npz"
    save_track(replace(track, translation=track.translation + np.float32([900, 0, 0])), away)
    status, _, wrong = call(capsys, away, "--image", photo, "-o", tmp_path / "a.png")
    assert status == 1 and "outside the picture" in wrong
    assert [p.name for p in tmp_path.iterdir()] == ["away.npz"]


def test_a_failed_write_leaves_the_old_file_and_no_part(model, track, tmp_path, capsys, monkeypatch, fit_path):
    out = tmp_path / "a.json"
    out.write_text("old")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    status, _, wrong = call(capsys, fit_path, "-o", out)
    assert status == 1 and "No space left" in wrong and wrong.count("\n") == 1
    assert out.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_run_as_a_module(fit_path, tmp_path):
    run = lambda *argv: subprocess.run([sys.executable, "-m", "fitting.export", *map(str, argv)], text=True,
                                       capture_output=True, timeout=60)
    done = run(fit_path, "--neutral", "-o", tmp_path / "a.ply")
    assert done.returncode == 0 and done.stderr == "" and (tmp_path / "a.ply").stat().st_size > 1e6
    done = run(fit_path, "--frame", 77, "-o", tmp_path / "b.ply")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert "Traceback" in run(fit_path, "--frame", 77, "-o", tmp_path / "b.ply", "--verbose").stderr
    assert not (tmp_path / "b.ply").exists()
    assert run("--help").returncode == 0


def test_the_last_of_several_files_is_renamed_last(tmp_path, monkeypatch):
    """A mesh never lies there without its material; when one can't be written, none is there."""
    renamed, replace = [], os.replace
    monkeypatch.setattr("facemodel.files.os.replace", lambda a, b: (renamed.append(b.name), replace(a, b)))
    write_files({tmp_path / "a.png": b"1", tmp_path / "a.mtl": b"2", tmp_path / "a.obj": b"3"})
    assert renamed == ["a.png", "a.mtl", "a.obj"] and (tmp_path / "a.obj").read_bytes() == b"3"
    missing = tmp_path / "missing" / "b.mtl"
    with pytest.raises(InputError, match="b.mtl: can't be written"):
        write_files({missing: b"1", tmp_path / "b.obj": b"2"})
    assert not (tmp_path / "b.obj").exists()
