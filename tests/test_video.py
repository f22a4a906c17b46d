"""Video in and out: samples, timestamps, sound, tags, and one clear line for everything that can go wrong."""

import os
from fractions import Fraction
from itertools import accumulate

import av
import cv2
import numpy as np
import pytest

from compositing.video_writer import VideoWriter, compose_yuv
from facemodel.errors import InputError
from fitting.video_reader import VideoReader, probe, read_frames
from fitting.yuv import Colour, Planes
from tests import clips
from tests.clips import NTSC, pattern


def make_video(
    path, count=12, size=(96, 64), codec="libx264", pix_fmt="yuv420p", rate=NTSC, time_base=None, pts=None, audio=0,
    audio_codec="aac", audio_start=0, colour=None, rotation=None, options=None,
):
    """Write a small test clip; `audio` is the number of sound streams, `pts` the frames' times in `time_base`."""
    time_base = time_base or 1 / rate
    scale = {"movie_timescale": "90000"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", container_options=scale) as container:
        video = container.add_stream(codec, rate=rate, options=options or {})
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        video.time_base = video.codec_context.time_base = time_base
        if colour:
            video.color_range, video.colorspace = colour.range, colour.matrix
            video.color_primaries, video.color_trc = colour.primaries, colour.transfer
        if rotation:
            video.set_display_rotation(*rotation)
        sounds = [container.add_stream(audio_codec, rate=48000) for _ in range(audio)]
        for sound in sounds:
            sound.layout = "mono"
        packets = []
        for index, at in zip(range(count), pts or range(count)):
            frame = av.VideoFrame.from_ndarray(pattern(index, *size), "rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = at, time_base
            packets += video.encode(frame)
        packets += video.encode(None)
        for number, sound in enumerate(sounds):
            for block in range(count * 2):
                wave = np.sin(np.arange(1024) * (block + 1) * (number + 1) * 1e-3).astype(np.float32)[None] * 0.5
                if audio_codec == "aac":
                    frame = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
                else:
                    frame = av.AudioFrame.from_ndarray((128 + wave * 127).astype(np.uint8), "u8", "mono")
                frame.sample_rate, frame.pts = 48000, audio_start + block * 1024
                frame.time_base = Fraction(1, 48000)
                packets += sound.encode(frame)
            packets += sound.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def copy_through(source, target, **options):
    """Read and write every frame untouched; return the source's frames."""
    with VideoReader(source) as reader, VideoWriter(target, reader, **options) as writer:
        frames = []
        for frame in reader:
            writer.write(frame)
            frames.append(frame)
    return frames


def sound_packets(path):
    """Return, for every sound stream, a list of (time in seconds, bytes)."""
    with av.open(str(path)) as container:
        streams = container.streams.audio
        packets = {stream.index: [] for stream in streams}
        for packet in container.demux(*streams):
            if packet.dts is not None:
                packets[packet.stream.index].append((packet.pts * packet.time_base, bytes(packet)))
    return list(packets.values())


def times(path):
    return [frame.pts * frame.time_base for frame in read_frames(path)]


def test_ntsc_clip_with_two_sounds_keeps_times_sound_and_picture(tmp_path):
    source = make_video(tmp_path / "in.mp4", count=40, audio=2)
    info = probe(source)
    assert (info.width, info.height, info.rate, info.has_audio) == (96, 64, NTSC, True)
    assert info.frame_count_estimate == 40
    frames = copy_through(source, tmp_path / "out.mp4")
    assert [frame.index for frame in frames] == list(range(40))
    assert [frame.pts * frame.time_base for frame in frames] == [index / NTSC for index in range(40)]
    assert times(tmp_path / "out.mp4") == times(source)
    assert probe(tmp_path / "out.mp4").rate == NTSC
    before, after = sound_packets(source), sound_packets(tmp_path / "out.mp4")
    assert len(before) == 2
    assert before == after
    for was, now in zip(frames, read_frames(tmp_path / "out.mp4"), strict=True):
        for plane, copied in zip(was.planes, now.planes):
            assert cv2.PSNR(np.ascontiguousarray(plane), np.ascontiguousarray(copied)) > 42
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_variable_rate_and_late_sound(tmp_path, suffix):
    pts = [0, *accumulate([461, 640, 210, 512, 2000, 512, 512, 333, 700, 512], initial=512)]
    source = make_video(tmp_path / "in.mov", pts=pts, time_base=Fraction(1, 15360), audio=1, audio_start=11111)
    assert [frame.pts for frame in read_frames(source)] == pts
    copy_through(source, tmp_path / f"out{suffix}")
    assert times(tmp_path / f"out{suffix}") == times(source)
    assert sound_packets(tmp_path / f"out{suffix}") == sound_packets(source)


def test_late_picture(tmp_path):
    source = make_video(tmp_path / "in.mp4", pts=range(20, 32), audio=1)
    assert times(source)[0] == 20 / NTSC
    copy_through(source, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == times(source)
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(source)


def test_matroska_times_to_the_millisecond(tmp_path):
    source = make_video(tmp_path / "in.mp4", audio=1)
    copy_through(source, tmp_path / "out.mkv", metadata={"synthetic": "yes"})
    before, after = sound_packets(source)[0], sound_packets(tmp_path / "out.mkv")[0]
    assert [data for _, data in before] == [data for _, data in after]
    shift = after[0][0] - before[0][0]
    np.testing.assert_allclose(
        np.array(times(tmp_path / "out.mkv"), float), np.array(times(source), float) + float(shift), atol=1.1e-3
    )
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.metadata["SYNTHETIC"] == "yes"


def test_transport_stream_starts_at_zero(tmp_path):
    source = make_video(tmp_path / "in.ts", audio=1, pts=range(60, 72), audio_start=96000)
    assert times(source)[0] > 1
    copy_through(source, tmp_path / "out.mp4")
    moved = np.array(times(source), float) - np.array(times(tmp_path / "out.mp4"), float)
    assert np.ptp(moved) < 1e-9
    assert times(tmp_path / "out.mp4")[0] < 0.1
    assert len(sound_packets(tmp_path / "out.mp4")[0]) == len(sound_packets(source)[0])


def test_a_clip_that_is_written_in_part_has_all_of_its_sound(tmp_path):
    source = make_video(tmp_path / "in.mp4", audio=1)
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader) as writer:
        for frame in reader:
            if frame.index < 6:
                writer.write(frame)
    assert sound_packets(tmp_path / "out.mp4")[0][-1][0] == sound_packets(source)[0][-1][0] > 6 / NTSC


@pytest.mark.parametrize("colour", [Colour(), Colour(1, 1, 1, 1), Colour(6, 1, 6, 6), Colour(1, 2, 1, 13)])
def test_colour_tags_and_metadata(tmp_path, colour):
    source = make_video(tmp_path / "in.mp4", count=3, colour=colour)
    tags = {"comment": "synthetic face, made with dynatex", "description": "a test", "synthetic": "yes"}
    copy_through(source, tmp_path / "out.mp4", metadata=tags)
    info = probe(tmp_path / "out.mp4")
    assert probe(source).colour == info.colour == colour
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert tags.items() <= container.metadata.items()


@pytest.mark.parametrize("subsampled", [True, False])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_compose_leaves_other_samples_alone(subsampled, kind):
    rng = np.random.default_rng(0)
    chroma = (2, 20, 30) if subsampled else (2, 40, 60)
    planes = Planes(rng.integers(16, 236, (40, 60), np.uint8), *rng.integers(16, 240, chroma, np.uint8))
    before = [plane.copy() for plane in planes]
    alpha = np.zeros((40, 60), np.float32)
    alpha[7:22, 11:31] = 0.5
    alpha[39, 59] = 1e-3
    rgb = np.ones((40, 60, 3), kind) * (255 if kind == np.uint8 else 1)
    result = compose_yuv(planes, rgb, alpha, Colour(1, 1))
    inside = alpha > 0
    inside_chroma = inside.reshape(20, 2, 30, 2).any((1, 3)) if subsampled else inside
    for old, new, mask, white in zip(before, result, (inside, inside_chroma, inside_chroma), (235, 128, 128)):
        np.testing.assert_array_equal(new[~mask], old[~mask])
        assert (new[mask] == white).all()
    for plane, old in zip(planes, before):
        np.testing.assert_array_equal(plane, old)
    assert compose_yuv(planes, rgb, np.zeros((40, 60), bool), Colour()) is planes


def test_written_face_lands_in_the_file_and_nowhere_else(tmp_path):
    source = make_video(tmp_path / "in.mp4")
    alpha = np.zeros((64, 96), bool)
    alpha[16:48, 32:64] = True
    red = np.zeros((64, 96, 3), np.float32)
    red[..., 0] = 0.8
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader, crf=4) as writer:
        for frame in reader:
            writer.write(frame, red, alpha)
    apart = cv2.dilate(alpha.astype(np.uint8), np.ones((9, 9))) == 0
    for was, now in zip(read_frames(source), read_frames(tmp_path / "out.mp4"), strict=True):
        assert np.abs(now.rgb[20:44, 36:60].astype(int) - (204, 0, 0)).mean() < 3
        assert np.abs(now.planes.y.astype(int) - was.planes.y)[apart].mean() < 0.7


@pytest.mark.parametrize("size", [(97, 64), (96, 65), (97, 65)])
def test_odd_size_is_kept(tmp_path, size):
    source = make_video(tmp_path / "in.mkv", size=size, codec="mpeg4", rate=Fraction(25), options={"qscale": "2"})
    frames = copy_through(source, tmp_path / "out.mp4", crf=6)
    assert frames[0].rgb.shape == (size[1], size[0], 3)
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height, info.subsampled) == (*size, False)
    for was, now in zip(frames, read_frames(tmp_path / "out.mp4"), strict=True):
        assert np.abs(was.rgb.astype(int) - now.rgb).mean() < 2.5


