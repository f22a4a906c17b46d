"""Small clips for tests, cut from the demo clip (640 x 360, 72 frames, one face) with PyAV."""
from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np

import assets
from fitting.detection import FaceDetector
from fitting.track import track_clip
from fitting.trackfile import Track, load_track, save_track

DEMO = assets.path("demo/single_face.mp4")
NTSC = Fraction(30000, 1001)
FACE_SPAN = (slice(None), slice(120, 480))          # rows and columns of the demo clip that hold the face


@lru_cache
def demo_frames(count: int = 24) -> tuple:
    """The first frames of the demo clip: count arrays (360, 640, 3) uint8 RGB, read-only."""
    out = []
    with av.open(str(DEMO)) as container:
        for frame in container.decode(video=0):
            picture = frame.to_ndarray(format="rgb24")
            picture.flags.writeable = False
            out.append(picture)
            if len(out) == count:
                break
    return tuple(out)


def write_clip(path: Path, pictures, rate=Fraction(25), sound: bool = False, gop: int = 250) -> Path:
    """Writes pictures (H, W, 3) uint8 as H.264 of high quality; odd sizes become 4:4:4. Returns the path."""
    pictures = list(pictures)
    height, width = pictures[0].shape[:2]
    scale = {"movie_timescale": "90000"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", container_options=scale) as container:
        options = {"crf": "10", "preset": "veryfast", "g": str(gop), "x264-params": "mbtree=0:bframes=0"}
        video = container.add_stream("libx264", rate=rate, options=options)
        video.width, video.height = width, height
        video.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        video.time_base = video.codec_context.time_base = 1 / Fraction(rate)
        audio = container.add_stream("aac", rate=48000, layout="mono") if sound else None
        packets = []
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24").reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = index, video.time_base
            packets += video.encode(frame)
        packets += video.encode(None)
        if sound:
            for block in range(int(48000 * len(pictures) / rate / 1024) + 1):
                at = np.arange(block * 1024, (block + 1) * 1024) / 48000
                wave = (0.3 * np.sin(2 * np.pi * (300 + 40 * block) * at)).astype(np.float32)[None]
                frame = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
                frame.sample_rate, frame.pts, frame.time_base = 48000, block * 1024, Fraction(1, 48000)
                packets += audio.encode(frame)
            packets += audio.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def cut(path: Path, count: int = 6, start: int = 0, crop: tuple[int, int] | None = None,
        change: Callable | None = None, **options) -> Path:
    """The demo clip from frame `start` on, cropped to (width, height), each picture through change(index, picture)."""
    pictures = demo_frames(start + count)[start:]
    if crop:
        pictures = [p[:crop[1], :crop[0]] for p in pictures]
    if change:
        pictures = [change(i, p) for i, p in enumerate(pictures)]
    return write_clip(path, pictures, **options)


def grey(height: int = 360, width: int = 640) -> np.ndarray:
    """A picture without a face: a soft grey slope."""
    slope = np.linspace(90, 150, width, dtype=np.float32)[None, :, None] + np.zeros((height, 1, 3), np.float32)
    return slope.astype(np.uint8)


def pattern(index: int, width: int, height: int) -> np.ndarray:
    """A smooth pattern without a face that moves with `index`: (height, width, 3) uint8."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 9 + index / 5 + k) * np.cos(columns / 11 - index / 7 + 2 * k) for k in range(3)]
    return (128 + 70 * np.stack(waves, -1)).astype(np.uint8)


def cut_with_gap(path: Path, count: int, gap: range, **options) -> Path:
    """The demo clip with grey frames where `gap` says: the face leaves and returns."""
    return cut(path, count, change=lambda i, p: grey(*p.shape[:2]) if i in gap else p, **options)


def no_face(path: Path, count: int = 6) -> Path:
    """A clip of grey frames."""
    return write_clip(path, [grey()] * count)


def side_by_side(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two pictures of the demo clip beside each other, cut to the part with the face: (360, 720, 3)."""
    return np.concatenate([picture[FACE_SPAN], other[FACE_SPAN]], axis=1)


def two_faces(path: Path, count: int = 6) -> Path:
    """The demo clip's face twice, 720 x 360; on the right mirrored."""
    return write_clip(path, [side_by_side(p, p[:, ::-1][:, 40:]) for p in demo_frames(count)])


@lru_cache
def stranger(size: int = 240) -> np.ndarray:
    """The head of somebody else than the demo clip's, a still: (size, size, 3) uint8, read-only."""
    picture = cv2.cvtColor(cv2.imread(str(assets.path("demo/nobody.png"))), cv2.COLOR_BGR2RGB)
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    picture.flags.writeable = False
    return picture


def crossing(index: int, count: int) -> tuple[np.ndarray, float, float]:
    """Two people who change places, the demo clip's, from left to right, in front of `stranger`.

    Returns the picture (300, 640, 3) uint8 of frame `index` of `count`, and the middles of their faces in x.
    """
    share = np.clip((index - 4) / (count - 9), 0, 1)
    walker, other = demo_frames(index + 1)[index][40:340, 160:420], stranger()
    left, right = round(380 * share), round(400 * (1 - share))
    picture = grey(300, 640)
    picture[30:270, right:right + 240] = other
    picture[:, left:left + 260] = walker
    return picture, left + 130, right + 120


def known_track(model, clip: Path, stored: Path | None = None, **options) -> Track:
    """The track of a clip: read from `stored` where that is there, else made, by track_clip's options, and kept."""
    if stored and stored.is_file():
        return load_track(stored, model)
    track = track_clip(model, clip, FaceDetector(), **options).track
    if stored:
        save_track(track, stored)
    return track


def with_index_in_front(path: Path, source: Path) -> Path:
    """Copies the packets of a clip into an MP4 whose index comes first, so that a cut file can still be opened."""
    with av.open(str(source)) as old, av.open(str(path), "w", container_options={"movflags": "faststart"}) as new:
        video = old.streams.video[0]
        copy = new.add_stream_from_template(video)
        for packet in old.demux(video):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    return path


def truncated(path: Path, source: Path, share: float = 0.6) -> Path:
    """The first part of a clip's bytes, with its index in front."""
    data = with_index_in_front(path, source).read_bytes()
    path.write_bytes(data[:int(len(data) * share)])
    return path


def spoilt(path: Path, source: Path, which, share: float = 1.0) -> Path:
    """A clip in which the last `share` of the bytes of some packets, counted from 0, are zeros."""
    with av.open(str(source)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(source.read_bytes())
    for place, size in (packets[k] for k in which):
        gone = round(share * size)
        data[place + size - gone:place + size] = bytes(gone)
    path.write_bytes(data)
    return path


def blank_media(path: Path, source: Path) -> Path:
    """A clip whose index is whole and whose pictures are all zeros: not one frame can be decoded."""
    data = bytearray(source.read_bytes())
    start = data.index(b"mdat") + 4
    length = int.from_bytes(data[start - 8:start - 4], "big") - 8
    data[start:start + length] = bytes(length)
    path.write_bytes(data)
    return path


def decoded(path: Path) -> list[np.ndarray]:
    """All frames of a clip, (H, W, 3) uint8."""
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def video_times(path: Path) -> list[Fraction]:
    """Presentation times in seconds."""
    with av.open(str(path)) as container:
        return [f.pts * f.time_base for f in container.decode(video=0)]


def sound_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    """(time in seconds, bytes) of every packet of the first sound stream."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.dts is not None]
