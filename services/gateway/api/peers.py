"""Which peer is meant where people name one: by its name, or by its peer token."""

from __future__ import annotations

import re

from shared.errors import SwarmbridgeError
from shared.ids import is_peer_name, peer_name

_PEER_TOKEN = re.compile(r"[kg][a-z2-7]{2,103}")


def named_peer(text: str) -> str | None:
    """The name of the peer that is meant; None where it is no peer's name or token."""
    if is_peer_name(text):
        return text
    if not _PEER_TOKEN.fullmatch(text):
        return None
    try:
        return peer_name(text)
    except SwarmbridgeError:
        return None