@pytest.mark.parametrize("turn", [(90,), (-90,), (180,), (0, True, False), (0, False, True), (90, True, False)])
def test_rotated_source_becomes_upright(tmp_path, turn):
    source = make_video(tmp_path / "in.mp4", count=3, rotation=turn)
    upright = np.rot90(pattern(0, 96, 64), turn[0] // 90)
    with av.open(str(source)) as container:
        assert next(container.decode(video=0)).rotation in (turn[0], -turn[0], 180, -180, 0)
    frames = copy_through(source, tmp_path / "out.mp4")
    if len(turn) == 1:
        assert probe(source).rotation_deg % 360 == turn[0] % 360
        assert np.abs(frames[0].rgb.astype(int) - upright).mean() < 6
    elif turn[0] == 0:
        mirrored = pattern(0, 96, 64)[:, ::-1] if turn[1] else pattern(0, 96, 64)[::-1]
        assert np.abs(frames[0].rgb.astype(int) - mirrored).mean() < 6
    else:
        variants = [np.rot90(flipped, k) for flipped in (frames[0].rgb, frames[0].rgb[:, ::-1]) for k in range(4)]
        same = [np.abs(v.astype(int) - pattern(0, 96, 64)).mean() < 6 for v in variants if v.shape == (64, 96, 3)]
        assert sum(same) == 1
    out = next(read_frames(tmp_path / "out.mp4"))
    assert probe(tmp_path / "out.mp4").rotation_deg == 0
    assert out.rgb.shape == frames[0].rgb.shape
    assert np.abs(out.rgb.astype(int) - frames[0].rgb).mean() < 3


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("libx264", "yuv420p10le", ".mp4"), ("libx264", "yuv422p", ".mp4"), ("libx264", "gray", ".mp4"),
        ("libx264", "yuv444p", ".mp4"), ("libx264rgb", "rgb24", ".mkv"), ("mjpeg", "yuvj422p", ".mov"),
        ("png", "rgba", ".mov"),
    ],
)  # fmt: skip
def test_other_pixel_formats(tmp_path, codec, pix_fmt, suffix):
    options = {"crf": "4"} if codec.startswith("libx264") else {}
    source = make_video(tmp_path / f"in{suffix}", 3, codec=codec, pix_fmt=pix_fmt, options=options, rate=Fraction(25))
    expected = pattern(0, 96, 64).astype(int)
    if pix_fmt == "gray":
        expected = expected @ [0.299, 0.587, 0.114]
        expected = np.repeat(expected[..., None], 3, -1)
    frames = copy_through(source, tmp_path / "out.mp4")
    assert np.abs(frames[0].rgb - expected).mean() < 4
    out = next(read_frames(tmp_path / "out.mp4"))
    assert np.abs(out.rgb.astype(int) - frames[0].rgb).mean() < 4


