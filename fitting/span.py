"""A part of a clip: frames from one on and up to, but without, another one; given as times or as frame numbers."""
from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from fractions import Fraction

from facemodel.errors import InputError
from fitting.video_reader import Span, VideoReader

PER_FRAME = ("frame_index", "status", "expression", "rotation", "translation", "light", "landmarks",
             "photometric_error", "landmark_error", "confidence")
_FRAME = re.compile(r"(\d{1,9})f")
_CLOCK = re.compile(r"(?:(?:(\d{1,4}):)?(\d{1,5}):)?(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})")


@dataclass(frozen=True)
class Edge:
    """Where a span starts or ends, by `frame` or else by `seconds` after the clip's first frame."""

    text: str
    seconds: Fraction | None = None
    frame: int | None = None


def parse_edge(text, option):
    """The Edge that a user wrote: "12.5", "1:02.5" or "1:00:02.5" for a time, "300f" for a frame.

    Raises
    ------
    InputError : anything else

    >>> parse_edge("1:02.5", "--start").seconds, parse_edge("300f", "--start").frame
    (Fraction(125, 2), 300)
    """
    text = str(text).strip()
    if match := _FRAME.fullmatch(text):
        return Edge(text, frame=int(match[1]))
    if not (match := _CLOCK.fullmatch(text)):
        raise InputError(f"{option} {text}: give seconds (12.5), a clock (1:02.5) or a frame (300f)")
    hours, minutes = int(match[1] or 0), int(match[2] or 0)
    return Edge(text, seconds=3600 * hours + 60 * minutes + Fraction(match[3]))


def resolve_span(path, start=None, end=None):
    """The Span between two Edges, None for the clip's own.

    A frame lies inside when its time is `start` or later and before `end`. Times are those of the frames that can be
    decoded, since these are what is counted: for an edge in seconds the clip is decoded up to it. (The file's index
    would be quicker, but also holds the frames that can't be read.)

    Raises
    ------
    InputError : nothing lies between the two
    """
    first = 0 if start is None else start.frame
    stop = None if end is None else end.frame
    if any(edge is not None and edge.frame is None for edge in (start, end)):
        first, stop = _seek(path, start, end)
    if stop is not None and stop <= first:
        given = "" if start is None else f" and --start {start.text}"
        raise InputError(f"--end {end.text}{given}: no frame of {path} lies between; give a later --end")
    return Span(first, stop)


def _seek(path, start, end):
    """Frame numbers of two Edges, of which at least one is a time; the second None: the clip ends before it."""
    after = lambda edge, index, time: index >= edge.frame if edge.frame is not None else time >= edge.seconds
    first, begins, time = 0 if start is None else None, None, 0
    with VideoReader(path) as reader:
        for frame in reader:
            time = frame.pts * frame.time_base
            begins = time if begins is None else begins
            if first is None and after(start, frame.index, time - begins):
                first = frame.index
            if end is not None and after(end, frame.index, time - begins):
                return frame.index if first is None else first, frame.index
            if end is None and first is not None:
                break
    if first is None:
        raise InputError(f"{path}: its last frame stands at {float(time - begins):.2f} s; give --start before that, "
                         f"not {start.text}")
    return first, None


def cut_track(track, span):
    """The part of a Track inside a span, or None when the track does not hold all of it."""
    first, stopped = int(track.frame_index[0]), int(track.stopped_at)
    ends_early = stopped >= 0 and (span.end is None or span.end > stopped)
    if first > span.first or ends_early:
        return None
    rows = slice(span.first - first, None if span.end is None else span.end - first)
    if len(track.frame_index[rows]) == 0:
        return None
    names = {x.name for x in fields(track)}
    cut = {name: getattr(track, name)[rows] for name in PER_FRAME if name in names}
    whole = stopped < 0 and (span.end is None or span.end >= first + len(track))
    return replace(track, **cut, stopped_at=-1 if whole else span.end)
