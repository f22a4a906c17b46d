"""Says whether a video is marked as synthetic, by what, and whether it was changed since.

    python -m compositing.verify out.mp4

Looks at the marks in the container's metadata, which anybody can remove or forge, and at signed content credentials
(C2PA) in .mp4 and .mov, which nobody can change unnoticed, though anybody can remove them. A signature says that the
video is as the signer left it; who the signer is, only --trust can tell. No mark does not mean that a video is real.

Exit status: 0 when the video is marked and, if signed, intact; 3 when it is not marked; 1 when it was changed since it
was signed, when its credentials are damaged, not valid or not by an authority given with --trust, and when it can't be
read; 2 when the command line can't be understood.
"""
from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import av

from compositing.certificate import as_pem, read_certificates
from compositing.credentials import ASSERTION, context, load_library
from facemodel import commands
from facemodel.errors import InputError
from fitting.video_reader import check_file

MANIFEST_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")      # the uuid of C2PA's box in ISO media files
SYNTHETIC_TYPES = {"compositeWithTrainedAlgorithmicMedia", "trainedAlgorithmicMedia", "algorithmicMedia",
                   "compositeSynthetic"}
"""Terms of IPTC's digital source types by which a manifest calls something synthetic."""

NOT_MARKED = 3
_UNKNOWN_SIGNER = "signingCredential.untrusted"


def examine(path, trust=None):
    """What marks a video carries and whether they hold.

    Parameters
    ----------
    path : a video
    trust : optional path of a PEM file with the certificates of authorities that are trusted

    Returns
    -------
    dict for JSON: file; marked, by metadata or credentials; intact, None when nothing is signed; metadata, the marks
        in the container, lower-case; credentials, None or a dict: state ('valid', 'invalid', 'unreadable'), trusted
        (None without `trust`), unchanged, signer, issuer, algorithm, time, generator, synthetic (the actions that say
        so), inputs, settings, failures

    Raises
    ------
    InputError : the file can't be read, or it is signed and c2pa-python is missing
    """
    path = check_file(path, "video")
    metadata = metadata_marks(path)
    credentials = read_credentials(path, trust) if has_manifest_box(path) else None
    return {"file": str(path), "marked": by_metadata(metadata) or bool(credentials and credentials["synthetic"]),
            "intact": credentials and credentials["state"] == "valid" and credentials["trusted"] is not False,
            "metadata": metadata, "credentials": credentials}


def metadata_marks(path):
    """The synthetic marks in the container's metadata (compositing.report.synthetic_marks), names in lower case.

    Raises
    ------
    InputError : the file is no video that FFmpeg knows
    """
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            tags = {k.lower(): v for k, v in container.metadata.items()}
            if not container.streams.video:
                raise InputError(f"{path}: holds no video; give the video to look at")
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: can't be read as a video ({error.strerror}); it may be damaged or cut off, copy it "
                         "again") from error
    return {k: v for k, v in tags.items()
            if k.startswith("synthetic") or (k == "comment" and "SYNTHETIC" in v)}


def by_metadata(metadata):
    """Whether metadata_marks say that a video is synthetic."""
    return metadata.get("synthetic", "").lower() == "true" or "SYNTHETIC VIDEO" in metadata.get("comment", "")


def has_manifest_box(path):
    """Whether an ISO media file (.mp4, .mov) has a box for a C2PA manifest; looks at the headers of its boxes only."""
    size_left = Path(path).stat().st_size
    with open(path, "rb") as f:
        while size_left >= 8:
            start, head = f.tell(), f.read(32)
            size, kind, used = int.from_bytes(head[:4], "big"), head[4:8], 8
            if size == 1:
                size, used = int.from_bytes(head[8:16], "big"), 16
            if kind == b"uuid" and head[used:used + 16] == MANIFEST_BOX:
                return True
            if not used <= size <= size_left:          # 0: up to the end of the file; others: no box, or cut off
                return False
            size_left -= size
            f.seek(start + size)
    return False


def read_credentials(path, trust=None):
    """The C2PA part of examine().

    Raises
    ------
    InputError : c2pa-python is missing, or `trust` can't be used
    """
    library = load_library(f"{path}: is signed; to check that, verify")
    anchors = {} if trust is None else {"trust": {"trust_anchors": as_pem(read_certificates(trust)).decode("ascii")}}
    try:
        with context(library, verify={"verify_trust": True}, **anchors) as settings, \
                library.Reader(path, context=settings) as reader:
            store = json.loads(reader.json())
    except library.C2paError as error:
        return _unreadable(str(error).strip())
    try:
        return _described(store, trust is not None)
    except (LookupError, TypeError, AttributeError, ValueError):  # whoever made the file chose what is in it
        return _unreadable("its parts do not belong together")


def _unreadable(reason):
    return {"state": "unreadable", "trusted": None, "unchanged": None, "signer": None, "issuer": None,
            "algorithm": None, "time": None, "generator": None, "synthetic": [], "inputs": {}, "settings": {},
            "failures": [reason]}


