"""Video output: only the samples that changed are replaced, sound is copied, times and colour tags are kept.

A trip through RGB costs 2 to 5 dB before the encoder has done anything. So the writer starts from the decoded YUV
samples and replaces those of changed pixels alone (`compose_yuv`); everything else reaches the encoder byte for byte.

A video can be written in pieces (`end_piece`), each by an encoder of its own that starts with a key frame and knows
nothing of the others; their packets follow each other in the file. So the packets of a piece depend on its frames only,
and those that another process has kept (`add_piece`) give the same file as if this one had encoded them.
"""

import os
import secrets
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from facemodel.errors import InputError
from fitting.video_reader import VideoFrame, VideoInfo, VideoReader
from fitting.yuv import Colour, Planes

SUFFIXES = (".mp4", ".mov", ".mkv")

DEFAULT_CRF = 18
"""x264's constant rate factor. Without macroblock trees 18 is what 16 is with them: about 47 to 51 dB on real clips."""

DEFAULT_PRESET = "veryfast"
"""The slower presets take 2 to 3 times as long for files of the same size and at most 1 dB more."""

_NO_ORIGIN = {"mpegts", "mpeg"}


@dataclass(frozen=True)
class Piece:
    """The encoded packets of consecutive frames, in the order of decoding.

    data : (bytes,) uint8, all packets one after the other; sizes : (n,) int64, of each
    pts, dts, duration : (n,) int64, as the encoder gave them, in the source's time base
    key : (n,) bool
    """

    data: np.ndarray
    sizes: np.ndarray
    pts: np.ndarray
    dts: np.ndarray
    duration: np.ndarray
    key: np.ndarray

    @classmethod
    def of(cls, packets: list[av.Packet]) -> "Piece":
        """Copy the packets of an encoder."""
        column = lambda name, kind: np.array([getattr(p, name) for p in packets], kind)
        data = np.frombuffer(b"".join(bytes(p) for p in packets), np.uint8)
        return cls(data, column("size", np.int64), column("pts", np.int64), column("dts", np.int64),
                   np.array([p.duration or 0 for p in packets], np.int64), column("is_keyframe", bool))


