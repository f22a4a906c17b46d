"""The replace, fit, track and virtual commands as people run them: results, reports, and what bad input gets."""
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import compositing.replace
import compositing.virtual
import fitting.fit
import fitting.track
from facemodel import commands
from fitting.detection import FaceDetector
from fitting.images import read_image
from fitting.trackfile import load_track, save_track
from tests import clips
from tests.quick import quick_fits

COUNT = 6
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def quick():
    with quick_fits(compositing.replace):
        yield


@pytest.fixture(scope="module")
def person(model):
    """A portrait of nobody, (480, 480, 3) uint8 RGB."""
    return compositing.virtual.portrait(model, compositing.virtual.virtual_face(model, 5), 480)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, person):
    """A folder with clip.mp4, an NTSC clip with sound, and target.png; read-only by agreement."""
    folder = tmp_path_factory.mktemp("inputs")
    clips.cut(folder / "clip.mp4", COUNT, rate=clips.NTSC, sound=True)
    save_photo(folder / "target.png", person)
    return folder


@pytest.fixture(scope="module")
def first(inputs, tmp_path_factory):
    """The folder of a first run, which tracked the clip: out.mp4, its report, track.npz, printed.txt."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        status = run(compositing.replace.main, inputs / "clip.mp4", inputs / "target.png", "-o", folder / "out.mp4",
                     "--track", folder / "track.npz", "--crf", 4)
    assert status == 0, lines
    (folder / "printed.txt").write_text("\n".join(lines))
    return folder


def save_photo(path, rgb, options=()):
    order = [2, 1, 0, 3][:rgb.shape[2]] if rgb.ndim == 3 else slice(None)
    ok, data = cv2.imencode(path.suffix, np.ascontiguousarray(rgb[..., order]), list(options))
    assert ok
    path.write_bytes(data.tobytes())
    return path


def run(main, *argv):
    """The exit status of a command."""
    with pytest.raises(SystemExit) as caught:
        commands.run(main, [str(a) for a in argv])
    return caught.value.code


def error_of(capsys, main, *argv):
    """Runs a command that fails; checks that it says so in one line, and returns that line."""
    capsys.readouterr()
    assert run(main, *argv) == 1
    printed = capsys.readouterr()
    lines = [line for line in printed.err.replace("\r", "\n").splitlines() if line.strip() and "frame/s" not in line]
    lines = [line for line in lines if not line.startswith(("landmarks:", "fit:", "composite:"))]
    assert len(lines) == 1 and lines[0].startswith("error: "), printed.err
    assert "Traceback" not in printed.err and "wrote" not in printed.out
    assert len(lines[0]) < 500
    return lines[0]


def replace_error(capsys, *argv):
    return error_of(capsys, compositing.replace.main, *argv)


def report_of(path):
    return json.loads(path.with_name(path.name + ".report.json").read_text())


def face_box(track, t, grow=0.6):
    """Rows and columns that hold the face of a frame with a margin of `grow` of its size: tuple of slices."""
    low, high = track.landmarks[t].min(axis=0), track.landmarks[t].max(axis=0)
    low, high = low - grow * (high - low), high + grow * (high - low)
    return slice(max(0, int(low[1])), int(high[1])), slice(max(0, int(low[0])), int(high[0]))


def test_a_normal_run_is_whole(inputs, first):
    source, out = inputs / "clip.mp4", first / "out.mp4"
    assert sorted(p.name for p in first.iterdir()) == ["out.mp4", "out.mp4.report.json", "printed.txt", "track.npz"]
    assert len(clips.decoded(out)) == COUNT
    assert clips.video_times(out) == clips.video_times(source)
    assert clips.sound_packets(out) == clips.sound_packets(source)
    assert len(clips.sound_packets(out)) > 5
    with av.open(str(out)) as container:
        assert container.metadata["synthetic"] == "true"
        assert "SYNTHETIC" in container.metadata["comment"]
        assert container.streams.video[0].average_rate == clips.NTSC
    printed = (first / "printed.txt").read_text()
    assert f"{COUNT} of {COUNT} frames replaced, 0 passed through" in printed


def test_the_report_says_what_was_done(inputs, first):
    report = report_of(first / "out.mp4")
    assert report["frames"] == report["replaced"] == COUNT
    assert report["passed_through"] == []
    assert report["inputs"]["source"] == str(inputs / "clip.mp4")
    assert len(report["inputs"]["source_sha256"]) == len(report["inputs"]["target_sha256"]) == 64
    assert report["settings"]["texture"] == "gan" and report["settings"]["crf"] == 4
    assert len(report["settings_sha256"]) == 64
    for stage in ("target", "track", "neutral texture", "decode", "source texture", "target texture", "render", "seam",
                  "blend", "encode"):
        assert report["milliseconds_per_frame"][stage] > 0
    assert [row["frame"] for row in report["per_frame"]] == list(range(COUNT))
    for row in report["per_frame"]:
        assert row["status"] == "ok" and row["replaced"]
        assert 0 < row["photometric_error"] < 0.2 and 0 < row["landmark_error"] < 0.2
    assert report["peak_memory_mb"] > 50 and report["hardware"]


def test_the_face_changed_and_nothing_else(inputs, first):
    track = load_track(first / "track.npz")
    before, after = clips.decoded(inputs / "clip.mp4"), clips.decoded(first / "out.mp4")
    for t in range(COUNT):
        inner, around = face_box(track, t, -0.2), face_box(track, t)
        assert np.abs(before[t][inner].astype(int) - after[t][inner]).mean() > 4
        outside = np.ones(before[t].shape[:2], bool)
        outside[around] = False
        assert outside.mean() > 0.3
        assert cv2.PSNR(before[t][outside], after[t][outside]) > 44


def test_the_same_input_gives_the_same_bytes_with_and_without_a_track(inputs, first, tmp_path):
    common = [inputs / "clip.mp4", inputs / "target.png", "--crf", 4]
    assert run(compositing.replace.main, *common, "-o", tmp_path / "new.mp4") == 0
    track = first / "track.npz"
    written = track.stat().st_mtime_ns
    assert run(compositing.replace.main, *common, "-o", tmp_path / "again.mp4", "--track", track) == 0
    assert track.stat().st_mtime_ns == written
    assert report_of(tmp_path / "again.mp4")["milliseconds_per_frame"]["track"] < 1
    assert (tmp_path / "new.mp4").read_bytes() == (first / "out.mp4").read_bytes()
    assert (tmp_path / "again.mp4").read_bytes() == (first / "out.mp4").read_bytes()


def test_textures_and_seams_differ(inputs, first, tmp_path):
    common = [inputs / "clip.mp4", "--virtual", 3, "--track", first / "track.npz"]
    seen = {}
    for name, options in {"delta": [], "static": ["--texture", "static"], "within": ["--seam", "within"]}.items():
        out = tmp_path / f"{name}.mp4"
        assert run(compositing.replace.main, *common, *options, "-o", out) == 0
        assert report_of(out)["replaced"] == COUNT
        seen[name] = out.read_bytes()
    assert len(set(seen.values())) == 3
    assert "seed 3" in report_of(out)["inputs"]["target"]


def test_the_command_in_a_process_of_its_own(inputs, first, tmp_path):
    """Default name of the output, virtual face, exit status; nothing but the result is left."""
    shutil.copy(inputs / "clip.mp4", tmp_path / "clip.mp4")
    call = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, check=False,
                   env={**os.environ, "PYTHONPATH": str(ROOT)})
    command = [sys.executable, "-m", "compositing.replace", "clip.mp4"]
    done = call([*command, "--virtual", "3", "--track", str(first / "track.npz")])
    assert done.returncode == 0, done.stderr
    assert "wrote clip_virtual3.mp4" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "clip.mp4", "clip_virtual3.mp4", "clip_virtual3.mp4.report.json"]
    failed = call([*command, "none.jpg"])
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: none.jpg") and failed.stderr.count("\n") == 1
    assert failed.stdout == ""


def test_a_track_of_something_else_is_refused(capsys, inputs, first, tmp_path):
    track, common = first / "track.npz", ["--virtual", 1, "-o", tmp_path / "out.mp4", "--track"]
    clips.cut(tmp_path / "later.mp4", COUNT, start=3)
    assert "another clip" in replace_error(capsys, tmp_path / "later.mp4", *common, track)
    clips.cut(tmp_path / "small.mp4", COUNT, crop=(600, 360))
    assert "another size" in replace_error(capsys, tmp_path / "small.mp4", *common, track)
    assert "--face largest, not 1" in replace_error(capsys, inputs / "clip.mp4", *common, track, "--face", "1")
    save_track(replace(load_track(track), model_hash="0" * 16), tmp_path / "other.npz")
    assert "--model" in replace_error(capsys, inputs / "clip.mp4", *common, tmp_path / "other.npz")
    (tmp_path / "junk.npz").write_bytes(b"junk")
    assert "junk.npz" in replace_error(capsys, inputs / "clip.mp4", *common, tmp_path / "junk.npz")
    assert not list(tmp_path.glob("*out*"))


def test_an_odd_size_is_kept(tmp_path):
    clip = clips.cut(tmp_path / "odd.mp4", 3, crop=(639, 359))
    assert run(compositing.replace.main, clip, "--virtual", 1, "-o", tmp_path / "out.mp4") == 0
    frames = clips.decoded(tmp_path / "out.mp4")
    assert len(frames) == 3 and frames[0].shape == (359, 639, 3)
    assert report_of(tmp_path / "out.mp4")["replaced"] == 3


def test_a_face_that_leaves_and_returns(capsys, tmp_path):
    gap = range(4, 8)
    clip = clips.cut_with_gap(tmp_path / "gap.mp4", 14, gap)
    assert run(compositing.replace.main, clip, "--virtual", 1, "-o", tmp_path / "out.mp4", "--crf", 4) == 3
    report = report_of(tmp_path / "out.mp4")
    status = [row["status"] for row in report["per_frame"]]
    assert status[:4] == ["ok"] * 4
    assert all(status[t] == "no_face" and not report["per_frame"][t]["replaced"] for t in gap)
    assert status[-3:] == ["ok"] * 3
    passed = 14 - report["replaced"]
    assert sum(b - a + 1 for a, b in report["passed_through"]) == passed == status.count("no_face")
    assert f"{passed} passed through (frames {report['passed_through'][0][0]}-" in capsys.readouterr().out
    before, after = clips.decoded(clip), clips.decoded(tmp_path / "out.mp4")
    assert len(after) == 14
    for t in gap:
        assert cv2.PSNR(before[t], after[t]) > 45


def test_a_face_that_leaves_for_good(tmp_path):
    clip = clips.cut_with_gap(tmp_path / "gone.mp4", 6, range(3, 6))
    assert run(compositing.replace.main, clip, "--virtual", 1, "-o", tmp_path / "out.mp4") == 3
    assert report_of(tmp_path / "out.mp4")["passed_through"] == [[3, 5]]


def test_a_clip_of_one_frame(tmp_path):
    clip = clips.cut(tmp_path / "one.mp4", 1)
    assert run(compositing.replace.main, clip, "--virtual", 1, "-o", tmp_path / "out.mp4") == 0
    assert report_of(tmp_path / "out.mp4")["replaced"] == 1
    assert len(clips.decoded(tmp_path / "out.mp4")) == 1


def test_a_face_at_the_border(tmp_path):
    """The face is cut in two: either way the result is whole or there is none."""
    clip = clips.cut(tmp_path / "edge.mp4", 2, change=lambda i, p: p[:, 250:])
    status = run(compositing.replace.main, clip, "--virtual", 1, "-o", tmp_path / "out.mp4")
    assert status in (0, 1)
    assert (tmp_path / "out.mp4").exists() == (status == 0)


def test_a_clip_without_a_face(capsys, tmp_path):
    clip = clips.no_face(tmp_path / "empty.mp4")
    line = replace_error(capsys, clip, "--virtual", 1, "-o", tmp_path / "out.mp4", "--track", tmp_path / "t.npz")
    assert "empty.mp4" in line and "no face" in line
    assert "empty.mp4" in error_of(capsys, fitting.track.main, clip, "-o", tmp_path / "t.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["empty.mp4"]


def test_two_faces_in_the_clip(capsys, tmp_path):
    clip, out = clips.two_faces(tmp_path / "two.mp4", 3), tmp_path / "out.mp4"
    before = clips.decoded(clip)
    for face, mine, other in (("1", np.s_[:, :340], np.s_[:, 380:]), ("2", np.s_[:, 380:], np.s_[:, :340])):
        track = tmp_path / f"{face}.npz"
        assert run(compositing.replace.main, clip, "--virtual", 1, "-o", out, "--face", face, "--track", track,
                   "--crf", 4) == 0
        printed = capsys.readouterr().out
        assert f"2 faces in the first frame with a face, took number {face} from the left" in printed
        assert load_track(track).face == face
        change = np.abs(before[1].astype(int) - clips.decoded(out)[1]).mean(axis=2)
        assert change[mine].mean() > 5 * change[other].mean()
    for wrong in ("7", "0", "left"):
        assert "2 faces" in replace_error(capsys, clip, "--virtual", 1, "-o", tmp_path / "no.mp4", "--face", wrong)
    assert run(fitting.track.main, clip, "-o", tmp_path / "t.npz", "--key-frames", 1) == 0
    assert "2 faces in the first frame with a face, took the largest; choose with --face" in capsys.readouterr().out
    assert not (tmp_path / "no.mp4").exists()


def test_photos_with_no_face_and_with_two(capsys, inputs, first, tmp_path, person):
    common = [inputs / "clip.mp4", "--track", first / "track.npz", "-o", tmp_path / "out.mp4"]
    none = save_photo(tmp_path / "none.png", clips.grey())
    line = replace_error(capsys, *common, none)
    assert "none.png" in line and "no face" in line
    two = save_photo(tmp_path / "two.png", np.concatenate([person, person[:, ::-1]], axis=1))
    line = replace_error(capsys, *common, two, "--target-face", 7)
    assert "two.png" in line and "--target-face 7" in line and "2 faces" in line
    assert not (tmp_path / "out.mp4").exists()
    assert run(compositing.replace.main, *common, two) == 0
    assert "2 faces, took the largest" in capsys.readouterr().out
    assert run(compositing.replace.main, *common, two, "--target-face", 2) == 0
    assert "2 faces, took number 2" in capsys.readouterr().out
    assert "2 faces" in report_of(tmp_path / "out.mp4")["remarks"][0]


def test_swapped_and_missing_inputs(capsys, inputs, tmp_path):
    clip, photo, out = inputs / "clip.mp4", inputs / "target.png", tmp_path / "out.mp4"
    line = replace_error(capsys, clip, clip, "-o", out)
    assert "clip.mp4 is a video" in line and "photo" in line
    line = replace_error(capsys, photo, photo, "-o", out)
    assert "target.png is a photo" in line and "video" in line
    for source, target, name in ((tmp_path / "no.mp4", photo, "no.mp4"), (clip, tmp_path / "no.jpg", "no.jpg")):
        line = replace_error(capsys, source, target, "-o", out)
        assert name in line and "does not exist" in line
    assert "is a folder" in replace_error(capsys, tmp_path, photo, "-o", out)
    (tmp_path / "empty.mp4").touch()
    assert "empty.mp4" in replace_error(capsys, tmp_path / "empty.mp4", photo, "-o", out)
    (tmp_path / "text.jpg").write_text("no picture")
    assert "text.jpg" in replace_error(capsys, clip, tmp_path / "text.jpg", "-o", out)
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:5000])
    assert "cut.png" in replace_error(capsys, clip, tmp_path / "cut.png", "-o", out)
    assert not out.exists()


def test_damaged_clips(capsys, tmp_path):
    whole = clips.cut(tmp_path / "whole.mp4", 14, gop=2)
    cut = clips.truncated(tmp_path / "cut.mp4", whole, 0.5)
    out, track = tmp_path / "out.mp4", tmp_path / "t.npz"
    for _ in ("tracked", "with the track"):
        assert run(compositing.replace.main, cut, "--virtual", 1, "-o", out, "--track", track) == 0
        printed = capsys.readouterr().out
        report = report_of(out)
        assert 3 < report["frames"] < 14
        assert "cut.mp4 is cut off after" in printed and report["remarks"]
        assert len(clips.decoded(out)) == report["frames"]
        out.unlink()
    for name in ("zero.mp4", "head.mp4"):
        if name == "zero.mp4":
            clips.blank_media(tmp_path / name, whole)
        else:
            (tmp_path / name).write_bytes(whole.read_bytes()[:3000])
        assert name in replace_error(capsys, tmp_path / name, "--virtual", 1, "-o", out)
    assert not out.exists()


def test_places_that_cannot_be_written(capsys, inputs, first, tmp_path):
    clip = tmp_path / "clip.mp4"
    shutil.copy(inputs / "clip.mp4", clip)
    (tmp_path / "folder.mp4").mkdir()
    for out, words in ((tmp_path / "no" / "out.mp4", "no such folder"), (tmp_path / "folder.mp4", "is a folder"),
                       (tmp_path / "out.avi", ".mkv"), (tmp_path / "out", ".mkv"), (clip, "one of the inputs")):
        line = replace_error(capsys, clip, "--virtual", 1, "-o", out, "--track", first / "track.npz")
        assert words in line and out.parent.name in line
    line = replace_error(capsys, clip, "--virtual", 1, "-o", tmp_path / "o.mp4", "--track", tmp_path / "no" / "t.npz")
    assert "no such folder" in line and "--track" in line
    for main, given in ((fitting.fit.main, inputs / "target.png"), (fitting.track.main, clip)):
        assert "no such folder" in error_of(capsys, main, given, "-o", tmp_path / "no" / "f.npz")
    assert "is a folder" in error_of(capsys, compositing.virtual.main, "1", "-o", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "folder.mp4"]
    assert clip.read_bytes() == (inputs / "clip.mp4").read_bytes()


def test_settings_out_of_range(capsys, inputs, first, tmp_path):
    common = [inputs / "clip.mp4", "-o", tmp_path / "out.mp4"]
    assert "--crf 99" in replace_error(capsys, *common, "--virtual", 1, "--crf", 99)
    assert "--crf nan" in replace_error(capsys, *common, "--virtual", 1, "--crf", "nan")
    assert "--device cuda" in replace_error(capsys, *common, "--virtual", 1, "--device", "cuda")
    assert "--virtual -3" in replace_error(capsys, *common, "--virtual", -3)
    assert "TARGET" in replace_error(capsys, *common)
    assert "TARGET" in replace_error(capsys, *common, inputs / "target.png", "--virtual", 1)
    assert "--demo" in replace_error(capsys, *common, "--demo")
    assert "no video" in replace_error(capsys, "-o", tmp_path / "out.mp4")
    assert "--key-frames 0" in error_of(capsys, fitting.track.main, inputs / "clip.mp4", "--key-frames", 0)
    assert "SEED -1" in error_of(capsys, compositing.virtual.main, "-1")
    assert "nobody.png" in error_of(capsys, compositing.virtual.main, "1", "-o", tmp_path / "nobody.jpg")
    assert "no-model" in replace_error(capsys, *common, "--virtual", 1, "--model", tmp_path / "no-model")
    assert not list(tmp_path.iterdir())


def test_a_command_line_that_cannot_be_understood(capsys, inputs):
    """Status 2 and one line that names the option and where help is; no usage, which would hide it."""
    replacing, clip = compositing.replace.main, inputs / "clip.mp4"
    for main, argv, words in ((replacing, [clip, "--virtual", "1.5"], "--virtual: invalid int value: '1.5'"),
                              (replacing, [clip, "--crf", "good"], "--crf: invalid float value: 'good'"),
                              (replacing, [clip, "--crf"], "--crf: expected one argument"),
                              (replacing, [clip, "--texture", "none"], "--texture: invalid choice: 'none'"),
                              (replacing, [clip, "a.jpg", "b.jpg"], "b.jpg"),
                              (replacing, [clip, "--quality", "3"], "--quality"),
                              (compositing.virtual.main, [], "SEED"),
                              (fitting.fit.main, [], "IMAGE"),
                              (fitting.track.main, [clip, "--key-frames", "many"], "--key-frames")):
        assert run(main, *argv) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and printed.out == ""
        assert words in printed.err and "--help" in printed.err and "python -m " in printed.err


def add_orientation(jpeg, orientation):
    """A JPEG's bytes with an EXIF block that holds only the orientation."""
    tiff = (b"II*\0" + (8).to_bytes(4, "little") + (1).to_bytes(2, "little") + (0x0112).to_bytes(2, "little")
            + (3).to_bytes(2, "little") + (1).to_bytes(4, "little") + orientation.to_bytes(4, "little") + bytes(4))
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


