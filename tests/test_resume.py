"""Runs that are killed and started again: the same bytes as an undisturbed run, and nothing left behind."""
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from compositing.workdir import WorkDir, kept_fit, kept_track, program, remove_leftovers
from facemodel.errors import InputError
from fitting import checkpoint
from fitting.solver import NUMBA
from fitting.video_reader import WHOLE
from tests import clips
from tests.test_trackfile import some_track

ROOT = Path(__file__).parents[1]
# small pieces, quick fits, and a process that kills itself before its n-th rename
DRIVER = """
import os, signal, sys
from functools import partial
import compositing.pieces, compositing.replace, fitting.checkpoint, fitting.fit, fitting.track
from facemodel import commands
compositing.pieces.PIECE = fitting.checkpoint.EVERY = 4
quick = partial(fitting.fit.fit_frames, iterations=(2, 1, 1))
fitting.fit.fit_frames = fitting.track.fit_frames = quick
compositing.replace.track_clip = partial(fitting.track.track_clip, key_frames=1)
left, rename = int(sys.argv.pop(1)), os.replace
def renaming(*args):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(*args)
os.replace = renaming
commands.run(compositing.replace.main, sys.argv[1:])
"""


def start(folder, *options, kill_at=0):
    """A run in a process of its own on clip.mp4 in the folder."""
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(kill_at), "clip.mp4", "--virtual", "3", *map(str, options)], cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A folder with clip.mp4 and the result of an undisturbed run, whole.mp4; how long that took."""
    folder = tmp_path_factory.mktemp("resume")
    clips.cut(folder / "clip.mp4", 11, crop=(480, 360), rate=clips.NTSC, sound=True)
    begun = time.monotonic()
    process = start(folder, "-o", "whole.mp4")
    printed = process.communicate()[0]
    assert process.returncode == 0, printed
    assert sorted(p.name for p in folder.iterdir()) == ["clip.mp4", "whole.mp4", "whole.mp4.report.json"]
    return folder, time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [(4, 9, 4), ()])
def test_a_killed_run_goes_on_to_the_same_bytes(undisturbed, kill_at):
    """Killed between two of its steps on the disk, or at random moments; the clip's track too is made in pieces."""
    folder, took = undisturbed
    dice, out = random.Random(5), folder / f"out{len(kill_at)}.mp4"
    for step in kill_at or (None,) * 3:
        process = start(folder, "-o", out.name, kill_at=step or 0)
        if step is None:
            time.sleep(took * dice.uniform(0.3, 0.95))
            process.kill()
        process.communicate()
        assert process.returncode in ((-signal.SIGKILL,) if step else (-signal.SIGKILL, 0))
    process = start(folder, "-o", out.name)
    assert process.communicate() and process.returncode == 0
    assert out.read_bytes() == (folder / "whole.mp4").read_bytes()
    assert not list(folder.glob(".*")) and not list(folder.glob("*.work"))


def test_places_depend_on_what_they_are_made_of(tmp_path):
    with WorkDir(tmp_path / "w", keep=True) as work:
        place = work.place("result", {"crf": 18})
        assert work.place("result", {"crf": 18}) == place != work.place("result", {"crf": 20})
        work.place("fit", {"photo": "a"}).touch()
        place.mkdir()
        (place / "piece").touch()
        work.place("result", {"crf": 18})
        assert place.exists() and work.unfinished
        work.place("result", {"crf": 19})                       # one unfinished result at a time
        assert not place.exists()
        work.finish()
    assert len(list((tmp_path / "w").glob("fit_*"))) == 1 and (tmp_path / "w" / "manifest.json").is_file()
    with WorkDir(tmp_path / "w", keep=True, resume=False) as work:
        assert not work.unfinished
    assert {"code", "torch", "dlib", "ortools"} <= set(program())


