"""Small things that all readers do with files."""
from __future__ import annotations

import hashlib

from facemodel.errors import InputError

BASEL_LICENCE = "the licence for the Basel Face Model is asked for at https://faces.dmi.unibas.ch"


def need(path, where):
    """The path, or an InputError that says where to get the file."""
    if not path.is_file():
        raise InputError(f"{path} is missing; {where}")
    return path


def digest(paths):
    """First 16 hexadecimal digits of the SHA-256 over the contents of files, in order."""
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                total.update(block)
    return total.hexdigest()[:16]
