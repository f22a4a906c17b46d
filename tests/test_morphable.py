"""The embedded model: linear, symmetric, with landmarks where people have them; and what loading says when it can't."""
import numpy as np
import pytest
from scipy.spatial import cKDTree

from facemodel.camera import project, to_camera
from facemodel.errors import InputError
from facemodel.morphable import FLIP, load_model
from facemodel.rasterizer import interpolate, rasterize
from fitting.solver import outline_vertices

UPPER_LIP, LOWER_LIP = [61, 62, 63], [67, 66, 65]
RIGHT_LIDS, LEFT_LIDS = ([37, 38], [41, 40]), ([43, 44], [47, 46])


def unit(model, *names):
    expression = np.zeros(model.expression_count, np.float32)
    expression[[model.expression_names.index(n) for n in names]] = 1
    return expression


def visible_area(model, vertices, region):
    """Pixels of a frontal view, 0.5 mm each, that show a region."""
    camera = to_camera(vertices, np.zeros(3), np.array([0, 0, 700.0]))
    raster = rasterize(project(camera, 1400.0, np.array([200.0, 200.0])), camera[:, 2], model.triangles, 480, 400)
    return (interpolate(model.regions[region][:, None], model.triangles, raster) > 0.5).sum()


def test_size(model):
    assert abs(model.vertex_count - 51_400) < 500
    assert abs(len(model.triangles) - 102_500) < 1000
    assert model.triangles.dtype == np.int32
    assert model.triangles.min() == 0 and model.triangles.max() == model.vertex_count - 1
    assert model.identity_count == 80
    assert model.expression_count == len(model.expression_names) == len(set(model.expression_names)) > 45
    v, k = model.vertex_count, model.landmarks
    assert model.uv.shape == (v, 2) and model.albedo_mean.shape == (v, 3) and k.shape == (68,)
    assert model.contour_paths.shape[0] == 17 and model.contour_paths.max() < v
    assert all(w.shape == (v,) and w.min() >= 0 and w.max() <= 1 for w in model.regions.values())
    for array in (model.mean, model.uv, model.albedo_mean, model.identity_basis, model.shape()):
        assert array.dtype == np.float32


def test_equation_1_is_linear_in_its_coefficients(model):
    rng = np.random.default_rng(0)
    (a, b), (c, d) = rng.normal(size=(2, 80)), rng.uniform(0, 0.5, (2, model.expression_count))
    neutral = model.shape()
    np.testing.assert_array_equal(neutral, model.mean)
    np.testing.assert_allclose(model.shape(a, c) + model.shape(b, d) - neutral, model.shape(a + b, c + d), atol=2e-3)
    np.testing.assert_allclose(model.shape(a, c) - neutral, model.shape(a) + model.shape(None, c) - 2 * neutral,
                               atol=2e-3)
    short = np.concatenate([a[:10], np.zeros(70)])
    np.testing.assert_allclose(model.shape(a[:10]), model.shape(short), atol=1e-4)


def test_bases_agree_with_shape_and_albedo(model):
    rng = np.random.default_rng(1)
    a, c = rng.normal(size=80), rng.uniform(0, 1, model.expression_count)
    np.testing.assert_allclose(model.mean + model.identity_basis @ a + model.expression_basis @ c, model.shape(a, c),
                               atol=2e-3)
    k = rng.normal(size=model.albedo_count)
    np.testing.assert_allclose(model.albedo(k), model.albedo_mean + model.albedo_basis @ k, atol=1e-5)
    np.testing.assert_array_equal(model.albedo(), model.albedo_mean)


def test_one_standard_deviation_of_identity_is_believable(model):
    """Modes are sorted and in millimetres: the first moves the face by some, the last hardly."""
    rms = np.sqrt((model.control_identity ** 2).sum(1).mean(0))
    assert 1 < rms[0] < 15 and rms[-1] < 0.5
    assert (rms[:3].min() > rms[-10:].max())


