"""How far long work has come: a bar on a terminal, a plain line now and then where stderr goes into a file."""
from __future__ import annotations

import sys
import time

from tqdm import tqdm

LINE_EVERY_S = 30.0


def progress_bar(total, name, unit="frame", show=True):
    """What to call update() on after each of `total` units (None: not known); use it as a context manager.

    update(frame=N) also shows which frame of the source that was, which differs from the count where work began later.
    On a terminal it is a bar with the time left. Elsewhere (a file, a pipe, a log) it is a line of text every
    LINE_EVERY_S seconds, so that work which takes less leaves nothing there, and nothing at all without `show`.
    """
    if show and not sys.stderr.isatty():
        return ProgressLines(total, name, unit)
    return ProgressBar(total=total, desc=name, unit=unit, disable=not show)


class ProgressBar(tqdm):
    """tqdm's bar with the frame that was done last."""

    def update(self, count=1, frame=None):
        """Counts units as done."""
        if frame is not None:
            self.set_postfix_str(f"at {frame}", refresh=False)
        return super().update(count)


class ProgressLines:
    """Lines like "fit: 120 of 480 frames, at 119, 2:07 left" on stderr; the part of ProgressBar that is promised."""

    def __init__(self, total, name, unit, every_s=LINE_EVERY_S):
        self._total, self._name, self._unit, self._every_s = total, name, unit, every_s
        self._count, self._start = 0, time.monotonic()
        self._printed = self._start

    def update(self, count=1, frame=None):
        """Counts units as done."""
        self._count += count
        now = time.monotonic()
        if now - self._printed < self._every_s:
            return
        self._printed = now
        print(self._line(now - self._start, frame), file=sys.stderr, flush=True)

    def _line(self, passed_s, frame):
        at = "" if frame is None else f", at {frame}"
        if not self._total:
            return f"{self._name}: {self._count} {self._unit}s{at}"
        left = max(0, round(passed_s / self._count * (self._total - self._count)))
        hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
        clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
        return f"{self._name}: {self._count} of {self._total} {self._unit}s{at}, {clock} left"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
