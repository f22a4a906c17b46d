"""ICT-FaceKit's real numbers, where they are at hand: geometry of the prepared model and a whole fit."""
import json
from pathlib import Path

import numpy as np
import pytest

from facemodel import mesh
from facemodel.atlas import build_atlas, to_texture
from facemodel.light import ambient_light
from facemodel.morphable import FLIP, load_model
from facemodel.readers import ict
from fitting.fit import errors, fit_frames, fit_image
from fitting.images import read_image
from fitting.parameters import Frame, Shared
from fitting.texture import region_texture
from fitting.views import LEVELS, make_view
from tests.synthetic import SIZE, draw, true_landmarks
from tests.test_morphable import unit, visible_area

DATA = Path("/work/shared/data/ict_facekit")
PHOTO = Path("/work/shared/data/london/005_neutral.jpg")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"ICT-FaceKit's data is not in {DATA}")
# github.com/ICT-VGL/ICT-FaceKit, README: ends and middles of its 68 landmarks
PUBLISHED = {0: 1225, 8: 966, 16: 3443, 30: 4857, 36: 1507, 45: 3721, 48: 5708, 54: 6213, 67: 5966}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNATEX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield load_model(str(DATA))


def test_landmarks_are_the_published_ones_and_lie_where_people_have_them(model):
    published = json.loads((DATA / "vertex_indices.json").read_text())["idx_to_landmark_verts"]
    with np.load(DATA / ict.BASIS) as d:
        points = d["V"][published] * 10 * FLIP
    assert {k: published[k] for k in PUBLISHED} == PUBLISHED
    marks = model.mean[model.landmarks]
    assert np.linalg.norm(marks - points, axis=1).max() < 2          # smoothing moves them a little
    x, y, z = marks.T
    assert np.argmin(z) == 30 and x[36] < x[39] < x[27] < x[42] < x[45]
    assert (np.diff(x[0:17]) > 0).all() and (np.diff(x[17:27]) > 0).all() and np.argmax(y[:17]) == 8
    assert y[19] < y[37] < y[41] < y[30] < y[33] < y[51] < y[57] < y[8]
    assert 80 < x[45] - x[36] < 105 and 40 < x[54] - x[48] < 65


def test_counts_and_names(model):
    assert (model.identity_count, model.expression_count) == (80, 53)
    assert model.expression_range == (0, 1) and model.name == "ict_facekit"
    assert {"jawOpen", "eyeBlinkLeft", "mouthSmileRight", "browInnerUpLeft"} < set(model.expression_names)
    assert 30_000 < model.vertex_count < 60_000
    assert len(mesh.border_loops(model.triangles)) == 1


def test_identity_modes_are_orthogonal_on_the_face_and_keep_the_distribution(model):
    face = model.regions["face"][model.coarse_index]
    flat = model.control_identity.reshape(-1, 80).astype(np.float64)
    weighted = flat * np.sqrt(np.repeat(face, 3))[:, None]
    gram = weighted.T @ weighted
    lengths = np.sqrt(np.diag(gram))
    assert np.abs(gram / np.outer(lengths, lengths) - np.eye(80)).max() < 2e-3
    assert (np.diff(lengths) <= 1e-6).all()
    with np.load(DATA / ict.BASIS) as d:
        tip = json.loads((DATA / "vertex_indices.json").read_text())["idx_to_landmark_verts"][30]
        own = 10 * np.sqrt((d["I"][:, tip] ** 2).sum())
    assert np.sqrt((model.control_identity[model.landmarks[30]] ** 2).sum()) == pytest.approx(own, rel=0.02)


def test_jaw_opens_the_mouth_and_blinks_hide_the_eyes(model):
    opened = model.shape(None, unit(model, "jawOpen"))
    assert visible_area(model, model.mean, "mouth_interior") < 150      # its lips part a little
    assert visible_area(model, opened, "mouth_interior") > 1500
    shut = model.shape(None, unit(model, "eyeBlinkLeft", "eyeBlinkRight"))
    eyes = visible_area(model, model.mean, "eyes")
    assert eyes > 700 and visible_area(model, shut, "eyes") < 0.1 * eyes
    sheet = model.regions["eyes"][model.coarse_index] == 1
    assert np.abs(model.control_expression[sheet]).max() == 0       # eyeballs stay
    closed = model.shape(None, unit(model, "mouthClose"))
    lips = model.landmarks[[62, 66]]
    assert abs((closed - model.mean)[lips, 1]).max() < 8              # by itself it would be 38


def test_texels_find_their_mirror_images(model):
    """Also with an open mouth; ICT-FaceKit's mean and its jawOpen are symmetric, its triangles and so its chart not."""
    atlas = build_atlas(model, 512)
    for name, shape in (("rest", model.mean), ("jawOpen", model.shape(None, unit(model, "jawOpen")))):
        places = np.where(atlas.mask[..., None], to_texture(shape, model.triangles, atlas), 0)
        found, flipped = (np.linalg.norm(t - places * np.float32([-1, 1, 1]), axis=2)
                          for t in (atlas.mirrored(places), places[:, ::-1]))
        for region, before in (("face", 1.5), ("eyebrows", 2.0), ("nose", 1.5), ("lips", 0.8), ("mouth_interior", 0.4)):
            inside = atlas.mask & (region_texture(model, region, atlas) > 0.5)
            figures = [q(x[inside]) for x in (flipped, found) for q in (np.median, lambda a: np.percentile(a, 95))]
            print(f"{name} {region}: flipped {figures[0]:.2f}, 95 % {figures[1]:.2f} mm; "
                  f"mirrored {figures[2]:.2f}, 95 % {figures[3]:.2f} mm")
            assert figures[0] > before and figures[2] < 0.1 and figures[3] < 0.5


def test_a_rendered_head_is_fitted(model):
    rng = np.random.default_rng(4)
    identity, albedo = np.zeros(80), np.zeros(model.albedo_count)
    identity[:30], albedo[:20] = rng.normal(0, 0.7, 30), rng.normal(0, 0.6, 20)
    expression = 0.4 * unit(model, "mouthSmileLeft", "mouthSmileRight", "jawOpen")
    light = ambient_light(0.75)
    light[1:4] += rng.normal(0, 0.12, (3, 1))
    shared = Shared(identity, albedo, 1000.0)
    frame = Frame(expression, np.eye(3), np.array([0, 0, 1000.0 * 150 / (0.45 * SIZE)]), light)
    picture, points = draw(model, shared, frame), true_landmarks(model, shared, frame)
    noisy = points + rng.normal(0, 0.25, points.shape)
    got_shared, (got,) = fit_frames(model, [picture], [noisy])
    photometric, landmark = errors(model, make_view(model, picture, noisy, LEVELS[-1]), noisy, got_shared, got)
    print(f"photometric {photometric:.4f}, landmarks {100 * landmark:.2f} %")
    assert photometric < 0.015 and landmark < 0.02
    jaw = model.expression_names.index("jawOpen")
    assert got.expression[jaw] == pytest.approx(0.4, abs=0.1)


@pytest.mark.skipif(not PHOTO.is_file(), reason=f"{PHOTO} is not there")
def test_a_photo_is_fitted(model):
    from fitting.detection import FaceDetector
    track, count = fit_image(model, read_image(str(PHOTO)), FaceDetector())
    assert count == 1 and track.photometric_error[0] < 0.045 and track.landmark_error[0] < 0.045
    assert track.model_hash == model.hash
