"""Files of public face models: their layouts, units and orientation, and what is said when one is missing or broken."""
import dataclasses
import json
import sys

import numpy as np
import pytest
import scipy.io

from facemodel.errors import InputError
from facemodel.morphable import load_model
from facemodel.readers import basel, bfm2009, cache, ict
from facemodel.readers.landmark_tables import BASEL_NAMES, BFM_2009, BFM_2009_MPEG4, BFM_2017_NOMOUTH
from tests.foreign_models import MODES, head, write_basel, write_bfm2009, write_ict


@pytest.fixture(scope="module")
def mini():
    return head()


@pytest.fixture
def bfm_folder(tmp_path, mini):
    write_bfm2009(tmp_path / "bfm", mini)
    return tmp_path / "bfm"


def fails(path, *words, read=load_model):
    """The message of the InputError that reading a path raises: one line that holds the words."""
    with pytest.raises(InputError) as error:
        read(str(path) if read is load_model else path)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, (word, message)
    return message


def test_bfm_2009_is_read_in_millimetres_and_standard_deviations(tmp_path, mini):
    folder = tmp_path / "bfm"
    index = write_bfm2009(folder, mini)
    raw = bfm2009.read(folder, mini.landmarks)
    np.testing.assert_allclose(raw.vertices, mini.vertices, atol=2e-3)
    np.testing.assert_array_equal(raw.triangles, mini.triangles[:, ::-1])
    np.testing.assert_allclose(raw.albedo_mean, mini.colour, atol=1e-5)
    for k in range(MODES["identity"]):
        np.testing.assert_allclose(raw.identity[..., k], mini.mode("identity", k), atol=2e-3)
    for k in range(MODES["albedo"]):
        np.testing.assert_allclose(raw.albedo_basis[..., k], mini.mode("albedo", k), atol=1e-5)
    for k in range(MODES["expression"]):
        np.testing.assert_allclose(raw.expression[index, :, k], mini.mode("expression", k)[index], atol=2e-3)
    assert raw.expression_range == (-3, 3) and len(raw.expression_names) == MODES["expression"]


def test_vertices_without_expression_follow_their_neighbours(tmp_path, mini):
    index = write_bfm2009(tmp_path, mini, left_out=200)
    raw = bfm2009.read(tmp_path, mini.landmarks)
    others = np.setdiff1d(np.arange(len(mini.vertices)), index)
    assert len(others) == 200
    away = np.linalg.norm(raw.expression[others, :, 0] - mini.mode("expression", 0)[others], axis=1)
    assert np.median(away) < 1 and np.linalg.norm(mini.mode("expression", 0), axis=1).max() > 5


def test_29_expressions_and_80_of_the_others_are_kept(tmp_path, mini):
    rng = np.random.default_rng(0)
    many = lambda n: (rng.normal(size=(mini.vertices.size, n)), np.linspace(2, 1, n))
    write_bfm2009(tmp_path, dataclasses.replace(mini, identity=many(90), expression=many(35), albedo=many(85)))
    raw = bfm2009.read(tmp_path, mini.landmarks)
    assert [b.shape[2] for b in (raw.identity, raw.expression, raw.albedo_basis)] == [80, 29, 80]


@pytest.mark.parametrize("missing, source", [
    ("Exp_Pca.bin", "http://kunzhou.net/zjugaps/facewarehouse/"), ("std_exp.txt", "https://github.com/Juyong/3DFace"),
    ("BFM_exp_idx.mat", "https://github.com/microsoft/Deep3DFaceReconstruction")])
@pytest.mark.parametrize("by_file", [False, True])
def test_a_missing_part_of_bfm_2009_is_named_with_its_source(bfm_folder, missing, source, by_file):
    (bfm_folder / missing).unlink()
    fails(bfm_folder / "01_MorphableModel.mat" if by_file else bfm_folder, missing, "missing", source)


def test_a_broken_bfm_2009_is_an_input_error(bfm_folder, mini):
    whole = (bfm_folder / "Exp_Pca.bin").read_bytes()
    (bfm_folder / "Exp_Pca.bin").write_bytes(whole[:-100])
    fails(bfm_folder, "Exp_Pca.bin", "complete")
    (bfm_folder / "Exp_Pca.bin").write_bytes(b"")
    fails(bfm_folder, "Exp_Pca.bin")
    (bfm_folder / "Exp_Pca.bin").write_bytes(whole)
    (bfm_folder / "std_exp.txt").write_text("1 2")
    fails(bfm_folder, "std_exp.txt")
    (bfm_folder / "std_exp.txt").write_text("one two")
    fails(bfm_folder, "std_exp.txt")
    np.savetxt(bfm_folder / "std_exp.txt", np.ones(MODES["expression"]))
    scipy.io.savemat(bfm_folder / "BFM_exp_idx.mat", {"trimIndex": np.arange(1, 50)})
    fails(bfm_folder, "BFM_exp_idx.mat", "49 vertices")
    mat = bfm_folder / "01_MorphableModel.mat"
    scipy.io.savemat(mat, {"shapeMU": np.zeros((30, 1))})
    fails(bfm_folder, "01_MorphableModel.mat", "shapePC", "https://faces.dmi.unibas.ch")
    mat.write_bytes(b"no matlab file at all" * 50)
    fails(bfm_folder, "01_MorphableModel.mat", "https://faces.dmi.unibas.ch")


