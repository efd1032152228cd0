"""Finds in printed text what must never be there: hashes, refs, infohashes, keys, links, addresses, SDP, candidates."""

from __future__ import annotations

import re

FORBIDDEN = {
    "a hash, key or id in hex": re.compile(r"\b[0-9a-fA-F]{32,}\b"),
    "a ref": re.compile(r"chunk-[0-9a-f]{16}"),
    "a peer token": re.compile(r"\b[kg][a-z2-7]{40,}\b"),
    "an address": re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b|::1\b|localhost"),
    "a URL": re.compile(r"\b(?:https?|wss?|nats)://"),
    "a link": re.compile(r"swarmbridge:[0-9a-z]"),
    "SDP or a candidate": re.compile(r"candidate:|a=fingerprint|v=0\b|ice-ufrag|\bm=application\b"),
    "a NATS seed": re.compile(r"\bSU[A-Z2-7]{40,}\b"),
    "base64 of a key": re.compile(r"\b[A-Za-z0-9+/_-]{43}=?(?![A-Za-z0-9+/_=-])"),
}


def secrets_in(text: str) -> list[str]:
    """What is in the text that should not be, by kind; never the thing itself."""
    return [kind for kind, pattern in FORBIDDEN.items() if pattern.search(text)]
