"""Bindings: fixed layouts, and no two links with one prologue."""

from __future__ import annotations

import hashlib

import pytest

from shared.errors import LocalProtocolError
from shared.wire.sealed.binding import broadcast_binding, link_prologue, webrtc_binding, webtorrent_binding


def test_layouts() -> None:
    assert link_prologue("webrtc", b"B") == b"swarmbridge-link-v1\0webrtc\0B"
    assert webrtc_binding(b"d" * 32, b"l" * 32) == b"d" * 32 + b"l" * 32
    assert webtorrent_binding(b"i" * 20, b"d" * 20, b"l" * 20) == b"i" * 20 + b"d" * 20 + b"l" * 20
    scope = hashlib.sha256(b"https://a.example\0chat").digest()
    assert broadcast_binding("https://a.example", "chat", b"d" * 16, b"l" * 16) == scope + b"d" * 16 + b"l" * 16


def test_who_dials_counts() -> None:
    assert webrtc_binding(b"a" * 32, b"b" * 32) != webrtc_binding(b"b" * 32, b"a" * 32)


@pytest.mark.parametrize(
    "make",
    [
        lambda: webrtc_binding(b"", b"l" * 32),
        lambda: webtorrent_binding(b"i" * 19, b"d" * 20, b"l" * 21),
        lambda: broadcast_binding("o", "c", b"d" * 15, b"l" * 17),
    ],
)
def test_fields_of_another_length_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(LocalProtocolError):
        make()
