"""The benchmark as a user runs it: what it prints and writes, what bad input gets, and how it cuts a clip."""
import json
from configparser import ConfigParser
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import compositing.benchmark
from compositing.benchmark import first_frames
from compositing.report import VERSION, StageTimer, peak_memory_mb
from facemodel.errors import InputError
from fitting.video_reader import probe, read_frames
from tests import clips
from tests.quick import quick_fits
from tests.test_replace import error_of, run
from tests.test_video import make_video

main = compositing.benchmark.main


@pytest.fixture(scope="module", autouse=True)
def quick():
    """These tests ask whether time is counted, not how much of it there is."""
    with quick_fits(iterations=(1, 1, 1)):
        yield


def test_a_run_on_a_clip(capsys, tmp_path):
    """Longer than --frames, at an odd rate, with sound, and with a face that comes late."""
    clip = clips.cut_with_gap(tmp_path / "clip.mp4", 8, range(1), rate=clips.NTSC, sound=True)
    assert run(main, clip, "--frames", 6, "-o", tmp_path / "times.json") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "times.json"]
    printed = capsys.readouterr().out
    times = json.loads((tmp_path / "times.json").read_text())

    assert times["frames"] == 6 and 0 < times["replaced"] < 6
    assert times["clip"] == {"path": str(clip), "width": 640, "height": 360}
    for group, stages in (("track", ["decode", "landmarks", "key frames", "fit", "smoothing", "other"]),
                          ("composite", ["target", "first look", "neutral texture", "decode", "occlusion",
                                         "source texture", "target texture", "wrinkles", "mouth", "eyes", "render",
                                         "seam", "blend", "encode", "overlap"])):
        rows = {s["stage"]: s["seconds"] for s in times["stages"] if s["group"] == group}
        assert sorted(rows) == sorted(stages)
        assert all(seconds > 0 for name, seconds in rows.items() if name != "overlap"), rows
        assert max(rows.get("other", 0), rows.get("overlap", 0)) < 0.2 * sum(rows.values())
        assert all(f"  {name}" in printed for name in stages)
    assert sum(s["seconds"] for s in times["stages"]) == pytest.approx(times["total_s"])
    once = [s["stage"] for s in times["stages"] if s["once"]]
    assert once == ["key frames", "target", "first look", "neutral texture"]
    outer = {name: share for depth, name, share in times["fit"] if depth == 0}
    assert outer["solve"] > 0.2 and sum(outer.values()) <= 1
    speed = times["frames_per_second"]
    assert speed["end_to_end"] == pytest.approx(6 / times["total_s"], abs=0.01)
    assert speed["end_to_end"] < speed["tracking"] < speed["tracking_long_clip"]
    assert times["peak_memory_mb"] > 100 and times["device"] == "the CPU"

    lines = printed.splitlines()
    assert lines[0] == f"dynatex {VERSION}, {clip}: 640 x 360, 6 frames, {times['replaced']} replaced"
    for key in ("processor", "python", "numpy", "numba"):
        assert times["hardware"][key] and str(times["hardware"][key]) in lines[1]
    assert f"{times['hardware']['cores']} cores" in lines[1] and "threads: numba" in lines[1]
    assert "not counted" in lines[2] and "warm-up" in lines[2]
    shares = [float(line.split()[-2]) for line in lines if line.startswith("  ") and line.endswith("%")
              and not line.startswith("    ")]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert "frames per second: tracking" in printed and "peak memory" in printed


def test_errors_are_one_line(capsys, tmp_path):
    wrong = partial(error_of, capsys, main)
    assert "does not exist" in wrong(tmp_path / "none.mp4")
    assert "is a folder" in wrong(tmp_path)
    (tmp_path / "text.mp4").write_text("no video")
    assert "text.mp4" in wrong(tmp_path / "text.mp4")
    assert "--frames 0" in wrong("--frames", 0)
    assert "--device cuda" in wrong("--device", "cuda")
    assert "no such folder" in wrong("-o", tmp_path / "no" / "times.json")
    assert "no-model" in wrong("--model", tmp_path / "no-model")
    assert run(main, "--frames", "many") == 2
    assert "--frames: invalid int value: 'many'; see" in capsys.readouterr().err
    empty = clips.no_face(tmp_path / "empty.mp4", 3)
    line = wrong(empty, "--frames", 2, "-o", tmp_path / "times.json")
    assert str(empty) in line and "no face found in 2 frames" in line
    assert not (tmp_path / "times.json").exists()


@pytest.mark.parametrize(("name", "options"), [
    ("in.mp4", {"audio": 1}), ("in.mov", {"rotation": (90,)}), ("in.mkv", {"size": (97, 65), "pix_fmt": "yuv444p"}),
    ("in.ts", {}), ("in.avi", {"codec": "mpeg4", "rate": Fraction(25)}),
])
def test_the_first_frames_of_a_clip(tmp_path, name, options):
    """They are the clip's own samples, whatever the codec predicts from what (B-frames in .mp4)."""
    source = make_video(tmp_path / name, 20, **options)
    (tmp_path / "part").mkdir()
    part, whole = first_frames(source, 7, tmp_path / "part"), list(read_frames(source))
    frames = list(read_frames(part))
    assert len(frames) == 7 and not probe(part).has_audio
    for frame in frames[:3]:
        np.testing.assert_array_equal(frame.rgb, whole[frame.index].rgb)
    assert len(list(read_frames(first_frames(source, 100, tmp_path / "part")))) == 20


def test_a_clip_that_cannot_be_cut(tmp_path, monkeypatch):
    source = make_video(tmp_path / "in.mp4", 4)
    (tmp_path / "part").mkdir()
    monkeypatch.setattr("compositing.benchmark.islice", lambda packets, count: int("what PyAV says"))
    with pytest.raises(InputError, match="leave --frames out") as caught:
        first_frames(source, 2, tmp_path / "part")
    assert "in.mp4" in str(caught.value) and "what PyAV says" in str(caught.value)


def test_a_timer_adds_up_its_stages():
    timer = StageTimer()
    assert list(timer.each("read", range(3))) == [0, 1, 2]
    with timer("work"):
        pass
    before = timer.seconds["read"]
    with pytest.raises(KeyError):
        with timer("read"):
            raise KeyError
    assert timer.seconds["read"] > before and list(timer.seconds) == ["read", "work"]


def test_peak_memory_grows_with_what_is_held():
    before = peak_memory_mb()
    held = np.ones(max(1, int(1.5 * before)) * 2 ** 17)
    assert peak_memory_mb() > before and held[0] == 1


def test_the_version_is_the_package_s():
    config = ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    assert config["metadata"]["version"] == VERSION
