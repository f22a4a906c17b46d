"""How far long work has come: a bar on a terminal, a plain line now and then where stderr goes into a file."""
from __future__ import annotations

import sys
import time

from tqdm import tqdm

LINE_EVERY_S = 30.0


def progress_bar(total, name, unit="frame", show=True):
    """What to call update() on after each of `total` units (None: not known); use it as a context manager.

    On a terminal it is a bar with the time left. Elsewhere (a file, a pipe, a log) it is a line of text every
    LINE_EVERY_S seconds, so that work which takes less leaves nothing there, and nothing at all without `show`.
    """
    if show and not sys.stderr.isatty():
        return ProgressLines(total, name, unit)
    return tqdm(total=total, desc=name, unit=unit, disable=not show)


class ProgressLines:
    """Lines like "fit: 120 of 480 frames, 2:07 left" on stderr; the part of tqdm that progress_bar promises."""

    def __init__(self, total, name, unit, every_s=LINE_EVERY_S):
        self._total, self._name, self._unit, self._every_s = total, name, unit, every_s
        self._count, self._start = 0, time.monotonic()
        self._printed = self._start

    def update(self, count=1):
        """Counts units as done."""
        self._count += count
        now = time.monotonic()
        if now - self._printed < self._every_s:
            return
        self._printed = now
        print(self._line(now - self._start), file=sys.stderr, flush=True)

    def _line(self, passed_s):
        if not self._total:
            return f"{self._name}: {self._count} {self._unit}s"
        left = max(0, round(passed_s / self._count * (self._total - self._count)))
        return f"{self._name}: {self._count} of {self._total} {self._unit}s, {left // 60}:{left % 60:02d} left"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
