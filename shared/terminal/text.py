"""Words and colours that commands and the demo share on a terminal. Standard library only."""

from __future__ import annotations

import time

from shared.text import without_unsafe

TRANSPORT_STYLES = {"webrtc": "cyan", "webtorrent": "magenta", "broadcast": "yellow"}
OUTCOME_STYLES = {"confirmed": "green", "accepted": "green", "failed": "red", "cancelled": "yellow", "skipped": "dim"}


def printable(text: str) -> str:
    """What somebody else wrote, safe for a terminal: no control characters, no escape sequences."""
    return without_unsafe(text, "�")


def ago(at_ms: int | None) -> str:
    """Wall clock ms as `12 s ago`; `never` for None."""
    if not at_ms:
        return "never"
    seconds = max(0, int(time.time() - at_ms / 1000))
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
