"""What the solver reports and what its settings do."""
from dataclasses import replace

import numpy as np
import pytest

from facemodel.device import backend_for
from fitting import energy
from fitting.parameters import PER_FRAME, Layout, advance_frame
from fitting.photometric_torch import TorchPhotometric
from fitting.solver import NUMBA, Appearance, Engine, Settings, _Problem, engine_for, solve
from fitting.views import make_view
from tests.synthetic import draw, known_face, true_landmarks

EYES = 50.0                       # pixels between the eyes: small pictures


@pytest.fixture(scope="module")
def face(model):
    """(Shared, Frame, View) that belong together but for the pixels' rounding."""
    shared, frame = known_face(model, 9)
    expression = np.clip(frame.expression, 0.15, 0.8)            # off the bounds
    frame = replace(frame, expression=expression)
    return shared, frame, make_view(model, draw(model, shared, frame), true_landmarks(model, shared, frame), EYES)


@pytest.fixture(scope="module")
def away(model, face):
    """A start near the truth."""
    shared, frame, _ = face
    return replace(frame, expression=0.5 * frame.expression, translation=frame.translation + [1.5, -1, 8])


def hessian_by_differences(model, view, shared, frame, settings, active, appearance, directions, size):
    """Second differences of the energy along directions (N, n), visibility and outlines held."""
    problem = _Problem(model, [view], active, settings, [frame.light], shared.focal, appearance, NUMBA)
    problem.look(shared, [frame])
    at = lambda d: problem.energy(shared, [advance_frame(frame, d, problem.layout)])
    return np.array([(at(size * d) - 2 * at(0 * d) + at(-size * d)) / size ** 2 for d in directions])


@pytest.mark.parametrize("block", ["expression", "rotation", "translation"])
def test_hessians_of_the_landmark_energy(model, face, block):
    """Where the model meets its landmarks, Gauss-Newton's Hessian is the energy's own."""
    shared, frame, view = face
    settings, active = Settings(w_colour=0.0), PER_FRAME[:3]
    view = replace(view, landmarks=replace(view.landmarks, weight=np.r_[np.zeros(17), view.landmarks.weight[17:]]))
    (hessian,) = solve(model, shared, [frame], [view], active, 1, settings).hessians
    layout = Layout.build(model, active)
    directions = np.zeros((4, layout.size))
    directions[:, layout[block]] = np.random.default_rng(0).normal(size=(4, layout[block].stop - layout[block].start))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    size = {"expression": 0.02, "rotation": 0.005, "translation": 0.002}[block]
    numeric = hessian_by_differences(model, view, shared, frame, settings, active, Appearance(), directions, size)
    np.testing.assert_allclose(np.einsum("ni,ij,nj->n", directions, hessian, directions), numeric, rtol=0.03)


def test_hessians_of_the_colour_energy(model, face):
    """Near black all colour distances are below epsilon, where the norm is quadratic; shading is linear in light."""
    shared, frame, view = face
    settings, active = Settings(w_landmark=0.0, light_prior=0.01), PER_FRAME
    dark = replace(view, image=0.01 * view.image)
    appearance = Appearance((0.01 * model.albedo(shared.albedo)).astype(np.float32))
    (hessian,) = solve(model, shared, [frame], [dark], active, 1, settings, appearance=appearance).hessians
    layout = Layout.build(model, active)
    directions = np.zeros((4, layout.size))
    directions[:, layout["light"]] = np.random.default_rng(0).normal(size=(4, 27))
    numeric = hessian_by_differences(model, dark, shared, frame, settings, active, appearance, directions, 0.1)
    bare = solve(model, shared, [frame], [dark], active, 1, replace(settings, w_colour=0.0)).hessians[0]
    found, prior = (np.einsum("ni,ij,nj->n", directions, h, directions) for h in (hessian, bare))
    np.testing.assert_allclose(found, numeric, rtol=1e-3)
    assert (found > 1.02 * prior).all()


