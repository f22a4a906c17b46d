"""For every frame of one performance, the frame of another person's performance of the same (section 7.1).

    python -m texgan.align A.mp4 B.mp4 -o PAIRS.csv
    python -m texgan.align A.npz B.npz --by expression -o PAIRS.csv

By audio: two clips in which the same words are spoken are aligned by dynamic time warping on their sound, as the paper
does it. By expression: two clips without a common sound, tracked by fitting.track, are aligned on their expression
coefficients; frames whose status is not ok are left out. Either way time runs on in both clips without a jump, and
silence or rest before and after is laid beside that of the other clip, as far as it goes.

PAIRS.csv has a line for each frame of A: frame_a, time_a_s, frame_b (the nearest), time_b_s, position_b (the frame of
B with its fraction) and confidence, from 0 (no better than by chance, or outside of what was compared) to 1 (the same
sound or expression). Times are the files' own timestamps; tracks don't hold them, so for tracks the two columns are
empty unless --videos gives the clips.
"""
from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist

from facemodel import commands
from facemodel.errors import InputError
from fitting.export import write_files
from fitting.trackfile import file_hash, load_track
from fitting.video_reader import VideoReader
from texgan.soundtrack import HOP_S, read_sound, speech_features, speech_span
from texgan.warping import MAX_CELLS, Warp, check_size, library, match

WAYS = ("audio", "expression")
SMOOTH_S = 0.03                 # standard deviation of the smoothing, by audio
SMOOTH_FRAMES = 1.0             # and by expression, where landmarks have jittered already
WIDEST_HOP_S = 0.04             # between two windows of sound: about a frame
LIMIT_S = 600.0                 # of sound that is read before it is refused
LEAST_FRAMES = 3
LEAST_MOTION = 1e-3             # of the expression coefficients: their spread in a clip without any expression
POOR_COST = 0.6                 # mean distance along the path, over that of chance, from which a remark is made
COLUMNS = ("frame_a", "time_a_s", "frame_b", "time_b_s", "position_b", "confidence")


@dataclass(frozen=True)
class Alignment:
    """Two performances laid over each other; F frames of A.

    frame_a : (F,) int, all of A's frames in order: their index in the clip
    frame_b : (F,) int, the nearest frame of B, never decreasing
    position_b : (F,) float64, the same place in B with its fraction of a frame
    time_a, time_b : (F,) float64, seconds by the clips' timestamps: of the frame of A, and the matching moment of B;
    nan where they are not known
    confidence : (F,) float64 in [0, 1]: one minus the distance of what is paired over the mean of all pairs; 0 before
    and after what was compared, and in frames that were not ok
    cost : float, mean distance along the path over the mean of all pairs: 0 for a copy, about 1 by chance
    by : str, one of WAYS
    warp : Warp, from moments of A to moments of B: seconds by audio, else rows of the tracks
    remarks : tuple of str for the user (a damaged file, a poor match)
    """

    frame_a: np.ndarray
    frame_b: np.ndarray
    position_b: np.ndarray
    time_a: np.ndarray
    time_b: np.ndarray
    confidence: np.ndarray
    cost: float
    by: str
    warp: Warp
    remarks: tuple = ()

    def __len__(self):
        return len(self.frame_a)


@dataclass(frozen=True)
class SoundMatch:
    """warp : Warp in seconds; moments : (N,) seconds in A with their confidence (N,); cost : see Alignment."""

    warp: Warp
    moments: np.ndarray
    confidence: np.ndarray
    cost: float


def timestamps(path):
    """Timestamps of all frames, as fitting.video_reader counts them.

    Returns
    -------
    times : (F,) float64 seconds, strictly increasing
    damage : str or None, see VideoReader
    """
    with VideoReader(path) as reader:
        return np.array([frame.time_s for frame in reader]), reader.damage


