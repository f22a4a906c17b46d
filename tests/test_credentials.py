"""Signing and verifying: marks and manifests that hold, and what a changed byte, a wrong key or a lost library gets."""
import json
import os
import sys
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

import av
import numpy as np
import pytest

import assets
import compositing.certificate
import compositing.replace
import compositing.verify
from compositing.certificate import load_credential, make_trial
from compositing.credentials import SOURCE_TYPE, check_signing, sign
from compositing.report import VERSION, synthetic_marks
from compositing.verify import examine, exit_status, has_manifest_box, in_words
from compositing.video_writer import VideoWriter
from facemodel import commands
from facemodel.errors import InputError
from fitting.trackfile import file_hash
from fitting.video_reader import VideoReader
from tests import clips
from tests.quick import quick_fits

c2pa = pytest.importorskip("c2pa", reason='c2pa-python is not installed (pip install -e ".[sign]")')
COUNT = 10
PHOTO = assets.path("demo/nobody.png")


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """(chain, key, authority), paths of a certificate for trial."""
    return make_trial(tmp_path_factory.mktemp("trial"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return clips.cut(tmp_path_factory.mktemp("source") / "clip.mp4", COUNT, sound=True)


@pytest.fixture(scope="module")
def inputs(source):
    return {"source": str(source), "source_sha256": file_hash(source), "target": str(PHOTO),
            "target_sha256": file_hash(PHOTO)}


@pytest.fixture(scope="module")
def marked(source, inputs, tmp_path_factory):
    """A folder with out.mp4, out.mov and out.mkv as dynatex writes them: marked, not signed. Read-only by agreement."""
    folder = tmp_path_factory.mktemp("marked")
    for suffix in (".mp4", ".mov", ".mkv"):
        write_marked(source, folder / f"out{suffix}", inputs)
    return folder


@pytest.fixture(scope="module")
def signed(marked, trial, inputs, tmp_path_factory):
    """out.mp4, signed."""
    path = copy(marked / "out.mp4", tmp_path_factory.mktemp("signed"))
    sign(path, *trial[:2], inputs, {"texture": "gan", "crf": None, "seam_smoothness": 1e-3,
                                    "weights": "/home/somebody/w.safetensors", "label": "AI/VFX"})
    return path


def write_marked(source, path, inputs):
    marks = synthetic_marks(inputs["source_sha256"], inputs["target_sha256"])
    with VideoReader(source) as reader, VideoWriter(path, reader, metadata=marks) as writer:
        for frame in reader:
            writer.write(frame)


def copy(path, folder, change=lambda data: data):
    out = Path(folder) / path.name
    out.write_bytes(change(path.read_bytes()))
    return out


def streams(path):
    """Bytes, times and stream of all packets."""
    with av.open(str(path)) as container:
        return [(p.stream.index, p.pts, p.dts, bytes(p)) for p in container.demux() if p.dts is not None]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def run(main, *argv):
    with pytest.raises(SystemExit) as caught:
        commands.run(main, [str(a) for a in argv])
    return caught.value.code


def refused(match, *arguments):
    """Checks that sign() says `match`, in one line, and leaves the video and its folder as they were."""
    path = arguments[0]
    before, names = path.read_bytes(), sorted(path.parent.iterdir())
    with pytest.raises(InputError, match=match) as caught:
        sign(*arguments)
    assert "\n" not in str(caught.value) and path.read_bytes() == before and sorted(path.parent.iterdir()) == names


def test_signing_leaves_pictures_sound_and_marks(marked, signed):
    assert streams(signed) == streams(marked / "out.mp4") and len({s[0] for s in streams(signed)}) == 2
    assert compositing.verify.metadata_marks(signed) == compositing.verify.metadata_marks(marked / "out.mp4")
    assert os.listdir(signed.parent) == ["out.mp4"]
    assert has_manifest_box(signed) and not has_manifest_box(marked / "out.mp4")


def test_the_manifest_says_what_it_is_and_from_what(signed, inputs):
    """Read with the library itself."""
    with c2pa.Reader(signed) as reader:
        store = json.loads(reader.json())
        assert reader.get_validation_state() == "Valid" and reader.is_embedded()
    manifest = store["manifests"][store["active_manifest"]]
    generator = manifest["claim_generator_info"][0]
    assert (generator["name"], generator["version"]) == ("dynatex", VERSION)
    assertions = {a["label"]: a["data"] for a in manifest["assertions"]}
    opened, edited = assertions["c2pa.actions.v2"]["actions"]
    assert opened["action"] == "c2pa.opened" and edited["action"] == "c2pa.edited"
    assert edited["digitalSourceType"] == SOURCE_TYPE and SOURCE_TYPE.endswith("/compositeWithTrainedAlgorithmicMedia")
    names = {"source": "clip.mp4", "target": PHOTO.name}
    assert assertions["dynatex.replacement"] == {
        "inputs": {**inputs, **names},
        "settings": {"texture": "gan", "crf": None, "seam_smoothness": 1e-3, "weights": "w.safetensors",
                     "label": "AI/VFX"}}
    for ingredient, role, relation in zip(manifest["ingredients"], names, ("parentOf", "componentOf")):
        assert ingredient["title"] == names[role] and ingredient["relationship"] == relation
        assert ingredient["description"] == f"SHA-256 {inputs[role + '_sha256']}"
        assert "thumbnail" not in ingredient
    assert str(Path(inputs["source"]).parent) not in json.dumps(store)


def test_every_photo_is_named(marked, trial, inputs, tmp_path):
    """Of several faces; a virtual one is no file."""
    other = tmp_path / "other.png"
    other.write_bytes(PHOTO.read_bytes()[:-1])
    path = copy(marked / "out.mp4", tmp_path)
    sign(path, *trial[:2], {**inputs, "target_2": str(other), "target_2_sha256": "2" * 64,
                            "target_3": "virtual face, seed 3", "target_3_sha256": "virtual face, seed 3"})
    with c2pa.Reader(path) as reader:
        store = json.loads(reader.json())
        assert reader.get_validation_state() == "Valid"
    manifest = store["manifests"][store["active_manifest"]]
    found = [(i["title"], i["relationship"], i["description"]) for i in manifest["ingredients"]]
    assert found[1:] == [(PHOTO.name, "componentOf", f"SHA-256 {inputs['target_sha256']}"),
                         ("other.png", "componentOf", "SHA-256 " + "2" * 64)]
    assert str(tmp_path) not in json.dumps(store)


def test_verify_says_by_whom_as_far_as_it_knows(capsys, signed, trial, tmp_path):
    assert run(compositing.verify.main, signed) == 0
    printed = capsys.readouterr().out
    assert "marked as synthetic, unchanged since it was signed" in printed and "unknown authority" in printed
    assert "compositeWithTrainedAlgorithmicMedia" in printed and f"dynatex {VERSION}" in printed
    assert run(compositing.verify.main, signed, "--trust", trial[2]) == 0
    assert f"vouched for by an authority in {trial[2]}" in capsys.readouterr().out
    other = make_trial(tmp_path)[2]
    assert run(compositing.verify.main, signed, "--trust", other) == 1
    assert "not by an authority in" in capsys.readouterr().out
    for wrong, word in ((PHOTO, "no PEM certificate"), (tmp_path / "none.pem", "does not exist")):
        assert run(compositing.verify.main, signed, "--trust", wrong) == 1
        assert word in capsys.readouterr().err


def test_verify_for_programs(capsys, signed, marked, inputs):
    assert run(compositing.verify.main, signed, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["marked"] is found["intact"] is True and found["exit_status"] == 0
    assert found["credentials"]["signer"] == "dynatex trial" and found["credentials"]["trusted"] is None
    assert found["credentials"]["inputs"]["source_sha256"] == inputs["source_sha256"]
    assert found["credentials"]["failures"] == []
    assert run(compositing.verify.main, marked / "out.mp4", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["marked"] is True and found["intact"] is found["credentials"] is None
    assert found["metadata"]["synthetic_source_sha256"] == inputs["source_sha256"]


def test_one_bit_of_the_media_is_noticed(capsys, signed, tmp_path):
    """Of a picture, of the sound, of the metadata, of the manifest, and at the very end."""
    data = signed.read_bytes()
    last = {stream: payload for stream, _, _, payload in streams(signed)}
    places = {"picture": data.index(last[0]) + len(last[0]) // 2, "sound": data.index(last[1]) + len(last[1]) // 2,
              "metadata": data.index(b"face replacement"), "manifest": data.index(b"compositeWithTrained"),
              "end": len(data) - 1}
    for where, at in places.items():
        path = copy(signed, tmp_path, lambda d, at=at: flipped(d, at))
        assert run(compositing.verify.main, path) == 1, where
        assert "CHANGED since it was signed" in capsys.readouterr().out, where
        found = examine(path)
        assert found["marked"] and found["intact"] is False and found["credentials"]["failures"], where
    for cut in (len(data) - 10, len(data) * 3 // 4):
        assert run(compositing.verify.main, copy(signed, tmp_path, lambda d, cut=cut: d[:cut])) == 1
    assert run(compositing.verify.main, copy(signed, tmp_path, lambda d: d.replace(b"jumb", b"junk", 1))) == 1
    assert "credentials are DAMAGED" in capsys.readouterr().out


def test_no_bit_of_the_manifest_brings_verify_down(signed, tmp_path):
    """Any bit of the manifest's box: the credentials are damaged, changed or, in padding, say the same as before."""
    data, rng, before = signed.read_bytes(), np.random.default_rng(0), examine(signed)["credentials"]
    start = data.index(b"uuid") - 4
    end, seen = start + int.from_bytes(data[start:start + 4], "big"), set()
    for at in rng.integers(start + 32, end, 150):
        found = examine(copy(signed, tmp_path, lambda d, at=at: flipped(d, int(at))))
        in_words(found)
        seen.add(found["intact"])
        assert not found["intact"] or found["credentials"] == before, at
    assert seen == {True, False}
    for store in ({}, {"manifests": {}, "active_manifest": "x"}, {"manifests": [], "active_manifest": 0}):
        with pytest.raises((KeyError, TypeError, IndexError)):
            compositing.verify._described(store, False)


def test_the_signature_itself_is_checked(signed, tmp_path):
    """One bit of ES256's 64 bytes changed."""
    data = signed.read_bytes()
    at = data.index(b"\x58\x40", data.index(b"c2pa.signature")) + 2          # CBOR: a string of 64 bytes, ES256's
    found = examine(copy(signed, tmp_path, lambda d: flipped(d, at + 20)))
    assert found["intact"] is False and "claimSignature.mismatch" in found["credentials"]["failures"]
    assert exit_status(found) == 1


def test_an_unsigned_video_is_marked_in_every_container(capsys, marked, source):
    for name in ("out.mp4", "out.mov", "out.mkv"):
        assert run(compositing.verify.main, marked / name) == 0
        printed = capsys.readouterr().out
        assert "marked as synthetic, not signed; a change would not be noticed" in printed
        assert f"SHA-256 {file_hash(source)}" in printed
    assert run(compositing.verify.main, source) == 3
    assert "NOT marked as synthetic, not signed" in capsys.readouterr().out


def test_unreadable_files(capsys, tmp_path, marked):
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 99)
    (tmp_path / "empty.mp4").write_bytes(b"")
    head = copy(marked / "out.mp4", tmp_path, lambda d: d[:200])
    for path in (tmp_path / "junk.mp4", tmp_path / "empty.mp4", tmp_path / "none.mp4", tmp_path, head):
        assert run(compositing.verify.main, path) == 1
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1 and path.name in printed.err and printed.out == ""


def test_metadata_that_says_no_and_boxes_without_end(source, tmp_path):
    """What anybody can write: synthetic=false, and a box of 2^64 - 1 bytes."""
    words = in_words({"file": "x", "marked": False, "intact": None, "metadata": {"synthetic": "false"},
                      "credentials": None})
    assert "NOT marked" in words[0] and words[1] == "  metadata: no marks"
    crafted = tmp_path / "crafted.mp4"
    crafted.write_bytes(b"\0\0\0\1free" + b"\xff" * 8 + bytes(64))
    assert compositing.verify.has_manifest_box(crafted) is False


def test_a_signed_video_that_is_not_synthetic(source, trial, tmp_path):
    path, manifest = tmp_path / "camera.mp4", {"claim_generator_info": [{"name": "camera"}], "assertions": [
        {"label": "c2pa.actions.v2", "data": {"actions": [{"action": "c2pa.created", "digitalSourceType":
         "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"}]}}]}
    info = c2pa.C2paSignerInfo("es256", trial[0].read_bytes(), trial[1].read_bytes(), None)
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest) as builder:
        with source.open("rb") as f, path.open("wb+") as out:
            builder.sign(signer, "video/mp4", f, out)
    found = examine(path)
    assert found["intact"] and not found["marked"] and exit_status(found) == 3
    assert "nothing of synthetic media" in "\n".join(in_words(found))


def test_the_history_of_a_signed_source_is_kept(signed, marked, trial, tmp_path):
    """The signed result of one run is the source of the next; both manifests are in the second result."""
    path = copy(marked / "out.mp4", tmp_path)
    sign(path, *trial[:2], {"source": str(signed), "source_sha256": file_hash(signed),
                            "target": "virtual face, seed 3", "target_sha256": "virtual face, seed 3"})
    with c2pa.Reader(path) as reader:
        store = json.loads(reader.json())
    assert reader is not None and len(store["manifests"]) == 2 and store["validation_state"] == "Valid"
    found = examine(path)
    assert len(found["credentials"]["synthetic"]) == 2 and exit_status(found) == 0
    assert found["credentials"]["inputs"]["target"] == "virtual face, seed 3"
    assert in_words(found)[-1] == "  made from the target: virtual face, seed 3"


def test_a_mov_and_inputs_that_c2pa_does_not_know(marked, trial, tmp_path):
    path = copy(marked / "out.mov", tmp_path)
    sign(path, *trial[:2], {"source": str(marked / "out.mkv"), "source_sha256": "1" * 64,
                            "target": str(tmp_path / "gone.jpg"), "target_sha256": "2" * 64})
    assert streams(path) == streams(marked / "out.mov") and exit_status(examine(path)) == 0
    sign(path, *trial[:2])                                     # without inputs, and a second time
    assert exit_status(examine(path)) == 0


@pytest.mark.parametrize("kind", ["P-384", "RSA", "Ed25519"])
def test_other_kinds_of_keys(marked, tmp_path, monkeypatch, kind):
    """The signer's key of another kind, and in the older PEM form where there is one."""
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    own = {"P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
           "RSA": lambda: rsa.generate_private_key(65537, 2048), "Ed25519": ed25519.Ed25519PrivateKey.generate}[kind]()
    issue, lib = compositing.certificate._issue, compositing.certificate._cryptography()
    own_key_for = lambda public, purpose: own.public_key() if purpose else public
    monkeypatch.setattr(compositing.certificate, "_issue", lambda lib, subject, issuer, public, key, span, purpose:
                        issue(lib, subject, issuer, own_key_for(public, purpose), key, span, purpose))
    chain, key, _ = make_trial(tmp_path)
    form = s.PrivateFormat.PKCS8 if kind == "Ed25519" else s.PrivateFormat.TraditionalOpenSSL
    key.write_bytes(own.private_bytes(s.Encoding.PEM, form, lib.serialization.NoEncryption()))
    path = copy(marked / "out.mp4", tmp_path)
    sign(path, chain, key)
    found = examine(path)
    assert found["intact"] and found["credentials"]["algorithm"].lower() == {
        "P-384": "es384", "RSA": "ps256", "Ed25519": "ed25519"}[kind]
    assert "PRIVATE" not in repr(load_credential(chain, key))


def test_certificates_and_keys_that_do_not_do(marked, trial, tmp_path):
    path, (chain, key, _) = copy(marked / "out.mp4", tmp_path), trial
    (tmp_path / "other").mkdir()
    other = make_trial(tmp_path / "other")
    refused("key.pem: is not the key of the first certificate in .*chain.pem", path, chain, other[1])
    refused("chain.pem: holds no private key", path, chain, chain)
    refused("key.pem: holds no PEM certificate; .*X.509.*document signing.*ES256.*compositing.certificate",
            path, key, key)
    refused("none.pem does not exist", path, tmp_path / "none.pem", key)
    refused("none.pem does not exist", path, chain, tmp_path / "none.pem")
    for name, words, options in (
            ("tls", "key usage is 1.3.6.1.5.5.7.3.1.*document signing", {"purpose": "1.3.6.1.5.5.7.3.1"}),
            ("old", "valid from 2001.* not now", {"start": datetime(2001, 1, 1, tzinfo=timezone.utc)})):
        (tmp_path / name).mkdir()
        bad = make_trial(tmp_path / name, **options)
        refused(words, path, *bad[:2])
        with pytest.raises(InputError, match=words):
            check_signing(bad[:2], path)
    from cryptography.hazmat.primitives import serialization as s
    secret = s.load_pem_private_key(key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(secret.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"x")))
    refused("locked.pem: the key is encrypted.*openssl pkey", path, chain, locked)


def test_what_only_the_library_refuses_is_found_before_any_work(trial, tmp_path, monkeypatch):
    """A certificate whose key usage does not allow signatures: one line that says what is needed."""
    issue = compositing.certificate._issue

    class NoSignature:
        def __init__(self, lib):
            self._lib = lib

        def __getattr__(self, name):
            return getattr(self._lib, name)

        def KeyUsage(self, digital_signature, key_encipherment, **others):
            return self._lib.KeyUsage(digital_signature=False, key_encipherment=digital_signature, **others)

    def without(lib, *arguments):
        parts = {name: getattr(lib, name) for name in lib.__dataclass_fields__}
        return issue(type(lib)(**{**parts, "x509": NoSignature(lib.x509)}), *arguments)

    monkeypatch.setattr(compositing.certificate, "_issue", without)
    chain, key, _ = make_trial(tmp_path)
    with pytest.raises(InputError, match="chain.pem: could not be signed.*issued by an authority"):
        check_signing((chain, key), Path("out.mp4"))
    check_signing(trial[:2], Path("out.mp4"))
    check_signing(None, Path("out.mkv"))


def test_a_container_without_a_place_for_credentials(marked, trial, tmp_path):
    path = copy(marked / "out.mkv", tmp_path)
    refused(r"out.mkv: C2PA has no place for credentials in \.mkv; name the output \.mp4 or \.mov", path, *trial[:2])
    with pytest.raises(InputError, match=r"\.mkv"):
        check_signing(trial[:2], path)


def test_without_the_library(capsys, marked, signed, trial, tmp_path, monkeypatch):
    """Unsigned videos are verified all the same; a signed one is not called intact."""
    monkeypatch.setitem(sys.modules, "c2pa", None)
    refused(r"signing needs the package c2pa-python; install it with pip install -e \"\.\[sign\]\"",
            copy(marked / "out.mp4", tmp_path), *trial[:2])
    assert run(compositing.verify.main, marked / "out.mp4") == 0
    assert run(compositing.verify.main, signed) == 1
    assert 'pip install -e ".[sign]"' in capsys.readouterr().err
    for name in ("cryptography", "cryptography.exceptions", "cryptography.x509"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="cryptography.*sign"):
        load_credential(*trial[:2])


def test_a_disk_that_is_full_leaves_the_unsigned_video(marked, trial, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = copy(marked / "out.mp4", tmp_path)
    monkeypatch.setattr(os, "replace", full)
    refused("out.mp4: could not be signed .*No space left.*without a signature; check the free space", path, *trial[:2])


def test_the_command_that_makes_a_certificate(capsys, tmp_path):
    folder = tmp_path / "new"
    assert run(compositing.certificate.main, folder, "--name", "A. Tester") == 0
    assert sorted(p.name for p in folder.iterdir()) == ["authority.pem", "chain.pem", "key.pem"]
    assert os.name == "nt" or (folder / "key.pem").stat().st_mode & 0o077 == 0
    before = sha256((folder / "key.pem").read_bytes()).digest()
    assert run(compositing.certificate.main, folder) == 1
    assert "key.pem: exists, and is not replaced" in capsys.readouterr().err
    assert sha256((folder / "key.pem").read_bytes()).digest() == before
    assert run(compositing.certificate.main, tmp_path / "no" / "such") == 1
    check_signing((folder / "chain.pem", folder / "key.pem"), Path("out.mp4"))


@pytest.mark.slow
def test_replace_signs_and_labels(capsys, trial, source, tmp_path):
    """As people run it: --sign and --label, then verify; wrong ones are refused before any work."""
    clip, out = clips.cut(tmp_path / "clip.mp4", 3), tmp_path / "out.mp4"
    command = [clip, "--virtual", 3, "-o", out, "--texture", "static"]
    for extra, words in ((["--sign", trial[1], trial[1]], "holds no PEM certificate"),
                         (["--sign", *trial[:2], "-o", tmp_path / "out.mkv"], ".mp4 or .mov"),
                         (["--label", "\u5408\u6210"], "Latin"), (["--label", ""], "characters")):
        assert run(compositing.replace.main, *command, *extra) == 1
        assert words in capsys.readouterr().err
    with quick_fits(compositing.replace):
        assert run(compositing.replace.main, *command, "--sign", *trial[:2], "--label") == 0
    found = examine(out, trial[2])
    assert found["marked"] and found["intact"] and found["credentials"]["trusted"]
    assert found["credentials"]["settings"]["label"] == "synthetic"
    assert found["credentials"]["inputs"]["source_sha256"] == file_hash(clip)
    assert json.loads((tmp_path / "out.mp4.report.json").read_text())["settings"]["label"] == "synthetic"
    assert clips.decoded(out)[1][-60:, -200:].max() > 220           # the letters
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "out.mp4", "out.mp4.report.json"]
