"""Where the time goes when a face is replaced: the hardware, then milliseconds per stage.

    python -m compositing.benchmark
    python -m compositing.benchmark clip.mp4 --frames 200 -o times.json

A clip (by default the demo) is tracked and gets the demo's photo, as compositing.replace does it. Before that two
frames are run through everything, so that compiling and loading compiled code is not in the numbers; nor is loading the
face model and the detector, which is given beside them. Tracking is observed with Python's profiler, the rest with a
clock around each stage. Times are wall-clock; stages marked * are paid once per clip and shared out over its frames.
Stages of compositing run at once, in threads; "overlap" is what that saves, less what belongs to no stage. What the fit
consists of is found afterwards, on the clip's first frames. Nothing of the result is kept.
"""
from __future__ import annotations

import argparse
import cProfile
import tempfile
import time
from itertools import islice
from pathlib import Path

import av
import numpy as np

import assets
from compositing.replace import replace_face
from compositing.report import VERSION, StageTimer, hardware, hardware_line, peak_memory_mb, write_report
from compositing.video_writer import SUFFIXES
from facemodel import commands
from facemodel.device import backend_for
from facemodel.errors import InputError
from facemodel.morphable import load_model
from fitting.detection import FaceDetector
from fitting.follow import Follower
from fitting.smoothing import smooth_run
from fitting.solver import NUMBA, engine_for
from fitting.track import FrameTracker, Person, fit_person, track_clip
from fitting.trackfile import save_track
from fitting.video_reader import VideoFrame, VideoReader, probe, read_frames

WARM_UP_FRAMES = 2
FIT_FRAMES = 24               # that the fit is taken apart on
LEAST_SHARE = 0.02            # of the fit's time: smaller parts are not shown

# functions that share out the time of track_clip; none of them calls another one
TRACKING = {
    "decode": (VideoReader.__iter__, VideoFrame.rgb.func),
    "landmarks": (Follower.step,),
    "key frames": (FaceDetector.dense, fit_person),
    "fit": (FrameTracker.step,),
    "smoothing": (smooth_run,),
}
REST = {"track": "other", "composite": "overlap"}       # what is left to the whole
PER_CLIP = ("key frames", "target", "first look", "neutral texture")


def first_frames(source, count, folder):
    """Copies the first packets of a video, without its sound, so that `count` frames can be read, or all there are.

    Returns
    -------
    Path of the copy in `folder`, in the source's container if that can be written, else Matroska

    Raises
    ------
    InputError : the source is unusable, or can't be copied in part
    """
    probe(source)
    suffix = Path(source).suffix.lower()
    path = Path(folder) / f"clip{suffix if suffix in SUFFIXES else '.mkv'}"
    try:
        with av.open(str(source), metadata_errors="replace") as old, av.open(str(path), "w") as new:
            stream = old.streams.best("video")
            copy = new.add_stream_from_template(stream)
            for packet in islice(old.demux(stream), count):
                if packet.size:                                 # the last one is empty
                    packet.stream = copy
                    new.mux(packet)
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError(f"{source}: its first frames can't be copied ({error}); leave --frames out") from error
    return path


def profiled_seconds(profile, stages):
    """Seconds per stage, with all that its functions call: dict stage -> float, as `stages`.

    profile : cProfile.Profile
    stages : dict stage -> functions
    """
    spent = {entry.code: entry.totaltime for entry in profile.getstats()}
    return {stage: sum(spent.get(f.__code__, 0.0) for f in functions) for stage, functions in stages.items()}


def fit_parts(model, clip, track, engine=NUMBA, frames=FIT_FRAMES):
    """What the fit of a frame spends its time in, found by fitting the first `frames` with a face once more.

    Returns
    -------
    list of (depth, name, share): functions that FrameTracker.step calls (depth 0), each followed by those that it calls
    (depth 1), with their share of the fit's time; below LEAST_SHARE they are left out
    """
    tracker = FrameTracker(model, Person.of(track), engine)
    profile = cProfile.Profile()
    with_face = np.flatnonzero(track.status != "no_face")[:frames]
    for frame in read_frames(clip, with_face[-1] + 1):
        if frame.index in with_face:
            rgb = frame.rgb
            profile.runcall(tracker.step, rgb, track.landmarks[frame.index].astype(float))
        else:
            tracker.forget()
    entries = {e.code: e for e in profile.getstats()}
    whole = entries[FrameTracker.step.__code__]

    def parts(entry, depth):
        calls = [c for c in entry.calls or () if not isinstance(c.code, str)]          # str: not in Python
        for call in sorted(calls, key=lambda c: -c.totaltime):
            if call.totaltime >= LEAST_SHARE * whole.totaltime:
                yield depth, call.code.co_name, call.totaltime / whole.totaltime
                if depth == 0:
                    yield from parts(entries[call.code], 1)

    return list(parts(whole, 0))