def test_a_trimmed_mesh_does_not_take_the_public_landmarks(bfm_folder):
    fails(bfm_folder, "landmarks", "trimmed")               # the real table names vertices up to 52,456


@pytest.mark.parametrize("byte_string", [False, True])
def test_basel_2017_is_read_in_millimetres_and_standard_deviations(tmp_path, mini, byte_string):
    pytest.importorskip("h5py")
    path = tmp_path / "model2019_mini.h5"
    write_basel(path, mini, BASEL_NAMES, byte_string=byte_string)
    raw = basel.read(path)
    np.testing.assert_allclose(raw.vertices, mini.vertices, atol=1e-3)
    np.testing.assert_array_equal(raw.triangles, mini.triangles)
    np.testing.assert_allclose(raw.albedo_mean, mini.colour, atol=1e-5)
    for name, basis in (("identity", raw.identity), ("expression", raw.expression), ("albedo", raw.albedo_basis)):
        for k in range(MODES[name]):
            np.testing.assert_allclose(basis[..., k], mini.mode(name, k), atol=1e-3)
    assert raw.expression_range == (-3, 3) and raw.name == "model2019_mini"
    assert raw.landmarks == {k: mini.landmarks[k] for k in BASEL_NAMES.values()}


def test_old_statismo_bases_that_hold_standard_deviations_are_the_same(tmp_path, mini):
    pytest.importorskip("h5py")
    write_basel(tmp_path / "new.h5", mini, BASEL_NAMES)
    scaled = {n: (getattr(mini, n)[0] * getattr(mini, n)[1], getattr(mini, n)[1]) for n in MODES}
    write_basel(tmp_path / "old.h5", dataclasses.replace(mini, **scaled), BASEL_NAMES)
    new, old = basel.read(tmp_path / "new.h5"), basel.read(tmp_path / "old.h5")
    np.testing.assert_allclose(old.identity, new.identity, atol=1e-4)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "model2017-1_bfm_nomouth.h5").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "h5py", None)
    fails(tmp_path, "h5py", "pip install", "dynatex[bfm]")


def test_broken_basel_files_are_input_errors(tmp_path, mini):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "model2019_bfm.h5"
    path.write_bytes(b"x" * 1000)
    fails(path, "model2019_bfm.h5", "https://faces.dmi.unibas.ch")
    write_basel(path, mini, BASEL_NAMES, landmarks=False)
    fails(path, "metadata/landmarks/json")
    with h5py.File(path, "a") as file:
        del file["expression"]
    fails(path, "expression", "https://faces.dmi.unibas.ch")
    (tmp_path / "model2019_face12.h5").write_bytes(b"x")
    fails(tmp_path, "several models", "model2019_bfm.h5", "model2019_face12.h5")


UNITS = {"jawOpen": [0, -20, 0], "mouthClose": [0, 20, 0], "eyeBlink_L": [0, -3, 0], "eyeBlink_R": [0, -3, 0]}


@pytest.fixture
def ict_folder(tmp_path, mini):
    rng = np.random.default_rng(2)
    balls = rng.normal(size=(2, 60, 3))
    balls = 12 * balls / np.linalg.norm(balls, axis=2, keepdims=True) + np.array([[[30, 0, 60]], [[-30, 0, 60]]])
    units = {n: np.broadcast_to(d, mini.vertices.shape) for n, d in UNITS.items()}
    write_ict(tmp_path / "FaceXModel", mini, units, balls.reshape(-1, 3))
    n = len(mini.vertices)
    return tmp_path, {"skin_polygons": len(mini.triangles), "eyeballs": ((n, n + 60), (n + 60, n + 120))}