@pytest.mark.parametrize("kind", ["grey", "rgba", "16bit", "exif"])
def test_kinds_of_photos(capsys, tmp_path, model, person, kind):
    """Each gives the fit of the plain photo, up to what its samples lost."""
    photo = tmp_path / ("photo.jpg" if kind == "exif" else "photo.png")
    if kind == "grey":
        save_photo(photo, cv2.cvtColor(person, cv2.COLOR_RGB2GRAY))
    elif kind == "rgba":
        save_photo(photo, np.dstack([person, np.full(person.shape[:2], 255, np.uint8)]))
    elif kind == "16bit":
        save_photo(photo, person.astype(np.uint16) * 257)
    else:
        save_photo(photo, np.rot90(person), [cv2.IMWRITE_JPEG_QUALITY, 95])   # turned left; 6: to be turned right
        photo.write_bytes(add_orientation(photo.read_bytes(), 6))
    assert run(fitting.fit.main, photo) == 0
    assert "wrote" in capsys.readouterr().out
    fit = load_track(tmp_path / "photo.npz", model)
    assert fit.landmark_error[0] < 0.06 and fit.photometric_error[0] < 0.12
    assert abs(fit.rotation[0]).max() < 0.4                                    # upright, from the front
    assert fit.source_sha256 == ""


