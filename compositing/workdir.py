"""The folder in which compositing.replace keeps its unfinished work, so that a run can be stopped and goes on.

What is kept has a name made of its kind and a hash of everything that it depends on, so that whatever is found under
its name can be used, and a changed setting redoes what depends on it and nothing else:

    track_HASH.npz      the source's track         source, face, span, model, program
    tracking_HASH/      a track in the making      the same
    fit_HASH.npz        the target photo's fit     photo, target face, model, program
    result_HASH/        pieces of the result       track, target, texture, weights, seam, encoder, views, program

`manifest.json` says of each name what went into the hash. "Program" is the program's own code, the versions of the
libraries that compute, and the number of processors (x264 divides its work by it): with another one nothing is reused,
since the result could be neither program's.

Why a run that was killed gives the same bytes: all that it makes comes in pieces (fitting.checkpoint.Journal) of a
fixed number of frames, each written whole or not at all together with the state in which the work goes on: of the
follower, the tracker and the smoother while tracking; of the seam, the colour gain, the sharpness, the steadying,
the mouth's flow, the eyes and what lies before the face while compositing. An undisturbed run passes through exactly
the same states. The compositor releases all frames at the end of a piece, its last labels bind the next frame's as
always. A piece is encoded by an encoder of its own (compositing.video_writer); what is kept are its packets, and the
file is made of them at the end. Nothing depends on where a run was stopped. Whoever gives a stage a memory from frame
to frame adds it to that stage's state().

By default the folder lies beside the result (OUT.mp4.work) and is removed when the result is whole, or when there is
nothing in it worth keeping: who learns only after a power cut that there was an option would have lost the night. A
folder named by --work keeps tracks and fits for the next photo or setting; one that was there before stays, and nothing
is removed but what has exactly such names. Either holds one unfinished result at a time, about as large as the finished
one, and 1 kB per frame and face for tracks, 2 kB for one in the making; a lock keeps a second process out.
"""
from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from pathlib import Path

import av
import cv2
import dlib
import numba
import numpy as np
import ortools
import scipy

import assets
from compositing import occlusion, pieces
from compositing.report import VERSION, write_whole
from facemodel.device import has_bfloat16
from facemodel.errors import InputError
from fitting import checkpoint
from fitting.trackfile import Track, file_hash
from texgan.transfer import SHIPPED

KINDS = ("track", "tracking", "fit", "result")
FILES = ("track", "fit")                  # the others are folders
MANIFEST, LOCK = "manifest.json", "lock"
HASH = "[0-9a-f]{16}"
NAMES = {"track": rf"track_{HASH}\.npz", "tracking": f"tracking_{HASH}", "fit": rf"fit_{HASH}\.npz",
         "result": f"result_{HASH}", MANIFEST: r"manifest\.json", LOCK: "lock"}
PACKAGES = ("facemodel", "fitting", "texgan", "compositing")


@cache
def program():
    """What computes, as plain data: with another one nothing kept is reused."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(p for name in PACKAGES for p in (root / name).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"dynatex": VERSION, "code": digest.hexdigest()[:16], "numpy": np.__version__, "scipy": scipy.__version__,
            "opencv": cv2.__version__, "numba": numba.__version__, "av": av.__version__, "dlib": dlib.__version__,
            "ortools": ortools.__version__, "torch": version("torch"), "processors": processors,
            "bfloat16": has_bfloat16(), "threads": numba.get_num_threads()}


def content_hash(arrays):
    """SHA-256 of a dict of arrays and texts, whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