def align_sounds(sound_a, sound_b, names=("A", "B")):
    """Lays two recordings of the same words over each other: MFCC, cosine distance, dynamic time warping.

    Parameters
    ----------
    sound_a, sound_b : Sound; each on its own clock
    names : what errors call them

    Returns
    -------
    SoundMatch

    Raises
    ------
    InputError : silence, too long, lengths that can't be of the same words, or librosa is missing
    """
    sounds = sound_a, sound_b
    spans = [speech_span(sound, name) for sound, name in zip(sounds, names)]
    lengths = [float(np.diff(span)[0]) for span in spans]
    # wider steps where the table of distances would become too large
    hop_s = max(HOP_S, 1.01 * np.sqrt(lengths[0] * lengths[1] / MAX_CELLS))
    remedy = "cut both into the same single lines"
    rows, columns = (length / min(hop_s, WIDEST_HOP_S) for length in lengths)
    check_size(rows, columns, [f"{name} ({length:.1f} s of speech)" for name, length in zip(names, lengths)], remedy)
    a, b = (speech_features(sound, span, hop_s) for sound, span in zip(sounds, spans))
    found = match(cdist(a.vectors, b.vectors, "cosine"), SMOOTH_S / a.hop_s)
    knots = [np.interp(found.knots[:, k], np.arange(len(x.moments)), x.moments) for k, x in enumerate((a, b))]
    return SoundMatch(Warp(*_strictly(knots)), a.moments, found.confidence, found.cost)


def align_audio(path_a, path_b):
    """Aligns two clips by what is said in them.

    Parameters
    ----------
    path_a, path_b : videos with sound

    Returns
    -------
    Alignment

    Raises
    ------
    InputError : a clip that can't be read, without sound, silent or too long; or librosa is missing
    """
    library()                                               # missing: say so before the work
    paths = path_a, path_b
    sounds = [read_sound(path, LIMIT_S) for path in paths]
    found = align_sounds(*sounds, names=[str(path) for path in paths])
    (times_a, damage_a), (times_b, damage_b) = (timestamps(path) for path in paths)
    moments = found.warp(times_a)
    position = np.interp(moments, times_b, np.arange(len(times_b)))
    there = found.warp.covers(times_a) & (moments >= times_b[0]) & (moments <= times_b[-1])
    confidence = np.where(there, np.interp(times_a, found.moments, found.confidence), 0)
    damages = [damage_a, damage_b, *(sound.damage for sound in sounds)]
    return Alignment(np.arange(len(times_a)), nearest(position), position, times_a,
                     np.clip(moments, times_b[0], times_b[-1]), confidence, found.cost, "audio", found.warp,
                     _remarks(damages, found.cost, paths))


def align_expression(track_a, track_b, names=("A", "B")):
    """Aligns two tracked clips by their expression coefficients.

    Two people smile from different rests and by different amounts. So each clip's mean is taken off, and its
    coefficients are divided by one number, the root of their summed variances: what moves little stays little. The
    distance is Euclidean.

    Parameters
    ----------
    track_a, track_b : fitting.trackfile.Track, of the same model
    names : what errors call them

    Returns
    -------
    Alignment; times are nan, see with_times

    Raises
    ------
    InputError : other models, too few frames that are ok, no expression in one, too long; or librosa is missing
    """
    library()
    tracks = track_a, track_b
    if str(track_a.model_hash) != str(track_b.model_hash):
        raise InputError(f"{names[1]}: was fitted with model {track_b.model_name}, {names[0]} with "
                         f"{track_a.model_name}; track both with the same --model")
    rows = [np.flatnonzero(track.status == "ok") for track in tracks]
    vectors = [_normalised(t.expression[r], name) for t, r, name in zip(tracks, rows, names)]
    check_size(*map(len, rows), [f"{name} ({len(r)} frames)" for name, r in zip(names, rows)],
               "track shorter clips that show the same expressions")
    found = match(cdist(*vectors), SMOOTH_FRAMES)
    warp = Warp(*_strictly([np.interp(found.knots[:, k], np.arange(len(r)), r) for k, r in enumerate(rows)]))
    every = np.arange(len(track_a))
    row_b = np.clip(warp(every), 0, len(track_b) - 1)
    position = np.interp(row_b, np.arange(len(track_b)), track_b.frame_index)
    there = (track_a.status == "ok") & (track_b.status[nearest(row_b)] == "ok") & warp.covers(every)
    confidence = np.where(there, np.interp(every, rows[0], found.confidence), 0)
    unknown = np.full(len(every), np.nan)
    return Alignment(track_a.frame_index.astype(np.int64), track_b.frame_index[nearest(row_b)].astype(np.int64),
                     position, unknown, unknown, confidence, found.cost, "expression", warp,
                     _remarks((), found.cost, names))


def with_times(alignment, times_a, times_b):
    """An alignment with the times of its frames, from the timestamps of both clips: (FA,) and (FB,) seconds."""
    time_b = np.interp(alignment.position_b, np.arange(len(times_b)), times_b)
    return replace(alignment, time_a=times_a[alignment.frame_a], time_b=time_b)


def nearest(position):
    """The frame next to each position, the later one of two: (F,) int; never decreases where `position` doesn't."""
    return np.floor(np.asarray(position) + 0.5).astype(np.int64)