def test_an_interrupt_leaves_nothing(capsys, inputs, first, tmp_path, monkeypatch):
    push = compositing.replace.Compositor.push

    def interrupted(self, frame):
        if frame.index == 3:
            raise KeyboardInterrupt
        yield from push(self, frame)

    monkeypatch.setattr(compositing.replace.Compositor, "push", interrupted)
    common = [inputs / "clip.mp4", "--virtual", 1, "--track", first / "track.npz", "-o"]
    assert run(compositing.replace.main, *common, tmp_path / "out.mp4") == 130
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.mp4").write_bytes(b"an earlier result")
    assert run(compositing.replace.main, *common, tmp_path / "out.mp4") == 130
    assert (tmp_path / "out.mp4").read_bytes() == b"an earlier result"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failure_inside_is_one_line_unless_verbose(capsys, inputs, first, tmp_path, monkeypatch):
    def broken(self, frame):
        raise RuntimeError("two\nlines")
        yield

    monkeypatch.setattr(compositing.replace.Compositor, "push", broken)
    common = [inputs / "clip.mp4", "--virtual", 1, "--track", first / "track.npz", "-o", tmp_path / "out.mp4"]
    assert "RuntimeError: two lines" in replace_error(capsys, *common)
    with pytest.raises(RuntimeError):
        commands.run(compositing.replace.main, [*map(str, common), "--verbose"])
    assert not list(tmp_path.iterdir())