def test_a_default_folder_goes_when_it_is_of_no_use(tmp_path):
    with WorkDir(tmp_path / "w") as work:
        work.place("fit", {})
    assert not (tmp_path / "w").exists()
    with pytest.raises(KeyError), WorkDir(tmp_path / "w") as work:
        work.place("fit", {}).touch()
        raise KeyError
    assert (tmp_path / "w").exists()
    with WorkDir(tmp_path / "w") as work:
        work.finish()
    assert not (tmp_path / "w").exists()


def test_a_folder_of_the_users_own_is_left_as_it_was(tmp_path):
    """Only whole names of ours are taken for ours, and a folder that was there before stays."""
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(KeyError), WorkDir(mine, keep=True) as work:
        work.place("fit", {})
        raise KeyError
    assert mine.is_dir() and not list(mine.iterdir())
    for name in ("result_final.mp4", "track_1.npz", "fit_0123456789abcdef.npz.bak", "lock.txt", "manifest.json.old"):
        (mine / name).touch()
        with pytest.raises(InputError, match=f"holds other things .{name}"), WorkDir(mine, keep=True, resume=False):
            pass
        assert [p.name for p in mine.iterdir()] == [name]
        (mine / name).unlink()
    (mine / ".fit_0123456789abcdef.npz.part").touch()                  # what a power cut leaves of ours
    with WorkDir(mine, keep=True) as work:
        assert not work.unfinished
        (mine / "result_final.mp4").touch()                            # and what comes while we are at work
    assert [p.name for p in mine.iterdir()] == ["result_final.mp4"]
    with pytest.raises(KeyError), WorkDir(tmp_path / "new", keep=True):
        raise KeyError
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_not_ours_or_in_use(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "letters.txt").touch()
    with pytest.raises(InputError, match="letters.txt.*--work"), WorkDir(tmp_path / "w"):
        pass
    with pytest.raises(InputError, match="--work"), WorkDir(tmp_path / "no" / "w"):
        pass
    with WorkDir(tmp_path / "v"), pytest.raises(InputError, match="another run"), WorkDir(tmp_path / "v"):
        pass


def test_a_photo_is_fitted_once(model, tmp_path):
    """For each photo, face and model; another photo leaves the first one's fit alone."""
    fits = []

    def kept(photo, face="largest"):
        def fit():
            fits.append((photo, face))
            return some_track(model, frames=1), 2

        with WorkDir(tmp_path / "w", keep=True) as work:
            track, count = kept_fit(work, model, photo, face, NUMBA, fit)
            work.finish()
        assert count == 2
        return track

    first = kept("a")
    kept("b")
    np.testing.assert_array_equal(kept("a").identity, first.identity)
    kept("a", "1")
    assert fits == [("a", "largest"), ("b", "largest"), ("a", "1")]
    assert len(list((tmp_path / "w").glob("fit_*"))) == 3


def test_each_face_goes_on_with_its_own_track(model, tmp_path):
    """Stopped while the second of two faces is tracked, the next run finds both: the track, and what was begun."""
    source = tmp_path / "clip.mp4"
    source.write_bytes(b"a clip")
    begun = []

    def kept(work, face, fail=False):
        def make(folder):
            journal = checkpoint.Journal(folder)
            begun.append((face, journal.count))
            journal.append({"rows": 1}, {"next": 1})
            if fail:
                raise KeyboardInterrupt
            return SimpleNamespace(track=some_track(model, frames=2), remarks=[])
        return kept_track(work, model, source, face, WHOLE, NUMBA, make)

    with pytest.raises(KeyboardInterrupt), WorkDir(tmp_path / "w") as work:
        kept(work, "1")
        kept(work, "2", fail=True)
    with WorkDir(tmp_path / "w") as work:
        kept(work, "1")
        kept(work, "2")
        work.finish()
    assert begun == [("1", 0), ("2", 0), ("2", 1)] and not (tmp_path / "w").exists()


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    for name in (".a[1].0123abcd.part.mp4", ".a[1].0123abc.part.mp4", ".b.0123abcd.part.mp4"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "a[1].mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a[1].0123abc.part.mp4", ".b.0123abcd.part.mp4"]
