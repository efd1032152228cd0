"""The link that `put` prints and `get` takes.

    swarmbridge:<digest, 64 hex>?h=<peer token>[&h=...][#<base64url file key>]

The key stands in the fragment, where a browser would not send it to anyone; only `private` content has one.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from shared.content.manifest import KEY_BYTES
from shared.content.refs import is_digest
from shared.errors import Cause, SwarmbridgeError
from shared.ids import PeerToken, token_key

SCHEME = "swarmbridge:"
MAX_HOLDERS = 16
MAX_LINK_CHARS = 4096


@dataclass(frozen=True, slots=True)
class ContentLink:
    """digest: of the manifest, 64 hex digits. holders: whom to ask first. key: of private content, else empty."""

    digest: str
    holders: tuple[PeerToken, ...] = ()
    key: bytes = b""

    def without_key(self) -> ContentLink:
        """What may be shown where the link's owner is not the only reader."""
        return ContentLink(self.digest, self.holders)


def format_link(link: ContentLink) -> str:
    query = "?" + urlencode([("h", holder) for holder in link.holders]) if link.holders else ""
    fragment = "#" + base64.urlsafe_b64encode(link.key).decode().rstrip("=") if link.key else ""
    return SCHEME + link.digest + query + fragment


def parse_link(text: str) -> ContentLink:
    """Read a link as a person pasted it: white space around it is dropped, nothing else is forgiven.

    Raises: SwarmbridgeError(INVALID) with words for the person.
    """
    text = text.strip()
    if len(text) > MAX_LINK_CHARS:
        raise _unusable("it is too long")
    if not text.startswith(SCHEME):
        raise _unusable(f"it does not start with {SCHEME}")
    rest, _, fragment = text.removeprefix(SCHEME).partition("#")
    digest, _, query = rest.partition("?")
    if not is_digest(digest):
        raise _unusable("64 hex digits must follow the scheme")
    return ContentLink(digest, _holders(query), decode_key(fragment) if fragment else b"")


def decode_key(text: str) -> bytes:
    """A 32-byte file key from unpadded base64url.

    Raises: SwarmbridgeError(INVALID).
    """
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _unusable("its key is not base64url") from None
    if len(key) != KEY_BYTES:
        raise _unusable("its key is not 32 bytes")
    return key


def _holders(query: str) -> tuple[PeerToken, ...]:
    if not query:
        return ()
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_HOLDERS)
    except ValueError:
        raise _unusable("what follows ? cannot be read") from None
    holders: list[PeerToken] = []
    for name, value in pairs:
        if name != "h":
            raise _unusable("it has an unknown part; known: h")
        try:
            token_key(value)
        except SwarmbridgeError:
            raise _unusable("a holder in it is no peer token") from None
        holders.append(PeerToken(value))
    return tuple(dict.fromkeys(holders))


def _unusable(why: str) -> SwarmbridgeError:
    return SwarmbridgeError(Cause.INVALID, f"not a swarmbridge link: {why}")