class VideoWriter:
    """Writes H.264 video with the sound, timestamps and colour tags of a source.

    The file is written beside `path` under a hidden temporary name, and takes its own name when it is whole. Used as a
    context manager, an exception inside the block removes the temporary file and leaves whatever `path` held before.

    Timestamps equal the source's to the tick in .mp4 and .mov; .mkv counts in milliseconds, and moves sound and picture
    together where the sound's encoder delay lies before 0. (MPEG transport streams,
    whose clock starts anywhere, are moved to start at 0.) Audio packets of all audio streams are copied unchanged;
    subtitles and chapters are not copied. Frames are written upright, without a display matrix.

    Parameters
    ----------
    path : output; the suffix, one of `SUFFIXES`, selects the container. An existing file is replaced on success.
    source : what the frames that will be written come from.
    crf : 0 (lossless) to 51; smaller is better and larger.
    preset : x264's trade between speed and size, "ultrafast" to "veryslow".
    metadata : tags of the container, such as ``comment``, or names of one's own. .mkv turns names into capitals.
    keep_pieces : have `end_piece` return what was encoded, which is held in memory until then.

    Raises
    ------
    InputError
        On construction: unknown suffix; missing or unwritable folder; `path` is the source or a folder; an audio
        codec that the container cannot hold. Later: the disk is full, or no frame was written.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        source: VideoInfo | VideoReader,
        *,
        crf: float = DEFAULT_CRF,
        preset: str = DEFAULT_PRESET,
        metadata: Mapping[str, str] | None = None,
        keep_pieces: bool = False,
    ):
        self.path = Path(path)
        self.info = source.info if isinstance(source, VideoReader) else source
        self.frames_written = 0
        self.audio_damage: str | None = None
        self._keep = keep_pieces
        self._settings = (crf, preset)
        self._encoder, self._kept, self._clock = None, [], _DecodingClock()
        self._origin_s = 0.0
        self._input = self._output = None
        self._temporary = _reserve(self.path, self.info.path)
        try:
            self._output = self._open_output(metadata or {})
            self._stream = self._add_video(crf, preset)
            self._audio = self._add_audio()
            self._pending = next(self._audio, None)
            self._start()
        except BaseException:
            self.discard()
            raise

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, frame: VideoFrame, rgb: np.ndarray | None = None, alpha: np.ndarray | None = None) -> None:
        """Append `frame`, with the pixels of `rgb` where `alpha` is above 0, or untouched.

        Parameters
        ----------
        frame : a frame of the source, in order of presentation.
        rgb : (H, W, 3) float in [0, 1] or uint8; the finished picture, already blended.
        alpha : (H, W) float or bool. Only its zeros matter: those pixels keep their samples. Without it, all of `rgb`
            is taken.
        """
        planes = frame.planes
        if rgb is not None:
            alpha = np.ones(rgb.shape[:2], bool) if alpha is None else alpha
            planes = compose_yuv(planes, rgb, alpha, frame.colour)
        elif alpha is not None:
            raise ValueError("alpha was given without rgb")
        ready = self._encoder_frame(frame, planes)
        if self._encoder is None:
            self._encoder = self._new_encoder()
        self._clock.frame(ready.pts)
        with self._disk_errors():
            self._mux(self._encoder.encode(ready))
        self.frames_written += 1

    def end_piece(self) -> Piece | None:
        """Let the frames that follow be encoded apart from those so far; return the latter with `keep_pieces`."""
        if self._encoder is not None:
            with self._disk_errors():
                self._mux(self._encoder.encode(None))
        self._encoder = None
        self._clock.end_piece()
        kept, self._kept = self._kept, []
        return Piece.of(kept) if self._keep else None

    def add_piece(self, piece: Piece) -> None:
        """Append frames that were encoded earlier, by a writer of the same source and settings."""
        for pts in np.sort(piece.pts):
            self._clock.frame(int(pts))
        ends = np.cumsum(piece.sizes)
        with self._disk_errors():
            for k, end in enumerate(ends):
                data = piece.data[end - piece.sizes[k]:end].tobytes()
                self._mux_one(data, *(int(a[k]) for a in (piece.pts, piece.dts, piece.duration)), bool(piece.key[k]))
        self._clock.end_piece()
        self.frames_written += len(piece.pts)

    def close(self) -> None:
        """Finish the file and give it its name. Raises `InputError` if no frame was written."""
        if self._output is None:
            return
        try:
            if self.frames_written == 0:
                raise InputError(f"{self.path} was not written because no frame was to be written; check the source")
            with self._disk_errors():
                self.end_piece()
                self._copy_audio(np.inf)
                self._output.close()
                self._output = None
                os.replace(self._temporary, self.path)
        finally:
            self.discard()

    def discard(self) -> None:
        """Stop and remove the temporary file, if it is still there; nothing happens after `close`."""
        for container in (self._output, self._input):
            if container is not None:
                with suppress(av.error.FFmpegError, OSError, ValueError):
                    container.close()
        self._output = self._input = self._encoder = None
        self._temporary.unlink(missing_ok=True)

    def _open_output(self, metadata: Mapping[str, str]) -> av.container.OutputContainer:
        # start offsets are stored in the movie's time scale: the muxer's 1/1000 would move sound by up to half of that
        options = {"movflags": "use_metadata_tags+faststart", "movie_timescale": "90000"}
        if self.path.suffix.lower() == ".mkv":
            options = {"fflags": "+bitexact"}       # otherwise every file gets random numbers for its tracks
        container = av.open(str(self._temporary), "w", container_options=options)
        container.metadata.update({key: str(value) for key, value in metadata.items()})
        return container

    def _add_video(self, crf: float, preset: str) -> av.VideoStream:
        """Add the stream; its own encoder only makes the header."""
        stream = self._output.add_stream("libx264", rate=self.info.rate, options=self._encoder_options(crf, preset))
        self._configure(stream.codec_context)
        # both: the stream's own is only a wish to the muxer, and the encoder's would stay 1/rate
        stream.time_base = self.info.time_base
        return stream

    def _new_encoder(self) -> av.VideoCodecContext:
        context = av.CodecContext.create("libx264", "w")
        context.options = self._encoder_options(*self._settings)
        context.framerate = self.info.rate
        context.flags |= av.codec.context.Flags.global_header
        self._configure(context)
        return context

    def _encoder_options(self, crf: float, preset: str) -> dict[str, str]:
        # mbtree: x264's AVX-512 code for it reads memory that nobody wrote, so that two runs differ
        parameters = "mbtree=0" if self.info.subsampled else "mbtree=0:chroma-qp-offset=-6"  # undo x264's +6 in 4:4:4
        return {"crf": str(crf), "preset": preset, "x264-params": parameters}

    def _configure(self, context: av.VideoCodecContext) -> None:
        info, colour = self.info, self.info.colour
        context.width, context.height = info.width, info.height
        context.pix_fmt = "yuv420p" if info.subsampled else "yuv444p"
        context.color_range, context.colorspace = colour.range, colour.matrix
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        if info.sample_aspect_ratio:
            context.sample_aspect_ratio = info.sample_aspect_ratio
        context.time_base = info.time_base

    def _add_audio(self) -> Iterator[av.Packet]:
        """Add a copy of every audio stream of the source, and return the iterator over their packets."""
        if not self.info.has_audio:
            return iter(())
        self._input = av.open(str(self.info.path), metadata_errors="replace")
        if self._input.format.name in _NO_ORIGIN and self._input.start_time:
            self._origin_s = self._input.start_time / av.time_base
        copies = {}
        for stream in self._input.streams.audio:
            try:
                copy = self._output.add_stream_from_template(stream)
            except (ValueError, av.error.FFmpegError) as error:
                raise self._sound_refused(stream.codec_context.name if stream.codec_context else "unknown") from error
            copy.metadata.update({k: v for k, v in stream.metadata.items() if k in ("language", "title")})
            copy.disposition = stream.disposition
            copies[stream.index] = copy
        return self._audio_packets(copies)

    def _audio_packets(self, copies: dict) -> Iterator[av.Packet]:
        packets = self._input.demux(list(self._input.streams.audio))
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                self.audio_damage = f"{self.info.path} has damaged sound ({error.strerror}); the rest was not copied"
                return
            if packet is None:
                return
            if packet.dts is None:
                continue
            shift = round(self._origin_s / packet.time_base)
            packet.stream = copies[packet.stream.index]
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            yield packet

    def _start(self) -> None:
        try:
            self._output.start_encoding()
        except (ValueError, av.error.FFmpegError) as error:
            names = [stream.codec_context.name for stream in self._output.streams.audio]
            if names:
                raise self._sound_refused(" and ".join(names)) from error
            raise InputError(f"{self.path} cannot be encoded ({error}); check the crf and preset settings") from error

    def _sound_refused(self, codec: str) -> InputError:
        suffix = self.path.suffix
        remedy = "convert the sound to AAC first" if suffix == ".mkv" else f"write {self.path.stem}.mkv instead"
        return InputError(f"{self.path} cannot hold the sound of {self.info.path} ({codec}) in {suffix}; {remedy}")

    def _encoder_frame(self, frame: VideoFrame, planes: Planes) -> av.VideoFrame:
        info, colour = self.info, self.info.colour
        if planes.y.shape != (info.height, info.width) or planes.subsampled != info.subsampled:
            raise ValueError(f"frame {frame.index} is {planes.y.shape}, not {(info.height, info.width)} as the source")
        out = av.VideoFrame(info.width, info.height, "yuv420p" if info.subsampled else "yuv444p")
        for plane, samples in zip(out.planes, planes, strict=True):
            np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width] = samples
        out.color_range, out.colorspace = colour.range, colour.matrix
        out.color_primaries, out.color_trc = colour.primaries, colour.transfer
        out.time_base = info.time_base
        out.pts = frame.pts - round(self._origin_s / info.time_base)
        out.duration = frame.duration
        return out

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            if self._keep:
                self._kept.append(packet)
            self._mux_one(bytes(packet), packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe)

    def _mux_one(self, data: bytes, pts: int, dts: int, duration: int, key: bool) -> None:
        packet = av.Packet(data)          # anew: what an encoder attaches besides is not kept with a piece either
        packet.time_base = self.info.time_base
        packet.pts, packet.dts, packet.duration = pts, self._clock.dts(dts), duration
        packet.is_keyframe = key
        packet.stream = self._stream
        self._copy_audio(float(packet.dts * packet.time_base))
        self._output.mux(packet)

    def _copy_audio(self, until_s: float) -> None:
        while self._pending is not None and self._pending.dts * self._pending.time_base <= until_s:
            self._output.mux(self._pending)
            self._pending = next(self._audio, None)

    def _disk_errors(self) -> "_DiskErrors":
        return _DiskErrors(self.path)


class _DecodingClock:
    """Decoding times over the pieces' borders.

    x264 decodes packet k at the time of frame k - d, d being how far it reorders, and the first d packets before the
    first frame. A later piece's encoder does not know the frames before its own; here they are known.
    """

    def __init__(self):
        self._times = deque()           # of frames that no packet has got yet
        self._first_piece, self._start = True, None

    def frame(self, pts: int) -> None:
        """Note the next frame's time."""
        if self._start is None:
            self._start = pts
        self._times.append(pts)

    def dts(self, own: int) -> int:
        """Return the decoding time of the next packet; `own` is the encoder's."""
        if not self._first_piece:
            return self._times.popleft()
        if own >= self._start:
            self._times.popleft()
        return own

    def end_piece(self) -> None:
        """All packets of the frames so far have been given their times."""
        if self._start is not None:
            self._first_piece = False


