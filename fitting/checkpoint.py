"""Unfinished work on disk, so that a process that is killed at any moment can be followed by one that goes on.

`save` and `load` keep plain data (None, numbers, text, arrays, lists and dictionaries of them) exactly, in .npz files
without pickles. A file is written beside its place, flushed to the disk and then renamed: it is whole or not there.

A `Journal` is long work as a row of pieces, each followed by the state in which the work goes on. State n is written
before piece n - 1, and state n - 1 is removed after it, so that at every moment there is a state that continues the
pieces there are.
"""
from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np

from facemodel.errors import InputError
from facemodel.files import stored_arrays, whole

EVERY = 250          # frames between the states that are kept of a track in the making


def save(path, tree):
    """Writes plain data.

    Raises
    ------
    InputError : when the path can't be written
    """
    arrays = []
    skeleton = json.dumps(_taken_apart(tree, arrays))
    with whole(path, "make room there") as beside, beside.open("wb") as f:
        np.savez(f, skeleton=np.array(skeleton), **{f"a{i}": a for i, a in enumerate(arrays)})
        f.flush()
        os.fsync(f.fileno())


def load(path):
    """What `save` wrote; None where there is no such file or it is damaged."""
    with suppress(InputError), stored_arrays(path, "is damaged") as found:
        return _put_together(json.loads(str(found["skeleton"])), found)
    return None


class Journal:
    """The pieces and the present state of one long work, in a folder of its own, which is made when needed.

    count : int, pieces that are there
    state : what the work goes on with; None at the start
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.count, self.state = 0, None
        while self._piece(self.count).is_file():
            self.count += 1
        if self.count:
            self.state = load(self._state(self.count))
            if self.state is None:
                self.clear()

    def pieces(self):
        """Yields the pieces in order; InputError for one that is damaged."""
        for number in range(self.count):
            piece = load(self._piece(number))
            if piece is None:
                raise InputError(f"{self._piece(number)}: is damaged; run the same command with --no-resume")
            yield piece

    def append(self, piece, state):
        """Adds a piece, and the state in which the work goes on after it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save(self._state(self.count + 1), state)
        save(self._piece(self.count), piece)
        self._state(self.count).unlink(missing_ok=True)
        self.count, self.state = self.count + 1, state

    def clear(self):
        """Forgets all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.count, self.state = 0, None

    def _piece(self, number):
        return self.folder / f"piece_{number:06d}.npz"

    def _state(self, number):
        return self.folder / f"state_{number:06d}.npz"


def _taken_apart(tree, arrays):
    """Plain data as JSON can hold it, its arrays put into a list."""
    if isinstance(tree, np.ndarray | np.generic):
        arrays.append(np.asarray(tree))
        return {"array": len(arrays) - 1}
    if isinstance(tree, dict):
        return {"dict": [[str(k), _taken_apart(v, arrays)] for k, v in tree.items()]}
    if isinstance(tree, list | tuple):
        return {"list": [_taken_apart(v, arrays) for v in tree]}
    if tree is None or isinstance(tree, bool | int | float | str):
        return {"value": tree}
    raise TypeError(f"{type(tree).__name__} is no plain data")


def _put_together(skeleton, arrays):
    (kind, content), = skeleton.items()
    if kind == "array":
        return arrays[f"a{content}"][()]         # numbers come back as numbers
    if kind == "dict":
        return {k: _put_together(v, arrays) for k, v in content}
    if kind == "list":
        return [_put_together(v, arrays) for v in content]
    return content
