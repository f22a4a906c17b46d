"""Ranges of passed-through frames, the exit status that follows from them, and the file."""
import json
import tracemalloc

import pytest

from compositing.report import exit_status, passed_ranges, range_words, write_report, write_whole
from facemodel.errors import InputError


def test_ranges_in_words():
    assert range_words(passed_ranges([1, 0, 0, 1, 0, 1])) == "1-2, 4"
    assert range_words([[k, k] for k in range(0, 40, 2)], limit=2) == "0, 2, and 18 more ranges"


@pytest.mark.parametrize(("replaced", "status"), [(100, 0), (90, 0), (89, 3), (1, 3)])
def test_status(replaced, status):
    assert exit_status({"frames": 150, "outside_span": 50, "replaced": replaced}) == status


def test_a_long_report_is_never_held_as_text(tmp_path):
    report, path = {"per_frame": [{"frame": 1, "status": "ok", "error": 0.123}] * 20000}, tmp_path / "r.json"
    tracemalloc.start()
    try:
        write_report(report, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert json.loads(path.read_text()) == report and peak < path.stat().st_size / 5
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_files_are_whole_or_as_before(tmp_path):
    def broken():
        yield b"new"
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "a", b"old")
    with pytest.raises(InputError, match="a: can't be written .No space"):
        write_whole(tmp_path / "a", broken())
    assert (tmp_path / "a").read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a"]
