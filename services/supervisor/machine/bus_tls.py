"""TLS for the bus: an authority of this home alone, and the NATS server's certificate from it.

    DIR/tls/authority.key, DIR/tls/ca.pem       stay for good; ca.pem is what clients trust, and nothing else
    DIR/tls/server.key, DIR/tls/server.pem      for the server; made again where they are for other names, or old

Clients are known by their seeds, so that they have no certificates. Nobody but this bus uses the authority, and nothing
revokes: hence a long life, and `remove the directory, run init again` as the way to replace everything.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.bus.nats.users import private_directory, write_private

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825
"""What Apple's and other stacks take at most from a private authority."""
RENEW_DAYS = 90
"""Left when `init` makes a new one: a server that was restarted this long ago is worth a restart."""
SKEW = datetime.timedelta(days=1)


@dataclass(frozen=True)
class BusTls:
    """Where the files are."""

    ca: Path
    certificate: Path
    key: Path


def ensure_bus_tls(directory: Path, names: Sequence[str]) -> BusTls:
    """Make what is missing, or no longer fits. names: host names and addresses of the server, at least one.

    Raises: OSError. ValueError: a file that is there cannot be read as what it should be.
    """
    private_directory(directory)
    where = BusTls(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    authority_key = directory / "authority.key"
    if not (authority_key.exists() and where.ca.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(authority_key, _pem(key))
        write_private(where.ca, _authority(key).public_bytes(serialization.Encoding.PEM))
        where.certificate.unlink(missing_ok=True)  # of the authority that is gone
    if not (where.key.exists() and _still_good(where.certificate, names)):
        issuer = serialization.load_pem_private_key(authority_key.read_bytes(), None)
        if not isinstance(issuer, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{authority_key} holds no key of ours")
        ca = x509.load_pem_x509_certificate(where.ca.read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(where.key, _pem(key))
        write_private(where.certificate, _server(key, names, ca, issuer).public_bytes(serialization.Encoding.PEM))
    return where


def _still_good(path: Path, names: Sequence[str]) -> bool:
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    has = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return set(has) == set(map(_name, names)) and left > datetime.timedelta(days=RENEW_DAYS)


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarmbridge bus")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        _dated(name, name, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def _server(
    key: ec.EllipticCurvePrivateKey, names: Sequence[str], ca: x509.Certificate, issuer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    # Python 3.13 takes no certificate without both key identifiers.
    of_issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    return (
        _dated(subject, ca.subject, key, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(of_issuer, critical=False)
        .sign(issuer, hashes.SHA256())
    )


def _dated(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
