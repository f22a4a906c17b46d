"""What is made of a foreign model: one closed surface, regions, landmarks, a chart; kept in the cache."""
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

import facemodel
from compositing import seam
from facemodel import mesh
from facemodel.atlas import build_atlas, to_texture
from facemodel.errors import InputError
from facemodel.light import ambient_light
from facemodel.morphable import FLIP, load_model
from facemodel.readers import bfm2009, cache, prepare
from facemodel.readers.__main__ import main
from facemodel.readers.coarse import coarse_graph
from facemodel.readers.landmark_tables import BASEL_NAMES
from fitting.fit import errors, fit_frames
from fitting.parameters import Frame, Shared
from fitting.texture import region_texture
from fitting.views import LEVELS, make_view
from tests.foreign_models import head, write_basel, write_bfm2009
from tests.synthetic import SIZE, draw, true_landmarks
from tests.test_mesh import grid


@pytest.fixture(scope="module")
def guide():
    return load_model()


@pytest.fixture(scope="module")
def mini():
    return head()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, mini):
    folder = tmp_path_factory.mktemp("bfm")
    write_bfm2009(folder, mini)
    return folder


@pytest.fixture(scope="module")
def raw(folder, mini):
    return bfm2009.read(folder, mini.landmarks)


@pytest.fixture(scope="module")
def model(raw, guide):
    return prepare.prepare(raw, guide)


def test_orthogonal_modes_describe_the_same_shapes():
    rng = np.random.default_rng(0)
    modes, weight = rng.normal(size=(40, 3, 5)) * [9, 7, 5, 3, 1], rng.uniform(0, 1, 40)
    modes[..., 1] += modes[..., 0]
    turned = prepare.orthogonal_modes(modes, weight)
    flat = lambda m: m.reshape(120, -1)
    np.testing.assert_allclose(flat(turned) @ flat(turned).T, flat(modes) @ flat(modes).T, atol=1e-2)   # covariance
    gram = (flat(turned) * np.repeat(weight, 3)[:, None]).T @ flat(turned)
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-3 * gram.max() and (np.diff(np.diag(gram)) < 0).all()
    assert prepare.orthogonal_modes(modes, weight, 2).shape == (40, 3, 2)


def test_a_coarse_graph_spans_the_surface(guide):
    index, edges, refine = coarse_graph(guide.mean, guide.triangles)
    assert 8000 < len(index) < 20000 and len(np.unique(index)) == len(index)
    assert refine.shape == (guide.vertex_count, len(index))
    np.testing.assert_allclose(refine.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose((refine @ guide.mean[index])[index], guide.mean[index], atol=1e-4)
    assert np.percentile(np.linalg.norm(refine @ guide.mean[index] - guide.mean, axis=1), 99) < 3
    graph = sp.coo_matrix((np.ones(len(edges)), edges.T), (len(index),) * 2)
    assert connected_components(graph, directed=False)[0] == 1
    small = coarse_graph(*[np.asarray(a) for a in grid()])
    np.testing.assert_array_equal(small[0], np.arange(81))


def test_the_seam_takes_any_coarse_graph(guide):
    index, edges, refine = coarse_graph(guide.mean, guide.triangles)
    other = dataclasses.replace(guide, coarse_index=index, coarse_edges=edges, coarse_refine=refine)
    inner, outer = seam.seam_regions(other)
    own_inner, own_outer = seam.seam_regions(guide)
    for labels, own in ((inner, own_inner), (outer, own_outer)):
        a, b = refine @ labels.astype(float) > 0.5, guide.coarse_refine @ own.astype(float) > 0.5
        assert (a != b).mean() < 0.03 and 0.05 < a.mean() < 0.95


def test_a_prepared_model_is_one_disc_in_memory_orientation(model, mini):
    t = model.triangles
    edges = len(np.unique(np.sort(mesh.directed_edges(t), axis=1), axis=0))
    assert model.vertex_count - edges + len(t) == 1 and len(mesh.border_loops(t)) == 1
    normals = mesh.vertex_normals(model.mean, t)
    front = model.landmarks[17:]
    assert (normals[front, 2] < 0).mean() > 0.95             # the front looks to the camera, at -z
    marks = model.mean[model.landmarks]
    assert np.argmin(marks[:, 2]) == 30 and marks[8, 1] > marks[30, 1] > marks[27, 1]
    control = model.control_mean * FLIP
    away, source = cKDTree(mini.vertices).query(control)
    assert (away < 1e-2).sum() > 0.85 * len(mini.vertices)
    for k in range(3):
        moved = (model.control_identity[..., k] * FLIP)[away < 1e-2]
        np.testing.assert_allclose(moved, mini.mode("identity", k)[source[away < 1e-2]], atol=5e-3)
    for name in ("triangles", "landmarks", "contour_paths", "coarse_index", "coarse_edges"):
        assert getattr(model, name).dtype == np.int32, name
    for name in ("mean", "uv", "albedo_mean", "albedo_basis", "identity_basis", "expression_basis"):
        array = getattr(model, name)
        assert array.dtype == np.float32 and np.isfinite(array).all(), name


def test_regions_and_landmarks_are_those_of_the_embedded_model(model, guide):
    """The miniature is the embedded head, so what is carried over must lie where it came from."""
    v = model.mean + 0
    tree = cKDTree(guide.mean)
    away, nearest = tree.query(v)
    near = away < 2
    for name in guide.regions:
        difference = np.abs(model.regions[name][near] - guide.regions[name][nearest[near]])
        assert difference.mean() < 0.04, name
    away = np.linalg.norm(v[model.landmarks] - guide.mean[guide.landmarks], axis=1)
    assert away[17:].max() < 7 and away[:17].max() < 8        # the miniature's nearest vertex, sparse on the jaw
    paths = np.linalg.norm(v[model.contour_paths] - guide.mean[guide.contour_paths], axis=2)
    assert np.median(paths) < 2.5 and np.percentile(paths, 95) < 8
    assert (model.regions["mouth_interior"] > 0.9).sum() > 100


def test_the_chart_has_room_for_mouth_and_eyes_and_no_overlap(model):
    p = model.uv[model.triangles]
    e, f = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    assert (e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]).min() > 0
    atlas = build_atlas(model, 256)
    assert model.uv.min() >= 0 and model.uv.max() <= 1
    texels = lambda name: to_texture(model.regions[name][:, None], model.triangles, atlas)[..., 0] > 0.5
    rows, columns = np.nonzero(texels("mouth_interior"))
    assert np.ptp(columns) >= 56 and np.ptp(rows) >= 24
    for half in (slice(0, 128), slice(128, 256)):
        rows, columns = np.nonzero(texels("eyes")[:, half])
        assert np.ptp(columns) >= 24 and np.ptp(rows) >= 12