def test_a_solution_says_what_it_looked_at(model, face, away):
    shared, frame, view = face
    found = solve(model, shared, [away, frame], [view] * 2, PER_FRAME, 3)
    n = model.expression_count + 6 + 27
    assert [h.shape for h in found.hessians] == [(n, n)] * 2 and found.accepted == 3
    for h, samples, marks in zip(found.hessians, found.samples, found.landmarks):
        np.testing.assert_allclose(h, h.T, atol=1e-6 * np.abs(h).max())
        assert np.linalg.eigvalsh(h).min() > -1e-6 * np.abs(h).max()
        assert len(samples.triangle) == len(samples.weight) > 500
        assert (marks.vertices[17:] == model.landmarks[17:]).all()
        assert all(v in model.contour_paths[k] for k, v in enumerate(marks.vertices[:17]))
    nothing = solve(model, shared, [frame], [view], PER_FRAME, 2, Settings(w_colour=0.0))
    assert nothing.samples == [None]


def test_identity_weight_scales_the_prior_of_identity_alone(model, face, away):
    shared, _, view = face
    start = replace(shared, identity=np.zeros(model.identity_count))
    run = lambda w: solve(model, start, [away], [view], ("identity", "albedo", "rotation", "translation"), 1,
                          Settings(identity_weight=w))
    low, high = run(2.0), run(50.0)
    difference = high.hessians[0] - low.hessians[0]
    k = model.identity_count
    assert np.abs(difference).max() > 0
    expected = np.zeros_like(difference)
    expected[np.arange(k), np.arange(k)] = 2 * energy.W_REGULARISER * 48
    np.testing.assert_allclose(difference, expected, atol=1e-9)
    assert np.linalg.norm(high.shared.identity) < 0.7 * np.linalg.norm(low.shared.identity)


def test_identity_weight_is_in_the_energy(model, face):
    shared, frame, view = face
    at = lambda w: _Problem(model, [view], ("identity",), Settings(w_colour=0.0, identity_weight=w), [frame.light],
                            shared.focal, Appearance(), NUMBA)
    problems = at(1.0), at(11.0)
    for p in problems:
        p.look(shared, [frame])
    low, high = (p.energy(shared, [frame]) for p in problems)
    assert high - low == pytest.approx(10 * energy.W_REGULARISER * (shared.identity ** 2).sum())


def test_expression_spread_scales_the_standard_deviation_of_expressions(model, face, away):
    shared, _, view = face
    start = replace(away, expression=np.zeros(model.expression_count))
    run = lambda s: solve(model, shared, [start], [view], ("expression", "rotation", "translation"), 4,
                          Settings(w_colour=0.0, expression_spread=s))
    narrow, usual = run(0.05), run(1.0)
    k = model.expression_count
    at_start = [solve(model, shared, [start], [view], ("expression",), 1, Settings(w_colour=0.0, expression_spread=s))
                for s in (0.05, 1.0)]
    expected = 2 * energy.W_REGULARISER * (0.05 ** -2 - 1) / energy.expression_sigma(model) ** 2
    np.testing.assert_allclose(at_start[0].hessians[0] - at_start[1].hessians[0], expected * np.eye(k), atol=1e-9)
    assert np.linalg.norm(narrow.frames[0].expression) < 0.6 * np.linalg.norm(usual.frames[0].expression)


def test_expressions_that_may_be_negative_have_unit_spread(model):
    assert energy.expression_sigma(model) == energy.BLENDSHAPE_SIGMA
    assert energy.expression_sigma(replace(model, expression_range=(-3.0, 3.0))) == 1.0


def test_a_known_albedo_is_what_pictures_are_compared_with(model, face):
    """A face painted twice as dark under the same light: with its albedo given, its light is found, not half of it."""
    shared, frame, _ = face
    painted = (0.5 * model.albedo(shared.albedo)).astype(np.float32)
    view = make_view(model, draw(model, shared, frame, albedo=painted), true_landmarks(model, shared, frame), EYES)
    start = replace(frame, light=0.8 * frame.light)
    solved = lambda a: solve(model, shared, [start], [view], ("light",), 6, Settings(light_prior=0.0), appearance=a)
    level = lambda s: s.frames[0].light[0].mean() / frame.light[0].mean()
    assert level(solved(Appearance(painted))) == pytest.approx(1.0, abs=0.03)
    assert level(solved(Appearance())) == pytest.approx(0.5, abs=0.03)


