"""The animate command as people run it, and what its parts promise: the photo at rest, the hold, the expressions."""
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest

import assets
import compositing.animate
import fitting.fit
import fitting.track
from compositing.animate import PHOTO_COLOUR, Hold, PhotoFrame, even_photo, photo_planes
from compositing.lids import lid_gaps
from compositing.puppet import Puppet, _carried, _filled
from compositing.relative import MAX_TURN, relative_expression, turns
from compositing.target import target_from_photo
from compositing.video_writer import VideoWriter
from facemodel.camera import axis_angle, rotation_matrix
from fitting.detection import FaceDetector
from fitting.images import read_image
from fitting.trackfile import load_track
from fitting.video_reader import VideoReader
from tests import clips
from tests.quick import quick_fits
from tests.test_replace import error_of, report_of, run, save_photo

COUNT, GAP = 7, range(3, 5)
HEIGHT = 320


@pytest.fixture(scope="module", autouse=True)
def quick():
    with quick_fits(compositing.animate):
        yield


@pytest.fixture(scope="module")
def portrait(tmp_path_factory):
    """The embedded portrait with room below its chin, a file."""
    picture = read_image(assets.path("demo/nobody.png"))
    return save_photo(tmp_path_factory.mktemp("portrait") / "nobody.png",
                      cv2.copyMakeBorder(picture, 0, 200, 0, 0, cv2.BORDER_REPLICATE))


@pytest.fixture(scope="module")
def first(tmp_path_factory, portrait):
    """The folder of a first run, lossless: clip.mp4, in which the face is gone for a while, track.npz, out.mp4."""
    folder = tmp_path_factory.mktemp("first")
    clips.cut_with_gap(folder / "clip.mp4", COUNT, GAP, rate=clips.NTSC, sound=True)
    clip, out, track = (folder / name for name in ("clip.mp4", "out.mp4", "track.npz"))
    assert animate(clip, portrait, "-o", out, "--track", track, "--crf", 0) == 0
    return folder


@pytest.fixture(scope="module")
def fitted(model, portrait):
    """The photo at HEIGHT, (H, W, 3) uint8, and its fit."""
    photo = even_photo(read_image(portrait), HEIGHT)
    return photo, fitting.fit.fit_image(model, photo, FaceDetector())[0]


def animate(clip, target, *options, texture="static"):
    return run(compositing.animate.main, clip, target, "--texture", texture, "--height", HEIGHT, *options)


def animate_error(capsys, *argv):
    return error_of(capsys, compositing.animate.main, *argv, "--texture", "static")


def pictures(path):
    with VideoReader(path) as reader:
        return [frame.rgb for frame in reader]


def plain_encode(path, source, photo):
    """The photo as a still video with the source's frames, lossless as `first`."""
    with VideoReader(source) as reader:
        info = replace(reader.info, width=photo.shape[1], height=photo.shape[0], colour=PHOTO_COLOUR)
        with VideoWriter(path, info, crf=0) as writer:
            for frame in reader:
                writer.write(PhotoFrame.at(frame, photo_planes(photo)))
    return pictures(path)


def test_times_and_sound_are_the_sources(first):
    source, out = first / "clip.mp4", first / "out.mp4"
    assert clips.video_times(out) == clips.video_times(source) and len(clips.video_times(out)) == COUNT
    assert clips.sound_packets(out) == clips.sound_packets(source) and len(clips.sound_packets(out)) > 5
    with av.open(str(out)) as container:
        assert container.streams.video[0].average_rate == clips.NTSC
        assert container.metadata["synthetic"] == "true"
        assert container.metadata["synthetic_kind"] == "animated photo"
        assert "SYNTHETIC" in container.metadata["comment"]