class _DiskErrors:
    """Turns failures of writing inside a ``with`` block into an `InputError`."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, _) -> None:
        if isinstance(error, (OSError, av.error.FFmpegError)):
            reason = error.strerror or error
            raise InputError(f"{self.path} could not be written ({reason}); check the free space there") from error


def compose_yuv(planes: Planes, rgb: np.ndarray, alpha: np.ndarray, colour: Colour) -> Planes:
    """Replace the samples of changed pixels.

    Parameters
    ----------
    planes : the decoded frame. Not modified.
    rgb : (H, W, 3) float in [0, 1] or uint8.
    alpha : (H, W) float or bool; pixels above 0 are changed.
    colour : matrix and range of `planes`.

    Returns
    -------
    Planes equal to `planes` except for the Y of changed pixels, and the U and V of 2 x 2 blocks (in 4:2:0) that hold a
    changed pixel: these are the mean over the block of the chroma of `rgb`, rounded once.
    """
    shape = planes.y.shape
    if rgb.shape != (*shape, 3) or alpha.shape != shape:
        raise ValueError(f"expected rgb {(*shape, 3)} and alpha {shape}, got {rgb.shape} and {alpha.shape}")
    changed = alpha > 0
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    if rows.size == 0:
        return planes
    step = 2 if planes.subsampled else 1
    top, left = rows[0] // step * step, columns[0] // step * step
    bottom, right = -(-(rows[-1] + 1) // step) * step, -(-(columns[-1] + 1) // step) * step
    box = np.s_[top:bottom, left:right]
    box_chroma = np.s_[top // step : bottom // step, left // step : right // step]

    matrix = colour.rgb_to_yuv()
    if rgb.dtype != np.uint8:
        matrix[:, :3] *= 255
    yuv = cv2.transform(np.ascontiguousarray(rgb[box], dtype=np.float32), matrix)
    mask = changed[box]
    chroma = yuv[..., 1:]
    if planes.subsampled:
        height, width = mask.shape
        chroma = cv2.resize(chroma, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        mask_chroma = mask.reshape(height // 2, 2, width // 2, 2).any(axis=(1, 3))
    else:
        mask_chroma = mask
    result = Planes(*(plane.copy() for plane in planes))
    np.copyto(result.y[box], _round(yuv[..., 0]), where=mask)
    np.copyto(result.u[box_chroma], _round(chroma[..., 0]), where=mask_chroma)
    np.copyto(result.v[box_chroma], _round(chroma[..., 1]), where=mask_chroma)
    return result


def _round(samples: np.ndarray) -> np.ndarray:
    return (np.clip(samples, 0, 255) + 0.5).astype(np.uint8)


def _reserve(path: Path, source: Path) -> Path:
    """Check that `path` can be written and create the empty temporary file beside it."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} has an unknown suffix '{path.suffix}'; name the output {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written because {path.parent} is not a folder; create it first")
    if path.exists() and path.samefile(source):
        raise InputError(f"{path} is the source itself; choose another name for the output")
    temporary = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(4)}.part{suffix}")
    try:
        temporary.open("xb").close()
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another folder") from error
    return temporary
