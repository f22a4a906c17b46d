"""Render with known parameters, fit, compare."""
import numpy as np
import pytest

from facemodel.camera import axis_angle, project, rotation_matrix, to_camera
from facemodel.errors import InputError
from fitting.dense_landmarks import DenseLandmarks, Guess
from fitting.energy import Pose
from fitting.fit import choose_face, errors, fit_frames
from fitting.parameters import Frame, Layout, Shared, advance_frame, advance_shared
from fitting.solver import MODEL_ONLY, NUMBA, Settings, _Problem, slide_jaw, solve
from fitting.views import LEVELS, make_view
from tests.synthetic import SIZE, draw, known_face, true_landmarks


def degrees_between(a, b):
    return np.degrees(np.linalg.norm(axis_angle(a @ b.T)))


def projected(model, shared, frame, vertices):
    points = to_camera(model.shape(shared.identity, frame.expression)[vertices], frame.rotation, frame.translation)
    return project(points, shared.focal, np.array([SIZE / 2, SIZE / 2]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_round_trip(model, seed):
    """Goals of the first figure: rotation 0.5 degrees, landmarks 1 px, photometric RMS 0.01."""
    shared, frame = known_face(model, seed)
    picture, landmarks = draw(model, shared, frame), true_landmarks(model, shared, frame)
    noisy = landmarks + np.random.default_rng(seed).normal(0, 0.25, landmarks.shape)
    got_shared, (got,) = fit_frames(model, [picture], [noisy])
    photometric, _ = errors(model, make_view(model, picture, noisy, LEVELS[-1]), noisy, got_shared, got)
    inner = model.landmarks[17:]
    distance = np.linalg.norm(projected(model, got_shared, got, inner) - projected(model, shared, frame, inner), axis=1)
    print(f"rotation {degrees_between(got.rotation, frame.rotation):.2f} deg, landmarks {distance.mean():.2f} px, "
          f"photometric {photometric:.4f}, focal x {got_shared.focal / shared.focal:.3f}")
    assert degrees_between(got.rotation, frame.rotation) <= 0.5
    assert distance.mean() <= 1.0
    assert photometric <= 0.01


def test_energy_falls_and_expressions_keep_their_range(model):
    shared, frame = known_face(model, 5)
    picture, landmarks = draw(model, shared, frame), true_landmarks(model, shared, frame)
    start = Frame(np.zeros(model.expression_count), frame.rotation, frame.translation, frame.light)
    view = make_view(model, picture, landmarks, 64.0)
    values = [solve(model, shared, [start], [view], ("expression", "rotation", "translation"), n).energy
              for n in (1, 2)]
    longer = solve(model, shared, [start], [view], ("expression", "rotation", "translation"), 8)
    assert values[1] <= values[0]
    assert longer.frames[0].expression.min() >= 0 and longer.frames[0].expression.max() <= 1
    opened = model.expression_names.index("jawOpen")
    assert longer.frames[0].expression[opened] == pytest.approx(frame.expression[opened], abs=0.08)


def test_several_frames_share_identity(model):
    """Two frames through the Schur complement give the same step as the whole system solved at once."""
    shared, frame = known_face(model, 6)
    other = Frame(frame.expression * 0.3, frame.rotation, frame.translation + [3, 2, 40], frame.light)
    active = ("identity", "focal", "rotation", "translation")
    views = [make_view(model, draw(model, shared, f), true_landmarks(model, shared, f) + 1.5, 64.0)
             for f in (frame, other)]
    problem = _Problem(model, views, active, Settings(samples=600), [frame.light] * 2, shared.focal,
                       MODEL_ONLY, NUMBA)
    problem.look(shared, [frame, other])
    equations = problem.normal_equations(shared, [frame, other])
    damping = 1e-3
    shared_step, frame_steps = problem.step(equations, [frame, other], damping)
    n_s, n = problem.layout.shared_size, problem.layout.size
    n_f = n - n_s
    whole, right = np.zeros((n_s + 2 * n_f,) * 2), np.zeros(n_s + 2 * n_f)
    for i, (h, g) in enumerate(equations):
        h = h + damping * np.diag(np.diag(h)) + 1e-10 * np.eye(n)
        index = np.r_[0:n_s, n_s + i * n_f:n_s + (i + 1) * n_f]
        whole[np.ix_(index, index)] += h
        right[index] += g
    step = -np.linalg.solve(whole, right)
    np.testing.assert_allclose(shared_step, step[:n_s], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(np.concatenate(frame_steps), step[n_s:], rtol=1e-5, atol=1e-9)


def test_gradient_of_the_whole_energy(model):
    """The normal equations' gradient against central differences of the energy, every kind of term included."""
    shared, frame = known_face(model, 7)
    shared = Shared(shared.identity, shared.albedo, shared.focal * 1.05)
    picture, landmarks = draw(model, shared, frame), true_landmarks(model, shared, frame) + 2.0
    rng, count = np.random.default_rng(0), len(model.dense_landmarks)
    dense = DenseLandmarks(projected(model, shared, frame, model.dense_landmarks) + rng.normal(0, 3, (count, 2)),
                           rng.uniform(1, 6, count),
                           Guess(np.zeros(model.identity_count), np.ones(model.identity_count), model.identity_hash,
                                 Pose(rotation_matrix([0.1, -0.05, 0.2]) @ frame.rotation, landmarks[30], 0.03)))
    view = make_view(model, picture, landmarks, 64.0, dense=dense)
    assert view.pose is dense.guess.pose
    active = ("identity", "albedo", "focal", "expression", "rotation", "translation", "light")
    held = Settings(samples=3000, w_pose=0.01, identity_mean=rng.normal(0, 0.5, model.identity_count),
                    identity_sigma=rng.uniform(0.4, 1, model.identity_count))
    problem = _Problem(model, [view], active, held, [frame.light + 0.1], shared.focal * 0.9, MODEL_ONLY, NUMBA)
    problem.look(shared, [frame])
    layout = Layout.build(model, active)
    ((_, gradient),) = problem.normal_equations(shared, [frame])
    for block in active:
        direction = np.zeros(layout.size)
        direction[layout[block]] = gradient[layout[block]]
        direction *= {"translation": 1e-5, "rotation": 2e-4}.get(block, 1e-3) / np.linalg.norm(direction)
        move = lambda s, d=direction: problem.energy(advance_shared(shared, s * d[:layout.shared_size], layout),
                                                     [advance_frame(frame, s * d[layout.shared_size:], layout)])
        assert gradient @ direction == pytest.approx(move(0.5) - move(-0.5), rel=0.08), block


def test_jaw_slides_to_the_outline(model):
    """On a turned head the sliding vertices reach at least as far out as the fixed ones."""
    shared, frame = known_face(model, 8)
    landmarks = true_landmarks(model, shared, frame)
    view = make_view(model, draw(model, shared, frame), landmarks, 64.0)
    vertices = model.shape(shared.identity, frame.expression)
    moved = slide_jaw(model, vertices, shared, frame, view).vertices
    assert (moved[17:] == model.landmarks[17:]).all()
    assert (moved[:17] != model.landmarks[:17]).any()


def test_choose_face_says_what_to_do():
    with pytest.raises(InputError, match="no face found"):
        choose_face([], "largest", "a.jpg")
