"""Certificates and keys that sign videos, and a way to make one for trial.

    python -m compositing.certificate FOLDER

writes chain.pem and key.pem, to sign with (compositing.replace --sign FOLDER/chain.pem FOLDER/key.pem), and
authority.pem, by which compositing.verify --trust knows them. Nobody else trusts them: to be believed by strangers, buy
a certificate from an authority on the C2PA trust list.

Needs cryptography, which pip install -e ".[sign]" brings.
"""
from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from compositing.report import write_whole
from facemodel import commands
from facemodel.errors import InputError
from fitting.video_reader import check_file

EXTRA = 'pip install -e ".[sign]"'
REMEDY = ("signing needs a PEM chain of X.509 certificates, the signer's first, issued by an authority for e-mail "
          "protection or document signing, with an EC (ES256, ES384, ES512), RSA (PS256) or Ed25519 key; "
          "python -m compositing.certificate FOLDER makes one for trial")
PURPOSES = {
    "1.3.6.1.5.5.7.3.4": "e-mail protection", "1.3.6.1.5.5.7.3.36": "document signing",
    "1.3.6.1.4.1.62558.2.1": "C2PA claims", "1.3.6.1.4.1.311.76.59.1.9": "C2PA claims (Microsoft)",
}
"""Extended key usages that C2PA takes for the certificate of a claim."""

CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
SMALLEST_RSA = 2048                     # bits
TRIAL_DAYS = 365


@dataclass(frozen=True)
class Credential:
    """What a video is signed with.

    algorithm : str, name in C2PA: 'es256', 'es384', 'es512', 'ps256' or 'ed25519'
    chain : bytes, PEM certificates, the signer's first
    key : bytes, PEM, PKCS #8 without a password; kept out of repr()
    """

    algorithm: str
    chain: bytes
    key: bytes

    def __repr__(self):
        return f"Credential({self.algorithm})"


def load_credential(certificate, key):
    """Reads a chain of certificates and its key, and says what is wrong with them before anybody signs.

    Parameters
    ----------
    certificate, key : paths of PEM files

    Returns
    -------
    Credential

    Raises
    ------
    InputError : cryptography is missing; a file can't be read or holds something else; the key is encrypted or belongs
        to another certificate; the certificate is self-signed, expired, or made for other purposes
    """
    chain, secret = read_certificates(certificate), _read_key(key)
    _check_pair(chain[0], secret, certificate, key)
    _check_certificate(chain[0], certificate)
    algorithm = _algorithm(secret, key)
    s = _cryptography().serialization
    return Credential(algorithm, as_pem(chain),
                      secret.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))


def read_certificates(path):
    """The X.509 certificates in a PEM file: list. Raises InputError when it can't be read or holds none."""
    x509, data = _cryptography().x509, check_file(path, "certificate").read_bytes()
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise InputError(f"{path}: holds no PEM certificate; {REMEDY}") from error


def as_pem(certificates):
    """Certificates as PEM, one after the other: bytes."""
    pem = _cryptography().serialization.Encoding.PEM
    return b"".join(certificate.public_bytes(pem) for certificate in certificates)