def error_line(path, action):
    """Return the message of the `InputError` of `action`, checked to be one line that names `path`."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    assert len(message) < 400
    return message


def test_input_errors(tmp_path):
    def message(name, data=None):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        return error_line(path, lambda: probe(path))

    assert "does not exist" in message("none.mp4")
    assert "folder" in message("")
    assert "empty" in message("empty.mp4", b"")
    assert "cannot be read as a video" in message("text.mp4", b"hello" * 100)
    assert "is a text file" in message("text.txt", b"hello" * 100)
    for suffix in (".png", ".jpg", ".webp"):
        assert "is a photo" in message(f"photo{suffix}", cv2.imencode(suffix, pattern(0, 96, 64))[1].tobytes())
    assert "photo" in message("photo.mp4", cv2.imencode(".jpg", pattern(0, 96, 64))[1].tobytes())
    with av.open(str(tmp_path / "sound.m4a"), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        for block in range(4):
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            silence.sample_rate, silence.pts = 48000, block * 1024
            container.mux(stream.encode(silence))
    assert "only sound" in message("sound.m4a")
    whole = make_video(tmp_path / "in.mp4").read_bytes()
    assert "cut off" in message("headless.mp4", whole[: len(whole) // 2])
    assert "no frame" in message("zero.mp4", blank_media(whole, 1.0))
    small = make_video(tmp_path / "small.mp4", size=(16, 16))
    assert "pixels" in error_line(small, lambda: probe(small))


def blank_media(data, share):
    """Overwrite the last `share` of an MP4's media bytes with zeros."""
    start = data.index(b"mdat") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big") - 8
    kept = start + int(length * (1 - share))
    return data[:kept] + bytes(start + length - kept) + data[start + length :]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_file_cut_off_in_the_middle(tmp_path, suffix):
    whole = make_video(tmp_path / f"in{suffix}", 60, rate=Fraction(25), options={"g": "10"})
    copy_through(whole, tmp_path / f"front{suffix}")  # rewritten with its index in front
    data = (tmp_path / f"front{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[: int(len(data) * 0.6)])
    with VideoReader(tmp_path / f"cut{suffix}") as reader:
        count = sum(1 for _ in reader)
        assert 5 < count < 60
        assert f"cut{suffix}" in reader.damage
        assert str(count) in reader.damage
    with VideoReader(whole) as reader:
        assert sum(1 for _ in reader) == 60
        assert reader.damage is None


def test_damage_in_the_middle(tmp_path):
    data = make_video(tmp_path / "in.mp4", 60, rate=Fraction(25), options={"g": "10"}).read_bytes()
    (tmp_path / "bad.mp4").write_bytes(blank_media(data, 0.5))
    with VideoReader(tmp_path / "bad.mp4") as reader, VideoWriter(tmp_path / "out.mp4", reader) as writer:
        for frame in reader:
            writer.write(frame)
        assert 5 < writer.frames_written < 60
        assert "damaged" in reader.damage
    assert len(times(tmp_path / "out.mp4")) == writer.frames_written


@pytest.mark.parametrize(("which", "share", "lost", "words"), [
    ([20], 1, {20}, "behind frame 20 some could not be read"),
    ([20, 21, 30], 1, {20, 21, 30}, "57 of 60"),
    ([20, 25], 0.5, set(), "2 frames show damage")])
def test_frames_that_cannot_be_read_are_left_out_and_nothing_else(tmp_path, which, share, lost, words):
    """The others have their own times; two readings agree; the words name the file."""
    pictures = [clips.pattern(t, 96, 64) for t in range(60)]
    source = clips.write_clip(tmp_path / "in.mp4", pictures, clips.NTSC, gop=40)
    bad, whole = clips.spoilt(tmp_path / "bad.mp4", source, which, share), times(source)
    seen = []
    for _ in range(2):
        with VideoReader(bad) as reader:
            frames = list(reader)
        assert [f.index for f in frames] == list(range(60 - len(lost)))
        assert [f.pts * f.time_base for f in frames] == [t for k, t in enumerate(whole) if k not in lost]
        assert "bad.mp4 is damaged" in reader.damage and words in reader.damage
        seen.append([f.rgb.tobytes() for f in frames])
    assert seen[0] == seen[1]


def test_output_errors(tmp_path):
    source = make_video(tmp_path / "in.mp4", audio=1)
    info = probe(source)

    def message(path):
        return error_line(path, lambda: VideoWriter(path, info))

    assert ".mkv" in message(tmp_path / "out.avi")
    assert "create it" in message(tmp_path / "none" / "out.mp4")
    assert "not a folder" in message(source / "out.mp4")
    assert "source itself" in message(source)
    (tmp_path / "folder.mp4").mkdir()
    assert "folder" in message(tmp_path / "folder.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.mp4", "in.mp4"]
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        assert "cannot be written" in message(tmp_path / "closed" / "out.mp4")


def test_sound_that_the_container_cannot_hold(tmp_path):
    source = make_video(tmp_path / "in.avi", audio=1, audio_codec="pcm_u8", codec="mpeg4", rate=Fraction(25))
    path = tmp_path / "out.mp4"
    assert "out.mkv" in error_line(path, lambda: VideoWriter(path, probe(source)))
    assert [path.name for path in tmp_path.iterdir()] == ["in.avi"]
    copy_through(source, tmp_path / "out.mkv")
    before, after = sound_packets(source)[0], sound_packets(tmp_path / "out.mkv")[0]
    assert [data for _, data in before] == [data for _, data in after]


def test_nothing_is_left_after_an_exception(tmp_path):
    source = make_video(tmp_path / "in.mp4", audio=1)
    target = tmp_path / "out.mp4"
    target.write_bytes(b"the earlier result")
    with pytest.raises(KeyError), VideoReader(source) as reader, VideoWriter(target, reader) as writer:
        for frame in reader:
            writer.write(frame)
            if frame.index == 5:
                raise KeyError
    assert target.read_bytes() == b"the earlier result"
    with pytest.raises(InputError, match="no frame"), VideoWriter(target, probe(source)):
        pass
    assert target.read_bytes() == b"the earlier result"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_two_runs_give_the_same_bytes(tmp_path):
    source = make_video(tmp_path / "in.mp4", size=(192, 128), count=30, audio=1)
    copy_through(source, tmp_path / "a.mp4")
    copy_through(source, tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_reader_is_read_once_and_frames_are_read_only(tmp_path):
    source = make_video(tmp_path / "in.mp4")
    with VideoReader(source) as reader:
        frame = list(reader)[-1]
        with pytest.raises(RuntimeError, match="once"):
            next(iter(reader))
    with pytest.raises(ValueError, match="read-only"):
        frame.rgb[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        frame.planes.y[0] = 0
    assert len(list(read_frames(source, limit=4))) == 4
