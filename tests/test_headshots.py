"""Pictures with dense landmarks, and the training of the network that learns to see them."""
from __future__ import annotations

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.spatial.transform import Rotation

import assets
import texgan.extract as extraction
import texgan.train_landmarks as training
from facemodel.camera import axis_angle, project, rotation_matrix, to_camera
from facemodel.errors import InputError
from facemodel.light import ambient_light
from facemodel.morphable import FLIP
from facemodel.symmetry import INNER, mirrored_identity
from fitting.dense_landmarks import SIZE, DensePredictor, placement
from fitting.detection import FaceDetector, eye_distance
from fitting.lift import Texture
from fitting.trackfile import file_hash
from tests import synthetic
from tests.test_rendered import ICT, needs_ict
from tests.texture_sets import made_up_clip
from texgan.dataset import write_clip
from texgan.headshots import STORED, framed, identity_of, relief, rendered, turned
from texgan.landmark_examples import Examples, keep, kept, skins_and_photos
from texgan.rendered import FACE_CENTRE, draw_actor
from texgan.train_landmarks import augmented, plain, train, write


@pytest.fixture(scope="module")
def photo(model):
    """A picture under even light, and the Shared and Frame that it shows."""
    shared, frame = synthetic.known_face(model, 6)
    frame = replace(frame, light=ambient_light(0.9), rotation=rotation_matrix([0.05, -0.08, 0.1]))
    return synthetic.draw(model, shared, frame), shared, frame


def dense_points(model, shared, frame):
    vertices = model.shape(shared.identity, frame.expression)[model.dense_landmarks]
    return project(to_camera(vertices, frame.rotation, frame.translation), shared.focal, (synthetic.SIZE / 2,) * 2)


