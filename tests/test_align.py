"""Alignment of two performances: against brute force, a known map of time, and the phonemes that espeak-ng reports.

    python -m pytest tests/test_align.py -k espeak -s          prints the errors in milliseconds
"""
import csv
import dataclasses
import sys
from fractions import Fraction
from functools import lru_cache, partial
from types import SimpleNamespace

import av
import numpy as np
import pytest

from facemodel.errors import InputError
from fitting.trackfile import file_hash, save_track
from tests import speech
from tests.clips import NTSC, pattern, truncated
from tests.test_replace import error_of, run
from tests.test_trackfile import some_track
from tests.test_video import make_video
from texgan.align import COLUMNS, align_audio, align_expression, align_sounds, main, nearest, timestamps, with_times
from texgan.soundtrack import RATE, Sound, read_sound, speech_features, speech_span
from texgan.warping import Warp, match, shortest_path, smooth_path


@pytest.fixture(scope="module")
def espeak():
    """tests.speech, where there is an espeak-ng."""
    if reason := speech.why_missing():
        pytest.skip(reason)
    return speech


# --- a voice of known timing, and clips with it

LENGTH_S = 4.0


def said(content, pitch):
    """Harmonics of a voice whose formants wander with `content` (N,) seconds into the text: (N,) float32."""
    rng = np.random.default_rng(7)
    wander = lambda: sum(rng.normal() * np.sin(content * f + rng.uniform(0, 6)) for f in (3.1, 7.3, 11.9, 17.0))
    formants = 500 + 130 * wander(), 1500 + 300 * wander(), 2700 + 250 * wander()
    loudness = np.exp(0.4 * wander()) * ((content > 0) & (content < LENGTH_S))
    clock = np.arange(len(content)) / RATE
    out = np.zeros(len(content))
    for number in range(1, int(4000 / pitch)):
        hertz = number * pitch
        level = sum(np.exp(-0.5 * ((hertz - f) / 150) ** 2) / (k + 1) for k, f in enumerate(formants))
        out += level * np.sin(2 * np.pi * hertz * clock + number ** 2)
    return (0.1 * loudness * out).astype(np.float32)


def other_time(t):
    """When the second performance says what the first one says at t: 10 to 70 % slower, 0.7 s later."""
    return 0.7 + 1.4 * t + 0.12 * np.sin(2.5 * t)


@lru_cache
def performances():
    """Two recordings of the same: A from 0.3 s before the first word on, B by another voice."""
    begin, rng = 0.3, np.random.default_rng(0)
    clock_a = np.arange(int(5 * RATE)) / RATE
    fine = np.arange(-1, 6, 0.001)
    clock_b = np.arange(int(7.6 * RATE)) / RATE
    hiss = lambda x: x + rng.normal(0, 1e-3, len(x)).astype(np.float32)
    return (hiss(said(clock_a - begin, 110.0)), hiss(said(np.interp(clock_b, other_time(fine), fine), 190.0)),
            lambda t: other_time(t - begin))