def test_what_surrounds_the_face_is_the_photo(first, fitted, tmp_path):
    photo, fit = fitted
    still = plain_encode(tmp_path / "still.mp4", first / "clip.mp4", photo)
    shown = pictures(first / "out.mp4")
    assert len(shown) == COUNT and shown[0].shape == photo.shape
    changed = np.any([(a != b).any(axis=2) for a, b in zip(shown, still)], axis=0)
    low, high = fit.landmarks[0].min(axis=0), fit.landmarks[0].max(axis=0)
    middle = np.s_[int(low[1]):int(high[1]), int(low[0]):int(high[0])]
    assert changed[middle].mean() > 0.2
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    margin = 0.6 * (high - low)
    assert columns[0] >= low[0] - margin[0] and columns[-1] <= high[0] + margin[0]
    assert rows[0] >= low[1] - 1.2 * margin[1] and rows[-1] <= high[1] + margin[1]
    assert changed.mean() < 0.6


def test_frames_without_a_face_hold_the_last_expression(first):
    report, shown = report_of(first / "out.mp4"), pictures(first / "out.mp4")
    held = [row["frame"] for row in report["per_frame"] if not row["animated"]]
    assert set(GAP) <= set(held) and report["held"][0][0] == GAP[0]
    assert report["frames"] == COUNT and report["animated"] == COUNT - len(held)
    for t in GAP:
        assert np.array_equal(shown[t], shown[GAP[0] - 1])
    assert not np.array_equal(shown[0], shown[2])


def test_delta_and_pose_and_a_second_run(first, portrait, tmp_path):
    clip, track = first / "clip.mp4", first / "track.npz"
    assert animate(clip, portrait, "-o", tmp_path / "again.mp4", "--track", track, "--crf", 0) == 0
    assert (tmp_path / "again.mp4").read_bytes() == (first / "out.mp4").read_bytes()
    for name, options, texture in (("pose", ["--pose"], "static"), ("delta", [], "delta")):
        out = tmp_path / f"{name}.mp4"
        assert animate(clip, portrait, "-o", out, "--track", track, "--crf", 0, *options, texture=texture) == 0
        assert report_of(out)["settings"]["texture"] == texture
        assert np.abs(pictures(out)[2].astype(int) - pictures(first / "out.mp4")[2]).max() > 3


def test_bad_input_gets_one_line(capsys, first, portrait, tmp_path):
    clip, out = first / "clip.mp4", tmp_path / "out.mp4"
    known = ["-o", out, "--track", first / "track.npz"]
    assert "does not exist" in animate_error(capsys, clip, tmp_path / "no.jpg", *known)
    assert "is a photo" in animate_error(capsys, portrait, portrait, "-o", out)
    assert "is a video" in animate_error(capsys, clip, clip, *known)
    none = save_photo(tmp_path / "none.png", clips.grey())
    assert "none.png" in animate_error(capsys, clip, none, *known)
    assert "--target-face 3" in animate_error(capsys, clip, portrait, *known, "--target-face", 3)
    assert "another clip" in animate_error(capsys, clips.cut(tmp_path / "c.mp4", 2), portrait, *known)
    assert "--height 10" in animate_error(capsys, clip, portrait, *known, "--height", 10)
    assert "--crf 70" in animate_error(capsys, clip, portrait, *known, "--crf", 70)
    assert "suffix" in animate_error(capsys, clip, portrait, "-o", tmp_path / "out.gif")
    assert "one of the inputs" in animate_error(capsys, clip, portrait, "-o", clip)
    assert "no such folder" in animate_error(capsys, clip, portrait, "-o", tmp_path / "no" / "out.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.mp4", "none.png"]


def test_a_photo_of_odd_size_is_shown_whole_but_for_a_line():
    assert even_photo(np.zeros((101, 67, 3), np.uint8)).shape == (100, 66, 3)
    assert even_photo(np.zeros((1350, 1013, 3), np.uint8)).shape == (1080, 810, 3)


@pytest.mark.parametrize("posed", [False, True])
def test_at_rest_the_puppet_is_the_photo(model, fitted, posed):
    photo, fit = fitted
    puppet = Puppet(model, photo, fit, target_from_photo(model, photo, fit, 256), posed)
    drawn = puppet.draw(fit.expression[0], puppet.rest.rgb, np.zeros(3) if posed else None)
    left, top, right, bottom = drawn.window
    assert np.abs(drawn.rgb - photo[top:bottom, left:right] / 255).max() < 0.02
    assert drawn.changed.mean() < 0.01