def test_the_chart_s_mirror_images_are_the_face_s(model):
    atlas = build_atlas(model, 512)
    assert atlas.opposite is not None
    places = np.where(atlas.mask[..., None], to_texture(model.mean, model.triangles, atlas), 0)
    found, flipped = (np.linalg.norm(t - places * np.float32([-1, 1, 1]), axis=2)
                      for t in (atlas.mirrored(places), places[:, ::-1]))
    for name in ("face", "eyebrows", "eyelids", "lips", "mouth_interior"):
        inside = atlas.mask & (region_texture(model, name, atlas) > 0.5)
        assert np.median(found[inside]) < 0.06 and np.percentile(found[inside], 95) < 0.3, name
        assert np.percentile(found[inside], 95) < 0.5 * np.percentile(flipped[inside], 95), name


def test_landmarks_that_no_table_names_are_transferred(raw, guide):
    few = dataclasses.replace(raw, landmarks={k: raw.landmarks[k] for k in (30, 36, 39, 42, 45, 48, 54)})
    model = prepare.prepare(few, guide)
    assert len(set(model.landmarks.tolist())) > 60
    assert np.linalg.norm(model.mean[model.landmarks] - guide.mean[guide.landmarks], axis=1).max() < 6


def test_a_basel_file_is_loaded_through_its_own_landmarks(mini, guide, tmp_path, monkeypatch):
    pytest.importorskip("h5py")
    monkeypatch.setenv("DYNATEX_CACHE", str(tmp_path / "kept"))
    path = tmp_path / "model2017-1_mini.h5"
    write_basel(path, mini, BASEL_NAMES)
    model = load_model(str(path))
    assert model.name == "model2017-1_mini" and model.expression_range == (-3, 3)
    away = np.linalg.norm(model.mean[model.landmarks] - guide.mean[guide.landmarks], axis=1)
    assert away[17:].max() < 5 and np.abs(model.mean - model.shape(np.zeros(6), np.zeros(5))).max() == 0


def test_a_model_without_colours_borrows_the_embedded_ones(raw, guide):
    model = prepare.prepare(dataclasses.replace(raw, albedo_mean=None, albedo_basis=None), guide)
    assert model.albedo_count == guide.albedo_count
    nearest = cKDTree(guide.mean).query(model.mean)[1]
    face = (model.regions["face"] > 0.9) & (model.regions["mouth_interior"] < 0.1)
    assert np.abs(model.albedo_mean - guide.albedo_mean[nearest])[face].mean() < 0.02
    assert model.hash != prepare.prepare(raw, guide).hash