def test_a_relief_that_is_not_turned_is_the_photo(model, photo):
    """But for the perspective, since the head comes to the middle."""
    picture, shared, frame = photo
    seen, points = turned(relief(model, picture, shared, frame), np.random.default_rng(0), still=True)
    kept, truth = framed(picture, dense_points(model, shared, frame))
    assert np.abs(points - truth).max() < 2.5 and np.abs(points - truth).mean() < 1
    middle = slice(STORED // 4, -STORED // 4)
    away = np.abs(seen[middle, middle].astype(float) - kept[middle, middle])
    assert away.mean() < 5 and seen.shape == (STORED, STORED, 3)


def test_a_relief_turned_is_what_the_turned_head_would_show(model, photo):
    """The model itself, drawn in the pose that was drawn, is the oracle; even light keeps colours the same."""
    picture, shared, frame = photo
    laid = relief(model, picture, shared, frame)
    turn = rotation_matrix([0.1, 0.35, 0])

    class Drawn:
        """Stands for a Generator that draws this turn."""

        normal = staticmethod(lambda *_: np.degrees(0.1))
        uniform = staticmethod(lambda low, high: np.degrees(0.35) if high == 34 else (low + high) / 2)
        random = staticmethod(lambda: 1.0)

    seen, points = turned(laid, Drawn())
    turn = rotation_matrix([0.1, 0, 0]) @ rotation_matrix([0, 0.35, 0]) @ rotation_matrix([0, 0, 0.1])
    focal = np.sqrt(600 * 3000)
    away = np.array([0, 0, focal / laid.focal * laid.pivot[2]])
    mesh = model.shape(shared.identity, frame.expression)
    upright = np.eye(3)
    way = placement(synthetic.true_landmarks(model, shared, frame))
    upright[:2, :2] = way[:, :2] / np.sqrt(np.linalg.det(way[:, :2]))
    # pose of the head in the turned camera: upright, about the pivot, turned, moved away
    rotation = turn @ upright @ frame.rotation
    translation = turn @ (upright @ frame.translation - laid.pivot) + away
    posed = replace(frame, rotation=rotation, translation=translation)
    direct = synthetic.draw(model, replace(shared, focal=focal), posed)
    expected, truth = framed(direct, dense_points(model, replace(shared, focal=focal), posed))
    np.testing.assert_allclose(points, truth, atol=0.6)
    xy = project(to_camera(mesh, rotation, translation), focal, (synthetic.SIZE / 2,) * 2)
    assert np.isfinite(xy).all()
    inner = cv2.convexHull(truth[:51].astype(np.float32)).astype(np.int32)
    mask = cv2.fillConvexPoly(np.zeros((STORED, STORED), np.uint8), inner, 1) > 0
    difference = np.abs(seen[mask].astype(float) - expected[mask]).mean(axis=1)
    assert np.median(difference) < 6 and difference.mean() < 12


@needs_ict
def test_points_lie_on_the_other_head_where_its_own_landmarks_are(stage, binding, model):
    points = binding(stage.mean.astype(np.float64))
    for k in (36, 39, 42, 45, 48, 54):                    # corners of eyes and mouth, which both markups have
        assert np.linalg.norm(points[k - 17] - stage.mean[stage.landmarks[k]]) < 4
    assert binding.weights.min() >= 0
    np.testing.assert_allclose(binding.weights.sum(axis=1), 1)


@needs_ict
def test_rendered_points_are_where_a_detector_sees_them(stage, binding, model):
    skin = np.full((256, 256, 3), [0.75, 0.55, 0.45], np.float32)
    errors, detector = [], FaceDetector()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        picture, points, _ = rendered(stage, binding, draw_actor(stage, rng, skin), rng)
        large = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        faces = detector.detect(large)
        if faces:
            marks = detector.landmarks(large, faces[0].box)
            errors.append(np.linalg.norm(marks[31:] - 2 * points[14:51], axis=1).mean() / eye_distance(marks))
    assert len(errors) >= 3 and np.median(errors) < 0.08


@needs_ict
def test_turns_are_those_that_the_points_show(stage, binding, monkeypatch):
    """The resting head, turned and seen from afar, against the points, wherever the head is in the picture."""
    monkeypatch.setattr("texgan.headshots.draw_expression", lambda _: {})
    monkeypatch.setattr("texgan.headshots.FOCAL", (2600.0, 2600.1))
    skin, misfits, others = np.full((64, 64, 3), 0.6, np.float32), [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        actor = draw_actor(stage, rng, skin)
        _, points, turn = rendered(stage, binding, actor, rng)
        head = binding((actor.neutral - np.float32(FACE_CENTRE)) * FLIP).astype(np.float64)
        head -= head.mean(axis=0)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)

        def misfit(rotation, seen=points, head=head):
            seen = seen - seen.mean(axis=0)
            flat = head @ rotation[:2].T
            return np.linalg.norm(flat * (flat * seen).sum() / (flat ** 2).sum() - seen, axis=1).mean()

        misfits.append(misfit(turn))
        others += [misfit(rotation_matrix(v) @ turn) for v in np.radians([[5, 0, 0], [0, 5, 0], [0, 0, 5]])]
    assert np.mean(misfits) < 1.2 and np.mean(misfits) < 0.6 * np.mean(others)


def test_turns_and_points_are_moved_alike():
    """Orthographic pictures of turned points: after every move they are those of the new turn, but for scale."""
    rng = np.random.default_rng(2)
    solid, drawn = rng.normal(0, 20, (12, 3)), []
    for _ in range(10):
        turn = rotation_matrix(rng.normal(0, 0.3, 3))
        drawn.append((np.zeros((STORED, STORED, 3), np.uint8), np.float32(solid @ turn[:2].T + STORED / 2),
                      np.zeros(4), turn))
    _, points, identity, turns = augmented(Examples.of([drawn], 4), torch.arange(10), torch.Generator().manual_seed(0))
    assert identity.shape == (10, 4)
    for seen, turn in zip(points.double().numpy(), turns.double().numpy()):
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
        flat = (solid - solid.mean(axis=0)) @ turn[:2].T
        seen = seen - seen.mean(axis=0)
        np.testing.assert_allclose(flat * (flat * seen).sum() / (flat ** 2).sum(), seen, atol=1e-4)


def test_rotations_are_those_of_scipy():
    vectors = np.random.default_rng(0).normal(0, 0.8, (20, 3))
    np.testing.assert_allclose(training.rotations(torch.from_numpy(vectors)), Rotation.from_rotvec(vectors).as_matrix(),
                               atol=1e-9)


def test_examples_are_kept_and_taken_again(tmp_path):
    path = tmp_path / "examples.npz"
    keep(path, dotted(3), dotted(2, seed=1))
    shots, views = kept(path)
    assert torch.equal(shots.pictures, dotted(3).pictures) and torch.equal(views.points, dotted(2, seed=1).points)
    assert views.turn.isnan().all() and list(tmp_path.iterdir()) == [path]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="examples.npz: no examples"):
        kept(path)


