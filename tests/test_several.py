"""Several faces of one video, each with a target of its own."""
import json

import numpy as np
import pytest

import compositing.pieces
import compositing.replace
from compositing.pairs import Pair, check_faces, parse_pairs
from compositing.report import INCOMPLETE, exit_status, summary
from compositing.several import Faces, composite_over, hidden_by
from facemodel import commands
from facemodel.errors import InputError
from fitting.detection import FaceDetector
from fitting.trackfile import Track
from fitting.video_reader import Span
from tests import clips
from tests.quick import quick_fits

COUNT, MIDDLE = 8, 360


@pytest.fixture(scope="module", autouse=True)
def quick():
    with quick_fits(compositing.replace):
        yield


def run(*argv):
    """The exit status of compositing.replace, lossless."""
    with pytest.raises(SystemExit) as caught:
        commands.run(compositing.replace.main, [str(a) for a in ("--texture", "static", "--crf", "0", *argv)])
    return caught.value.code


def test_each_face_gets_its_own_target(capsys, tmp_path, monkeypatch):
    """The picture is, half by half, that of a run with this face alone; stopped and gone on with it is the same."""
    later = clips.demo_frames(COUNT + 12)[12:]
    pictures = [clips.side_by_side(a, b[:, ::-1][:, 40:]) for a, b in zip(clips.demo_frames(COUNT), later)]
    clip, work, out = clips.write_clip(tmp_path / "clip.mp4", pictures), tmp_path / "work", tmp_path / "out.mp4"
    monkeypatch.setattr(compositing.pieces, "PIECE", 3)
    pairs = [clip, "--pair", "2=virtual:5", "--pair", "1=virtual:3", "--work", work, "-o"]
    assert run(*pairs, out, "--debug", tmp_path / "d.mp4", "--compare", tmp_path / "c.mp4") == 0
    printed = capsys.readouterr().out
    for number, seed in ((1, 3), (2, 5)):
        assert f"face {number}, virtual face, seed {seed}: {COUNT} of {COUNT} frames replaced" in printed
    both = clips.decoded(out)
    assert len(both) == COUNT and len(clips.decoded(tmp_path / "d.mp4")) == COUNT
    before = clips.decoded(clip)
    for number, seed, half in ((1, 3, np.s_[:, :MIDDLE]), (2, 5, np.s_[:, MIDDLE:])):
        alone = tmp_path / f"{number}.mp4"
        assert run(clip, "--face", number, "--virtual", seed, "--work", work, "-o", alone) == 0
        for two, one, old in zip(both, clips.decoded(alone), before, strict=True):
            assert np.abs(two[half].astype(int) - one[half]).max() <= 3        # a step of YUV
            assert np.abs(two[half].astype(int) - old[half]).mean() > 1

    report = json.loads((tmp_path / "out.mp4.report.json").read_text())
    assert [f["face"] for f in report["faces"]] == ["1", "2"] and report["replaced"] == COUNT
    assert report["inputs"]["target_2"] == "virtual face, seed 5"
    for face in report["faces"]:
        assert face["replaced"] == COUNT and [row["frame"] for row in face["per_frame"]] == list(range(COUNT))

    push = compositing.replace.Compositor.push

    def interrupted(self, frame):
        if frame.index == 7:
            raise KeyboardInterrupt
        yield from push(self, frame)

    again = tmp_path / "again.mp4"
    monkeypatch.setattr(compositing.replace.Compositor, "push", interrupted)
    assert run(*pairs, again) == 130
    monkeypatch.setattr(compositing.replace.Compositor, "push", push)
    monkeypatch.setattr(compositing.replace, "track_clip", None)
    assert run(*pairs, again) == 0
    assert again.read_bytes() == out.read_bytes()


def test_pairs_that_make_no_sense(capsys, tmp_path):
    """One line, before any work."""
    clip, photo = clips.two_faces(tmp_path / "two.mp4", 2), clips.assets.path("demo/nobody.png")
    for options, words in (
            (["--pair", "x=a.jpg"], "--pair x=a.jpg"), (["--pair", "0=virtual:1"], "--pair 0="),
            (["--pair", "1"], "--pair 1:"), (["--pair", "1=no.jpg"], "no.jpg does not exist"),
            (["--pair", f"1={photo}", "--pair", "1=virtual:2"], "face 1 has got nobody already"),
            (["--pair", "1=virtual:x"], "whole number"), (["--pair", "1=virtual:1", photo], "leave TARGET out"),
            (["--pair", "1=virtual:1", "--virtual", "1"], "leave --virtual out"),
            (["--pair", "1=virtual:1", "--face", "2"], "leave --face out"),
            (["--pair", "1=virtual:1", "--pair", "2=virtual:2", "--track", tmp_path / "t.npz"], "--work DIR"),
            (["--pair", "1=virtual:1", "--pair", "3=virtual:2"], "there are 2 faces; give 1 to 2")):
        assert run(clip, "-o", tmp_path / "out.mp4", *options) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error
    assert [p.name for p in tmp_path.iterdir()] == ["two.mp4"]


def test_pairs_in_order():
    photo = clips.assets.path("demo/nobody.png")
    pairs = parse_pairs(["10=virtual:4", f"2={photo}"])
    assert pairs == [Pair("2", target=photo), Pair("10", virtual=4)]
    assert [p.name for p in pairs] == ["nobody", "virtual4"]
    assert parse_pairs([f"1={photo}", f"2={photo}"])[1].target == photo