def make_trial(folder, name="dynatex trial", start=None, days=TRIAL_DAYS, purpose="1.3.6.1.5.5.7.3.4"):
    """Makes an authority and a certificate that it issued: authority.pem, chain.pem and key.pem in a folder.

    Parameters
    ----------
    folder : path of a folder that is there
    name : str, whom the certificate names
    start : datetime with a time zone, first moment of validity; default a day ago
    days : float, validity
    purpose : dotted object identifier, the only extended key usage; default that of e-mail protection

    Returns
    -------
    tuple of three paths: the chain, the key (readable by its owner alone), the authority

    Raises
    ------
    InputError : cryptography is missing, or the folder can't be written
    """
    lib = _cryptography()
    s, folder = lib.serialization, Path(folder)
    start = start or datetime.now(timezone.utc) - timedelta(days=1)
    span = start, start + timedelta(days=days)
    authority_key, own_key = (lib.ec.generate_private_key(lib.ec.SECP256R1()) for _ in range(2))
    issuer = f"{name} authority"
    authority = _issue(lib, issuer, issuer, authority_key.public_key(), authority_key, span, None)
    own = _issue(lib, name, issuer, own_key.public_key(), authority_key, span, purpose)
    paths = folder / "chain.pem", folder / "key.pem", folder / "authority.pem"
    _write_secret(paths[1], own_key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    for path, chain in ((paths[0], [own, authority]), (paths[2], [authority])):
        write_whole(path, as_pem(chain), "choose another folder")
    return paths


@dataclass(frozen=True)
class _Library:
    """The parts of cryptography that are used here."""

    x509: object
    serialization: object
    hashes: object
    ec: object
    rsa: object
    ed25519: object
    UnsupportedAlgorithm: type


def _cryptography():
    try:
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    except ImportError as error:
        raise InputError(f"certificates need the package cryptography; install it with {EXTRA}") from error
    return _Library(x509, serialization, hashes, ec, rsa, ed25519, UnsupportedAlgorithm)


def _read_key(path):
    lib, data = _cryptography(), check_file(path, "key").read_bytes()
    try:
        return lib.serialization.load_pem_private_key(data, None)
    except TypeError as error:
        raise InputError(f"{path}: the key is encrypted; decrypt it with openssl pkey -in {path} -out PLAIN.pem and "
                         "keep that file to yourself") from error
    except (ValueError, lib.UnsupportedAlgorithm) as error:
        raise InputError(f"{path}: holds no private key in PEM; {REMEDY}") from error


def _check_pair(certificate, secret, path, key_path):
    s = _cryptography().serialization
    public = lambda key: key.public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
    if public(certificate.public_key()) != public(secret.public_key()):
        raise InputError(f"{key_path}: is not the key of the first certificate in {path}; give the key that it was "
                         "issued for, and put the signer's certificate before those of its authorities")


def _check_certificate(certificate, path):
    """Raises InputError for what C2PA's certificate profile refuses; compositing.credentials tries the rest."""
    x509, now = _cryptography().x509, datetime.now(timezone.utc)
    if certificate.not_valid_after_utc < now or certificate.not_valid_before_utc > now:
        raise InputError(f"{path}: is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
                         f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, not now; renew it, or set this "
                         "machine's clock")
    if certificate.issuer == certificate.subject:
        raise InputError(f"{path}: is self-signed, which C2PA refuses; {REMEDY}")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        purposes = {p.dotted_string for p in usage}
    except (x509.ExtensionNotFound, ValueError):
        purposes = set()
    if not purposes & set(PURPOSES):
        raise InputError(f"{path}: was not issued for signing documents (its extended key usage is "
                         f"{', '.join(sorted(purposes)) or 'missing'}); {REMEDY}")


def _algorithm(secret, path):
    lib = _cryptography()
    if isinstance(secret, lib.ec.EllipticCurvePrivateKey) and secret.curve.name in CURVES:
        return CURVES[secret.curve.name]
    if isinstance(secret, lib.rsa.RSAPrivateKey) and secret.key_size >= SMALLEST_RSA:
        return "ps256"
    if isinstance(secret, lib.ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise InputError(f"{path}: is a key that C2PA does not take (EC on P-256, P-384 or P-521, RSA from {SMALLEST_RSA} "
                     f"bits on, or Ed25519 would do); {REMEDY}")


def _issue(lib, subject, issuer, public, issuer_key, span, purpose):
    """One certificate; an authority's when `purpose` is None."""
    x509, is_authority = lib.x509, purpose is None
    name = lambda words: x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "dynatex trial, not verified"),
                                    x509.NameAttribute(x509.NameOID.COMMON_NAME, words)])
    usage = x509.KeyUsage(digital_signature=not is_authority, key_cert_sign=is_authority, crl_sign=is_authority,
                          content_commitment=False, key_encipherment=False, data_encipherment=False,
                          key_agreement=False, encipher_only=False, decipher_only=False)
    builder = (x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(public)
               .serial_number(x509.random_serial_number()).not_valid_before(span[0]).not_valid_after(span[1])
               .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
               .add_extension(usage, critical=True)
               .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
               .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False))
    if purpose:
        builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(purpose)]), critical=False)
    return builder.sign(issuer_key, lib.hashes.SHA256())


def _write_secret(path, data):
    """Writes a file that only its owner may read; raises InputError when it can't or would replace one."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(data)
    except FileExistsError as error:
        raise InputError(f"{path}: exists, and is not replaced; choose another folder") from error
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}); choose another folder") from error


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m compositing.certificate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to put the three files; made if need be")
    parser.add_argument("--name", default="dynatex trial", help="whom the certificate names (default: %(default)s)")
    commands.add_verbose(parser)
    args = parser.parse_args(argv)
    try:
        args.folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{args.folder}: can't be made ({error.strerror}); choose another folder") from error
    chain, key, authority = make_trial(args.folder, args.name)
    print(f"wrote {chain}, {key} and {authority}, valid for {TRIAL_DAYS} days; for trial: nobody else trusts them")


if __name__ == "__main__":
    commands.run(main)
