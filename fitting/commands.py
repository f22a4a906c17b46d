"""What all commands share: common options, one-line errors, exit status."""
from __future__ import annotations

import os
import sys
from pathlib import Path

from facemodel.errors import InputError

MODEL_HELP = ("'commons' (embedded, default) or the path of a Basel Face Model (2009, 2017, 2019) or of ICT-FaceKit; "
              "README.md, 'Other face models', says which files it needs")
DEVICES = ("auto", "cpu", "cuda")


def add_common(parser):
    """Adds --model, --device and --verbose."""
    parser.add_argument("--model", default="commons", help=MODEL_HELP)
    parser.add_argument("--device", choices=DEVICES, default="auto",
                        help="where to compute; this version computes on the CPU, so 'cuda' is an error")
    parser.add_argument("--verbose", action="store_true", help="show a traceback when something fails")


def check_device(device):
    """Raises InputError for a device that can't be had."""
    if device == "cuda":
        raise InputError("--device cuda: this version computes on the CPU only; leave --device out")


def check_writable(path, option="-o"):
    """Raises InputError, before any work, when a file can't be made at `path`; `option` is what the user gave it by."""
    path = Path(path)
    folder = path.parent
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file name with {option}")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; make it or choose another place with {option}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: can't be written; choose another place with {option}")


def _one_line(error):
    return " ".join(str(error).split())


def run(main, argv=None):
    """Runs a command's main(argv): an InputError becomes one line on stderr and exit status 1.

    Other failures keep their traceback with --verbose and are one line without it.
    """
    verbose = "--verbose" in (sys.argv if argv is None else argv)
    try:
        status = main(argv)
    except InputError as error:
        if verbose:
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except (Exception, MemoryError) as error:
        if verbose:
            raise
        print(f"error: {type(error).__name__}: {_one_line(error)} (run again with --verbose for the details)",
              file=sys.stderr)
        sys.exit(1)
    sys.exit(status or 0)