def test_a_virtual_portrait_is_the_same_each_time_and_has_a_face(capsys, tmp_path):
    for name in ("a.png", "b.png"):
        assert run(compositing.virtual.main, "7", "-o", tmp_path / name) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert run(compositing.virtual.main, "8", "-o", tmp_path / "b.png") == 0
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    assert len(FaceDetector().detect(read_image(tmp_path / "a.png"))) == 1


def test_a_mask_and_a_tone(inputs, first, tmp_path, capsys):
    """What is white in the mask stays as in the source; the tone is the source's where that is asked for."""
    source, track = inputs / "clip.mp4", first / "track.npz"
    pictures = clips.decoded(source)
    rows, columns = face_box(load_track(track, compositing.replace.load_model("commons")), 2, 0.2)
    middle = (columns.start + columns.stop) // 2
    hand = np.zeros_like(pictures[0])
    hand[:, :middle] = 255
    clips.write_clip(tmp_path / "hand.mp4", [hand] * COUNT)
    argv = (source, inputs / "target.png", "--texture", "static", "--track", track, "--crf", 4)
    assert run(compositing.replace.main, *argv, "-o", tmp_path / "out.mp4", "--mask", tmp_path / "hand.mp4",
               "--skin", "source") == 0
    change = np.abs(clips.decoded(tmp_path / "out.mp4")[2].astype(float) - pictures[2])[rows].mean(axis=(0, 2))
    assert change[:middle - 3].max() < 3 < 8 < change[middle + 3:].max()
    report = report_of(tmp_path / "out.mp4")
    assert report["settings"]["skin"] == "source" and len(report["settings"]["mask"]) == 64
    clips.write_clip(tmp_path / "small.mp4", [hand[:100, :100]] * COUNT)
    clips.write_clip(tmp_path / "short.mp4", [hand] * 2)
    for name, words in (("small", "is 100 x 100"), ("short", "has 2 frames")):
        said = replace_error(capsys, *argv, "-o", tmp_path / f"{name}_out.mp4", "--mask", tmp_path / f"{name}.mp4")
        assert words in said and f"{name}.mp4" in said and not (tmp_path / f"{name}_out.mp4").exists()