def _described(store, asked_for_trust):
    """What a manifest store says, without what only programs want to know."""
    active = store["manifests"][store["active_manifest"]]
    own = next((a["data"] for a in active["assertions"] if a["label"] == ASSERTION), {})
    signature = active.get("signature_info") or {}
    results = store.get("validation_results", {}).get("activeManifest", {})
    failures = [f["code"] for f in results.get("failure", [])]
    state = store.get("validation_state")
    valid = state in ("Valid", "Trusted")
    return {
        "state": "valid" if valid else "invalid", "trusted": state == "Trusted" if asked_for_trust else None,
        "unchanged": not any(code.endswith((".mismatch", ".missing", ".malformed")) for code in failures),
        "signer": signature.get("common_name"), "issuer": signature.get("issuer"), "algorithm": signature.get("alg"),
        "time": signature.get("time"),
        "generator": " ".join(_generator(info) for info in active.get("claim_generator_info") or []) or None,
        "synthetic": [action for manifest in store["manifests"].values() for action in _synthetic_actions(manifest)],
        "inputs": dict(own.get("inputs", {})), "settings": dict(own.get("settings", {})),
        "failures": [code for code in failures if code != _UNKNOWN_SIGNER],
    }


def _generator(info):
    return f"{info.get('name', 'unknown')} {info.get('version', '')}".strip()


def _synthetic_actions(manifest):
    """The actions of a manifest whose digital source type is one of SYNTHETIC_TYPES: list of dict."""
    found = []
    for assertion in manifest.get("assertions", []):
        if not assertion["label"].startswith("c2pa.actions"):
            continue
        for action in assertion["data"].get("actions", []):
            term = action.get("digitalSourceType", "").rsplit("/", 1)[-1]
            if term in SYNTHETIC_TYPES:
                agent = action.get("softwareAgent")
                found.append({"action": action["action"], "source_type": term,
                              "agent": _generator(agent) if isinstance(agent, dict) else agent,
                              "description": action.get("description")})
    return found


def exit_status(found):
    """The exit status that belongs to what examine() found."""
    if found["intact"] is False:
        return 1
    return 0 if found["marked"] else NOT_MARKED


def in_words(found, trust=None):
    """What examine() found, as lines for people: list of str."""
    credentials, metadata = found["credentials"], found["metadata"]
    lines = [f"{found['file']}: {_headline(found)}"]
    if by_metadata(metadata):
        tool = ", ".join(metadata[k] for k in ("synthetic_tool", "synthetic_kind") if k in metadata)
        lines.append(f"  metadata: synthetic{f' ({tool})' if tool else ''}")
    else:
        lines.append("  metadata: no marks")
    if credentials is None:
        lines.append("  content credentials: none")
    else:
        lines.append(f"  content credentials: {_what_they_say(credentials)}")
        lines.append(f"  signature: {_who_signed(credentials, trust)}")
    hashes = credentials["inputs"] if credentials and credentials["inputs"] else {
        k.removeprefix("synthetic_"): v for k, v in metadata.items()}
    roles = [key.removesuffix("_sha256") for key in hashes if re.fullmatch(r"(source|target(_\d+)?)_sha256", key)]
    lines += [f"  made from the {role.replace('_', ' ')}: {_input(hashes.get(role), str(hashes[f'{role}_sha256']))}"
              for role in roles]
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines]     # a file can hold anything


def _input(name, digest):
    """An input in words; a virtual face has words in place of a hash."""
    known = f"SHA-256 {digest}" if len(digest) == 64 else digest
    return known if name in (None, digest) else f"{name}, {known}"


def _headline(found):
    marked, credentials = "marked as synthetic" if found["marked"] else "NOT marked as synthetic", found["credentials"]
    if credentials is None:
        return f"{marked}, not signed" + ("; a change would not be noticed" if found["marked"] else "")
    if credentials["state"] == "unreadable":
        return f"{marked}; its content credentials are DAMAGED"
    if not credentials["unchanged"]:
        return f"{marked}; CHANGED since it was signed"
    return f"{marked}, unchanged since it was signed" + ("" if found["intact"] else ", but by whom is NOT vouched for")


def _what_they_say(credentials):
    if credentials["state"] == "unreadable":
        return f"can't be read ({credentials['failures'][0]})"
    said = "; ".join(f"{a['source_type']} ({a['action']} by {a['agent'] or 'unknown'})"
                     for a in credentials["synthetic"])
    return f"made by {credentials['generator'] or 'unknown'}: {said or 'nothing of synthetic media'}"


def _who_signed(credentials, trust):
    if credentials["state"] == "unreadable":
        return "can't be checked"
    name = f"\"{credentials['signer'] or 'no name'}\" ({credentials['issuer'] or 'no organisation'})"
    if credentials["state"] == "invalid":
        return f"NOT valid: {', '.join(credentials['failures']) or 'no reason given'}; claims to be by {name}"
    if credentials["trusted"]:
        return f"valid, by {name}, vouched for by an authority in {trust}"
    if credentials["trusted"] is False:
        return f"valid, but not by an authority in {trust}; claims to be by {name}"
    return f"valid, signed by an unknown authority; claims to be by {name}; --trust CA.pem would tell"


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m compositing.verify", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, metavar="OUT.mp4", help="the video to look at")
    parser.add_argument("--trust", type=Path, metavar="CA.pem", help="certificates of the authorities you trust")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for programs")
    commands.add_verbose(parser)
    args = parser.parse_args(argv)
    found = examine(args.video, args.trust)
    status = exit_status(found)
    print(json.dumps({**found, "exit_status": status}, indent=1) if args.json
          else "\n".join(in_words(found, args.trust)))
    return status


if __name__ == "__main__":
    commands.run(main)