class WorkDir:
    """A work folder, locked while it is open; use it as a context manager.

    Parameters
    ----------
    path : of the folder, which is made
    keep : keep tracks and fits after success, and the folder
    resume : use what is there; otherwise it is removed first

    Raises
    ------
    InputError : on entering, when it can't be made, is used by another process or holds other things
    """

    def __init__(self, path, keep=False, resume=True):
        self.path, self._keep, self._resume = Path(path), keep, resume
        self._lock, self._entries, self._done, self._made = None, {}, False, False

    def __enter__(self):
        try:
            self._made = not self.path.exists()
            self.path.mkdir(exist_ok=True)
            strangers = sorted(p.name for p in self.path.iterdir() if not _ours(p.name))
            if strangers:
                raise InputError(f"{self.path}: holds other things ({strangers[0]}); name a new folder with --work")
            self._lock = _locked(self.path / LOCK)
        except OSError as error:
            raise InputError(f"{self.path}: can't be used as work folder ({error.strerror}); name another one with "
                             "--work") from error
        if not self._resume:
            self._remove(KINDS)
        try:
            self._entries = json.loads((self.path / MANIFEST).read_text())["entries"]
        except (OSError, ValueError, KeyError):
            self._entries = {}
        return self

    def __exit__(self, kind, *_):
        if self._done:
            self._remove(("tracking", "result") if self._keep else KINDS)
        if not (self._keep and self._done) and not self.unfinished:
            with suppress(OSError):
                self._remove(NAMES)
                if self._made or not self._keep:
                    self.path.rmdir()
        self._lock.close()

    def place(self, kind, inputs):
        """The path for something of a kind in KINDS that depends on `inputs`, plain data, and on the program."""
        inputs = {**inputs, "program": program()}
        code = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
        name = f"{kind}_{code}" + (".npz" if kind in FILES else "")
        if kind in ("tracking", "result"):
            self._remove((kind,), but=name)
        self._entries = {k: v for k, v in self._entries.items() if (self.path / k).exists()} | {name: inputs}
        entries = {"tool": f"dynatex {VERSION}", "entries": self._entries}
        write_whole(self.path / MANIFEST, json.dumps(entries, indent=1).encode(), "make room there")
        return self.path / name

    def finish(self):
        """The result is whole: on leaving, what was kept for it goes."""
        self._done = True

    @property
    def unfinished(self):
        """Whether there is anything that the next run could use."""
        return any(_ours(p.name, KINDS) and not p.name.startswith(".") for p in self.path.iterdir())

    def _remove(self, kinds, but=""):
        for path in self.path.iterdir():
            if _ours(path.name, kinds) and path.name != but:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _ours(name, kinds=tuple(NAMES)):
    """Whether a name is one that is written here, exactly, or that of its half-written beginning (.NAME.part)."""
    names = "|".join(NAMES[kind] for kind in kinds)
    return re.fullmatch(rf"(?:{names})|\.(?:{names})\.part", name) is not None


def _locked(path):
    """The open, locked file at `path`; where the system knows no locks, open only."""
    file = open(path, "w")               # noqa: SIM115  it stays open as long as the folder is used
    try:
        import fcntl
    except ImportError:
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise InputError(f"{path.parent}: another run is at work there; wait for it, or name another folder with "
                         "--work") from error
    return file


def remove_leftovers(out):
    """Removes the hidden beginnings of `out` that processes which were killed left beside it."""
    marks = "[0-9a-f]" * 8
    for path in out.parent.glob(f".{_escaped(out.stem[:100])}.{marks}.part{out.suffix.lower()}"):
        path.unlink(missing_ok=True)


def _escaped(text):
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def kept_fit(work, model, photo_hash, face, engine, fit):
    """What `fit()`, (Track of the photo, number of faces), gives, or gave an earlier run. work : WorkDir or None."""
    if work is None:
        return fit()
    path = work.place("fit", {"photo": photo_hash, "face": str(face), "model": model.hash,
                              "engine": _engine_name(engine)})
    known = checkpoint.load(path)
    if known is not None:
        return Track(**known["track"]), known["count"]
    track, count = fit()
    checkpoint.save(path, {"track": _fields(track), "count": count})
    return track, count


def kept_track(work, model, source, face, span, engine, make):
    """The source's Track and remarks: what make(folder for unfinished work or None) or an earlier run made."""
    if work is None:
        tracking = make(None)
        return tracking.track, tracking.remarks
    inputs = {"source": file_hash(source), "face": str(face), "span": [span.first, span.end], "model": model.hash,
              "engine": _engine_name(engine)}
    path = work.place("track", inputs)
    known = checkpoint.load(path)
    if known is not None:
        return Track(**known["track"]), known["remarks"]
    unfinished = work.place("tracking", inputs)      # only now: it takes the place of any other, as of another face
    tracking = make(unfinished)
    checkpoint.save(path, {"track": _fields(tracking.track), "remarks": tracking.remarks})
    shutil.rmtree(unfinished, ignore_errors=True)
    return tracking.track, tracking.remarks


def result_journal(work, model, tracks, target_hashes, settings, weights, engine, device, views):
    """The Journal of the result, None without a WorkDir. tracks, target_hashes : lists, one per face."""
    if work is None:
        return None
    weights = Path(weights) if weights else assets.path(SHIPPED)
    inputs = {"track": [content_hash(_fields(track)) for track in tracks], "target": target_hashes,
              "settings": settings, "model": model.hash,
              "engine": _engine_name(engine), "device": device, "views": views, "piece": pieces.PIECE,
              "weights": file_hash(weights) if settings["texture"] == "gan" else None,
              "occlusion": file_hash(assets.path(occlusion.SHIPPED)) if settings["occlusion"] == "auto" else None}
    return checkpoint.Journal(work.place("result", inputs))


@contextmanager
def told_where(work):
    """Says on stderr, when what is inside is stopped or fails, that the work can be gone on with."""
    try:
        yield
    except InputError as error:
        if work.unfinished:
            raise InputError(f"{error}; what is done is kept in {work.path} for the next run") from error
        raise
    except BaseException:
        if work.unfinished:
            print(f"what is done is kept in {work.path}; run the same command again to go on", file=sys.stderr)
        raise


def _engine_name(engine):
    return "numba" if engine.term is None else "gpu"


def _fields(track):
    return {x.name: np.asarray(getattr(track, x.name)) for x in fields(track)}
