"""compositing.replace as a tool to rely on: exit status, spans, views, stopping and going on.

The clip is tracked once; textures are 'static' or 'delta', which need no weights.
"""
import json
from dataclasses import replace

import numpy as np
import pytest

import compositing.pieces
import compositing.replace
from compositing.video_writer import VideoWriter
from facemodel import commands
from fitting.trackfile import load_track, save_track
from tests import clips
from tests.quick import quick_fits

COUNT = 16


@pytest.fixture(scope="module", autouse=True)
def quick():
    with quick_fits(compositing.replace):
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """An NTSC clip with sound."""
    folder = tmp_path_factory.mktemp("clip")
    return clips.cut(folder / "clip.mp4", COUNT, crop=(480, 360), rate=clips.NTSC, sound=True)


@pytest.fixture(scope="module")
def track(model, clip):
    """The clip's TRACK.npz."""
    path = clip.with_suffix(".npz")
    save_track(compositing.replace.track_clip(model, clip, compositing.replace.FaceDetector(), progress=False).track,
               path)
    return path


def run(*argv):
    """The exit status of compositing.replace."""
    with pytest.raises(SystemExit) as caught:
        commands.run(compositing.replace.main, [str(a) for a in ("--texture", "static", "--virtual", 3, *argv)])
    return caught.value.code


def report_of(path):
    return json.loads(path.with_name(path.name + ".report.json").read_text())


@pytest.mark.parametrize(("lost", "status"), [((4,), 0), ((4, 9), 3)])
def test_status_3_when_many_frames_are_passed_through(capsys, clip, track, tmp_path, lost, status):
    known = load_track(track)
    what = known.status.copy()
    what[list(lost)] = "lost"
    save_track(replace(known, status=what), tmp_path / "t.npz")
    assert run(clip, "--track", tmp_path / "t.npz", "-o", tmp_path / "out.mp4") == status
    printed = capsys.readouterr().out
    assert f"{len(lost)} passed through (frames {', '.join(map(str, lost))})" in printed
    assert len(clips.decoded(tmp_path / "out.mp4")) == COUNT


def test_a_span_is_tracked_and_replaced_and_nothing_else(capsys, clip, tmp_path):
    """Frames 4 to 9; the others come through the encoder as they do without any face."""
    out, t = tmp_path / "out.mp4", tmp_path / "t.npz"
    assert run(clip, "-o", out, "--track", t, "--crf", 4, "--start", "4f", "--end", "0.32") == 0
    assert "6 of 6 frames replaced, 0 passed through, 10 outside the span unchanged" in capsys.readouterr().out
    assert load_track(t).frame_index.tolist() == list(range(4, 10))
    report = report_of(out)
    assert report["span"] == [4, 10] and report["frames"] == COUNT and report["passed_through"] == []
    assert clips.video_times(out) == clips.video_times(clip)
    assert clips.sound_packets(out) == clips.sound_packets(clip)
    before, after = clips.decoded(clip), clips.decoded(out)
    for k in range(COUNT):
        change = np.abs(before[k].astype(int) - after[k]).mean()
        assert change > 1.5 if 4 <= k < 10 else change < 0.8, (k, change)
    assert run(clip, "-o", out, "--track", t, "--start", "3f") == 1
    assert "holds frames 4-9 only" in capsys.readouterr().err
    assert run(clip, "-o", out, "--track", t, "--start", "5f", "--end", "8f") == 0
    assert report_of(out)["span"] == [5, 8]


def test_spans_that_make_no_sense(capsys, clip, tmp_path):
    for options, words in ((["--start", "9"], "0.50 s"), (["--end", "x"], "--end x"), (["--start", "900f"], "900"),
                           (["--start", "5f", "--end", "5f"], "--end 5f")):
        assert run(clip, "-o", tmp_path / "out.mp4", *options) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("error: ") == 1
    assert not list(tmp_path.iterdir())