def test_mean_is_symmetric(model):
    distance, mirror = cKDTree(model.mean).query(model.mean * [-1, 1, 1])
    assert distance.max() < 1e-3
    seam = np.abs(model.mean[:, 0]) < 0.5
    for name, weight in model.regions.items():
        assert np.abs(weight[mirror] - weight)[~seam].max() < 0.01, name


def test_surface_is_closed_but_for_its_border_and_consistently_oriented(model):
    t = model.triangles
    directed = np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]]).astype(np.int64)
    key = directed[:, 0] * model.vertex_count + directed[:, 1]
    assert len(np.unique(key)) == len(key)                     # each edge is walked once in each direction
    undirected = len(np.unique(np.sort(directed, axis=1), axis=0))
    assert model.vertex_count - undirected + len(t) == 1       # a disc
    a, b, c = np.moveaxis(model.mean[t], 1, 0)
    normal = np.cross(b - a, c - a)
    front = model.mean[t].mean(1)[:, 2] < -60                  # the front of the face looks to the camera, at -z
    assert (normal[front, 2] < 0).mean() > 0.9


def test_coarse_mesh_is_the_first_part_of_the_surface(model):
    count = model.coarse_refine.shape[1]
    assert model.coarse_refine.shape == (model.vertex_count, count) and model.coarse_edges.max() < count
    edge = model.mean[model.coarse_edges]
    assert np.linalg.norm(edge[:, 0] - edge[:, 1], axis=1).max() < 25


def test_lips_are_closed_in_neutral_and_open_with_the_jaw(model):
    marks = model.mean[model.landmarks]
    gap = marks[LOWER_LIP] - marks[UPPER_LIP]
    assert np.abs(gap[:, 1]).max() < 1.5                       # y down
    assert np.linalg.norm(gap[1]) < 1.5
    assert visible_area(model, model.mean, "mouth_interior") < 20
    opened = model.shape(None, unit(model, "jawOpen"))
    marks = opened[model.landmarks]
    assert (marks[LOWER_LIP] - marks[UPPER_LIP])[:, 1].min() > 15
    assert marks[8, 1] - model.mean[model.landmarks[8], 1] > 10
    assert visible_area(model, opened, "mouth_interior") > 1500
    assert np.abs((opened - model.mean)[model.landmarks[[27, 28, 36, 45, 19, 24]]]).max() < 1


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_blink_closes_one_eye(model, side):
    shut = model.shape(None, unit(model, f"eyeBlink{side}"))[model.landmarks]
    marks = model.mean[model.landmarks]
    moved, still = (LEFT_LIDS, RIGHT_LIDS) if side == "Left" else (RIGHT_LIDS, LEFT_LIDS)
    opening = lambda m, lids: (m[lids[1]] - m[lids[0]])[:, 1]
    assert opening(marks, moved).min() > 6
    assert opening(shut, moved).max() <= 0                     # the upper lid's edge reaches the lower lid's
    np.testing.assert_allclose(opening(shut, still), opening(marks, still), atol=0.05)


def test_blinking_hides_the_eyes(model):
    both = model.shape(None, unit(model, "eyeBlinkLeft", "eyeBlinkRight"))
    opened = visible_area(model, model.mean, "eyes")
    assert opened > 1000
    assert visible_area(model, both, "eyes") < 0.05 * opened


def test_left_and_right_units_mirror_each_other(model):
    mirror = cKDTree(model.control_mean).query(model.control_mean * [-1, 1, 1])[1]
    for name in model.expression_names:
        if name.endswith("Left"):
            left = model.control_expression[..., model.expression_names.index(name)]
            right = model.control_expression[..., model.expression_names.index(name[:-4] + "Right")]
            difference = np.linalg.norm(left - right[mirror] * [-1, 1, 1], axis=1)
            seam = np.abs(model.control_mean[:, 0]) < 0.5
            assert difference[~seam].max() < 1.5, name         # the source's own units are not quite symmetric
            assert np.linalg.norm(left) > 1, name