def test_weight_leaves_out_what_it_says(model, face):
    """A green half of the face changes the light, unless its vertices have no weight."""
    shared, frame, view = face
    xy = view.landmarks.target[27] * view.scale - view.offset * view.scale
    green = view.image.copy()
    green[:, :int(xy[0])] = [0, 1, 0]
    spoilt = replace(view, image=green)
    half = (model.sampling_weight * (model.uv[:, 0] > model.uv[model.landmarks[27], 0] + 0.08)).astype(np.float32)
    solved = lambda v, w: solve(model, shared, [frame], [v], ("light",), 5, appearance=Appearance(weight=w))
    change = lambda s: np.abs(s.frames[0].light - frame.light).max()
    clean, masked, whole = solved(view, half), solved(spoilt, half), solved(spoilt, None)
    shown = masked.samples[0]
    assert (half[model.triangles[shown.triangle]].max(axis=1) > 0).all() and len(shown.triangle) > 300
    assert change(masked) < change(clean) + 0.02 and change(whole) > 5 * change(masked)


def test_the_torch_engine_finds_what_numba_finds(model, face, away):
    shared, _, view = face
    active = ("identity", *PER_FRAME)
    start = replace(shared, identity=np.zeros(model.identity_count))
    engine = Engine(NUMBA.rasterize, TorchPhotometric(model, "cpu"))
    ours, theirs = (solve(model, start, [away], [view], active, 4, engine=e) for e in (NUMBA, engine))
    assert theirs.accepted == ours.accepted and theirs.energy == pytest.approx(ours.energy, rel=1e-4)
    moved = np.linalg.norm(ours.frames[0].expression - away.expression)
    assert np.linalg.norm(theirs.frames[0].expression - ours.frames[0].expression) < 0.01 * moved
    np.testing.assert_allclose(theirs.shared.identity, ours.shared.identity, atol=0.01)
    np.testing.assert_allclose(theirs.frames[0].rotation, ours.frames[0].rotation, atol=2e-4)
    np.testing.assert_allclose(theirs.frames[0].light, ours.frames[0].light, atol=2e-3)
    scale = np.sqrt(np.diag(ours.hessians[0]))
    np.testing.assert_allclose(theirs.hessians[0] / np.outer(scale, scale), ours.hessians[0] / np.outer(scale, scale),
                               atol=5e-3)


def test_the_cpu_has_the_numba_engine(model):
    engine = engine_for(model, backend_for("cpu"))
    assert engine.term is None and engine.rasterize is backend_for("cpu").rasterize


def test_rows_of_a_shape_are_those_of_the_whole(model):
    rng = np.random.default_rng(0)
    identity, expression = rng.normal(size=model.identity_count), rng.uniform(0, 1, model.expression_count)
    rows = rng.choice(model.vertex_count, 200, replace=False)
    whole = model.shape(identity, expression)
    straight = model.mean + model.identity_basis @ identity + model.expression_basis @ expression
    np.testing.assert_allclose(whole, straight, atol=1e-3)
    np.testing.assert_allclose(model.shape(identity, expression, rows)[rows], whole[rows], atol=1e-4)
    np.testing.assert_allclose(model.shape(identity, None, rows)[rows], model.shape(identity)[rows], atol=1e-4)
    np.testing.assert_array_equal(model.express(model.neutral(identity), expression), whole)
    np.testing.assert_array_equal(model.neutral(), model.control_mean)
    np.testing.assert_allclose(model.neutral(identity[:3]), model.neutral(np.r_[identity[:3], np.zeros(5)]), atol=1e-4)


def test_frames_worked_on_at_once_give_the_same_bytes(model, face, away, monkeypatch):
    shared, frame, view = face
    found = []
    for threads in (1, 3):
        monkeypatch.setattr("fitting.solver.get_num_threads", lambda threads=threads: threads)
        found.append(solve(model, shared, [away, frame, away], [view] * 3, ("identity", *PER_FRAME), 3))
    one, three = found
    assert one.energy == three.energy and one.accepted == three.accepted
    np.testing.assert_array_equal(one.shared.identity, three.shared.identity)
    for a, b in zip(one.frames, three.frames):
        for name in PER_FRAME:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
