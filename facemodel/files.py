"""Files that are there whole or not at all, and files of arrays and weights."""
from __future__ import annotations

import os
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from facemodel.errors import InputError

UNREADABLE = (OSError, AttributeError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)


@contextmanager
def whole(path, remedy="choose another place with -o"):
    """A place beside `path` to write to, which becomes `path` at the end: nobody finds half a file.

    Use as `with whole(path) as beside:`; beside is a Path, .NAME.part. When the block fails, or is interrupted, it is
    removed, and what was at `path` stays.

    Parameters
    ----------
    path : str or Path
    remedy : str, what a user can do when it can't be written

    Raises
    ------
    InputError : when it can't be written
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")
    try:
        yield beside
        os.replace(beside, path)
    except BaseException as error:
        with suppress(OSError):                                    # a place that was none has nothing to remove
            beside.unlink()
        if isinstance(error, OSError):
            raise InputError(f"{path}: can't be written ({error.strerror}); {remedy}") from error
        raise


@contextmanager
def stored_arrays(path, words):
    """The arrays of an .npz file, dict by name; nothing in it is run.

    Use as `with stored_arrays(path, words) as d:`; when the block does not find in them what it wants, they are of
    something else.

    Parameters
    ----------
    path : str or Path
    words : str, what is wrong with a file that can't be read, and what to do

    Raises
    ------
    InputError : when there is no such file, or it is damaged or holds other things
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        yield found
    except InputError:                                             # of the block, which knows better
        raise
    except UNREADABLE as error:
        raise InputError(f"{path}: {words}") from error


@contextmanager
def weights(path, what, command):
    """The tensors of a safetensors file, floats in single precision, and its metadata, dict of str.

    Use as `with weights(path, what, command) as (tensors, metadata):`; when the block does not find in them what it
    wants, they are of something else.

    Parameters
    ----------
    path : str or Path
    what : str, what the weights are of, and command : the module that makes them

    Raises
    ------
    InputError : when there are no such weights
    """
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(str(path), "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}      # noqa: SIM118  it is no dict
            metadata = file.metadata() or {}
        yield {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, metadata
    except InputError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: no weights of {what}; make some with python -m {command}, or install dynatex "
                         "again") from error
