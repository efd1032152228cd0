"""The node's keys, all derived from one root (docs/trust.md). Pure: the root comes from a file that `chunk` owns."""

from __future__ import annotations

from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.errors import Cause, SwarmbridgeError

ROOT_BYTES = 32
SEED_BYTES = 32
PEERJS_TOKEN_BYTES = 24
"""48 characters of hex: a PeerServer takes tokens of at most 64 (docs/limits.md)."""
INFO_PREFIX = "swarmbridge v1 "
DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


def derive(root: bytes, use: str, length_bytes: int = SEED_BYTES) -> bytes:
    """HKDF-SHA256(root, info `swarmbridge v1 <use>`), without a salt. Another use gives an unlinkable key."""
    if len(root) != ROOT_BYTES:
        raise SwarmbridgeError(Cause.INVALID, "a root key is 32 bytes")
    return HKDF(algorithm=SHA256(), length=length_bytes, salt=None, info=(INFO_PREFIX + use).encode()).derive(root)


def identity_seed(root: bytes) -> bytes:
    """Seed of the Ed25519 key that the node is known by."""
    return derive(root, "identity")


def publish_seed(root: bytes) -> bytes:
    """Seed of the Ed25519 key that signs manifests; nobody can link it to the identity."""
    return derive(root, "publish")


def public_key(seed: bytes) -> bytes:
    """The 32-byte Ed25519 public key of a seed."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def peerjs_token(root: bytes, server_url: str) -> str:
    """Our token at one PeerServer. Each origin has its own, so that no server can take our id at another."""
    return derive(root, f"peerjs {server_origin(server_url)}", PEERJS_TOKEN_BYTES).hex()


def server_origin(url: str) -> str:
    """`scheme://host:port` of a URL, lower case, the port always written.

    Raises: SwarmbridgeError(INVALID): no http(s) or ws(s) URL with a host.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise SwarmbridgeError(Cause.INVALID, "not a server URL") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise SwarmbridgeError(Cause.INVALID, "not a server URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{DEFAULT_PORTS[parts.scheme] if port is None else port}"