def dotted(count, points=40, seed=0):
    """Examples of grey pictures with a white dot at their first point."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(count):
        where = rng.uniform(0.35 * STORED, 0.65 * STORED, (points, 2)).astype(np.float32)
        picture = np.full((STORED, STORED, 3), 70, np.uint8)
        cv2.circle(picture, tuple(int(16 * v - 8) for v in where[0]), 16 * 4, (255, 255, 255), -1, cv2.LINE_AA, 4)
        out.append((picture, where, None, None))
    return Examples.of([out], 4)


@pytest.mark.parametrize("move", [False, True])
def test_points_stay_on_what_they_mark(move, monkeypatch):
    monkeypatch.setattr(training, "_cover", lambda *_: None)
    examples, chosen = dotted(24), torch.arange(24)
    generator = torch.Generator().manual_seed(1)
    pictures, points, _, _ = augmented(examples, chosen, generator) if move else plain(examples, chosen)
    assert pictures.shape == (24, 3, SIZE, SIZE) and 0 <= pictures.min() and pictures.max() <= 1
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    found = 0
    for picture, point in zip(pictures.numpy().mean(axis=1), points.numpy()):
        light = cv2.morphologyEx(cv2.GaussianBlur(picture, (0, 0), 1), cv2.MORPH_TOPHAT, np.ones((15, 15)))
        if light.max() > 0.2:                              # a bright picture hides it
            light = np.clip(light - 0.5 * light.max(), 0, None)
            at = np.array([(light * x).sum(), (light * y).sum()]) / light.sum()
            assert np.linalg.norm(at - (point[0] + 1) * SIZE / 2) < 1.0
            found += 1
    assert found > 16


def test_training_learns_and_what_is_written_is_read(tmp_path, model, monkeypatch):
    monkeypatch.setattr(training, "BATCH", 16)
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3 * STORED, 0.7 * STORED, (len(model.dense_landmarks), 2)).astype(np.float32)
    drawn = []
    for _ in range(48):                                    # all points move with one bright square
        shift = rng.uniform(-25, 25, 2).astype(np.float32)
        picture = np.full((STORED, STORED, 3), 60, np.uint8)
        x, y = (STORED / 2 + shift - 15).astype(int)
        picture[y:y + 30, x:x + 30] = 220
        drawn.append((picture, base + shift, np.full(model.identity_count, shift[0] / 25),
                      rotation_matrix([0, 0.4 + shift[1] / 50, 0])))
    examples = Examples.of([drawn], model.identity_count)
    network = train(examples, None, 80, show=False)
    distance, heads, turns = training.errors(network, examples)
    moved = np.mean([np.linalg.norm(points - base, axis=1).mean() for _, points, *_ in drawn])
    assert distance.mean() < 0.4 * moved                 # of those who say that nothing moves
    assert heads.pow(2).mean() < 0.5 * examples.identity.pow(2).mean()
    usual = [axis_angle(turn @ rotation_matrix([0, -0.4, 0])) for *_, turn in drawn]
    assert turns.pow(2).mean() < 0.5 * np.mean(np.square(usual))
    path = tmp_path / "dense.safetensors"
    write(path, network, np.full(model.identity_count, 0.5), 0.04, model, [], 48, 0)
    marks = synthetic.true_landmarks(model, *synthetic.known_face(model, 1))
    seen = DensePredictor(path)(np.zeros((synthetic.SIZE, synthetic.SIZE, 3), np.uint8), marks)
    assert seen.points.shape == (len(model.dense_landmarks), 2) and (seen.sigma > 0).all()
    assert seen.guess.mean.shape == (model.identity_count,) and seen.guess.identity_hash == model.identity_hash
    assert seen.guess.pose.sigma == pytest.approx(0.04)


def test_a_head_is_read_off_its_points(model):
    truth = np.zeros(model.identity_count)
    truth[:20] = np.random.default_rng(1).normal(0, 1, 20)
    found = identity_of(model, model.shape(truth)[model.dense_landmarks].astype(np.float64) + [3, -2, 8])
    assert np.corrcoef(found[:20], truth[:20])[0, 1] > 0.97


def test_the_same_seed_trains_the_same_network(monkeypatch):
    monkeypatch.setattr(training, "BATCH", 4)
    a, b = (train(dotted(8), dotted(8, seed=3), 3, seed=5, show=False).state_dict() for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_mirrored_examples_are_mirrored_wholly(model, monkeypatch):
    """Pictures of a head's own points, drawn as dots, against what is said of them."""
    rng = np.random.default_rng(8)
    points, heads = len(model.dense_landmarks), model.identity_count
    mirror = torch.from_numpy(mirrored_identity(model)).float()
    identity, turn = rng.normal(0, 1, heads), rotation_matrix([0.1, 0.3, -0.2])
    where = np.float32(rng.uniform(0.3 * STORED, 0.7 * STORED, (points, 2)))
    examples = Examples.of([[(np.full((STORED, STORED, 3), 90, np.uint8), where, identity, turn)] * 24], heads)
    still = plain(examples, torch.arange(24))
    monkeypatch.setattr(training, "_placed", lambda *_: still)
    drawn = augmented(examples, torch.arange(24), torch.Generator().manual_seed(0), mirror)
    _, seen, told, turned = (x.numpy() for x in drawn)
    usual = still[1][0].numpy()
    mirrored = np.isnan(seen).any(axis=(1, 2))
    assert 4 < mirrored.sum() < 20
    assert np.isnan(seen[mirrored][:, 51:]).all()
    np.testing.assert_allclose(seen[~mirrored], np.broadcast_to(usual, seen[~mirrored].shape), atol=1e-6)
    np.testing.assert_allclose(seen[mirrored][0, :51], usual[:51][INNER] * [-1, 1], atol=1e-6)
    np.testing.assert_allclose(told[mirrored][0], mirror.numpy() @ identity, atol=1e-4)
    flip = np.diag([-1, 1, 1])
    np.testing.assert_allclose(turned[mirrored][0], flip @ turn @ flip, atol=1e-6)
    loss = training.loss_of((torch.from_numpy(np.nan_to_num(seen)), torch.zeros(24, points), torch.zeros(24, heads),
                             torch.zeros(24, 3)), *drawn[1:], 1.0)
    assert torch.isfinite(loss)


