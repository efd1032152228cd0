"""The extension protocol (BEP 10): a bencoded dictionary says which extension has which message id.

Handshake, extended id 0:  {m: {name: id}, p: listening TCP port, reqq: requests we queue, v: client}
Each end names the ids under which *it* wants to receive: a frame goes out under the id that the PEER gave to
`swarm-space` and comes in under ours. Id 0 in `m` switches an extension off. webtorrent sends no `v`
(docs/webtorrent.md).

A key of ours, `swarm-space-seal: 1`, says that its sender is a node: the first frames are a seal's handshake. Without
it the peer is a plain client with the extension, and frames begin at once.

Left out: `yourip`, `ipv4`, `ipv6`, `metadata_size`: nobody here uses them; unknown keys are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import LocalProtocolError, RemoteProtocolError
from shared.wire.peerwire.bencode import MAX_BYTES, MAX_DEPTH, BValue, decode_bencode, encode_bencode

EXTENSION_NAME = b"swarm-space"
SEAL_KEY = b"swarm-space-seal"
SEAL_VERSION = 1
HANDSHAKE_ID = 0
MAX_EXTENSIONS = 64
"""Names in one `m`; clients have fewer than ten."""
MAX_CLIENT_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class ExtendedHandshake:
    """extensions: name -> id, 0..255. port: where the sender listens. requests: its `reqq`. client: its `v`.

    seals: whether it is a node, which seals its links.
    """

    extensions: dict[bytes, int]
    port: int | None = None
    requests: int | None = None
    client: str = ""
    seals: bool = False

    @property
    def swarm_space_id(self) -> int | None:
        """The id to send our frames under; None where the peer does not want them."""
        # BEP 10: an id of 0 means that the extension is switched off.
        return self.extensions.get(EXTENSION_NAME) or None


def encode_extended_handshake(handshake: ExtendedHandshake) -> bytes:
    """The bencoded dictionary, without the message around it. Source: BEP 10.

    Raises: LocalProtocolError: an extension id that is not 0..255.
    """
    if not all(0 <= number <= 255 for number in handshake.extensions.values()):
        raise LocalProtocolError("an extension id is one byte")
    fields: dict[bytes, BValue] = {b"m": dict(handshake.extensions)}
    if handshake.port is not None:
        fields[b"p"] = handshake.port
    if handshake.requests is not None:
        fields[b"reqq"] = handshake.requests
    if handshake.seals:
        fields[SEAL_KEY] = SEAL_VERSION
    if handshake.client:
        fields[b"v"] = handshake.client.encode()
    return encode_bencode(fields)


def decode_extended_handshake(
    data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH
) -> ExtendedHandshake:
    """Read a peer's dictionary. A missing or nonsensical `p`, `reqq` or `v` counts as not given.

    Raises: RemoteProtocolError: not bencode, no dictionary, over a limit, or an `m` that maps no names to bytes.
    Source: BEP 10, "handshake message".
    """
    fields = decode_bencode(data, max_bytes=max_bytes, max_depth=max_depth)
    if not isinstance(fields, dict):
        raise RemoteProtocolError("an extended handshake that is no dictionary")
    client = fields.get(b"v")
    return ExtendedHandshake(
        extensions=_extensions(fields.get(b"m", {})),
        port=_number(fields.get(b"p"), 1, 65535),
        requests=_number(fields.get(b"reqq"), 0, 2**31),
        # For people alone: cut, and never refused for what it holds.
        client=client.decode(errors="replace")[:MAX_CLIENT_CHARACTERS] if isinstance(client, bytes) else "",
        seals=fields.get(SEAL_KEY) == SEAL_VERSION,
    )


def _extensions(raw: BValue) -> dict[bytes, int]:
    if not isinstance(raw, dict) or len(raw) > MAX_EXTENSIONS:
        raise RemoteProtocolError("an extended handshake without a usable `m`")
    extensions: dict[bytes, int] = {}
    for name, number in raw.items():
        if not isinstance(number, int) or not 0 <= number <= 255:
            raise RemoteProtocolError("an extension id that is no byte")
        extensions[name] = number
    return extensions


def _number(raw: BValue | None, least: int, most: int) -> int | None:
    return raw if isinstance(raw, int) and least <= raw <= most else None