def write_clip(path, samples, rate=RATE, frames=24, fps=Fraction(25), pts=None, time_base=None, start_s=0.0):
    """A clip of moving pictures with a sound that begins at start_s: uncompressed in .mkv, AAC elsewhere."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.time_base = video.codec_context.time_base = time_base or 1 / fps
        audio = container.add_stream("pcm_s16le" if path.suffix == ".mkv" else "aac", rate=rate, layout="mono")
        packets = []
        for index, at in zip(range(frames), pts or range(frames)):
            frame = av.VideoFrame.from_ndarray(pattern(index, 64, 48), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = at, video.time_base
            packets += video.encode(frame)
        packets += video.encode(None)
        for at in range(0, len(samples), 1024):
            block = samples[at:at + 1024]
            block = (block * 32767).astype(np.int16) if path.suffix == ".mkv" else block.astype(np.float32)
            frame = av.AudioFrame.from_ndarray(block[None], "s16" if path.suffix == ".mkv" else "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, at + round(start_s * rate), Fraction(1, rate)
            packets += audio.encode(frame)
        packets += audio.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def errors_ms(found, truth):
    """Median and 95 % quantile of the absolute differences, in milliseconds."""
    return np.quantile(1000 * np.abs(found - truth), [0.5, 0.95])


# --- dynamic time warping

def cheapest(distance, penalty, i=0, j=0):
    """Cost of the cheapest path from (i, j) to the last corner, by trying all of them."""
    rest = [extra + cheapest(distance, penalty, i + di, j + dj)
            for di, dj, extra in ((1, 1, 0), (1, 0, penalty), (0, 1, penalty))
            if i + di < distance.shape[0] and j + dj < distance.shape[1]]
    return distance[i, j] + (min(rest) if rest else 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (3, 3), (4, 5), (6, 4)])
@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_the_path_is_the_cheapest(shape, penalty):
    rng = np.random.default_rng(shape[0] * 10 + shape[1])
    for _ in range(5):
        distance = rng.uniform(0, 1, shape)
        path = shortest_path(distance, penalty)
        steps = np.diff(path, axis=0)
        assert path[0].tolist() == [0, 0] and path[-1].tolist() == [shape[0] - 1, shape[1] - 1]
        assert ((steps >= 0) & (steps <= 1)).all() and steps.sum(axis=1).min(initial=1) > 0
        cost = distance[path[:, 0], path[:, 1]].sum() + penalty * (steps.sum(axis=1) == 1).sum()
        assert cost == pytest.approx(cheapest(distance, penalty))


def test_a_smooth_path_has_no_jumps():
    """A pause of 60 steps in one sequence, where the other one has none."""
    path = np.array([(i, i) for i in range(100)] + [(99, j) for j in range(100, 160)]
                    + [(i, i + 60) for i in range(100, 200)])
    for max_stretch in (4, 12):
        for sigma in (0, 1, 3):
            knots = smooth_path(path, sigma, max_stretch)
            steps = np.diff(knots, axis=0)
            assert steps.min() > 0
            slope = steps[:, 1] / steps[:, 0]
            assert slope.min() > 1 / max_stretch - 1e-9 and slope.max() < max_stretch + 1e-9
            i = np.arange(200)
            np.testing.assert_allclose(np.interp(i, *knots.T)[i < 60], i[i < 60], atol=0.01)
            np.testing.assert_allclose(np.interp(i, *knots.T)[i > 139], i[i > 139] + 60, atol=0.01)
    exact = smooth_path(path, 0, max_stretch=1e6)
    assert np.abs(exact[:, 1] - exact[:, 0] - np.clip(exact.sum(axis=1) - 198, 0, 60)).max() < 1e-3


def test_equal_sequences_lie_on_each_other():
    x = np.random.default_rng(0).normal(size=(30, 4))
    found = match(np.linalg.norm(x[:, None] - x[None], axis=-1), sigma=2)
    np.testing.assert_allclose(found.knots[:, 0], found.knots[:, 1], atol=1e-12)
    assert found.cost == 0 and (found.confidence == 1).all()


def test_a_warp_goes_on_beyond_its_knots():
    warp = Warp(np.array([1.0, 2.0, 4.0]), np.array([11.0, 14.0, 15.0]))
    np.testing.assert_allclose(warp([0, 1, 1.5, 3, 4, 6]), [10, 11, 12.5, 14.5, 15, 17])
    assert warp.covers([0, 1, 4, 5]).tolist() == [False, True, True, False]
    assert nearest([0.0, 0.49, 0.5, 1.5, 2.5]).tolist() == [0, 0, 1, 2, 3]


# --- sound

@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
@pytest.mark.parametrize(("rate", "start_s"), [(48000, 0.0), (44100, 0.25), (16000, 0.5)])
def test_sound_is_on_the_pictures_clock(tmp_path, name, rate, start_s):
    samples = np.zeros(rate, np.float32)
    samples[int(0.4 * rate):int(0.402 * rate)] = 0.9
    sound = read_sound(write_clip(tmp_path / name, samples, rate, start_s=start_s))
    assert sound.rate == RATE and sound.damage is None
    loud = np.flatnonzero(np.abs(sound.samples) > 0.2)
    middle = sound.start_s + (loud[0] + loud[-1]) / 2 / RATE
    assert middle == pytest.approx(start_s + 0.401, abs=0.003)


def test_speech_is_found_between_silences():
    one, other, _ = performances()
    for samples, begin, end in ((one, 0.3, 4.3), (other, 0.7, other_time(4.0))):
        for noise, margin in ((0, 0.1), (0.004, 0.1)):
            noisy = samples + np.random.default_rng(1).normal(0, noise, len(samples)).astype(np.float32)
            first, last = speech_span(Sound(noisy, RATE, 0.0))
            assert first == pytest.approx(begin - margin, abs=0.12) and last == pytest.approx(end + margin, abs=0.15)
    features = speech_features(Sound(one, RATE, 2.0), (0.2, 4.4))
    assert features.vectors.shape == (len(features.moments), 26) and features.hop_s == 0.01
    np.testing.assert_allclose(features.vectors.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(features.vectors.std(axis=0), 1, atol=1e-3)
    np.testing.assert_allclose(features.moments, 2.2 + 0.01 * np.arange(len(features.moments)), atol=1e-9)


def test_a_known_map_of_time_is_found():
    one, other, truth = performances()
    found = align_sounds(Sound(one, RATE, 3.0), Sound(other, RATE, -0.2))
    t = np.arange(0.35, 4.25, 0.01)
    median, most = errors_ms(found.warp(t + 3.0), truth(t) - 0.2)
    assert median < 12 and most < 40, (median, most)
    back = align_sounds(Sound(other, RATE, -0.2), Sound(one, RATE, 3.0))
    assert errors_ms(back.warp(found.warp(t + 3.0)), t + 3.0)[1] < 10
    assert (np.diff(found.warp(np.arange(0, 12, 0.001))) > 0).all()
    assert 0 < found.cost < 0.6 and found.confidence.mean() > 0.5


def test_frames_are_paired_by_their_timestamps(tmp_path):
    """A at a variable frame rate, with sound that begins later than the pictures; B at 29.97 per second."""
    one, other, truth = performances()
    rng = np.random.default_rng(3)
    pts = np.cumsum(rng.integers(20, 60, 120)).tolist()
    a = write_clip(tmp_path / "a.mkv", one, pts=pts, time_base=Fraction(1, 1000), frames=120, start_s=0.4)
    b = write_clip(tmp_path / "b.mp4", other, fps=NTSC, frames=225)
    pairs = align_audio(a, b)
    times_a, times_b = timestamps(a)[0], timestamps(b)[0]
    np.testing.assert_allclose(times_a, np.array(pts) / 1000, atol=1e-6)
    assert pairs.frame_a.tolist() == list(range(120)) and pairs.by == "audio" and not pairs.remarks
    np.testing.assert_array_equal(pairs.time_a, times_a)
    spoken = (times_a > 0.75) & (times_a < 4.6)
    assert errors_ms(pairs.time_b[spoken], truth(times_a[spoken] - 0.4))[1] < 40
    np.testing.assert_allclose(np.interp(pairs.position_b, np.arange(225), times_b), pairs.time_b, atol=1e-9)
    assert (np.abs(pairs.frame_b - pairs.position_b) <= 0.5).all()
    assert (np.diff(pairs.frame_b) >= 0).all() and pairs.frame_b.max() < 225
    assert pairs.confidence[spoken].mean() > 0.5 and (pairs.confidence[times_a < 0.5] == 0).all()
    with pytest.raises(dataclasses.FrozenInstanceError):
        pairs.cost = 0


@pytest.mark.parametrize(("one", "two", "median_ms", "most_ms"), [
    ((130, "en-us"), (190, "en-us"), 6, 20),
    ((190, "en-us"), (130, "en-us"), 6, 20),
    ((130, "en-us"), (190, "en-us+f3"), 12, 40),
    ((190, "en-us+f4"), (130, "en-us+m7"), 12, 40),
    ((130, "en-us+m3"), (160, "en+f3"), 12, 40),
], ids=lambda x: "-".join(map(str, x)) if isinstance(x, tuple) else None)
def test_espeak_phonemes_meet(espeak, one, two, median_ms, most_ms):
    """Where each phoneme begins at two speeds and in two voices; the last pair has two accents as well."""
    a, b = espeak.speak(*one), espeak.speak(*two)
    truth = espeak.same_phonemes(a, b)
    assert len(truth) > 60
    evenly = errors_ms(np.interp(truth[:, 0], truth[[0, -1], 0], truth[[0, -1], 1]), truth[:, 1])
    noise = np.random.default_rng(0)
    for snr_db in (None, 20):
        sounds = []
        for x, lead_s in ((a, 0.8), (b, 0.2)):
            still = lambda seconds, rate=x.rate: np.zeros(int(seconds * rate), np.float32)
            samples = np.concatenate([still(lead_s), x.samples, still(0.5)])
            if snr_db:
                samples += noise.normal(0, np.std(x.samples) / 10 ** (snr_db / 20), len(samples)).astype(np.float32)
            sounds.append(Sound(samples, x.rate, -lead_s))
        found = align_sounds(*sounds)
        median, most = errors_ms(found.warp(truth[:, 0]), truth[:, 1])
        print(f"\n{one} -> {two}, {f'{snr_db} dB of noise' if snr_db else 'no noise'}: {len(truth)} phonemes, median "
              f"{median:.1f} ms, 95 % {most:.1f} ms, cost {found.cost:.2f}; stretched evenly: {evenly[0]:.1f} and "
              f"{evenly[1]:.1f} ms")
        assert median < median_ms and most < most_ms and most < evenly[1]


def test_espeak_phonemes_meet_in_clips(espeak, tmp_path):
    """Through files: AAC, 25 and 29.97 frames per second, sound that begins late; to the nearest frame."""
    a, b = espeak.speak(130, "en-us"), espeak.speak(190, "en-us+f3")
    starts = 0.4, 0.1
    clips = [write_clip(tmp_path / name, x.samples, x.rate, frames, fps, start_s=start) for name, x, frames, fps, start
             in (("a.mp4", a, 280, Fraction(25), starts[0]), ("b.mp4", b, 260, NTSC, starts[1]))]
    pairs, truth = align_audio(*clips), espeak.same_phonemes(a, b) + starts
    median, most = errors_ms(pairs.warp(truth[:, 0]), truth[:, 1])
    frames_b = np.interp(pairs.time_a, *truth.T) * float(NTSC)
    spoken = (pairs.time_a > truth[0, 0]) & (pairs.time_a < truth[-1, 0])
    off = np.abs(pairs.frame_b - frames_b)[spoken]
    print(f"\nclips: median {median:.1f} ms, 95 % {most:.1f} ms; to whole frames {off.mean():.2f} on average, "
          f"95 % {np.quantile(off, 0.95):.2f}")
    assert median < 12 and most < 40 and np.quantile(off, 0.95) < 1.5


def test_espeak_other_words_are_remarked(espeak, tmp_path):
    texts = "The hogs were fed chopped corn and garbage.", "Glue the sheet to the dark blue background."
    paths = [tmp_path / "a.mkv", tmp_path / "b.mkv"]
    for path, text, voice in zip(paths, texts, ("en-us", "en-us+f3")):
        said = espeak.speak(150, voice, text)
        write_clip(path, said.samples, said.rate, frames=70)
    assert "hardly match" in align_audio(*paths).remarks[0]


# --- expression

def acted(content, gain=1.0, rest=0.0, noise=0.0, **changes):
    """A track whose twelve coefficients follow `content` (F,), seconds into the performance."""
    rng = np.random.default_rng(5)
    model = SimpleNamespace(name="small", hash="abc", identity_count=4, albedo_count=4, expression_count=12,
                            expression_names=[f"e{k}" for k in range(12)])
    waves = [0.3 * rng.uniform() * np.sin(content[:, None] * f + rng.uniform(0, 6, 12)) for f in (1.3, 2.9, 5.1)]
    values = rest + gain * sum(waves) + np.random.default_rng(len(content)).normal(0, noise, (len(content), 12))
    track = some_track(model, len(content))
    return dataclasses.replace(track, expression=values.astype(np.float32), **changes)


def test_expressions_meet():
    """Another person: other rest, other strength, slower, noisy, with frames in which the face was lost."""
    t = np.arange(120) / 25
    slower = lambda t: 0.35 + 1.3 * t + 0.15 * np.sin(1.7 * t)
    clock = np.arange(-10, 12, 0.001)
    frames_b = np.arange(190)
    status = np.array(["ok"] * 190)
    status[80:92] = "low_confidence"
    content_b = np.interp(frames_b / 25, slower(clock), clock)
    a, b = acted(t, noise=0.02), acted(content_b, 1.7, 0.2, noise=0.02, status=status)
    b.expression[80:92] = 9
    pairs = align_expression(a, b)
    error = np.abs(pairs.position_b - 25 * slower(t))[5:-5]
    assert np.median(error) < 1 and np.quantile(error, 0.95) < 3, error
    assert (np.diff(pairs.frame_b) >= 0).all() and np.isnan(pairs.time_a).all() and pairs.by == "expression"
    lost = np.isin(pairs.frame_b, np.arange(80, 92))
    assert lost.any() and (pairs.confidence[lost] == 0).all() and pairs.confidence[~lost].mean() > 0.7
    timed = with_times(pairs, t, frames_b / 50)
    np.testing.assert_array_equal(timed.time_a, t)
    np.testing.assert_allclose(timed.time_b, pairs.position_b / 50, atol=1e-9)


def test_a_track_meets_itself():
    a = acted(np.arange(60) / 25)
    pairs = align_expression(a, a)
    np.testing.assert_allclose(pairs.position_b, np.arange(60), atol=1e-6)
    assert pairs.cost == 0 and pairs.confidence.min() == 1


def test_tracks_that_cannot_be_aligned():
    a = acted(np.arange(60) / 25)
    refuse = lambda match, b: pytest.raises(InputError, align_expression, a, b, ("a.npz", "b.npz")).match(match)
    refuse("b.npz: was fitted with model", dataclasses.replace(a, model_hash="other"))
    refuse("b.npz has 2 frames", dataclasses.replace(a, status=np.array(["ok"] * 2 + ["no_face"] * 58)))
    refuse("b.npz shows no change", dataclasses.replace(a, expression=np.ones((60, 12), np.float32)))
    refuse("more than 6 times as long", acted(np.arange(5) / 2))


# --- the command

def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_by_audio(capsys, tmp_path):
    one, other, _ = performances()
    a = write_clip(tmp_path / "a.mkv", one, frames=110)
    b = write_clip(tmp_path / "b.mp4", other, frames=160)
    assert run(main, a, b, "-o", tmp_path / "pairs.csv") == 0
    printed = capsys.readouterr().out
    assert f"wrote {tmp_path / 'pairs.csv'}: 110 frames by audio" in printed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mkv", "b.mp4", "pairs.csv"]
    rows, pairs = rows_of(tmp_path / "pairs.csv"), align_audio(a, b)
    assert tuple(rows[0]) == COLUMNS and len(rows) == 110
    assert [int(r["frame_b"]) for r in rows] == pairs.frame_b.tolist()
    np.testing.assert_allclose([float(r["time_b_s"]) for r in rows], pairs.time_b, atol=1e-6)
    once = (tmp_path / "pairs.csv").read_bytes()
    assert run(main, a, b, "-o", tmp_path / "pairs.csv") == 0 and (tmp_path / "pairs.csv").read_bytes() == once


def test_the_command_by_expression(tmp_path):
    clips = [make_video(tmp_path / f"{name}.mp4", 40) for name in "ab"]
    for clip, speed in zip(clips, (1, 0.9)):
        save_track(acted(speed * np.arange(40) / 10, source_sha256=file_hash(clip)), clip.with_suffix(".npz"))
    tracks, out = [clip.with_suffix(".npz") for clip in clips], tmp_path / "pairs.csv"
    assert run(main, *tracks, "-o", out) == 0
    assert [r["time_a_s"] for r in rows_of(out)] == [""] * 40
    assert run(main, *tracks, "--by", "expression", "--videos", *clips, "-o", out) == 0
    times = [float(r["time_a_s"]) for r in rows_of(out)]
    np.testing.assert_allclose(times, np.arange(40) * 1001 / 30000, atol=1e-4)


def test_the_command_refuses_in_one_line(capsys, tmp_path, monkeypatch):
    one, _, _ = performances()
    good = write_clip(tmp_path / "good.mkv", one, frames=10)
    silent = write_clip(tmp_path / "silent.mp4", np.zeros(RATE, np.float32), frames=10)
    click = np.zeros(RATE, np.float32)
    click[8000:8050] = 0.9
    click = write_clip(tmp_path / "click.mkv", click, frames=10)
    mute = make_video(tmp_path / "mute.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "junk.npz").write_bytes(b"junk")
    short = write_clip(tmp_path / "short.mkv", one[6000:10000], frames=10)
    save_track(acted(np.arange(30) / 10), tmp_path / "track.npz")
    track, out = tmp_path / "track.npz", tmp_path / "pairs.csv"
    wrong = lambda *argv: partial(error_of, capsys, main)(*argv, "-o", out)
    for words, argv in (
            ("silent.mp4 is silent", (good, silent)), ("click.mkv has no speech", (good, click)),
            ("mute.mp4 has no sound", (mute, good)), ("text.mp4 cannot be read", (good, tmp_path / "text.mp4")),
            ("none.mp4 does not exist", (good, tmp_path / "none.mp4")), ("is a folder", (tmp_path, good)),
            ("more than 6 times as long as", (good, short)),
            ("track.npz: a track has no sound", (good, track)), ("good.mkv: not a TRACK", (good, good, "--by",
                                                                                           "expression")),
            ("junk.npz: is no FIT.npz", (track, tmp_path / "junk.npz")),
            ("mute.mp4: has 12 frames", (track, track, "--videos", mute, mute)),
            ("--videos goes with", (good, good, "--videos", good, good))):
        assert words in wrong(*argv)
    assert "no such folder" in error_of(capsys, main, good, good, "-o", tmp_path / "no" / "pairs.csv")
    assert "one of the inputs" in error_of(capsys, main, good, good, "-o", good)
    monkeypatch.setitem(sys.modules, "librosa", None)
    assert '.[data]' in wrong(good, good) and '.[data]' in wrong(track, track)
    assert run(main, good, good, "--by", "luck", "-o", out) == 2
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_a_damaged_clip_is_told_of(capsys, tmp_path):
    one, other, _ = performances()
    whole = write_clip(tmp_path / "whole.mkv", one, frames=110)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[:int(whole.stat().st_size * 0.7)])
    assert run(main, cut, whole, "-o", tmp_path / "pairs.csv") == 0
    assert "note: " in capsys.readouterr().out
    # cut inside of its index: nothing can be read, nothing is written
    broken = truncated(tmp_path / "broken.mp4", make_video(tmp_path / "in.mp4", audio=1), 0.02)
    assert "broken.mp4" in error_of(capsys, main, broken, whole, "-o", tmp_path / "other.csv")
    assert not (tmp_path / "other.csv").exists()