def test_ict_folder_is_read_in_millimetres_with_arkit_names(ict_folder, mini):
    root, parts = ict_folder
    assert ict.find(root) == ict.find(root / "FaceXModel") == root / "FaceXModel"
    raw = ict.read(ict.find(root), **parts)
    n = len(mini.vertices)
    np.testing.assert_allclose(raw.vertices[:n], mini.vertices, atol=1e-3)
    np.testing.assert_array_equal(np.sort(raw.triangles, axis=1), np.sort(mini.triangles, axis=1))
    for k in range(MODES["identity"]):
        np.testing.assert_allclose(raw.identity[:n, :, k], mini.mode("identity", k), atol=1e-3)
    assert raw.expression_names == ("eyeBlinkLeft", "eyeBlinkRight", "jawOpen", "mouthClose")
    assert raw.expression_range == (0, 1) and raw.albedo_mean is None
    np.testing.assert_allclose(raw.expression[0].T, [[0, -3, 0], [0, -3, 0], [0, -20, 0], [0, 0, 0]], atol=1e-3)
    for (centre, radius), x in zip(raw.eyeballs, (30, -30)):
        np.testing.assert_allclose(centre, [x, 0, 60], atol=1e-3)
        assert radius == pytest.approx(12, abs=1e-3)


def test_ict_npz_holds_the_same_as_the_folder(ict_folder, mini, tmp_path):
    root, parts = ict_folder
    folder = ict.read(ict.find(root), **parts)
    names = ["PupilDilate_L", *sorted(UNITS)]
    n = len(folder.vertices)
    shapes = [np.zeros((n, 3)), *(np.concatenate([np.broadcast_to(UNITS[u], (len(mini.vertices), 3)),
                                                  np.zeros((120, 3))]) for u in sorted(UNITS))]
    other = tmp_path / "other"
    other.mkdir()
    polygons = mini.triangles[:, [0, 1, 2, 2]] + 1
    np.savez(other / ict.BASIS, V=folder.vertices / 10, I=np.moveaxis(folder.identity, -1, 0) / 10,
             E=np.stack(shapes) / 10, en=np.array(names), Fv=polygons)
    (other / ict.INDICES).write_bytes((root / "FaceXModel" / ict.INDICES).read_bytes())
    raw = ict.read(ict.find(other), **parts)
    for field in ("vertices", "identity", "expression"):
        np.testing.assert_allclose(getattr(raw, field), getattr(folder, field), atol=1e-3)
    np.testing.assert_array_equal(raw.triangles, folder.triangles)
    assert raw.expression_names == folder.expression_names


def test_broken_ict_folders_are_input_errors(ict_folder, mini):
    root, parts = ict_folder
    place = ict.find(root)
    read = lambda p: ict.read(p, **parts)
    indices = place / "vertex_indices.json"
    good = indices.read_text()
    (place / "jawOpen.obj").rename(place / "kept")
    fails(place, "jawOpen", "ICT-FaceKit", read=read)
    (place / "jawOpen.obj").write_text("nothing")
    fails(place, "jawOpen.obj", "vertices", read=read)
    (place / "jawOpen.obj").write_text("v 1 2 3\n")
    fails(place, "jawOpen.obj", "1 vertices", read=read)
    (place / "kept").rename(place / "jawOpen.obj")
    indices.write_text(json.dumps(json.loads(good) | {"idx_to_landmark_verts": [1, 2]}))
    fails(place, "vertex_indices.json", "68", read=read)
    indices.write_text("{")
    fails(place, "vertex_indices.json", read=read)
    indices.unlink()
    fails(root, "vertex_indices.json", "missing", "https://github.com/ICT-VGL/ICT-FaceKit")


@pytest.mark.parametrize("length", [1, 60, 700])
def test_a_broken_ict_npz_is_an_input_error(tmp_path, length):
    np.savez(tmp_path / ict.BASIS, V=np.zeros((9, 3)), I=np.zeros((2, 9, 3)))
    (tmp_path / ict.BASIS).write_bytes((tmp_path / ict.BASIS).read_bytes()[:length])
    (tmp_path / ict.INDICES).write_text(json.dumps({"expressions": [], "idx_to_landmark_verts": list(range(68))}))
    fails(tmp_path, ict.BASIS)


def test_the_landmark_tables():
    """Length and uniqueness; the two lists for BFM 2009, made by different people, agree where both mean one point."""
    assert list(BFM_2009) == list(range(68)) and len(set(BFM_2009.values())) == 68
    assert max(BFM_2009.values()) < 53490 and min(BFM_2009.values()) >= 0
    assert [BFM_2009[k] - BFM_2009_MPEG4[k] for k in (30, 51, 57)] == [0, 0, -1]
    assert len(set(BFM_2017_NOMOUTH.values())) == len(BFM_2017_NOMOUTH) and max(BFM_2017_NOMOUTH.values()) < 53149
    assert len(set(BASEL_NAMES.values())) == len(BASEL_NAMES)
    assert all(0 <= k < 68 for table in (BFM_2017_NOMOUTH, dict.fromkeys(BASEL_NAMES.values())) for k in table)


def test_unknown_paths_say_what_can_be_read(tmp_path):
    fails(tmp_path, "commons_face.npz", "01_MorphableModel.mat", "ICT-FaceKit")
    other = tmp_path / "notes.txt"
    other.write_text("hello")
    fails(other, "notes.txt", "not a model")
    assert cache.find(tmp_path) is None
