"""Keeps prepared models, so that charts and closest points are computed once per model and user.

A kept model is found by a hash of everything that it was made from: the files, the embedded model, and the code of
this package, all of it: little of that has no part in it.
"""
from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from facemodel.errors import InputError
from facemodel.files import stored_arrays
from facemodel.morphable import MorphableModel, commons_files, load_model
from facemodel.readers import basel, bfm2009, ict
from facemodel.readers.files import digest
from facemodel.readers.prepare import prepare

READERS = (bfm2009, basel, ict)
SPARSE = ("refine", "coarse_refine")
REGION = "region:"
PACKAGE = Path(__file__).parents[1]


def folder():
    """Where prepared models are kept: $DYNATEX_CACHE, else $XDG_CACHE_HOME/dynatex, else ~/.cache/dynatex."""
    if own := os.environ.get("DYNATEX_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynatex"


def _note(text):
    print(text, file=sys.stderr, flush=True)


def find(path):
    """(reader module, place) for a path, or None when no reader knows it."""
    for reader in READERS:
        if (place := reader.find(path)) is not None:
            return reader, place
    return None


def load(path, rebuild=False, log=_note):
    """Loads a foreign model, prepared now or before.

    Parameters
    ----------
    path : Path or str
    rebuild : bool, prepare it anew
    log : function of a str

    Returns
    -------
    MorphableModel, or None when no reader knows the path

    Raises
    ------
    InputError : when files are missing or broken
    """
    found = find(path)
    if found is None:
        return None
    reader, place = found
    key = digest([*reader.files(place), *commons_files(), *sorted(PACKAGE.rglob("*.py"))])
    kept = folder() / f"{reader.__name__.rpartition('.')[2]}-{key}.npz"
    if kept.is_file() and not rebuild:
        if (model := read(kept)) is not None:
            return model
        log(f"{kept} is damaged; it is made anew")
    log(f"preparing {place} for its first use: chart, regions and landmarks (up to a minute, once)")
    model = prepare(reader.read(place), load_model())
    try:
        write(model, kept)
    except OSError as error:
        log(f"the prepared model can't be kept in {kept.parent} ({error.strerror}); the next start prepares it again; "
            "set DYNATEX_CACHE to a folder that can be written")
    return model


def write(model, path):
    """Writes a prepared model in one step; raises OSError when that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"{REGION}{n}": w for n, w in model.regions.items()}
    for name in MorphableModel.__dataclass_fields__:
        value = getattr(model, name)
        if name in SPARSE:
            arrays |= {f"{name}:{part}": getattr(value, part) for part in ("data", "indices", "indptr", "shape")}
        elif name != "regions":
            arrays[name] = np.asarray(value)
    beside = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    try:
        np.savez(beside, **arrays)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read(path):
    """The prepared model in a file of `write`, or None when the file is damaged."""
    plain = None
    with suppress(InputError), stored_arrays(path, "is damaged") as d:
        sparse = {n: sp.csr_matrix((d[f"{n}:data"], d[f"{n}:indices"], d[f"{n}:indptr"]), shape=d[f"{n}:shape"])
                  for n in SPARSE}
        regions = {n.removeprefix(REGION): w for n, w in d.items() if n.startswith(REGION)}
        plain = {n: d[n] for n in MorphableModel.__dataclass_fields__ if n in d}
    if plain is None:
        return None
    plain |= {n: str(plain[n]) for n in ("name", "hash")}
    plain["expression_names"] = tuple(str(n) for n in plain["expression_names"])
    plain["expression_range"] = tuple(float(x) for x in plain["expression_range"])
    return MorphableModel(**plain, **sparse, regions=regions)