def test_views(capsys, clip, track, tmp_path):
    """Both views show every frame at its time; their panels show what they say; the result is what it is without."""
    known = load_track(track)
    what = known.status.copy()
    what[2] = "lost"
    save_track(replace(known, status=what), tmp_path / "t.npz")
    common = [clip, "--track", tmp_path / "t.npz", "--start", "1f", "--end", "9f", "-o"]
    assert run(*common, tmp_path / "plain.mp4") == 3
    assert run(*common, tmp_path / "out.mp4", "--compare", tmp_path / "c.mp4", "--debug", tmp_path / "d.mp4") == 3
    assert "wrote" in capsys.readouterr().out
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "plain.mp4").read_bytes()
    assert not list(tmp_path.glob(".*"))
    source, result = clips.decoded(clip), clips.decoded(tmp_path / "out.mp4")
    for name, width in (("c.mp4", 2 * 480), ("d.mp4", 4 * 480 + 360)):
        shown, times = clips.decoded(tmp_path / name), clips.video_times(tmp_path / name)
        assert len(shown) == COUNT and shown[0].shape == (360, width, 3)
        assert np.allclose(np.float64(times), np.float64(clips.video_times(clip)), atol=0.001)
        for t in (0, 2, 5):
            below = np.s_[40:]                                              # the words
            assert np.abs(shown[t][:, :480][below].astype(int) - source[t][below]).mean() < 3
            assert np.abs(shown[t][:, -480:][below].astype(int) - result[t][below]).mean() < 3
    for t, made in ((0, False), (2, False), (5, True)):
        texture, mesh = shown[t][40:, 960:1320], shown[t][40:, 480:960]
        assert (texture.std() > 10) == made
        assert (np.abs(mesh.astype(int) - source[t][40:]).mean() > 3) == made


def test_views_that_cannot_be_written(capsys, clip, tmp_path):
    out = tmp_path / "out.mp4"
    for options, words in ((["--compare", clip], "one of the inputs"), (["--debug", out], "result"),
                           (["--compare", tmp_path / "c.avi"], ".mkv"),
                           (["--debug", tmp_path / "no" / "d.mp4"], "--debug"),
                           (["--compare", tmp_path / "c.mp4", "--debug", tmp_path / "c.mp4"], "--compare")):
        assert run(clip, "-o", out, *options) == 1
        assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_work_folder_keeps_the_track_and_an_interrupted_result(capsys, clip, tmp_path, monkeypatch):
    """What a changed setting does not touch is not done again; the same command goes on; --no-resume starts anew."""
    monkeypatch.setattr(compositing.pieces, "PIECE", 5)
    work, out = tmp_path / "w", tmp_path / "out.mp4"
    push, pushed = compositing.replace.Compositor.push, []
    stop_at = 12

    def counted(self, frame):
        if frame.index == stop_at:
            raise KeyboardInterrupt
        pushed.append(frame.index)
        yield from push(self, frame)

    monkeypatch.setattr(compositing.replace.Compositor, "push", counted)
    assert run(clip, "-o", out, "--work", work) == 130
    assert f"kept in {work}" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["w"] and len(list(work.glob("result_*/piece_*"))) == 2
    tracked = list(work.glob("track_*"))
    assert len(tracked) == 1 and not list(work.glob("tracking_*"))

    monkeypatch.setattr(compositing.replace, "track_clip", None)             # nothing is tracked from here on
    stop_at = None
    pushed.clear()
    assert run(clip, "-o", out, "--work", work) == 0
    assert pushed == list(range(10, COUNT)) and report_of(out)["replaced"] == COUNT
    assert sorted(p.name.split("_")[0] for p in work.iterdir()) == ["lock", "manifest.json", "track"]
    pushed.clear()
    assert run(clip, "-o", tmp_path / "other.mp4", "--work", work, "--crf", 20, "--compare", tmp_path / "c.mp4") == 0
    assert len(pushed) == COUNT and len(clips.decoded(tmp_path / "c.mp4")) == COUNT
    assert run(clip, "-o", tmp_path / "again.mp4", "--work", work) == 0
    assert (tmp_path / "again.mp4").read_bytes() == out.read_bytes()
    assert run(clip, "-o", out, "--work", work, "--no-resume") == 1          # would track: track_clip is None here
    assert "TypeError" in capsys.readouterr().err and not list(work.glob("track_*"))


def test_a_disk_that_fills_up(capsys, clip, track, tmp_path, monkeypatch):
    """One line that says where the work is; with room again the same command gives the bytes of a run with room."""
    monkeypatch.setattr(compositing.pieces, "PIECE", 5)
    common, out = [clip, "--track", track, "-o"], tmp_path / "out.mp4"
    assert run(*common, tmp_path / "whole.mp4") == 0
    mux, room = VideoWriter._mux_one, 12

    def until_full(self, *args):
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(28, "No space left on device")
        mux(self, *args)

    monkeypatch.setattr(VideoWriter, "_mux_one", until_full)
    capsys.readouterr()
    assert run(*common, out) == 1
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and "No space left on device" in error and "out.mp4.work for the next" in error
    assert not out.exists() and len(list(tmp_path.glob("out.mp4.work/result_*/piece_*"))) == 2
    monkeypatch.setattr(VideoWriter, "_mux_one", mux)
    assert run(*common, out) == 0
    assert out.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not list(tmp_path.glob("*.work")) and not list(tmp_path.glob(".*"))