def test_the_neck_follows_the_chin(model, fitted):
    """The chin's edge moves down, and nothing of it stays where it was; no pixel is left undrawn."""
    photo, fit = fitted
    puppet = Puppet(model, photo, fit, target_from_photo(model, photo, fit, 256))
    expression = fit.expression[0].copy()
    expression[model.expression_names.index("jawOpen")] = 0.8
    drawn = puppet.draw(expression, puppet.rest.rgb)
    left, top, right, bottom = drawn.window
    before, after = ((x[..., 1] * 255).astype(np.uint8) for x in (photo[top:bottom, left:right] / 255, drawn.rgb))
    flow = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 25, 5, 7, 1.5, 0)
    chin = fit.landmarks[0][8] - (left, top)
    moved = flow[int(chin[1]) - 6:int(chin[1]), int(chin[0]) - 4:int(chin[0]) + 5, 1].mean()
    assert moved > 1.5
    assert not drawn.changed[-1].any() and np.isfinite(drawn.rgb).all()


def test_rest_maps_to_rest_and_closed_eyes_close(model, first, fitted):
    track, (_, fit) = load_track(first / "track.npz"), fitted
    names = model.expression_names
    smile, blink = names.index("mouthSmileLeft"), [names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]
    expression = np.zeros((9, model.expression_count), np.float32)
    expression[7, smile] = 1
    expression[8, blink] = 0.7
    given = replace(track, expression=expression, status=np.array(["ok"] * 9), rotation=np.zeros((9, 3), np.float32))
    own = np.zeros(model.expression_count, np.float32)
    own[smile] = 0.5
    shown = relative_expression(model, given, replace(fit, expression=own[None]))
    np.testing.assert_allclose(shown[:7], np.tile(own, (7, 1)), atol=1e-6)
    assert shown[7, smile] == pytest.approx(1) and shown.min() >= 0 and shown.max() <= 1
    assert (lid_gaps(model, fit.identity, shown[8:]) < 1).all()
    assert (lid_gaps(model, fit.identity, shown[:1]) > 3).all()


def test_turns_are_limited_and_small_ones_are_not(model, first):
    track = load_track(first / "track.npz")
    angles = np.radians([0, 0, 0, 0, 0, 0, 0.5, 40])
    rotation = np.outer(angles, [0, 1, 0]).astype(np.float32)
    n = len(angles)
    given = replace(track, rotation=rotation, expression=np.zeros((n, model.expression_count), np.float32),
                    status=np.array(["ok"] * n))
    degrees = np.degrees(np.linalg.norm(turns(model, given), axis=1))
    np.testing.assert_allclose(degrees[:7], [0, 0, 0, 0, 0, 0, 0.5], atol=0.01)
    assert 0.9 * MAX_TURN < degrees[7] <= MAX_TURN
    turned = axis_angle(rotation_matrix(turns(model, given)[7]))
    assert turned[1] > 0 and abs(turned[0]) < 1e-6


def test_hold_fades_over_as_many_frames_as_were_missed():
    hold, one = Hold((np.zeros(1),)), (np.ones(1),)
    shown = [float(hold(state)[0][0]) for state in (None, None, None, one, one, one, one, None)]
    assert shown[:3] == [0, 0, 0] and shown[6:] == [1, 1]
    assert 0 < shown[3] < shown[4] == 0.5 < shown[5] < 1


def test_a_warp_is_carried_outwards_smoothly():
    value, weight = np.zeros((90, 120, 2), np.float32), np.zeros((90, 120), np.float32)
    value[30:60, 40:80], weight[30:60, 40:80] = 4, 1
    out = _carried(value, weight)
    assert np.abs(out[35:55, 45:75] - 4).max() < 0.2
    assert np.abs(np.diff(out, axis=0)).max() < 0.8 and out.min() > -1e-3


def test_slits_take_the_nearest_values():
    mask = np.ones((30, 30), bool)
    mask[14:16, 5:25] = False
    values = np.repeat(np.arange(30, dtype=np.float32)[:, None, None], 30, axis=1) * mask[..., None]
    assert _filled(values, mask).all()
    np.testing.assert_array_equal(values[13:17, 10, 0], [13, 13, 16, 16])
