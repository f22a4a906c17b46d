"""A person's own albedo is lifted from pictures whose fit is known."""
from dataclasses import replace

import numpy as np
import pytest

from facemodel.camera import project, rotation_matrix, to_camera
from facemodel.light import shade
from fitting.fit import Frame
from fitting.personal import DOUBT, LARGEST, personal_albedo, sample_vertices, vertex_visibility, weighted_median
from fitting.texture import pose
from fitting.views import LEVELS, make_view
from tests.synthetic import SIZE, draw, known_face, true_landmarks

CENTRE = np.array([SIZE / 2, SIZE / 2])


def posed_face(model, shared, frame):
    return pose(model, model.shape(shared.identity, frame.expression), frame.rotation, frame.translation, shared.focal,
                CENTRE)


@pytest.fixture(scope="module")
def lifted(model):
    """A face with brown waves painted on its chart, seen twice from its left: (albedo offset, painted, cosine)."""
    shared, frame = known_face(model, 3)
    frame = Frame(frame.expression, rotation_matrix([0.05, 0.75, 0.0]), frame.translation, frame.light)
    other = replace(frame, rotation=rotation_matrix([-0.05, 0.65, 0.02]), light=0.8 * frame.light)
    u, v = model.uv.T
    painted = (0.08 * np.sin(40 * u) * np.cos(35 * v))[:, None] * np.array([1.0, 0.7, 0.4])
    albedo = (model.albedo(shared.albedo) + painted).astype(np.float32)
    views = [make_view(model, draw(model, shared, f, albedo=albedo), true_landmarks(model, shared, f), LEVELS[-1])
             for f in (frame, other)]
    offset = personal_albedo(model, views * 4, shared, [frame, other] * 4)
    return offset, painted, np.stack([posed_face(model, shared, f).cosine for f in (frame, other)])


def test_what_is_painted_comes_back(model, lifted):
    """Eight pictures are believed up to 8 / (8 + DOUBT)."""
    offset, painted, cosine = lifted
    visible = (cosine.min(axis=0) > 0.75) & (model.sampling_weight > 0.9)
    assert visible.sum() > 3000
    error = offset[visible] * (8 + DOUBT) / 8 - painted[visible]
    assert np.abs(painted[visible]).max() > 0.07
    assert np.median(np.abs(error)) < 0.004 and np.percentile(np.abs(error), 95) < 0.015


def test_nothing_is_said_where_no_picture_shows_the_skin(model, lifted):
    offset, painted, cosine = lifted
    away = (cosine.max(axis=0) < 0) & (model.sampling_weight > 0.5)
    assert away.sum() > 300 and np.abs(painted[away]).max() > 0.05
    assert (offset[away] == 0).all()
    assert (offset[model.sampling_weight == 0] == 0).all()


def test_a_picture_that_the_model_explains_adds_nothing(model):
    shared, frame = known_face(model, 4)
    view = make_view(model, draw(model, shared, frame), true_landmarks(model, shared, frame), LEVELS[-1])
    offset = personal_albedo(model, [view], shared, [frame])
    assert np.median(np.abs(offset[model.sampling_weight > 0.5])) < 0.003
    black = replace(view, image=np.zeros_like(view.image) - 2)
    assert np.abs(personal_albedo(model, [black], shared, [frame])).max() <= LARGEST


