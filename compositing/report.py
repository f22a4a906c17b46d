"""What a run did: times per stage, what became of every frame, and the marks that say a video is synthetic."""
from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numba
import numpy as np

from facemodel.files import whole

VERSION = "0.1.0"
PASSED_LIMIT = 0.10          # share of passed-through frames above which a run ends with INCOMPLETE
INCOMPLETE = 3
RANGES_SHOWN = 12


class StageTimer:
    """Adds up the wall-clock time of named stages: `with timer("render"): ...`, in whatever threads.

    seconds : dict, name of a stage -> float, in the order in which they were first seen
    """

    def __init__(self):
        self.seconds, self._lock = {}, threading.Lock()

    @contextmanager
    def __call__(self, name):
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def each(self, name, items):
        """Passes items on; what it takes to get each of them belongs to the stage."""
        items, end = iter(items), object()
        while True:
            with self(name):
                item = next(items, end)
            if item is end:
                return
            yield item


def peak_memory_mb():
    """Largest resident size of this process so far, in MB; None on systems that do not tell (Windows)."""
    try:         # not ru_maxrss: on Linux that begins with the peak of the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2 ** 20 if sys.platform == "darwin" else 1024)


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory_gb():
    """Memory of the machine in GB, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return None


def hardware():
    """What a time was measured on: dict of processor, cores, threads, memory and versions."""
    memory = _memory_gb()
    return {
        "processor": _processor(), "cores": os.cpu_count(), "numba_threads": numba.get_num_threads(),
        "opencv_threads": cv2.getNumThreads(), "memory_gb": None if memory is None else round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
        "numpy": np.__version__, "numba": numba.__version__, "opencv": cv2.__version__,
    }


def hardware_line():
    """hardware() in a line."""
    h = hardware()
    memory = "" if h["memory_gb"] is None else f", {h['memory_gb']:g} GB"
    return (f"{h['processor']}, {h['cores']} cores (threads: numba {h['numba_threads']}, OpenCV {h['opencv_threads']})"
            f"{memory}, {h['system']}, Python {h['python']}, NumPy {h['numpy']}, Numba {h['numba']}, "
            f"OpenCV {h['opencv']}")


SYNTHETIC_KINDS = {"face replacement": "a face in it was replaced", "animated photo": "a photo was brought to life"}


def synthetic_marks(source, target, kind="face replacement"):
    """Tags for the container: that the video is synthetic, of which of SYNTHETIC_KINDS, by what, and from what."""
    return {
        "comment": f"SYNTHETIC VIDEO: {SYNTHETIC_KINDS[kind]} by dynatex. It does not show what happened.",
        "synthetic": "true", "synthetic_tool": f"dynatex {VERSION}", "synthetic_kind": kind,
        "synthetic_source_sha256": source, "synthetic_target_sha256": target,
    }


def passed_ranges(replaced, start=0):
    """Ranges of frames that were passed through: (F,) bool, from frame `start` on -> list of [first, last]."""
    passed = np.flatnonzero(~np.asarray(replaced, bool))
    if not len(passed):
        return []
    runs = np.split(passed, np.flatnonzero(np.diff(passed) > 1) + 1)
    return [[start + int(r[0]), start + int(r[-1])] for r in runs]


def range_words(ranges, limit=RANGES_SHOWN):
    """Ranges as text: [[4, 7], [9, 9]] -> "4-7, 9"; of more than `limit` of them the rest is counted."""
    words = [str(a) if a == b else f"{a}-{b}" for a, b in ranges[:limit]]
    if len(ranges) > limit:
        words.append(f"and {len(ranges) - limit} more ranges")
    return ", ".join(words)


def exit_status(report):
    """Status that a finished command ends with: INCOMPLETE when a face was passed through too often, else 0."""
    wanted = report["frames"] - report["outside_span"]
    least = min(face["replaced"] for face in report.get("faces", [report]))
    return INCOMPLETE if wanted - least > PASSED_LIMIT * wanted else 0


def build_report(inputs, settings, track, replaced, timer, frames, remarks, covered=None):
    """The report as plain data, what OUT.report.json holds.

    Parameters
    ----------
    inputs, settings : dict of what JSON can hold
    track : Track of the source, or of the span of it that was to be replaced
    replaced : (F,) bool, frames of the track that show the target
    timer : StageTimer
    frames : int, frames written
    remarks : list of str, what the user should know
    covered : optional (F,) float, share of the face that something lies before and that was therefore kept
    """
    covered = np.zeros(len(track)) if covered is None else covered
    peak = peak_memory_mb()
    number = lambda x: None if not np.isfinite(x) else round(float(x), 5)
    return {
        "tool": f"dynatex {VERSION}", "hardware": hardware_line(), "inputs": inputs, "settings": settings,
        "settings_sha256": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        "model": {"name": str(track.model_name), "hash": str(track.model_hash)},
        "frames": frames, "replaced": int(np.sum(replaced)),
        "passed_through": passed_ranges(replaced, int(track.frame_index[0])),
        "span": [int(track.frame_index[0]), int(track.frame_index[-1]) + 1], "outside_span": frames - len(track),
        "milliseconds_per_frame": {k: round(1000 * v / max(frames, 1), 2) for k, v in timer.seconds.items()},
        "peak_memory_mb": None if peak is None else round(peak), "remarks": list(remarks),
        "median_photometric_error": number(np.nanmedian(track.photometric_error)),
        "median_landmark_error": number(np.nanmedian(track.landmark_error)),
        "mean_covered": number(np.mean(covered)),
        "per_frame": [{"frame": int(i), "status": str(s), "replaced": bool(r), "photometric_error": number(p),
                       "landmark_error": number(e), "covered": number(c)}
                      for i, s, r, p, e, c in zip(track.frame_index, track.status, replaced, track.photometric_error,
                                                  track.landmark_error, covered)],
    }


def summary(report, out, views=()):
    """What a command prints when it is done: lines of text. out, views : paths of the result and of further videos."""
    lines = [*report["remarks"], *(f"wrote {path}" for path in views)]
    stages = ", ".join(f"{k} {v:.0f}" for k, v in report["milliseconds_per_frame"].items())
    wanted = report["frames"] - report["outside_span"]

    def words(part):
        passed = wanted - part["replaced"]
        where = f" (frames {range_words(part['passed_through'])})" if passed else ""
        return f"{part['replaced']} of {wanted} frames replaced, {passed} passed through{where}"

    for face in report.get("faces", ()):
        lines.append(f"face {face['face']}, {face['target']}: {words(face)}")
    outside = f", {report['outside_span']} outside the span unchanged" if report["outside_span"] else ""
    memory = f"; peak memory {report['peak_memory_mb']} MB" if report["peak_memory_mb"] else ""
    lines.append(f"wrote {out}: {words(report)}{outside}; ms per frame: {stages}{memory}; details in "
                 f"{report_path(out)}")
    return lines


def report_path(out):
    """Where the report of a result lies."""
    return Path(out).with_name(Path(out).name + ".report.json")


def write_report(report, path):
    """Writes plain data as JSON, without ever holding the text; see write_whole."""
    write_whole(path, (part.encode() for part in json.JSONEncoder(indent=1).iterencode(report)))


def write_whole(path, data, remedy="choose another place with -o"):
    """Writes bytes, or what an iterable of bytes gives, as facemodel.files.whole does, with its remedy and errors."""
    with whole(path, remedy) as beside, beside.open("wb") as file:
        file.writelines([data] if isinstance(data, bytes) else data)
