"""Files that are there whole or not at all."""
from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path

from facemodel.errors import InputError


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