def _normalised(expression, name):
    """Coefficients (F, n) without their mean, with summed variance 1, float64."""
    if len(expression) < LEAST_FRAMES:
        raise InputError(f"{name} has {len(expression)} frames that are ok, fewer than {LEAST_FRAMES}; track a clip "
                         "in which the face is seen")
    centred = expression - expression.mean(axis=0, dtype=np.float64)
    spread = np.sqrt(np.square(centred).sum(axis=1).mean())
    if spread < LEAST_MOTION:
        raise InputError(f"{name} shows no change of expression; give the track of a clip in which the face moves")
    return centred / spread


def _strictly(knots):
    """Knots of a Warp without those that floating point has made equal to the one before."""
    keep = np.concatenate([[True], np.all(np.diff(knots, axis=1) > 0, axis=0)])
    return [knot[keep] for knot in np.asarray(knots)]


def _remarks(damages, cost, names):
    remarks = [damage for damage in damages if damage]
    if cost > POOR_COST:
        remarks.append(f"{names[0]} and {names[1]} hardly match (cost {cost:.2f}, 1 is chance); check that they show "
                       "the same performance")
    return tuple(remarks)


def save_pairs(alignment, path):
    """Writes PAIRS.csv (see the top of this module), beside its place, then renames; InputError where it can't."""
    number = lambda value, digits: "" if np.isnan(value) else f"{value:.{digits}f}"
    rows = zip(alignment.frame_a, alignment.time_a, alignment.frame_b, alignment.time_b, alignment.position_b,
               alignment.confidence)
    lines = [",".join(COLUMNS)]
    lines += [f"{fa},{number(ta, 6)},{fb},{number(tb, 6)},{p:.3f},{c:.3f}" for fa, ta, fb, tb, p, c in rows]
    write_files({Path(path): ("\n".join(lines) + "\n").encode()})


def _times_for(track, video, name):
    """Timestamps of the clip that a track was made from."""
    times, _ = timestamps(video)
    if str(track.source_sha256) not in ("", file_hash(video)):
        raise InputError(f"{video}: is not the clip that {name} was tracked from; give that one with --videos")
    if track.frame_index.max() >= len(times):
        raise InputError(f"{video}: has {len(times)} frames, {name} more; give the clip it was tracked from")
    return times


def align_tracks(path_a, path_b, videos=None):
    """align_expression for two TRACK.npz; `videos`, the two clips they were made from, adds the times."""
    paths = path_a, path_b
    tracks = [load_track(path) for path in paths]
    times = videos and [_times_for(*x) for x in zip(tracks, videos, paths)]
    alignment = align_expression(*tracks, names=[str(path) for path in paths])
    return with_times(alignment, *times) if times else alignment


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m texgan.align", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, metavar="A", help="a clip with sound, or TRACK.npz")
    parser.add_argument("b", type=Path, metavar="B", help="another person's performance of the same, of the same kind")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="PAIRS.csv", help="where to write the pairs")
    parser.add_argument("--by", choices=WAYS, help="default: expression for two TRACK.npz, else audio")
    parser.add_argument("--videos", type=Path, nargs=2, metavar=("A.mp4", "B.mp4"),
                        help="the clips that the two tracks were made from, for their timestamps")
    commands.add_verbose(parser)
    args = parser.parse_args(argv)
    tracks = [path.suffix == ".npz" for path in (args.a, args.b)]
    by = args.by or ("expression" if all(tracks) else "audio")
    if by == "audio" and (any(tracks) or args.videos):
        name = args.b if tracks[1] else args.a
        raise InputError(f"{name}: a track has no sound; give two clips, or two tracks with --by expression"
                         if any(tracks) else "--videos goes with --by expression; leave it out")
    if by == "expression" and not all(tracks):
        raise InputError(f"{args.a if not tracks[0] else args.b}: not a TRACK.npz; make one with python -m "
                         "fitting.track")
    commands.check_writable(args.out, inputs=[args.a, args.b, *(args.videos or ())])
    alignment = align_audio(args.a, args.b) if by == "audio" else align_tracks(args.a, args.b, args.videos)
    save_pairs(alignment, args.out)
    for remark in alignment.remarks:
        print(f"note: {remark}")
    print(f"wrote {args.out}: {len(alignment)} frames by {by}, cost {alignment.cost:.2f}, mean confidence "
          f"{alignment.confidence.mean():.2f}")


if __name__ == "__main__":
    commands.run(main)
