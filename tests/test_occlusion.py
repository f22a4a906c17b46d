"""What lies before a face: where it is looked for, what is believed, and rendered faces with a bar before them."""
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

import assets
import compositing.pieces
import compositing.replace
from compositing import target as targets
from compositing.occluders import draw_glasses, draw_hand
from compositing.occlusion import Occlusion, OcclusionDetector, Placer, _filled, believed, guided, wears_glasses
from compositing.occlusion_crops import EYES, OBJECT, STRIP, View, cut, layout, placement
from compositing.occlusion_network import OcclusionNetwork
from compositing.target import target_from_photo
from compositing.train_occlusion import BASE, NETWORKS, main, sample, train, write
from facemodel import commands
from facemodel.camera import project, rotation_matrix, to_camera
from facemodel.errors import InputError
from fitting.detection import ANCHORS
from fitting.span import cut_track
from fitting.trackfile import file_hash, save_track
from fitting.video_reader import Span
from tests import clips, synthetic

COUNT = 8
SIZE = synthetic.SIZE


@pytest.fixture(scope="module")
def detector():
    return OcclusionDetector()


@pytest.fixture(scope="module")
def act(model):
    """A rendered person who blinks, smiles and turns a little: pictures (SIZE, SIZE, 3) uint8 and their Track."""
    shared, frame = synthetic.known_face(model, 3)
    frames = []
    for k in range(COUNT):
        expression, phase = frame.expression * 0, k / (COUNT - 1)
        for name, value in (("eyeBlinkLeft", phase), ("eyeBlinkRight", phase), ("mouthSmileLeft", 1 - phase),
                            ("mouthSmileRight", 1 - phase), ("jawOpen", 0.5 * phase)):
            expression[model.expression_names.index(name)] = value
        turned = rotation_matrix(np.array([0, 0.1 * phase - 0.05, 0]))
        frames.append(replace(frame, expression=expression, rotation=turned))
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(60, 120, (8, 8, 3), np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    pictures = []
    for one in frames:
        drawn = synthetic.draw(model, shared, one)
        empty = (drawn == round(255 * 0.35)).all(axis=2)
        pictures.append(np.where(empty[..., None], ground, drawn))
    return pictures, synthetic.track_of(model, shared, frames)


def bar(k):
    """A dark bar that comes in from below and moves to the right: (SIZE, SIZE) bool."""
    x = 190 + 8 * k
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.line(mask, (x, 285), (x + 30, SIZE), 1, 46)
    return mask.astype(bool)


def behind_bars(pictures):
    """The pictures with the bar before them."""
    out = []
    for k, picture in enumerate(pictures):
        shade = np.clip(1 - np.abs(np.arange(SIZE) - 205 - 8 * k) / 60, 0.2, 1)[None, :, None]
        out.append(np.where(bar(k)[..., None], np.uint8([40, 70, 110] * np.ones((SIZE, SIZE, 3)) * shade), picture))
    return out


def test_a_placement_is_the_similarity_of_least_squares(model):
    rng, places = np.random.default_rng(0), layout(model, OBJECT)
    landmarks = rng.normal(size=(68, 2))
    angle, factor, shift = 0.4, 3.0, np.array([20.0, -7.0])
    turn = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks[ANCHORS] = (places - shift) @ np.linalg.inv(turn).T
    np.testing.assert_allclose(placement(landmarks, places), np.column_stack([turn, shift]), atol=1e-9)
    landmarks[ANCHORS] += rng.normal(0, 0.3, (len(ANCHORS), 2))
    x, y = landmarks[ANCHORS].T
    one, none = np.ones(len(x)), np.zeros(len(x))
    system = np.concatenate([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)])
    a, b, c, d = np.linalg.lstsq(system, places.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(placement(landmarks, places), [[a, -b, c], [b, a, d]], atol=1e-9)


@pytest.mark.parametrize("factor", [0.3, 0.9, 2.0])
def test_a_cut_keeps_pixels_in_place(factor):
    """A ramp of the pixel centres' coordinates: in the view each stands where the placement says."""
    y, x = np.mgrid[:300, :400].astype(np.float32) + 0.5
    way = np.array([[factor, 0.0, -30 * factor], [0.0, factor, -20 * factor]])
    view = View((60, 50), 1.0, 0.0)
    got = cut(np.stack([x, y, x], axis=2), way, view)[5:-5, 5:-5]
    row, column = np.mgrid[:50, :60][:, 5:-5, 5:-5] + 0.5
    np.testing.assert_allclose(got[..., 0], column / factor + 30, atol=0.1)
    np.testing.assert_allclose(got[..., 1], row / factor + 20, atol=0.1)


def test_the_eyes_lie_where_the_views_have_them(model, act):
    _, track = act
    place = Placer(model, track)
    camera = to_camera(model.shape(track.identity)[model.landmarks], track.rotation[3], track.translation[3])
    eyes = project(camera, track.focal, track.principal_point)[EYES].mean(axis=0)
    for view in (OBJECT, STRIP):
        x, y = place(3, view) @ [*eyes, 1]
        assert abs(x - view.size[0] / 2) < 5 * view.scale and abs(y - view.above) < 6 * view.scale


def test_a_guided_filter():
    """It gives back what is a linear function of the guide, and a mean of means where the guide says nothing."""
    rng = np.random.default_rng(0)
    guide = rng.random((40, 50, 3)).astype(np.float32)
    mask = guide @ np.float32([0.3, -0.2, 0.5]) + 0.1
    np.testing.assert_allclose(guided(guide, mask, 4, 1e-4), mask, atol=1e-3)
    noise = rng.random((40, 50)).astype(np.float32)
    mean = cv2.blur(cv2.blur(noise, (9, 9)), (9, 9))
    np.testing.assert_allclose(guided(np.full((40, 50, 3), 0.5, np.float32), noise, 4, 0.1), mean, atol=1e-4)


def test_what_is_believed():
    face = np.zeros((64, 64), bool)
    face[10:54, 14:50] = True
    inner = cv2.erode(face.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)

    def found(rows, columns, value=0.95, remembered=0.0):
        probability = np.zeros((64, 64), np.float32)
        probability[rows, columns] = value
        return believed(probability, np.maximum(probability, remembered), face, inner)

    hand = found(np.s_[30:64], np.s_[20:30])
    assert hand[31:63, 21:29].all() and not hand[:28].any() and not hand[:, 32:].any()
    assert not found(np.s_[30:64], np.s_[20:30], 0.6).any()           # sure nowhere
    tip = np.zeros((64, 64), np.float32)
    tip[24:30, 20:30] = 0.5
    assert found(np.s_[30:64], np.s_[20:30], 0.95, tip)[24:30, 20:30].all()       # remembered beside what is seen
    assert not found(np.s_[30:64], np.s_[20:30], 0.1, 2 * tip).any()               # and nothing is seen now
    assert not found(np.s_[30:38], np.s_[26:36]).any()                # a mouth: it comes from nowhere, and is small
    assert found(np.s_[20:44], np.s_[20:40]).any()                    # large
    assert not found(np.s_[50:64], np.s_[20:24]).any()                # hardly reaches the face
    assert not found(np.s_[10:50], np.s_[10:16]).any()                # hair beside it


def test_small_holes_are_filled():
    """A hole amid a thing is covered; one that is large, open to a side or at the view's edge is what it is."""
    mask = np.zeros((40, 40), np.float32)
    mask[5:35, 5:35] = 0.9
    mask[8:10, 8:10] = 0.2                    # small
    mask[20:30, 20:30] = 0.2                  # large
    mask[5:8, 30:32] = 0.2                    # open above
    mask[36:40, 0:5] = 0.9
    mask[38:40, 2:4] = 0.2                    # at the edge
    wanted = mask.copy()
    wanted[8:10, 8:10] = 1
    np.testing.assert_array_equal(_filled(mask, 20), wanted)
    np.testing.assert_array_equal(_filled(np.zeros_like(mask), 20), np.zeros_like(mask))


def test_nothing_is_found_before_a_face_that_blinks_and_smiles(model, act, detector):
    pictures, track = act
    occlusion = Occlusion(model, track, detector)
    assert all(occlusion.keep(picture, k) == (None, None) for k, picture in enumerate(pictures))
    assert not wears_glasses(model, track, dict(enumerate(pictures)), detector)


def test_a_bar_is_found_and_the_memory_goes_on(model, act, detector):
    """Most of the bar and little else; a second Occlusion that goes on from the state finds the same."""
    pictures, track = act
    occlusion, other = (Occlusion(model, track, detector) for _ in range(2))
    for k, picture in enumerate(behind_bars(pictures)):
        if k == 4:
            other.restore(occlusion.state())
        free, rim = occlusion.keep(picture, k)
        assert rim is None and free.shape == (SIZE, SIZE) and free.dtype == np.float32
        assert free.min() >= 0 and free.max() <= 1
        where = bar(k)
        where[400:] = False                                           # below the face
        assert (free[where] < 0.5).mean() > 0.85
        assert ((free < 0.5) & ~cv2.dilate(bar(k).astype(np.uint8), np.ones((9, 9))).astype(bool)).mean() < 0.02
        if k >= 4:
            np.testing.assert_array_equal(other.keep(picture, k)[0], free)


@pytest.fixture(scope="module")
def barred(act, tmp_path_factory):
    """clip.mp4 of the act behind bars, and what to give compositing.replace for it."""
    folder, (pictures, track) = tmp_path_factory.mktemp("barred"), act
    clip = clips.write_clip(folder / "clip.mp4", behind_bars(pictures))
    save_track(replace(track, source_sha256=file_hash(clip)), folder / "t.npz")
    return clip, (clip, "--virtual", 3, "--track", folder / "t.npz", "--crf", 4)


def run(*argv):
    """The exit status of compositing.replace."""
    with pytest.raises(SystemExit) as caught:
        commands.run(compositing.replace.main, [str(a) for a in argv])
    return caught.value.code


def shares_of(out):
    """Share of the face that was kept, frame by frame, and the settings, from the report."""
    report = json.loads(out.with_name(out.name + ".report.json").read_text())
    return [row["covered"] for row in report["per_frame"]], report["settings"]


def test_a_run_that_was_stopped_finds_the_same(barred, tmp_path, monkeypatch):
    monkeypatch.setattr(compositing.pieces, "PIECE", 3)
    push, out, whole = compositing.replace.Compositor.push, tmp_path / "out.mp4", tmp_path / "whole.mp4"
    argv = (*barred[1], "--texture", "delta", "-o")
    assert run(*argv, whole) == 0

    def stopped(self, frame):
        if frame.index == 7:
            raise KeyboardInterrupt
        yield from push(self, frame)

    monkeypatch.setattr(compositing.replace.Compositor, "push", stopped)
    assert run(*argv, out) == 130 and not out.exists()
    monkeypatch.setattr(compositing.replace.Compositor, "push", push)
    assert run(*argv, out) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert shares_of(out) == shares_of(whole) and min(shares_of(out)[0]) > 0.02


def test_under_a_bar_the_result_is_the_source(barred, tmp_path):
    clip, argv = barred
    before, change = clips.decoded(clip), {}
    for mode in ("auto", "off"):
        out = tmp_path / f"{mode}.mp4"
        assert run(*argv, "--texture", "static", "-o", out, "--occlusion", mode) == 0
        shares, settings = shares_of(out)
        assert settings["occlusion"] == mode
        assert (min(shares) > 0.02 and max(shares) < 0.4) if mode == "auto" else not any(shares)
        change[mode] = [np.abs(a.astype(float) - b).mean(axis=2) for a, b in zip(clips.decoded(out), before)]
    for k in range(COUNT):
        middle = cv2.erode(bar(k).astype(np.uint8), np.ones((15, 15))).astype(bool)
        middle[380:] = False
        assert change["auto"][k][middle].mean() < 2.5 < 8 < change["off"][k][middle].mean()
    assert np.mean(change["auto"][0][200:280, 200:300]) > 5            # the face itself is replaced


def with_glasses(picture, way):
    """A picture with drawn glasses before its eyes, (SIZE, SIZE, 3) uint8, and where their frame is, (SIZE, SIZE)."""
    eyes = np.array([[STRIP.size[0] / 2 + side * 32 * STRIP.scale, STRIP.above] for side in (-1, 1)])
    layer, mask, _ = draw_glasses(np.random.default_rng(8), STRIP.size[::-1], STRIP.scale, eyes)
    back = cv2.invertAffineTransform(way)
    alpha, rgb, frame = (cv2.warpAffine(a, back, (SIZE, SIZE), borderMode=cv2.BORDER_CONSTANT)
                         for a in (layer.alpha, layer.rgb, mask))
    return np.uint8(picture * (1 - alpha[..., None]) + 255 * rgb * alpha[..., None]), frame > 0.5


def test_glasses_are_known_and_stay(model, act, detector):
    pictures, track = act
    place = Placer(model, track)
    worn, true = zip(*(with_glasses(picture, place(k, STRIP)) for k, picture in enumerate(pictures)))
    assert wears_glasses(model, track, dict(enumerate(worn)), detector)
    occlusion = Occlusion(model, track, detector, glasses=True)
    for k, picture in enumerate(worn):
        _, free = occlusion.keep(picture, k)
        near = cv2.dilate(true[k].astype(np.uint8), np.ones((5, 5))).astype(bool)
        assert (free[true[k]] < 0.5).mean() > 0.7 and ((free < 0.5) & ~near).mean() < 0.003


def test_glasses_come_off_a_target(model, act, detector):
    """The texture of a photo with glasses is nearly that of the same photo without; without a detector they stay."""
    pictures, track = act
    photo = cut_track(track, Span(0, 1))
    worn, _ = with_glasses(pictures[0], Placer(model, track)(0, STRIP))
    texture = lambda picture, things=None: target_from_photo(model, picture, photo, 256, things).texture.rgb
    bare, bare_seen = texture(pictures[0]), texture(pictures[0], detector)
    np.testing.assert_array_equal(bare, bare_seen)                     # nothing to take off
    off, on = np.abs(texture(worn, detector) - bare), np.abs(texture(worn) - bare)
    frame = on.max(axis=2) > 0.15
    assert frame.sum() > 200 and off[frame].mean() < 0.4 * on[frame].mean()


@pytest.mark.parametrize("worn", [False, True])
def test_reflections_go_where_glasses_are_worn_and_pores_come_last(model, act, detector, monkeypatch, worn):
    pictures, track = act
    names, done = ["without_hair", "without_shine", "evenly_lit", "evenly_coloured", "with_pores"], []
    for name in ["without_reflections", *names]:
        monkeypatch.setattr(targets, name, lambda _, texture, __, name=name: done.append(name) or texture)
    monkeypatch.setattr(targets, "wears_glasses", lambda *_: worn)
    target_from_photo(model, pictures[0], cut_track(track, Span(0, 1)), 256, detector)
    assert done == (names if not worn else ["without_reflections", *names])


def test_drawn_things():
    """Hands have a colour wherever they are; the same seed draws the same example, in the network's shape."""
    layer = draw_hand(np.random.default_rng(2), (128, 128), 0.56, np.array([64.0, 50.0]), np.array([0.7, 0.5, 0.4]))
    assert 0.02 < (layer.alpha > 0.5).mean() < 0.7 and layer.rgb[layer.alpha > 0.5].mean() > 0.1
    assert layer.shadow.min() >= 0.4 and layer.shadow.max() <= 1
    bases = np.random.default_rng(1).integers(0, 255, (2, *BASE.size[::-1], 3), np.uint8)
    for name, (view, _) in NETWORKS.items():
        shown = [sample(np.random.default_rng(5), bases, name) for _ in range(2)]
        for picture, mask in shown:
            assert picture.shape == (*view.size[::-1], 3) and mask.shape == view.size[::-1]
        np.testing.assert_array_equal(shown[0][0], shown[1][0])
        np.testing.assert_array_equal(shown[0][1], shown[1][1])


def test_training_writes_weights_that_work(tmp_path):
    """A few steps; what is read back sees in each view, in half precision."""
    bases = np.random.default_rng(1).integers(0, 255, (2, *BASE.size[::-1], 3), np.uint8)
    networks = {name: train(name, bases, np.random.default_rng(0), 16, 2, show=False) for name in NETWORKS}
    write(tmp_path / "w.safetensors", networks, bases, 0)
    detector = OcclusionDetector(tmp_path / "w.safetensors")
    for name, (view, settings) in NETWORKS.items():
        picture = bases[0, :view.size[1], :view.size[0]]
        seen = detector(name, picture)
        assert seen.shape == (view.size[1] // settings["detail"], view.size[0] // settings["detail"])
        with torch.inference_mode():
            exact = networks[name](torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]).sigmoid()
        np.testing.assert_allclose(seen, exact[0, 0].numpy(), atol=0.02)


def test_one_network_can_be_trained_alone(tmp_path):
    """As a user would; the other one is what ships, to the bit, and the new one is not."""
    out = tmp_path / "w.safetensors"
    main([str(assets.path("demo/nobody.png")), "--only", "object", "--count", "16", "--passes", "1", "-o", str(out)])
    new, ships = (OcclusionDetector(path).networks for path in (out, None))
    equal = lambda a, b: all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    assert {name: equal(new[name], ships[name]) for name in NETWORKS} == {"object": False, "glasses": True}


def test_training_goes_on_from_weights():
    """A step from weights that know the examples is worth more than one from none."""
    bases = np.random.default_rng(1).integers(0, 255, (2, *BASE.size[::-1], 3), np.uint8)
    ships = OcclusionDetector().networks["glasses"]
    train_some = lambda start: train("glasses", bases, np.random.default_rng(0), 16, 1, show=False, start=start)
    far = lambda network: float(sum((a - b).detach().norm() for a, b in zip(network.parameters(), ships.parameters())))
    assert far(train_some(ships)) < 0.1 * far(train_some(None))


@pytest.mark.parametrize(("options", "words"), [
    ([], "no face found"), (["--start", "wall.png"], "wall.png: no weights of what lies before faces"),
    (["--start", "small.safetensors"], "small.safetensors: its network for object is another one than is trained"),
    (["--start", "small.safetensors", "--only", "glasses"], "small.safetensors: its network for glasses is"),
    (["--start", "nowhere.safetensors"], "nowhere.safetensors: no weights of what lies before faces"),
    (["--skins", "x"], "--skins and --ict: give both, or neither")])
def test_training_that_cannot_be(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("wall.png", np.full((64, 64, 3), 128, np.uint8))
    small = OcclusionNetwork(OBJECT.size, (4, 4), 2)
    write(tmp_path / "small.safetensors", {"object": small}, [], 0)
    with pytest.raises(InputError, match=words):
        main(["wall.png", *options, "-o", "w.safetensors"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.safetensors", "wall.png"]