def test_a_beard_stays_or_goes(inputs, first, person, tmp_path):
    """Drawn onto the photo: fine light and dark, darker than skin, from the nose down to the jaw."""
    marks = (detector := FaceDetector()).landmarks_of(person, detector.find(person)[0])
    outline = marks[[*range(3, 14), 54, 35, 33, 31, 48]]
    area = cv2.fillPoly(np.zeros(person.shape[:2], np.float32), [np.int32(outline)], 1.0)
    cv2.fillPoly(area, [np.int32(marks[48:60])], 0.0)
    hair = 0.5 * np.exp(0.3 * np.random.default_rng(0).standard_normal(area.shape))
    photo = save_photo(tmp_path / "bearded.png", np.uint8(person * (1 - area * (1 - hair))[..., None].clip(0, 1)))
    middle, jaw = (load_track(first / "track.npz", compositing.replace.load_model("commons")).landmarks[2][k]
                   for k in (57, 8))
    column, row = np.int32((middle + jaw) / 2)
    brightness = {}
    for beard in ("keep", "off"):
        out = tmp_path / f"{beard}.mp4"
        assert run(compositing.replace.main, inputs / "clip.mp4", photo, "--texture", "static", "--track",
                   first / "track.npz", "--crf", 4, "--occlusion", "off", "--beard", beard, "-o", out) == 0
        assert report_of(out)["settings"]["beard"] == beard
        brightness[beard] = clips.decoded(out)[2][row - 4:row + 5, column - 4:column + 5].mean()
    assert brightness["keep"] < 0.8 * brightness["off"]
