"""The hint that our nodes put beside an SDP: where their TCP peer wire listens.

Layout: `{type, sdp, "swarm-space": {"wire": ["host:port", …]}}`. Between nodes TCP is tried first; a browser and
a stranger's tracker ignore the key. The endpoints are a peer's word: whoever dials them filters addresses
first, and the seal says who is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shared.wire.wstracker.messages import Description

HINT_KEY = "swarm-space"
WIRE_KEY = "wire"
MAX_ENDPOINTS = 8
"""Ours: more would be a way to make others dial for an attacker; the rest is ignored."""
MAX_ENDPOINT_CHARS = 64
"""Ours: `[` IPv6 with zone `]:port` fits."""


def with_wire_hint(description: Description, endpoints: Sequence[str]) -> Description:
    """The same description, with up to MAX_ENDPOINTS `host:port` of our peer wire."""
    hint = {WIRE_KEY: list(endpoints[:MAX_ENDPOINTS])}
    return replace(description, extra={**description.extra, HINT_KEY: hint})


def wire_hint(description: Description) -> tuple[str, ...]:
    """The `host:port` endpoints of a peer's wire; anything malformed counts as no hint. Never raises."""
    hint = description.extra.get(HINT_KEY)
    endpoints = hint.get(WIRE_KEY) if isinstance(hint, dict) else None
    if not isinstance(endpoints, list):
        return ()
    return tuple(each for each in endpoints[:MAX_ENDPOINTS] if isinstance(each, str) and _is_endpoint(each))


def _is_endpoint(text: str) -> bool:
    host, _, port = text.rpartition(":")
    # isascii: str.isdigit takes digits of other scripts too, which int() would turn into a port.
    return bool(host) and len(text) <= MAX_ENDPOINT_CHARS and port.isascii() and port.isdigit() and _in_range(port)


def _in_range(port: str) -> bool:
    return len(port) <= 5 and 0 < int(port) <= 65535