def test_something_in_one_of_three_pictures_does_not_count(model):
    """The median leaves out a hand before the face."""
    shared, frame = known_face(model, 4)
    view = make_view(model, draw(model, shared, frame), true_landmarks(model, shared, frame), LEVELS[-1])
    hand = view.image.copy()
    hand[:, : hand.shape[1] // 2] = [0.1, 0.6, 0.2]
    offset = personal_albedo(model, [view, replace(view, image=hand), view], shared, [frame] * 3)
    alone = personal_albedo(model, [replace(view, image=hand)], shared, [frame])
    skin = model.sampling_weight > 0.5
    assert np.percentile(np.abs(offset[skin]), 90) < 0.02 < np.percentile(np.abs(alone[skin]), 70)


def test_sampled_colours_are_those_drawn(model):
    shared, frame = known_face(model, 2)
    posed = posed_face(model, shared, frame)
    view = make_view(model, draw(model, shared, frame), true_landmarks(model, shared, frame), 1e9)
    at = lambda p: replace(p, xy=((p.xy - view.offset) * view.scale).astype(np.float32))
    colours = model.albedo(shared.albedo) * shade(posed.normals, frame.light)
    seen = vertex_visibility(model, at(posed), *view.image.shape[:2]) == 1
    assert seen.sum() > 2000
    assert np.median(np.abs(sample_vertices(view, at(posed)) - colours)[seen]) < 0.004


def test_visibility(model):
    """1 where the skin faces the camera, 0 behind the nose, on the far side and outside the picture."""
    shared, frame = known_face(model, 2)
    frame = replace(frame, rotation=rotation_matrix([0, 0.9, 0]))
    posed = posed_face(model, shared, frame)
    seen = vertex_visibility(model, posed, SIZE, SIZE)
    assert (seen[posed.cosine < 0.2] == 0).all() and seen.min() == 0 and seen.max() == 1
    # hidden by something nearer: rays from the camera through the vertex, against all triangles by brute force
    corner = posed.vertices[model.triangles]
    rng = np.random.default_rng(0)
    facing = np.flatnonzero((posed.cosine > 0.3) & (model.sampling_weight > 0.5))
    hidden = 0
    for vertex in rng.choice(facing, 60, replace=False):
        ray = posed.vertices[vertex].astype(np.float64)
        e1, e2 = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
        p = np.cross(ray, e2)
        det = (e1 * p).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = -(corner[:, 0] * p).sum(axis=1) / det
            q = np.cross(-corner[:, 0], e1)
            v, along = (q @ ray) / det, (e2 * q).sum(axis=1) / det
        nearest = along[(u > 0) & (v > 0) & (u + v < 1) & (along > 0)].min(initial=1.0)
        behind = (1 - nearest) * ray[2]
        if behind > 6:
            hidden += 1
            assert seen[vertex] == 0
        elif behind < 0.5 and posed.cosine[vertex] > 0.5:
            assert seen[vertex] > 0
    assert hidden > 0
    half = vertex_visibility(model, posed, SIZE, SIZE // 2)
    assert (half[posed.xy[:, 0] > SIZE // 2] == 0).all() and (half > 0).any()


@pytest.mark.parametrize("seed", range(3))
def test_weighted_median_by_brute_force(seed):
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(size=(6, 20, 3)), rng.choice([0, 0.2, 1.0, 0.7], (6, 20))
    weights[:, 3] = 0
    found = weighted_median(values, weights)
    assert (found[3] == 0).all()
    for v, c in np.ndindex(20, 3):
        if v == 3:
            continue
        # a median minimises the weighted sum of distances, and is one of the values that count
        cost = lambda x, v=v, c=c: (weights[:, v] * np.abs(values[:, v, c] - x)).sum()
        counted = values[weights[:, v] > 0, v, c]
        assert found[v, c] in counted and cost(found[v, c]) == pytest.approx(min(map(cost, counted)))
    np.testing.assert_array_equal(weighted_median(values[:5], np.ones((5, 20))), np.median(values[:5], axis=0))


def test_the_camera_of_a_view_and_of_the_picture_agree(model):
    """What the tests above rely on: make_view's crop shows a vertex where its camera says."""
    shared, frame = known_face(model, 2)
    view = make_view(model, draw(model, shared, frame), true_landmarks(model, shared, frame), 60.0)
    focal, centre = view.camera(shared.focal)
    points = to_camera(model.mean[model.landmarks], frame.rotation, frame.translation)
    np.testing.assert_allclose(project(points, focal, centre),
                               (project(points, shared.focal, CENTRE) - view.offset) * view.scale, atol=1e-3)
