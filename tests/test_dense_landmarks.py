"""Dense landmarks: where the network looks, what it sees on people and on pictures of known heads, what a fit does
with it."""
from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

import assets
from facemodel.camera import aimed, axis_angle, project, rotation_matrix, to_camera
from facemodel.errors import InputError
from facemodel.symmetry import INNER, MIRROR, mirrored_identity
from fitting.dense_landmarks import SIZE, DenseLandmarks, DensePredictor, cut, placement
from fitting.detection import FaceDetector, eye_distance
from fitting.fit import DENSE_GAIN, told
from fitting.images import read_image
from fitting.parameters import Shared
from fitting.solver import DEFAULT, Settings, solve
from fitting.views import make_marks, make_view
from tests import synthetic


@pytest.fixture(scope="module")
def predictor():
    return DensePredictor()


def nobody():
    """The demo's photo of a face that nobody has."""
    return read_image(assets.path("demo") / "nobody.png")


def dense_truth(model, shared, frame, size=synthetic.SIZE):
    """Projected dense landmarks (K, 2)."""
    vertices = model.shape(shared.identity, frame.expression)[model.dense_landmarks]
    return project(to_camera(vertices, frame.rotation, frame.translation), shared.focal, (size / 2, size / 2))


@pytest.fixture(scope="module")
def heads(model):
    """Pictures of known heads before a ground with colours: list of (picture, Shared, Frame)."""
    out = []
    for seed in (1, 2, 3, 4):
        shared, frame = synthetic.known_face(model, seed)
        picture = synthetic.draw(model, shared, frame)
        rng = np.random.default_rng(seed)
        ground = cv2.resize(rng.integers(60, 160, (6, 6, 3), np.uint8), picture.shape[1::-1],
                            interpolation=cv2.INTER_CUBIC)
        empty = (picture == round(255 * 0.35)).all(axis=2)
        out.append((np.where(empty[..., None], ground, picture), shared, frame))
    return out


def test_placement_stands_the_face_upright_and_fills_the_square_alike(model):
    _, frame = synthetic.known_face(model, 5)
    shared = Shared(np.zeros(model.identity_count), np.zeros(model.albedo_count), 1000.0)
    frame = replace(frame, rotation=np.eye(3))
    marks = synthetic.true_landmarks(model, shared, frame)
    way = placement(marks)
    turned = rotation_matrix([0, 0, 0.7])[:2, :2] * 1.7
    other = placement(marks @ turned.T + [30, -20])
    here = marks @ way[:, :2].T + way[:, 2]
    there = (marks @ turned.T + [30, -20]) @ other[:, :2].T + other[:, 2]
    np.testing.assert_allclose(here, there, atol=1e-6)
    eyes, mouth = here[36:48].mean(axis=0), here[48:].mean(axis=0)
    assert abs(eyes[0] - mouth[0]) < 1 and mouth[1] > eyes[1]
    np.testing.assert_allclose((eyes + mouth) / 2, SIZE / 2, atol=1e-6)


@pytest.mark.parametrize("scale", [1.6, 0.8, 0.3])
def test_cut_keeps_places_to_a_tenth_of_a_pixel(scale):
    y, x = np.mgrid[:400, :500] + 0.5
    picture = np.stack([x / 500, y / 400, 0 * x], axis=-1).astype(np.float32)
    angle = 0.4
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    way = np.column_stack([turn, [40, 40] - turn @ [250, 200]])
    small = cut(picture, way, 80)
    inside = np.mgrid[20:60, 20:60][::-1].reshape(2, -1).T + 0.5
    back = (inside - way[:, 2]) @ np.linalg.inv(way[:, :2]).T
    kept = ((back > 8) & (back < [492, 392])).all(axis=1)
    seen = small[inside[kept, 1].astype(int), inside[kept, 0].astype(int), :2] * [500, 400]
    assert kept.sum() > 500
    assert np.abs(seen - back[kept]).max() * scale < 0.1