def test_covering_hides_part_of_a_picture_and_leaves_its_points(monkeypatch):
    examples, chosen = dotted(16), torch.arange(16)
    _, kept, *_ = augmented(examples, chosen, torch.Generator().manual_seed(2))
    monkeypatch.setattr(training, "_cover", lambda *_: None)
    _, same, *_ = augmented(examples, chosen, torch.Generator().manual_seed(2))
    assert torch.equal(kept, same)


def test_a_skin_s_photo_is_known_by_its_bytes(tmp_path, model):
    full = {0: Texture(np.full((64, 64, 3), 0.5, np.float32), np.ones((64, 64), np.float32))}
    photos = [tmp_path / name for name in ("smile.png", "renamed.png", "without_neutral.png")]
    for number, path in enumerate(photos):
        path.write_bytes(bytes([number]))
    for identity in ("somebody", "without"):
        clip = made_up_clip(model, identity)
        hashes = [file_hash(photos[1]), file_hash(photos[0])] if identity == "somebody" else ["a", "b"]
        write_clip(tmp_path, replace(clip, info=replace(clip.info, sha256=hashes)), full)
    found = {skin.texture.parents[1].name: skin.photo for skin in skins_and_photos(tmp_path, photos)}
    assert found == {"clip_somebody": photos[1], "clip_without": None}


