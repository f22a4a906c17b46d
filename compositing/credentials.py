"""Content credentials: a signed C2PA manifest in the video that says what it is and what it was made from.

The manifest names dynatex and its version, the inputs with their SHA-256, the settings, and the action: a composite
with trained algorithmic media (https://cv.iptc.org/newscodes/digitalsourcetype/). The signature covers it and all
pictures, sound and metadata, so that compositing.verify notices a change of any. Pictures and sound are not touched:
the manifest is a box of its own in the .mp4 or .mov, and the marks in the metadata stay beside it.

Needs c2pa-python: pip install -e ".[sign]". Nothing is sent or fetched over the network.
"""
from __future__ import annotations

import os
import re
import secrets
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np

from compositing.certificate import EXTRA, REMEDY, load_credential
from compositing.report import VERSION
from facemodel.errors import InputError
from fitting.video_reader import check_file

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
FORMATS = {".mp4": "video/mp4", ".mov": "video/quicktime"}
ASSERTION = "dynatex.replacement"         # label of our own assertion: inputs and settings
OFFLINE = {"remote_manifest_fetch": False, "ocsp_fetch": False}
_INPUT_FORMATS = {".mkv": "video/x-matroska", ".webm": "video/webm", ".avi": "video/avi", ".mov": "video/quicktime",
                  ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp",
                  ".mp4": "video/mp4", ".m4v": "video/mp4", ".tif": "image/tiff", ".tiff": "image/tiff"}


def add_option(parser):
    """Adds --sign to the parser of a command that writes a video."""
    parser.add_argument("--sign", nargs=2, type=Path, metavar=("CERT", "KEY"),
                        help="sign the result (.mp4, .mov) with content credentials (C2PA): a PEM chain of "
                             "certificates and its key; python -m compositing.certificate makes one for trial; "
                             f"needs {EXTRA}".replace("%", "%%"))


def check_signing(pair, out):
    """Raises InputError, before any work, when `out` could not be signed with a --sign of (certificate, key) or None.

    A picture of one pixel is signed for trial, because only the library knows all that it refuses.
    """
    if pair is None:
        return
    library = load_library("--sign")
    _format_of(out)
    _, png = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))
    _build(library, load_credential(*pair), _manifest("trial", "image/png", {}, {}), [], "image/png",
           BytesIO(png.tobytes()), BytesIO(), pair[0])


def sign(path, certificate, key, inputs=None, settings=None):
    """Embeds a signed C2PA manifest in a video; pictures and sound keep their bytes.

    Takes up to about 0.5 GB, which the library hashes at a time, for videos of any length.

    Written beside, then renamed: `path` holds the unsigned or the signed video, never half of one. Two signatures of
    the same video differ, as they must.

    Parameters
    ----------
    path : an .mp4 or .mov that dynatex wrote
    certificate, key : paths of a PEM chain, the signer's certificate first, and of its PEM key without a password
    inputs : dict with 'source', 'source_sha256', 'target', 'target_sha256', as in a report, and 'target_2', ... with
        several faces; names go into the manifest without their folders
    settings : dict of what JSON can hold, as in a report; paths lose their folders, too

    Raises
    ------
    InputError : c2pa-python is missing; the container can't hold a manifest; certificate or key are unusable (see
        compositing.certificate.load_credential); the video can't be read or the result not be written
    """
    path, inputs = Path(path), inputs or {}
    library, kind = load_library("signing"), _format_of(path)
    credential = load_credential(certificate, key)
    check_file(path, "video")
    manifest = _manifest(path.name, kind, inputs, settings or {})
    beside = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        with path.open("rb") as source, beside.open("xb+") as out:
            _build(library, credential, manifest, _ingredients(inputs), kind, source, out, path)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"{path}: could not be signed ({error.strerror}); it is there without a signature; check the "
                         "free space") from error
    finally:
        beside.unlink(missing_ok=True)


def load_library(what):
    """The module c2pa; raises InputError, naming the extra, for `what` needs it."""
    try:
        import c2pa
    except (ImportError, OSError) as error:
        raise InputError(f"{what} needs the package c2pa-python; install it with {EXTRA}") from error
    return c2pa


