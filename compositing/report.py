"""What a run did: times per stage, what became of every frame, and the marks that say a video is synthetic."""
from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from facemodel.errors import InputError

VERSION = "0.1.0"


class StageTimer:
    """Adds up the wall-clock time of named stages."""

    def __init__(self):
        self.seconds = {}

    @contextmanager
    def __call__(self, name):
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def peak_memory_mb():
    """Largest resident size of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2 ** 20 if sys.platform == "darwin" else 1024)


def hardware():
    """Processor and core count in a line."""
    model = platform.processor() or platform.machine()
    try:
        model = next(line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores"


def synthetic_marks(source, target):
    """Tags for the container: that the video is synthetic, by what, and from what."""
    return {
        "comment": "SYNTHETIC VIDEO: a face in it was replaced by dynatex. It does not show what happened.",
        "synthetic": "true", "synthetic_tool": f"dynatex {VERSION}", "synthetic_kind": "face replacement",
        "synthetic_source_sha256": source, "synthetic_target_sha256": target,
    }


def passed_ranges(replaced):
    """Ranges of frames that were passed through: (F,) bool -> list of [first, last]."""
    passed = np.flatnonzero(~np.asarray(replaced, bool))
    if not len(passed):
        return []
    runs = np.split(passed, np.flatnonzero(np.diff(passed) > 1) + 1)
    return [[int(r[0]), int(r[-1])] for r in runs]


def build_report(inputs, settings, track, replaced, timer, frames, remarks):
    """The report as plain data; see OUT.report.json."""
    number = lambda x: None if not np.isfinite(x) else round(float(x), 5)
    return {
        "tool": f"dynatex {VERSION}", "hardware": hardware(), "inputs": inputs, "settings": settings,
        "settings_sha256": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        "model": {"name": str(track.model_name), "hash": str(track.model_hash)},
        "frames": frames, "replaced": int(np.sum(replaced)), "passed_through": passed_ranges(replaced),
        "milliseconds_per_frame": {k: round(1000 * v / max(frames, 1), 2) for k, v in timer.seconds.items()},
        "peak_memory_mb": round(peak_memory_mb()), "remarks": list(remarks),
        "median_photometric_error": number(np.nanmedian(track.photometric_error)),
        "median_landmark_error": number(np.nanmedian(track.landmark_error)),
        "per_frame": [{"frame": int(i), "status": str(s), "replaced": bool(r), "photometric_error": number(p),
                       "landmark_error": number(e)}
                      for i, s, r, p, e in zip(track.frame_index, track.status, replaced, track.photometric_error,
                                               track.landmark_error)],
    }


def write_report(report, path):
    """Writes JSON beside its place, then renames."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(json.dumps(report, indent=1))
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from error
    finally:
        beside.unlink(missing_ok=True)
