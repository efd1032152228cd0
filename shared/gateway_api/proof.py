"""How a gateway proves that it is the one that its home tells of, before anybody sends it the operator's token.

At each start a gateway writes a fresh proof key into `gateway.json`, which its owner alone can read, next to its
address. Whoever asks sends a nonce; the answer is a MAC of it, and of the address at which the gateway was asked. A
gateway that was killed leaves its file and its port behind: who takes the port next does not know the key, and cannot
pass the question on to a gateway that does, because that one was asked elsewhere. A port's process id would tell as
much on one system and nothing in a container; the key is no token, so the answer helps nobody to guess that.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets

PROOF_PATH = "/api/proof"
KEY_BYTES = 32
NONCE_BYTES = 32
_CONTEXT = "swarmbridge gateway proof v1"
_NONCE = re.compile(r"[0-9a-f]{64}")


def new_proof_key() -> str:
    return secrets.token_hex(KEY_BYTES)


def new_nonce() -> str:
    return secrets.token_hex(NONCE_BYTES)


def is_nonce(text: str) -> bool:
    return _NONCE.fullmatch(text) is not None


def proof_of(key: str, nonce: str, address: tuple[str, int]) -> str:
    """The answer, in hex. address: IP and port of the gateway's end of the connection, as either end sees it."""
    host, port = address
    said = "\0".join((_CONTEXT, nonce, _one_form(host), str(port)))
    return hmac.digest(key.encode(), said.encode(), "sha256").hex()


def _one_form(host: str) -> str:
    """An IPv4 connection to an IPv6 socket has two spellings; a scope (`%eth0`) means something at one end only."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)