def test_what_is_no_face_is_an_input_error(raw, guide):
    with pytest.raises(InputError, match="landmarks"):
        dataclasses.replace(raw, landmarks={}).check("x.mat")
    with pytest.raises(InputError, match="x.mat: identity"):
        dataclasses.replace(raw, identity=raw.identity[:-1]).check("x.mat")
    with pytest.raises(InputError, match="no numbers"):
        dataclasses.replace(raw, vertices=raw.vertices * np.nan).check("x.mat")
    flat = dataclasses.replace(raw, vertices=raw.vertices * np.float32([1, 1, 0]))
    with pytest.raises(InputError, match="bfm2009: its mesh can.t be used as a face"):
        prepare.prepare(flat, guide)
    wrong = raw.landmarks | {k: raw.landmarks[k + 5] for k in range(17, 22)}
    with pytest.raises(InputError, match="landmarks is for another mesh: number 17|does not fit over it"):
        prepare.prepare(dataclasses.replace(raw, landmarks=wrong), guide)
    with pytest.raises(InputError, match="units"):
        prepare.prepare(dataclasses.replace(raw, vertices=raw.vertices * np.float32(1.6)), guide)
    with pytest.raises(InputError, match="bfm2009"):
        prepare.prepare(dataclasses.replace(raw, triangles=raw.triangles[:40]), guide)


def test_a_face_of_a_pca_model_is_fitted(model):
    """The whole fit on a model whose expressions are standard deviations in -3..3."""
    rng = np.random.default_rng(0)
    shared = Shared(rng.normal(0, 0.8, model.identity_count), rng.normal(0, 0.5, model.albedo_count), 1000.0)
    light = ambient_light(0.75)
    light[1:4] += rng.normal(0, 0.1, (3, 1))
    marks = model.mean[model.landmarks]
    distance = 1000.0 * np.ptp(marks[:, 0]) / (0.4 * SIZE)
    expression = np.zeros(model.expression_count)
    expression[0] = 0.3
    frame = Frame(expression, np.eye(3), np.array([0, 0, distance]) - marks.mean(axis=0), light)
    picture, points = draw(model, shared, frame), true_landmarks(model, shared, frame)
    got_shared, (got,) = fit_frames(model, [picture], [points])
    photometric, landmark = errors(model, make_view(model, picture, points, LEVELS[-1]), points, got_shared, got)
    assert photometric < 0.02 and landmark < 0.02
    assert np.abs(got.expression).max() <= 3


def test_a_model_is_prepared_anew_when_the_code_has_changed(folder, mini, tmp_path, monkeypatch):
    """Wherever in the package: what prepares a model is spread over it."""
    monkeypatch.setenv("DYNATEX_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(bfm2009.read, "__defaults__", (mini.landmarks,))
    assert cache.PACKAGE == Path(facemodel.__file__).parent
    package = tmp_path / "facemodel"
    shutil.copytree(cache.PACKAGE, package)
    monkeypatch.setattr(cache, "PACKAGE", package)
    said = []
    for change, times in ((None, 1), (None, 1), ("mesh.py", 2), ("build/surface.py", 3)):
        if change:
            (package / change).write_text((package / change).read_text() + "\n# changed\n")
        cache.load(folder, log=said.append)
        assert len(said) == times


def test_the_cache_keeps_the_model_and_survives_damage(folder, mini, tmp_path, monkeypatch):
    monkeypatch.setenv("DYNATEX_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(bfm2009.read, "__defaults__", (mini.landmarks,))
    said = []
    first = cache.load(folder, log=said.append)
    assert len(said) == 1 and "first use" in said[0]
    again = cache.load(folder / "01_MorphableModel.mat", log=said.append)
    assert len(said) == 1
    for name in first.__dataclass_fields__:
        a, b = getattr(first, name), getattr(again, name)
        if name == "regions":
            assert list(a) == list(b) and all(np.array_equal(a[n], b[n]) for n in a)
        elif name in cache.SPARSE:
            assert (a != b).nnz == 0 and a.dtype == b.dtype
        else:
            np.testing.assert_array_equal(a, b)
            assert type(a) is type(b)
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_bytes(kept.read_bytes()[:5000])
    cache.load(folder, log=said.append)
    assert "damaged" in said[1] and cache.read(kept).hash == first.hash
    assert load_model(str(folder)).hash == first.hash


def test_a_cache_that_can_not_be_written_is_said_and_does_no_harm(folder, mini, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DYNATEX_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(bfm2009.read, "__defaults__", (mini.landmarks,))
    said = []
    assert cache.load(folder, log=said.append).name == "bfm2009"
    assert "DYNATEX_CACHE" in said[-1]


def test_the_command_says_what_it_prepared_or_what_is_missing(folder, mini, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DYNATEX_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(bfm2009.read, "__defaults__", (mini.landmarks,))
    assert not main([str(folder)])
    assert "bfm2009" in capsys.readouterr().out
    with pytest.raises(InputError, match="no Basel Face Model and no ICT-FaceKit"):
        main([str(tmp_path)])
