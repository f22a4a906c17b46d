"""The sound of a clip on the clock of its pictures, and what dynamic time warping compares of it.

MFCC: Davis & Mermelstein 1980, doi:10.1109/TASSP.1980.1163420, as librosa computes them.
"""
from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
from scipy.ndimage import binary_opening

from facemodel.errors import InputError
from fitting.video_reader import check_file
from texgan.warping import library

RATE = 16000            # Hz; speech has little above 8 kHz that tells its sounds apart
WINDOW_S = 0.025
HOP_S = 0.01            # between two windows; longer clips take wider steps
MEL_BANDS = 40
COEFFICIENTS = 13
DELTA_S = 0.04          # span of the slope that is added to each coefficient
DYNAMIC_DB = 60         # what is further below the loudest band is silence, digital or not
GAP_S = 0.02            # timestamps may stray by as much before samples are moved to their place

SILENT_DB = -70         # full scale: a recording that stays below is silence
SPEECH_DB = 40          # speech is at most so much below its loudest parts,
ABOVE_NOISE_DB = 10     # and so much above the noise of the pauses,
LOUD_DB = 20            # but what is so near to the loudest parts is speech in any noise
SHORTEST_S = 0.05       # clicks are no speech
MARGIN_S = 0.1          # kept around speech


@dataclass(frozen=True)
class Sound:
    """samples : (N,) float32 in [-1, 1], mono; rate : Hz; start_s : of the first sample, on the clock of the pictures;
    damage : what is wrong with the file, or None."""

    samples: np.ndarray
    rate: int
    start_s: float
    damage: str | None = None


@dataclass(frozen=True)
class Features:
    """vectors : (N, D) float64, each dimension with mean 0 and standard deviation 1 over the speech; moments : (N,)
    seconds on the clock of the pictures, hop_s apart."""

    vectors: np.ndarray
    moments: np.ndarray
    hop_s: float


def read_sound(path, limit_s=np.inf, rate=RATE):
    """The best sound stream of a clip, all channels mixed into one, each block at its timestamp.

    Gaps are filled with silence. Where the stream is damaged, what comes before is returned; `damage` tells.

    Raises
    ------
    InputError : no such file, no sound, none that can be decoded, or more than `limit_s` seconds
    """
    path = check_file(path, "video")
    blocks, start, length, damage = [], None, 0, None
    try:
        for pts, block in _blocks(path, rate):
            start = (pts or 0) if start is None else start
            shift = 0 if pts is None else pts - start - length
            if shift > GAP_S * rate:
                blocks.append(np.zeros(int(min(shift, limit_s * rate + 1)), np.float32))
                length += len(blocks[-1])
            elif shift < -GAP_S * rate:
                block = block[-shift:]
            blocks.append(block)
            length += len(block)
            if length > limit_s * rate:
                raise InputError(f"{path} has more than {limit_s:.0f} s of sound; cut it into single lines")
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        damage = f"{path} has damaged sound after {length / rate:.1f} s; the rest was not used"
    if not length:
        raise InputError(f"{path} has sound that cannot be decoded; copy or export the video again")
    return Sound(np.concatenate(blocks), rate, start / rate, damage)


def _blocks(path, rate):
    """Yields (time in samples or None, (n,) float32) for each block of sound."""
    try:
        container = av.open(str(path), metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise InputError(f"{path} cannot be read as a video; give an MP4, MOV or MKV file") from error
    with container:
        stream = container.streams.best("audio")
        if stream is None or stream.codec_context is None:
            raise InputError(f"{path} has no sound to align by; align the expressions of two tracks "
                             "(--by expression), or give a clip with sound")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        for frame in container.decode(stream):
            for out in resampler.resample(frame):
                yield _placed(out, rate)
        for out in resampler.resample(None):
            yield _placed(out, rate)


def _placed(frame, rate):
    pts = None if frame.pts is None else round(frame.pts * frame.time_base * rate)
    return pts, frame.to_ndarray().reshape(-1).astype(np.float32)


def speech_span(sound, name="the clip"):
    """When the first word begins and the last one ends.

    Returns
    -------
    (2,) seconds from the first sample; MARGIN_S of silence is left on either side where there is any

    Raises
    ------
    InputError : when there is no more than silence; the message names `name`
    """
    hop = round(HOP_S * sound.rate)
    count = len(sound.samples) // hop
    power = np.square(sound.samples[:count * hop], dtype=np.float64).reshape(count, hop).mean(axis=1)
    level = 10 * np.log10(power + 1e-12)
    if not count or level.max() < SILENT_DB:
        raise InputError(f"{name} is silent; give a clip with speech, or align by expression")
    loud, noise = np.percentile(level[level > SILENT_DB], 95), np.percentile(level, 5)
    threshold = max(loud - SPEECH_DB, min(noise + ABOVE_NOISE_DB, loud - LOUD_DB), SILENT_DB)
    active = np.flatnonzero(binary_opening(level > threshold, np.ones(round(SHORTEST_S / HOP_S))))
    if not len(active):
        raise InputError(f"{name} has no speech, only clicks; give a clip with speech, or align by expression")
    ends = np.array([active[0], active[-1] + 1]) * HOP_S + [-MARGIN_S, MARGIN_S]
    return np.clip(ends, 0, len(sound.samples) / sound.rate)


def speech_features(sound, span, hop_s=HOP_S):
    """Mel-frequency cepstral coefficients and their slopes, with normalised mean and variance (so microphone, loudness
    and much of the voice drop out).

    sound : Sound, of at least RATE samples per second
    span : (2,) seconds from its first sample: speech_span
    """
    feature, hop = library().feature, round(hop_s * sound.rate)
    window = round(WINDOW_S * sound.rate)
    power = feature.melspectrogram(y=sound.samples, sr=sound.rate, n_fft=1 << (window - 1).bit_length(),
                                   win_length=window, hop_length=hop, n_mels=MEL_BANDS, fmax=RATE / 2)
    cepstra = feature.mfcc(S=library().power_to_db(power, top_db=DYNAMIC_DB), sr=sound.rate, n_mfcc=COEFFICIENTS)
    first, last = np.floor(span[0] * sound.rate / hop), np.ceil(span[1] * sound.rate / hop)
    rows = np.arange(int(first), min(int(last) + 1, cepstra.shape[1]))
    width = 2 * max(1, round(DELTA_S / hop_s / 2)) + 1
    slopes = feature.delta(cepstra, width=width, mode="nearest")
    vectors = np.concatenate([cepstra, slopes])[:, rows].T.astype(np.float64)
    vectors = (vectors - vectors.mean(axis=0)) / (vectors.std(axis=0) + 1e-9)
    return Features(vectors, sound.start_s + rows * hop / sound.rate, hop / sound.rate)
