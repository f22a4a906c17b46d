"""Streaming video input: upright frames with their exact timestamps and untouched samples, through PyAV."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import numpy as np

from facemodel.errors import InputError
from fitting.yuv import Colour, Planes, frame_colour, frame_planes, planes_to_rgb

MIN_SIDE = 32


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds. Sizes are those of the upright frames."""

    path: Path
    width: int
    height: int
    rate: Fraction
    """Average frames per second; frames may be spaced unevenly, so place them by `pts`, never by this."""
    time_base: Fraction
    """Seconds per unit of `pts`."""
    frame_count_estimate: int | None
    has_audio: bool
    rotation_deg: int
    """Counter-clockwise turn, from the file's display matrix, that was applied to make frames upright."""
    subsampled: bool
    """Whether `VideoFrame.planes` are 4:2:0; otherwise they are 4:4:4."""
    colour: Colour
    sample_aspect_ratio: Fraction | None


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One decoded frame."""

    index: int
    pts: int
    """Presentation time in units of `time_base`, strictly increasing."""
    time_base: Fraction
    duration: int
    """In units of `time_base`; 0 where the file does not say."""
    yuv: av.VideoFrame
    """As decoded: not rotated, in the file's pixel format."""
    orientation: tuple[bool, bool, bool] = (False, False, False)
    """Transpose, then flip rows, then flip columns, to make `yuv` upright."""

    @property
    def time_s(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    @cached_property
    def colour(self) -> Colour:
        """The tags that `planes` are to be read with."""
        return frame_colour(self.yuv)

    @cached_property
    def planes(self) -> Planes:
        """8-bit YUV, upright; read-only views of the decoder's memory where the format allows it."""
        return frame_planes(self.yuv, self.colour, self.orientation)

    @cached_property
    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright, read-only."""
        rgb = planes_to_rgb(self.planes, self.colour)
        rgb.flags.writeable = False
        return rgb


@dataclass(frozen=True)
class Span:
    """Frames `first` to `end` - 1 of a clip, counted from 0; end None: to the clip's end."""

    first: int = 0
    end: int | None = None

    def count(self, total):
        """How many of a clip's `total` frames lie inside; None where neither says."""
        end = total if self.end is None else self.end if total is None else min(self.end, total)
        return None if end is None else max(end - self.first, 0)


WHOLE = Span()


class VideoReader:
    """Decodes a video once, from start to end, one frame in memory at a time (besides the decoder's own few).

    Use it as a context manager and iterate over it. Frames come in order of presentation. Frames that can't be decoded
    are left out, those behind them keep their times; where the file ends early or can't be read on, the frames before
    are delivered and iteration ends normally. `damage` then says what is wrong in a sentence that names the file; it is
    None after a whole file. (Wrong bytes that the decoder takes for picture data cannot be noticed.) Timestamps that
    are missing or do not increase, as in some AVI files, are replaced by the previous one plus a frame's duration.

    With a `span` only its frames come, counted as in the whole clip. Those before it are decoded, because only that
    tells reliably which frame is which, but nothing is computed from them; what lies behind it is not read.

    Raises
    ------
    InputError
        On construction: the file is missing, a folder, not a video, a photo, without a video stream or without a
        single frame that can be decoded.
    """

    def __init__(self, path: str | os.PathLike, span: Span = WHOLE):
        self.path = check_file(path, "video")
        self.damage: str | None = None
        self._span = span
        self._container = _open(self.path)
        try:
            self._stream = _video_stream(self._container, self.path)
            self._stream.thread_type = "AUTO"
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise InputError(f"{self.path} has no frame that can be decoded; copy or export the video again")
            self._orientation = _orientation(self._first)
            self.info = _info(self.path, self._container, self._stream, self._first, self._orientation)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def stream_index(self) -> int:
        """Which of the file's streams is read."""
        return self._stream.index

    def close(self) -> None:
        """Free the decoder and the file."""
        self._first = None
        self._frames.close()
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        first, end = self._span.first, self._span.end
        for frame in self._all():
            if frame.index >= first and (end is None or frame.index < end):
                yield frame
            if end is not None and frame.index >= end - 1:
                return

    def _all(self) -> Iterator[VideoFrame]:
        if self._first is None:
            raise RuntimeError("a VideoReader can be iterated over once; open the file again")
        step = max(1, round(1 / (self.info.rate * self.info.time_base)))
        size = (self._first.width, self._first.height)
        decoded, self._first = self._first, None
        index, last_pts, last_end = 0, None, 0
        while decoded is not None:
            if (decoded.width, decoded.height) != size:
                self.damage = f"{self.path} changes its frame size after {index} frames; the rest was not read"
                return
            pts = decoded.pts
            if pts is None or (last_pts is not None and pts <= last_pts):
                pts = 0 if last_pts is None else last_pts + step
            last_pts, last_end = pts, pts + (decoded.duration or step)
            yield VideoFrame(index, pts, self.info.time_base, decoded.duration or 0, decoded, self._orientation)
            index += 1
            decoded = next(self._frames, None)
        missing = _declared_end(self._stream) - last_end
        expected = self._stream.frames
        if self.damage is None and missing > 1.5 * step and not 0 < expected <= index:
            of = f" of {expected}" if expected else ""
            self.damage = f"{self.path} is cut off after {index}{of} frames; copy or export it again for the rest"

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield decoded frames; skip what can't be decoded and note it in `damage`."""
        read, count, bad, partly, reason = 0, 0, None, 0, ""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:       # the file itself can't be read on
                self.damage = f"{self.path} is damaged after {count} frames ({error.strerror}); the rest was not read"
                yield from self._drain()
                return
            read += packet is not None and packet.size > 0
            try:
                frames = packet.decode() if packet is not None else []
            except av.error.FFmpegError as error:
                if count == 0 and isinstance(error, av.error.InvalidDataError):
                    continue  # streams that were cut from a broadcast start before their first whole picture
                if bad is None:
                    bad, reason = count, error.strerror
                continue
            count += len(frames)
            partly += sum(frame.is_corrupt for frame in frames)
            if packet is None or bad is not None or partly:
                # at the end of a file that was cut off, a decoder with one thread fails, and one with more does not
                cut_off = packet is None and bad == count and read < self._stream.frames
                self.damage = None if cut_off else self._damage(bad, count, partly, reason)
            yield from frames
            if packet is None:
                return

    def _damage(self, bad: int | None, count: int, partly: int, reason: str) -> str | None:
        """Say what was lost, or None; `bad` frames came before the first damage, `count` in all, `partly` show it."""
        said = []
        if bad == count:
            return f"{self.path} is damaged after {count} frames ({reason}); nothing behind it could be read"
        if bad is not None:
            of = f", {count} of {self._stream.frames}" if self._stream.frames > count else ""
            said.append(f"behind frame {bad} some could not be read ({reason}), the others were{of}")
        if partly:
            said.append(f"{partly} frames show damage")
        return f"{self.path} is damaged: {'; '.join(said)}" if said else None

    def _drain(self) -> list[av.VideoFrame]:
        try:
            return self._stream.codec_context.decode(None)
        except av.error.FFmpegError:
            return []


def probe(path: str | os.PathLike) -> VideoInfo:
    """Return what `path` holds, from its header and its first frame. Raises `InputError` as `VideoReader` does."""
    with VideoReader(path) as reader:
        return reader.info


def stored_frames(path: str | os.PathLike) -> int:
    """Return how many frames `path` holds, those that can't be decoded among them, without decoding any."""
    with VideoReader(path) as reader:
        index = reader.stream_index
    with _open(Path(path)) as container:
        stream = container.streams[index]
        try:
            return stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        except av.error.FFmpegError:
            return 0


def read_frames(path: str | os.PathLike, limit: int | None = None) -> Iterator[VideoFrame]:
    """Yield the frames of `path`, the first `limit` of them if given; use `VideoReader` to learn about damage."""
    with VideoReader(path) as reader:
        for frame in reader:
            if limit is not None and frame.index >= limit:
                return
            yield frame


def check_file(path: str | os.PathLike, noun: str) -> Path:
    """Return `path` if it is a file with something in it; otherwise raise an `InputError` that asks for a `noun`."""
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; give a {noun} file")
        if not path.exists():
            raise InputError(f"{path} does not exist; check the name and the folder of the {noun}")
        if path.stat().st_size == 0 and path.is_file():
            raise InputError(f"{path} is empty (0 bytes); copy or download the {noun} again")
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check the {noun}'s permissions") from error
    return path


def media_kind(path: Path) -> str | None:
    """Return "video", "photo" or "audio" as FFmpeg sees the file, or None."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if container.format.name == "tty":
                return None
            if not container.streams.video:
                return "audio" if container.streams.audio else None
            return "photo" if _is_photo(container) else "video"
    except (av.error.FFmpegError, ValueError):
        return None


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Read the display matrix as (transpose, flip rows, flip columns), rounded to a multiple of 90 degrees."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    # row-vector convention: (x', y') = (x, y) [[a, b], [c, d]], y down
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, b < 0, c < 0
    return False, d < 0, a < 0


def _open(path: Path) -> av.container.InputContainer:
    try:
        container = av.open(str(path), metadata_errors="replace")
    except av.error.FFmpegError as error:
        hint = "give an MP4, MOV or MKV file"
        if path.suffix.lower() in (".mp4", ".mov", ".m4v", ".3gp"):
            hint = "it is cut off or was never finished, copy or record it again"
        raise InputError(f"{path} cannot be read as a video; {hint}") from error
    if container.format.name == "tty":
        container.close()
        raise InputError(f"{path} is a text file; give a video (MP4, MOV, MKV, ...) in its place")
    if _is_photo(container):
        container.close()
        raise InputError(f"{path} is a photo; give a video (MP4, MOV, MKV, ...) in its place")
    return container


def _is_photo(container: av.container.InputContainer) -> bool:
    brand = container.metadata.get("major_brand", "").strip()
    name = container.format.name
    return name.endswith("_pipe") or name == "image2" or brand in ("heic", "heix", "mif1", "avif")


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    covers = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not streams:
        found = "sound" if container.streams.audio else "other data"
        raise InputError(f"{path} holds no video, only {found}; give a video file")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise InputError(f"{path} uses a video codec that cannot be decoded here; convert it to H.264 with ffmpeg")
    return stream


def _info(path, container, stream, first, orientation) -> VideoInfo:
    width, height = (first.height, first.width) if orientation[0] else (first.width, first.height)
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{path} is only {width} x {height} pixels; give a video of at least {MIN_SIDE} pixels a side")
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    duration = None
    if stream.duration:
        duration = float(stream.duration * stream.time_base)
    elif container.duration:
        duration = container.duration / av.time_base
    aspect = stream.sample_aspect_ratio or None
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        rate=rate,
        time_base=stream.time_base,
        frame_count_estimate=stream.frames or (round(duration * rate) if duration else None),
        has_audio=bool(container.streams.audio),
        rotation_deg=int(first.rotation),
        subsampled=width % 2 == 0 and height % 2 == 0 and first.format.name not in ("yuv444p", "yuvj444p"),
        colour=frame_colour(first),
        sample_aspect_ratio=1 / aspect if aspect and orientation[0] else aspect,
    )


def _declared_end(stream: av.VideoStream) -> float:
    """Return where the header says that the stream ends, in its time base; -inf where it does not say."""
    if stream.duration:
        return (stream.start_time or 0) + stream.duration
    clock = stream.metadata.get("DURATION", "").split(":")  # Matroska
    try:
        hours, minutes, seconds = (float(part) for part in clock)
    except ValueError:
        return -np.inf
    return (hours * 3600 + minutes * 60 + seconds) / float(stream.time_base)