def context(library, **settings):
    """A c2pa.Context that stays off the network and makes no thumbnails, which would show the inputs."""
    verify = {**OFFLINE, **settings.pop("verify", {})}
    return library.Context.from_dict({"version": 1, "builder": {"thumbnail": {"enabled": False}}, "verify": verify,
                                      **settings})


def _format_of(path):
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: C2PA has no place for credentials in {suffix or 'a file without a suffix'}; name "
                         f"the output {' or '.join(FORMATS)} to sign it")
    return FORMATS[suffix]


def _manifest(title, kind, inputs, settings):
    """The manifest without its ingredients, as c2pa.Builder takes it."""
    tool = {"name": "dynatex", "version": VERSION}
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["source"]}}
    edited = {"action": "c2pa.edited", "digitalSourceType": SOURCE_TYPE, "softwareAgent": tool,
              "description": "A face was replaced. The video does not show what happened."}
    photos = [label for label in _targets(inputs) if _is_file(inputs[label])]
    if photos:
        edited["parameters"] = {"ingredientIds": photos}
    if "source" not in inputs:            # without a parent, C2PA wants the history to begin with a creation
        opened, edited = None, {**edited, "action": "c2pa.created"}
    actions = [action for action in (opened, edited) if action]
    return {"claim_generator_info": [tool], "title": title, "format": kind,
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}},
                           {"label": ASSERTION, "data": {"inputs": _public(inputs), "settings": _public(settings)}}]}


def _targets(inputs):
    """Keys of the targets' names among a report's inputs."""
    return [key for key in inputs if key.startswith("target") and not key.endswith("_sha256")]


def _ingredients(inputs):
    """(definition, path) of the source, which is the parent, and of the photos."""
    found = []
    for label, relation in (("source", "parentOf"), *((key, "componentOf") for key in _targets(inputs))):
        name = inputs.get(label)
        if name is None or (label != "source" and not _is_file(name)):
            continue
        path = Path(name)
        found.append(({"label": label, "instance_id": label, "relationship": relation, "title": path.name,
                       "format": _INPUT_FORMATS.get(path.suffix.lower(), "application/octet-stream"),
                       "description": f"SHA-256 {inputs.get(label + '_sha256', 'unknown')}"}, path))
    return found


def _is_file(name):
    """Whether a target is a photo, and not a virtual face."""
    return name is not None and Path(name).is_file()


def _public(values):
    """A copy in which paths have lost their folders, which are nobody's business; a label is no path."""
    shorten = lambda v: re.split(r"[/\\]", str(v))[-1] if isinstance(v, (str, Path)) else v
    return {str(k): v if k == "label" else shorten(v) for k, v in values.items()}


def _build(library, credential, manifest, ingredients, kind, source, out, name):
    """Writes the signed copy of the stream `source` to the stream `out`; C2paError becomes InputError."""
    carrying = [has_credentials(library, path) for _, path in ingredients]
    manifest = {**manifest, "ingredients": [d for (d, _), own in zip(ingredients, carrying) if not own]}
    info = library.C2paSignerInfo(credential.algorithm, credential.chain, credential.key, None)
    try:
        with context(library, verify={"verify_after_sign": True}) as settings, \
                library.Signer.from_info(info) as signer, library.Builder(manifest, context=settings) as builder:
            for (definition, path), own in zip(ingredients, carrying):
                if own:                   # its history is kept with it
                    with path.open("rb") as f:
                        builder.add_ingredient(definition, definition["format"], f)
            builder.sign(signer, kind, source, out)
    except library.C2paError as error:
        raise InputError(f"{name}: could not be signed ({error}); {REMEDY}") from error


def has_credentials(library, path):
    """Whether c2pa-python finds a readable C2PA manifest in a file."""
    try:
        with context(library) as settings:
            reader = library.Reader.try_create(path, context=settings)
    except (library.C2paError, OSError):
        return False
    if reader is None:
        return False
    reader.close()
    return True
