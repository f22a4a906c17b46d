"""Quick fits, for tests that ask what commands do; tests/test_fit.py asks how well they fit."""
from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import pytest

import fitting.fit
import fitting.track


@contextmanager
def quick_fits(*commands, iterations=(2, 1, 1)):
    """Fewer steps per fit, and in clips that `commands`, modules that call track_clip, track a single key frame."""
    with pytest.MonkeyPatch.context() as patch:
        quick = partial(fitting.fit.fit_frames, iterations=iterations)
        patch.setattr(fitting.fit, "fit_frames", quick)
        patch.setattr(fitting.track, "fit_frames", quick)
        for command in commands:
            patch.setattr(command, "track_clip", partial(fitting.track.track_clip, key_frames=1))
        yield