def test_known_heads_are_seen_where_they_are(model, heads, predictor):
    errors = []
    for picture, shared, frame in heads:
        marks = synthetic.true_landmarks(model, shared, frame)
        seen = predictor(picture, marks)
        away = np.linalg.norm(seen.points - dense_truth(model, shared, frame), axis=1)
        assert seen.points.shape == (len(model.dense_landmarks), 2)
        errors.append(away / eye_distance(marks))
    # a face that is put at random within the network's square would be off by a fifth and more
    assert np.mean(errors) < 0.04


def test_expected_errors_are_of_the_size_of_errors(model, heads, predictor):
    ratios = []
    for picture, shared, frame in heads:
        seen = predictor(picture, synthetic.true_landmarks(model, shared, frame))
        away = np.linalg.norm(seen.points - dense_truth(model, shared, frame), axis=1)
        ratios.append(away / seen.sigma)
    assert 0.5 < np.median(ratios) < 4


def test_points_follow_a_picture_that_is_turned_and_scaled(predictor):
    picture, detector = nobody(), FaceDetector()
    marks = detector.landmarks(picture, detector.detect(picture)[0].box)
    height, width = picture.shape[:2]
    way = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), 20, 0.8)
    other = cv2.warpAffine(picture, way, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    carry = lambda points: (points - 0.5) @ way[:, :2].T + way[:, 2] + 0.5
    here, there = predictor(picture, marks), predictor(other, carry(marks))
    away = np.linalg.norm(carry(here.points) - there.points, axis=1)
    assert np.mean(away) < 0.01 * eye_distance(marks)
    np.testing.assert_allclose(there.guess.pose.centre, carry(here.guess.pose.centre), atol=0.02 * eye_distance(marks))
    turn = there.guess.pose.rotation @ here.guess.pose.rotation.T            # y points down: 20 degrees the other way
    assert np.degrees(np.linalg.norm(axis_angle(turn @ rotation_matrix([0, 0, np.radians(20)])))) < 2


def test_turns_of_known_heads_are_seen(model, heads, predictor):
    """Of heads apart from the middle of the picture too, where they are seen from the side."""
    angles, others = [], []
    for picture, shared, frame in heads:
        for shift in (0, 90):
            moved = np.zeros_like(picture) + 90
            moved[:, shift:] = picture[:, :synthetic.SIZE - shift]
            marks = synthetic.true_landmarks(model, shared, frame) + [shift, 0]
            pose = predictor(moved, marks, 5).guess.pose
            straight = np.full(2, synthetic.SIZE / 2)
            there = aimed(pose.centre - [shift, 0], shared.focal, straight) @ pose.rotation
            angles.append(np.linalg.norm(axis_angle(there @ frame.rotation.T)))
            others += [np.linalg.norm(axis_angle(there @ f.rotation.T)) for _, _, f in heads if f is not frame]
    assert np.degrees(np.mean(angles)) < 5 and np.mean(angles) < 0.5 * np.mean(others)


def test_a_mirrored_picture_shows_a_mirrored_head(model, heads, predictor):
    """With several looks; with a single one it does only as far as the network has learned it."""
    mirror = np.diag([-1, 1, 1])
    matrix = mirrored_identity(model)
    for picture, shared, frame in heads[:2]:
        marks = synthetic.true_landmarks(model, shared, frame)
        flipped = marks[MIRROR] * [-1, 1] + [synthetic.SIZE, 0]

        def away(looks, picture=picture, marks=marks, flipped=flipped):
            here, there = predictor(picture, marks, looks), predictor(picture[:, ::-1].copy(), flipped, looks)
            points = np.abs(there.points[:51] - (here.points[:51][INNER] * [-1, 1] + [synthetic.SIZE, 0])).max()
            turn = there.guess.pose.rotation @ (mirror @ here.guess.pose.rotation @ mirror).T
            return points, np.abs(there.guess.mean - matrix @ here.guess.mean).max(), np.linalg.norm(axis_angle(turn))

        once, often = away(1), away(5)
        assert often[0] < 0.1 and often[1] < 0.05 and np.degrees(often[2]) < 0.1
        assert all(b < 0.5 * a for a, b in zip(once, often))


def test_points_agree_with_the_other_detector_on_a_photo(predictor):
    picture, detector = nobody(), FaceDetector()
    marks = detector.landmarks(picture, detector.detect(picture)[0].box)
    inner = predictor(picture, marks).points[:51]
    assert np.linalg.norm(inner - marks[17:], axis=1).mean() < 0.04 * eye_distance(marks)


def test_covered_points_are_less_sure(model, heads, predictor):
    picture, shared, frame = heads[0]
    marks = synthetic.true_landmarks(model, shared, frame)
    covered = picture.copy()
    mouth = dense_truth(model, shared, frame)[31:51]
    low, high = mouth.min(axis=0).astype(int) - 12, mouth.max(axis=0).astype(int) + 12
    covered[low[1]:high[1], low[0]:high[0]] = (40, 90, 60)
    before, after = predictor(picture, marks).sigma, predictor(covered, marks).sigma
    assert after[31:51].mean() > 1.3 * before[31:51].mean()


def test_marks_weigh_by_what_is_expected_of_them(model):
    marks = np.random.default_rng(0).uniform(100, 300, (68, 2))
    sigma = np.geomspace(0.5, 50, len(model.dense_landmarks))
    both = make_marks(model, marks, DenseLandmarks(np.zeros((len(sigma), 2)), sigma))
    alone = make_marks(model, marks)
    np.testing.assert_array_equal(both.weight[:68], alone.weight)
    np.testing.assert_array_equal(both.vertices[68:], model.dense_landmarks)
    dense = both.weight[68:]
    assert (np.diff(dense) <= 0).all() and dense[0] == dense[1] and dense[-1] < 0.01 * dense[0]


def test_dense_landmarks_tell_a_shape_that_sparse_ones_do_not(model, heads):
    """With the truth's points, and without colours, surfaces come nearer to the truth."""
    face, settings = model.regions["face"] > 0.9, Settings(w_colour=0.0, identity_weight=0.1)

    def error(picture, shared, frame, dense):
        view = make_view(model, picture, synthetic.true_landmarks(model, shared, frame), 64.0, dense=dense)
        start = replace(shared, identity=np.zeros(model.identity_count))
        found = solve(model, start, [frame], [view], ("identity", "rotation", "translation"), 12, settings).shared
        away = (model.shape(found.identity) - model.shape(shared.identity))[face]
        return np.linalg.norm(away - away.mean(axis=0), axis=1).mean()

    told = [error(*head, DenseLandmarks(dense_truth(model, *head[1:]), np.ones(len(model.dense_landmarks))))
            for head in heads]
    assert np.mean(told) < 0.95 * np.mean([error(*head, None) for head in heads])


def test_a_guess_is_held_to_by_models_that_it_is_meant_for(model, heads, predictor):
    picture, shared, frame = heads[0]
    seen = predictor(picture, synthetic.true_landmarks(model, shared, frame))
    assert seen.guess.mean.shape == seen.guess.sigma.shape == (model.identity_count,)
    assert (seen.guess.sigma > 0).all() and (seen.guess.sigma <= 1).all()
    held = told(model, DEFAULT, [seen, seen])
    assert held.w_landmark == DENSE_GAIN * DEFAULT.w_landmark
    np.testing.assert_array_equal(held.identity_mean, seen.guess.mean)
    other = replace(model, control_identity=2 * model.control_identity)
    assert told(other, DEFAULT, [seen]).identity_mean == 0
    assert told(model, DEFAULT, None) is DEFAULT


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match="dense landmarks.*train_landmarks"):
        DensePredictor(tmp_path / "none.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(InputError, match="damaged.safetensors: no weights of the dense landmarks"):
        DensePredictor(tmp_path / "damaged.safetensors")
    with pytest.raises(InputError, match="no weights of the dense landmarks"):
        DensePredictor(assets.path("occlusion/occlusion.safetensors"))
