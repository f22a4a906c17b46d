"""What all commands share: common options, one-line errors, exit status.

The exit status is 0 when the output is whole, 1 on errors, 2 when the command line can't be understood (as of other
programs), 130 when interrupted; compositing.replace adds compositing.report.INCOMPLETE. Every error is one line on
stderr that begins with "error: ".
"""
from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from facemodel.errors import InputError

MODEL_HELP = ("'commons' (embedded, default) or the path of a Basel Face Model (2009, 2017, 2019) or of ICT-FaceKit; "
              "README.md, 'Other face models', says which files it needs and what else goes with it")
DEVICES = ("auto", "cpu", "cuda")      # facemodel.device knows one more, to compare with


def add_model(parser):
    """Adds --model and what add_verbose does."""
    parser.add_argument("--model", default="commons", help=MODEL_HELP)
    add_verbose(parser)


def add_common(parser):
    """Adds --device and what add_model does."""
    parser.add_argument("--device", choices=DEVICES, default="auto",
                        help="where to compute: 'cuda' needs an NVIDIA GPU and pip install -e \".[gpu]\"; "
                             "'auto' (default) takes it where both are there, else the CPU")
    add_model(parser)


def add_verbose(parser):
    """Adds --verbose, and has the parser report its errors in one line, without the usage."""
    parser.error = partial(_refuse, parser)
    parser.add_argument("--verbose", action="store_true", help="show a traceback when something fails")


def _refuse(parser, message):
    parser.exit(2, f"error: {_one_line(message)}; see {parser.prog} --help\n")


def check_writable(path, option="-o", inputs=()):
    """Raises InputError, before any work, when a file can't be made at `path`, or would take the place of an input.

    path : of the file
    option : str, what the user gave it by
    inputs : paths that the command reads; None, and names of no file, are passed over
    """
    path = Path(path)
    folder = path.parent
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file name with {option}")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; make it or choose another place with {option}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: can't be written; choose another place with {option}")
    for given in inputs:
        if given is not None and path.exists() and Path(given).exists() and path.samefile(given):
            raise InputError(f"{path}: is one of the inputs; choose another name with {option}")


def check_folder(path, option="-o"):
    """Raises InputError, before any work, when a folder is not there, and can't be made, or can't be written to."""
    path = Path(path)
    check_writable(path / "anything" if path.is_dir() else path, option)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; give a folder with {option}")


def _one_line(error):
    """The words of an error, or of a message, on one line."""
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