def benchmark(clip, target, model, detector, folder, progress=True, engine=NUMBA):
    """Tracks a clip and replaces its face.

    Parameters
    ----------
    clip, target : paths of a video and a photo
    model : MorphableModel
    detector : FaceDetector
    folder : where the result may be written
    engine : fitting.solver.Engine

    Returns
    -------
    dict: frames, replaced, tracking_s, total_s; stages, a list of dict with group, stage, seconds and once (True where
    the time does not grow with the clip); fit, see fit_parts
    """
    profile, timer = cProfile.Profile(), StageTimer()
    start = time.perf_counter()
    track = profile.runcall(track_clip, model, clip, detector, progress=progress, engine=engine).track
    tracking_s = time.perf_counter() - start
    save_track(track, Path(folder) / "track.npz")
    start = time.perf_counter()
    report = replace_face(clip, target, Path(folder) / "out.mkv", model=model, detector=detector, timer=timer,
                          track_path=Path(folder) / "track.npz", progress=progress, engine=engine)
    compositing_s = time.perf_counter() - start
    groups = {"track": (profiled_seconds(profile, TRACKING), tracking_s),
              "composite": ({n: s for n, s in timer.seconds.items() if n != "track"}, compositing_s)}
    stages = []
    for group, (seconds, whole) in groups.items():
        seconds = {**seconds, REST[group]: whole - sum(seconds.values())}
        stages += [{"group": group, "stage": n, "seconds": s, "once": n in PER_CLIP} for n, s in seconds.items()]
    return {"frames": report["frames"], "replaced": report["replaced"], "tracking_s": tracking_s,
            "total_s": tracking_s + compositing_s, "stages": stages, "fit": fit_parts(model, clip, track, engine)}


def warm_up(model, detector, folder, engine=NUMBA):
    """Runs a few frames of the demo through everything, so that all code is compiled and loaded."""
    clip = first_frames(assets.path("demo/single_face.mp4"), WARM_UP_FRAMES, folder)
    track_clip(model, clip, detector, key_frames=1, progress=False, engine=engine)
    replace_face(clip, None, Path(folder) / "out.mkv", virtual=1, model=model, detector=detector, progress=False,
                 engine=engine)


def frames_per_second(result, group=None, once=True):
    """Frames per second of a result of benchmark(), in all or of one group; without `once` of a clip without end."""
    chosen = [s for s in result["stages"] if group in (None, s["group"]) and (once or not s["once"])]
    return result["frames"] / sum(s["seconds"] for s in chosen)


def table(result):
    """The stages of a result of benchmark() as lines of text."""
    frames, total = result["frames"], result["total_s"]
    line = lambda name, seconds: f"{name:24}{1000 * seconds / frames:10.1f}{100 * seconds / total:8.1f} %"
    out = [f"{'stage':24}{'ms/frame':>10}{'share':>10}"]
    for group in ("track", "composite"):
        stages = [s for s in result["stages"] if s["group"] == group]
        out.append(line(group, sum(s["seconds"] for s in stages)))
        for s in stages:
            out.append(line(f"  {s['stage']}{' *' if s['once'] else ''}", s["seconds"]))
            if (group, s["stage"]) == ("track", "fit"):
                out += [line(f"    {'  ' * depth}{name}", share * s["seconds"]) for depth, name, share in result["fit"]]
    return [*out, line("total", total), "* once per clip"]


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m compositing.benchmark", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?", metavar="VIDEO", help="a clip with a face; default: the demo")
    parser.add_argument("--frames", type=int, metavar="N", help="only the first N frames; default: all")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="write the numbers there, too")
    commands.add_common(parser)
    args = parser.parse_args(argv)
    backend = backend_for(args.device)
    if args.frames is not None and args.frames < 1:
        raise InputError(f"--frames {args.frames}: give 1 or more")
    if args.out is not None:
        commands.check_writable(args.out)
    video = args.video or assets.path("demo/single_face.mp4")
    info = probe(video)
    start = time.perf_counter()
    model, detector = load_model(args.model), FaceDetector()
    engine = engine_for(model, backend)
    loading_s = time.perf_counter() - start
    with tempfile.TemporaryDirectory(prefix="dynatex") as folder:
        start = time.perf_counter()
        warm_up(model, detector, folder, engine)
        warm_up_s = time.perf_counter() - start
        clip = video if args.frames is None else first_frames(video, args.frames, folder)
        try:
            result = benchmark(clip, assets.path("demo/nobody.png"), model, detector, folder, engine=engine)
        except InputError as error:                 # name the clip that was given, not its copy
            raise InputError(str(error).replace(str(clip), str(video))) from error
    speed = {name: round(frames_per_second(result, *choice), 2) for name, choice in {
        "tracking": ("track",), "end_to_end": (), "tracking_long_clip": ("track", False),
        "end_to_end_long_clip": (None, False)}.items()}
    memory = peak_memory_mb()
    print(f"dynatex {VERSION}, {video}: {info.width} x {info.height}, {result['frames']} frames, "
          f"{result['replaced']} replaced")
    print(f"{hardware_line()}; computed on {backend.description()}")
    print(f"not counted: loading model and detector {loading_s:.1f} s, warm-up with compiling {warm_up_s:.1f} s")
    print("\n".join(table(result)))
    print(f"frames per second: tracking {speed['tracking']:.2f}, end to end {speed['end_to_end']:.2f}; without what is "
          f"paid once per clip {speed['tracking_long_clip']:.2f} and {speed['end_to_end_long_clip']:.2f}")
    if memory is not None:
        print(f"peak memory {memory:.0f} MB")
    if args.out is not None:
        write_report({"tool": f"dynatex {VERSION}", "hardware": hardware(), "device": backend.description(),
                      "clip": {"path": str(video), "width": info.width, "height": info.height},
                      "loading_s": loading_s, "warm_up_s": warm_up_s, **result, "frames_per_second": speed,
                      "peak_memory_mb": memory}, args.out)
        print(f"wrote {args.out}")


if __name__ == "__main__":
    commands.run(main)
