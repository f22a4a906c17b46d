"""A part of a clip: frames from one on and up to, but without, another one; given as times or as frame numbers."""
from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, fields, replace
from fractions import Fraction

import av

from facemodel.errors import InputError
from fitting.video_reader import WHOLE, Span, VideoReader

PER_FRAME = ("frame_index", "status", "expression", "rotation", "translation", "light", "landmarks",
             "photometric_error", "landmark_error", "confidence")
_FRAME = re.compile(r"(\d{1,9})f")
_CLOCK = re.compile(r"(?:(?:(\d{1,4}):)?(\d{1,5}):)?(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})")
_ONE_PACKET_A_FRAME = ("h264", "hevc")


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

    A frame lies inside when its time is `start` or later and before `end`. Times are looked up in the file's index
    where there is a reliable one, otherwise by decoding the clip once.

    Raises
    ------
    InputError : nothing lies between the two
    """
    if start is None and end is None:
        return WHOLE
    times = None
    if any(edge is not None and edge.frame is None for edge in (start, end)):
        times = frame_times(path)
    place = lambda edge: edge.frame if edge.frame is not None else bisect_left(times, edge.seconds)
    span = Span(0 if start is None else place(start), None if end is None else place(end))
    if times is not None and span.first >= len(times):
        raise InputError(f"{path}: its last frame stands at {float(times[-1]):.2f} s; give --start before that, not "
                         f"{start.text}")
    if span.end is not None and span.end <= span.first:
        given = "" if start is None else f" and --start {start.text}"
        raise InputError(f"--end {end.text}{given}: no frame of {path} lies between; give a later --end")
    return span


def frame_times(path):
    """Seconds of every frame after the first one: sorted list of Fraction."""
    times = _indexed_times(path)
    if times is None:
        with VideoReader(path) as reader:
            times = [frame.pts * frame.time_base for frame in reader]
    return [t - times[0] for t in times]


def _indexed_times(path):
    """Times of a clip's frames from its packets, without decoding; None where they might not be the frames'."""
    with VideoReader(path) as reader:                 # says what is wrong with the file, and chooses the stream
        index = reader.stream_index
    ticks = []
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams[index]
        if not {"mp4", "matroska"} & set(container.format.name.split(",")) or \
                stream.codec_context.name not in _ONE_PACKET_A_FRAME:
            return None
        try:
            for packet in container.demux(stream):
                if packet.size == 0:                  # the end
                    continue
                if packet.pts is None or packet.is_discard or packet.is_corrupt or not (ticks or packet.is_keyframe):
                    return None
                ticks.append(packet.pts)
        except av.error.FFmpegError:
            return None
        ticks.sort()
        unique = len(set(ticks)) == len(ticks)
        return [t * stream.time_base for t in ticks] if unique and ticks else None


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
    return replace(track, **cut, stopped_at=-1 if span.end is None else span.end)