def test_numbers_are_those_of_the_first_frame_with_a_face(tmp_path):
    clip = clips.cut(tmp_path / "c.mp4", 12, change=lambda t, p: clips.grey() if t < 7 else p)
    detector = FaceDetector()
    check_faces(clip, detector, [Pair("1")])
    check_faces(clip, detector, [Pair("2")], Span(0, 5))                  # no face: following it says so
    with pytest.raises(InputError, match="c.mp4: --face 2: there is 1 face"):
        check_faces(clip, detector, [Pair("1"), Pair("2")])


def track_of(distances):
    """A Track of frames 10, 11, ... without landmarks, at some distances."""
    count = len(distances)
    fields = dict.fromkeys(Track.__dataclass_fields__)
    fields |= {"frame_index": 10 + np.arange(count), "focal": 2.0, "landmarks": np.full((count, 68, 2), np.nan),
               "translation": np.array([[0, 0, d] for d in distances], float)}
    return Track(**fields)


class Painter:
    """A compositor that paints columns `where` in one level, `wait` frames late, and passes the frames in `lost`."""

    def __init__(self, level, where, wait, lost=()):
        self._level, self._where, self._wait, self._lost, self._frames = level, where, wait, lost, []
        self.inspection, self.covered = None, 0.0

    def push(self, frame):
        self._frames.append(frame)
        yield from self._out(self._wait)

    def settle(self):
        yield from self._out(0)

    def _out(self, left):
        while len(self._frames) > left:
            frame = self._frames.pop(0)
            if frame.index in self._lost:
                self.inspection, self.covered = None, 0.0
                yield frame, None, None
                continue
            alpha = np.zeros((4, 6), np.float32)
            alpha[1:3, self._where] = 0.5
            rgb = frame.rgb / np.float32(255)
            self.inspection, self.covered = f"{self._level} {frame.index}", frame.index / 100
            yield frame, rgb + alpha[..., None] * (self._level - rgb), alpha


class Picture:
    """A frame of one grey."""

    def __init__(self, index):
        self.index, self.rgb = index, np.full((4, 6, 3), 51, np.uint8)          # 0.2


def test_faces_that_are_ready_at_different_times_meet_in_their_frames():
    painters = [Painter(1.0, slice(0, 4), 1, lost=(11, 12)), Painter(0.0, slice(2, 6), 3, lost=(12,))]
    faces = Faces(painters, [track_of([500] * 6), track_of([400, 600] * 3)])
    got = {}
    for index in range(10, 16):
        for frame, rgb, alpha in faces.push(Picture(index)):
            got[frame.index] = rgb, alpha, faces.shown.tolist(), faces.inspection
            assert faces.covered.tolist() == [shown * frame.index / 100 for shown in faces.shown]
    assert list(got) == [10, 11, 12]
    for frame, rgb, alpha in faces.settle():
        got[frame.index] = rgb, alpha, faces.shown.tolist(), faces.inspection
    assert list(got) == list(range(10, 16))
    assert got[12][:2] == (None, None) and got[12][2:] == ([False, False], [])
    assert got[11][2:] == ([False, True], ["0.0 11"])
    assert got[10][2:] == ([True, True], ["1.0 10", "0.0 10"])
    row = lambda t: got[t][0][1, :, 0]
    np.testing.assert_allclose(row(10), [0.6, 0.6, 0.3, 0.3, 0.1, 0.1], atol=1e-6)       # the second one is nearer
    np.testing.assert_allclose(row(13), [0.6, 0.6, 0.55, 0.55, 0.1, 0.1], atol=1e-6)     # the first one is
    np.testing.assert_allclose(row(11), [0.2, 0.2, 0.1, 0.1, 0.1, 0.1], atol=1e-6)
    np.testing.assert_allclose(got[10][1][1], [0.5, 0.5, 0.75, 0.75, 0.5, 0.5])
    assert (got[10][1][[0, 3]] == 0).all()


def test_a_nearer_face_hides_the_other():
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    marks = np.stack([50 + 12 * np.cos(angles), 50 + 12 * np.sin(angles)], axis=1)
    box = np.s_[20:80, 40:100]
    hidden = hidden_by([marks, np.full((68, 2), np.nan)], box, (60, 60))
    assert hidden[30, 10] > 0.99 and hidden[30, 50] == 0 and hidden_by([], box, (60, 60)).max() == 0
    source = np.full((100, 100, 3), 0.5, np.float32)
    out, whole = source.copy(), np.zeros((100, 100), np.float32)
    composite_over(out, whole, source, box, np.ones((60, 60, 3), np.float32), np.ones((60, 60), np.float32), [marks])
    assert out[50, 50] == pytest.approx(0.5, abs=0.01) and out[50, 90] == pytest.approx(1)
    assert whole[50, 50] < 0.01 and whole[50, 90] == 1 and not whole[:20].any()


def test_the_status_is_that_of_the_worst_face():
    face = {"face": "1", "target": "a.jpg", "replaced": 20, "passed_through": []}
    report = {"frames": 20, "outside_span": 0, "replaced": 20, "passed_through": [], "remarks": [],
              "milliseconds_per_frame": {}, "peak_memory_mb": None, "faces": [face, {**face, "face": "2"}]}
    assert exit_status(report) == 0
    report["faces"][1] |= {"replaced": 17, "passed_through": [[3, 5]]}
    assert exit_status(report) == INCOMPLETE
    assert "face 2, a.jpg: 17 of 20 frames replaced, 3 passed through (frames 3-5)" in summary(report, "out.mp4")