def test_training_goes_on_from_what_was_written(tmp_path, model, monkeypatch):
    """Parts that older weights lack start anew; other networks' weights are refused."""
    monkeypatch.setattr(training, "BATCH", 4)
    points, heads = len(model.dense_landmarks), model.identity_count
    examples = Examples.of([[(picture.numpy(), np.tile(where[:1], (points, 1)), np.zeros(heads), np.eye(3))
                             for picture, where in zip(dotted(8).pictures, dotted(8).points.numpy())]], heads)
    path = tmp_path / "first.safetensors"
    write(path, train(examples, None, 2, show=False), np.ones(heads), 0.1, model, [], 8, 0)
    state = training.state_in(path, model)
    old = {k: v for k, v in load_file(path).items() if not k.startswith("turn")}
    save_file(old, path)
    assert training.state_in(path, model).keys() < state.keys()
    monkeypatch.setattr(training, "RATE_AGAIN", 1e-9)
    went_on = train(examples, None, 2, show=False, start=training.state_in(path, model)).state_dict()
    for name in ("place.1.weight", "shape.3.bias", "stem.0.weight"):
        assert (went_on[name] - state[name]).abs().max() < 1e-6
    assert (went_on["turn.1.weight"] - state["turn.1.weight"]).abs().max() > 1e-3
    save_file({"turn.1.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(InputError, match="first.safetensors: no weights"):
        training.state_in(path, model)
    save_file({}, path)
    with pytest.raises(InputError, match="lacks parts"):
        training.state_in(path, model)


@needs_ict
@pytest.mark.slow
def test_the_command_draws_trains_and_keeps(tmp_path, model, monkeypatch, capsys):
    """People of one skin, lifted from its photo, and the photo turned; a second run takes what the first has drawn."""
    photos, skins = tmp_path / "photos", tmp_path / "skins"
    photos.mkdir()
    shutil.copy(assets.path("demo/demo.jpg"), photos / "demo_neutral.jpg")
    assert extraction.main([str(photos), "-o", str(skins), "--workers", "1"]) == 0
    monkeypatch.setattr(training, "BATCH", 4)
    out, examples = tmp_path / "out.safetensors", tmp_path / "examples.npz"
    command = [str(photos), "--skins", str(skins), "--ict", str(ICT), "-o", str(out), "--examples", str(examples),
               "--people", "2", "--poses", "2", "--views", "2", "--steps", "2", "--workers", "1"]
    training.main(command)
    shots, views = kept(examples)
    assert shots.person.tolist() == [0, 0, 1, 1] and views.person.tolist() == [0, 0]
    assert not shots.turn.isnan().any() and views.turn.isnan().all()
    assert "2 rendered and 2 turned pictures; 2 rendered ones held out" in capsys.readouterr().out
    DensePredictor(out)                                                    # can be read
    monkeypatch.setattr(training, "draw", lambda *_: pytest.fail("drawn again"))
    training.main(command)
    assert {p.name for p in tmp_path.iterdir()} == {
        "photos", "skins", "out.safetensors", "examples.npz"}


@pytest.mark.parametrize(("arguments", "message"), [
    (["--people", "1"], "--people: give 2 or more"),
    (["--steps", "0"], "--steps: give 1 or more"),
    ([], "no folder with pictures"),
])
def test_what_cannot_be_trained_on_is_named(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        training.main([str(tmp_path), "--skins", str(tmp_path), "--ict", str(tmp_path), "-o",
                       str(tmp_path / "out.safetensors"), *arguments])
    assert not (tmp_path / "out.safetensors").exists()
