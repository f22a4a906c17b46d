"""Progress on a terminal and in a file."""
import io
import sys

import pytest

from fitting.progress import ProgressLines, progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_file_gets_lines_now_and_then(monkeypatch):
    clock = iter([0.0, 10.0, 20.0, 30.0, 35.0, 60.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bar(8, "fit") as bar:
        for _ in range(5):
            bar.update()
    assert sys.stderr.getvalue() == "fit: 3 of 8 frames, 0:50 left\nfit: 5 of 8 frames, 0:36 left\n"


def test_short_work_leaves_nothing_in_a_file(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bar(3, "fit") as bar:
        for _ in range(3):
            bar.update()
    assert sys.stderr.getvalue() == ""


def test_the_frame_and_hours_are_shown(monkeypatch):
    clock = iter([0.0, 40.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    ProgressLines(1000, "fit", "frame").update(10, frame=509)
    assert sys.stderr.getvalue() == "fit: 10 of 1000 frames, at 509, 1:06:00 left\n"
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar(2, "fit") as bar:
        bar.update(frame=509)
        bar.refresh()
    assert "at 509" in sys.stderr.getvalue()


@pytest.mark.parametrize("total", [None, 0])
def test_without_a_total_there_is_no_time_left(monkeypatch, total):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    ProgressLines(total, "landmarks", "frame", every_s=0).update(2)
    assert sys.stderr.getvalue() == "landmarks: 2 frames\n"


@pytest.mark.parametrize("show", [True, False])
def test_a_terminal_gets_a_bar_if_wanted(monkeypatch, show):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar(2, "composite", show=show) as bar:
        bar.update()
        bar.update()
    assert ("composite" in sys.stderr.getvalue() and "100%" in sys.stderr.getvalue()) == show