def test_landmarks_are_where_people_have_them(model):
    marks = model.mean[model.landmarks]
    x, y, z = marks.T
    assert np.argmin(z) == 30 and model.mean[:, 2].min() > z[30] - 0.5          # the nose tip is foremost
    assert x[36] < x[39] < x[27] < x[42] < x[45]                                # the subject's right eye is on the left
    assert (np.diff(x[1:16]) > 0).all() and (np.diff(x[17:27]) > 0).all() and np.argmax(y[:17]) == 8
    assert y[19] < y[37] < y[41] < y[30] < y[33] < y[51] < y[57] < y[8]         # y points down
    assert (np.diff(y[27:31]) > 0).all() and (np.diff(z[27:31]) < 0).all()
    assert 80 < x[45] - x[36] < 105                                             # outer eye corners, mm
    assert 40 < x[54] - x[48] < 65                                              # mouth corners
    assert (np.abs(x[[8, 27, 28, 29, 30, 33, 51, 57, 62, 66]]) < 0.1).all()
    mirror = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39,
              38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    assert np.abs(marks[mirror] * [-1, 1, 1] - marks).max() < 1.6


def test_contour_paths_stay_on_cheeks_and_jaw(model):
    paths, jaw = model.mean[model.contour_paths], model.mean[model.landmarks[:17]]
    distance = np.linalg.norm(paths - jaw[:, None], axis=2)
    assert distance.min(axis=1).max() < 8
    assert distance.max() < 50 and distance[5:12].max() < 12      # further away below the chin is the neck
    assert np.linalg.norm(np.diff(paths, axis=1), axis=2).max() < 25
    assert (paths[..., 1] < jaw[8, 1] + 8).all()


@pytest.mark.parametrize("pitch_deg", [-15, 0, 15])
def test_outline_of_a_frontal_face_is_near_its_jaw_landmarks(model, pitch_deg):
    chosen = outline_vertices(model, model.mean, np.array([np.radians(pitch_deg), 0, 0]), np.array([0, -30, 700.0]),
                              1400.0, np.array([300.0, 300.0]))
    assert np.linalg.norm(model.mean[chosen] - model.mean[model.landmarks[:17]], axis=1).max() < 15


@pytest.mark.parametrize("yaw_deg", [30, -30])
def test_outline_slides_to_the_cheek_on_the_side_that_turns_away(model, yaw_deg):
    rotation, translation = np.array([0, np.radians(yaw_deg), 0]), np.array([0, -30, 700.0])
    chosen = outline_vertices(model, model.mean, rotation, translation, 1400.0, np.array([300.0, 300.0]))
    moved = np.linalg.norm(model.mean[chosen] - model.mean[model.landmarks[:17]], axis=1)
    camera = to_camera(model.mean[model.landmarks[:17]], rotation, translation)
    away, near = (slice(1, 4), slice(13, 16)) if camera[2, 2] > camera[14, 2] else (slice(13, 16), slice(1, 4))
    assert moved[away].min() > 12 and moved[near].max() < 10
    assert (model.mean[chosen, 2][away] < model.mean[model.landmarks[:17], 2][away]).all()       # forward, at -z


def test_files_have_y_up_and_memory_has_y_down(model):
    np.testing.assert_array_equal(FLIP, [1, -1, -1])
    top, chin = model.mean[:, 1].min(), model.mean[model.landmarks[8], 1]
    assert top < 0 < chin


def test_loading_twice_gives_the_same_hash_and_numbers(model):
    again = load_model("commons")
    assert again.hash == model.hash and len(model.hash) == 16 and again.name == model.name == "commons"
    np.testing.assert_array_equal(again.mean, model.mean)


def test_a_folder_with_the_same_files_is_the_same_model(model):
    import assets
    assert load_model(str(assets.path("commons_face"))).hash == model.hash


def test_errors_name_the_path_and_fit_on_a_line(tmp_path):
    nowhere = tmp_path / "nowhere"
    empty = tmp_path / "empty"
    empty.mkdir()
    half = tmp_path / "half"
    half.mkdir()
    (half / "commons_face.npz").write_bytes(b"x")
    for path, word in ((nowhere, "no such model"), (empty, "commons_face.npz"), (half, "albedo.npz")):
        with pytest.raises(InputError, match=word) as error:
            load_model(str(path))
        assert str(path) in str(error.value) and "\n" not in str(error.value)
