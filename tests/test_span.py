"""Spans of a clip: what users write, which frames that means, and readers and tracks cut to it."""
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from facemodel.errors import InputError
from fitting.span import cut_track, parse_edge, resolve_span
from fitting.trackfile import Track
from fitting.video_reader import WHOLE, Span, VideoReader
from tests import clips


@pytest.mark.parametrize(("text", "seconds", "frame"), [
    ("12.5", Fraction(25, 2), None), ("0", 0, None), (".5", Fraction(1, 2), None), ("1:02.5", Fraction(125, 2), None),
    ("1:00:02.5", Fraction(7205, 2), None), ("90:00", 5400, None), ("300f", None, 300), ("0f", None, 0)])
def test_what_users_write(text, seconds, frame):
    edge = parse_edge(text, "--start")
    assert (edge.seconds, edge.frame) == (seconds, frame)


@pytest.mark.parametrize("text", ["", "-1", "1.5f", "f", "1:2:3:4", "nan", "1e3", "12,5", "300 frames"])
def test_what_cannot_be_understood(text):
    with pytest.raises(InputError, match="--end"):
        parse_edge(text, "--end")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_between_two_times(tmp_path, suffix):
    """At 29.97 frames a second frame k stands at k 1001 / 30000 s."""
    pictures = [clips.pattern(t, 48, 48) for t in range(12)]
    path = clips.write_clip(tmp_path / f"c{suffix}", pictures, rate=clips.NTSC)
    edge = lambda text: parse_edge(text, "--x")
    assert resolve_span(path) == WHOLE
    assert resolve_span(path, edge("0.1"), edge("0.2")) == Span(3, 6)     # 0.1001 and, without it, 0.2002
    assert resolve_span(path, edge("2f"), edge("0.31")) == Span(2, 10)
    assert resolve_span(path, edge("4f"), None) == Span(4, None)
    assert resolve_span(path, edge("0.2"), edge("11f")) == Span(6, 11)
    assert resolve_span(path, None, edge("99")) == WHOLE                  # all of it, so its track will do for all
    assert resolve_span(path, edge("3f"), edge("99")) == Span(3, None)
    for start, end in (("5", None), ("0.2", "0.1"), ("4f", "4f"), (None, "0")):
        with pytest.raises(InputError, match="--start|--end"):
            resolve_span(path, start and edge(start), end and edge(end))


def test_times_are_those_of_the_frames_that_can_be_read(tmp_path):
    """Frames 10 to 14 of 60 are damaged and left out: what stands at 1 s is no longer frame 30."""
    whole = clips.write_clip(tmp_path / "whole.mp4", [clips.pattern(t, 48, 48) for t in range(60)], rate=30, gop=1)
    path = clips.spoilt(tmp_path / "bad.mp4", whole, range(10, 15))
    with VideoReader(path) as reader:
        times = [frame.pts * frame.time_base for frame in reader]
    assert len(times) == 55 and reader.damage
    span = resolve_span(path, parse_edge("1", "--start"), parse_edge("1.5", "--end"))
    assert span == Span(25, 40) and times[span.first] == 1 and times[span.end] == Fraction(3, 2)


def test_a_reader_yields_the_span_only(tmp_path):
    path = clips.write_clip(tmp_path / "c.mp4", [clips.pattern(t, 48, 48) for t in range(9)])
    with VideoReader(path) as reader:
        every = [(f.index, f.pts, f.rgb.copy()) for f in reader]
    for span in (Span(3, 6), Span(7, None), Span(0, 1), Span(8, 20)):
        with VideoReader(path, span) as reader:
            some = [(f.index, f.pts, f.rgb.copy()) for f in reader]
        wanted = every[span.first:span.end]
        assert [x[:2] for x in some] == [x[:2] for x in wanted] and len(some) == span.count(9)
        assert all((a[2] == b[2]).all() for a, b in zip(some, wanted))
        assert reader.damage is None


def test_a_track_is_cut_if_it_holds_the_span():
    ten = np.arange(10, 20)
    rows = np.zeros((10, 3), np.float32)
    track = Track("m", "h", np.array([4, 4]), ten, np.full(10, "ok"), rows[0], rows[0], rows, np.array(["a"]), rows,
                  rows, np.float32(1), rows[0], rows, rows, rows[:, 0], rows[:, 0], stopped_at=20)
    cut = cut_track(track, Span(12, 15))
    assert cut.frame_index.tolist() == [12, 13, 14] and len(cut.light) == len(cut.status) == 3 and cut.stopped_at == 15
    assert len(cut.identity) == 3
    for span in (Span(9, 15), Span(12, 21), Span(12, None), WHOLE):
        assert cut_track(track, span) is None
    to_the_end = replace(track, stopped_at=-1)
    assert cut_track(to_the_end, Span(12, None)).frame_index.tolist() == list(range(12, 20))
    assert cut_track(to_the_end, Span(25, 30)) is None
    assert cut_track(to_the_end, Span(12, 20)).stopped_at == cut_track(to_the_end, Span(12, 99)).stopped_at == -1
    assert cut_track(to_the_end, Span(12, 19)).stopped_at == 19
