"""The name under which a stranger's file is saved: never elsewhere, never hidden, never an option."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.content.names import MAX_NAME_BYTES, safe_file_name
from shared.text import is_safe_text

DIGEST = "ab" * 32
FALLBACK = "abababababababab.bin"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("photo.jpg", "photo.jpg"),
        ("-rf", "rf"),
        ("--help", "help"),
        (".bashrc", "bashrc"),
        ("../../evil", "evil"),
        ("..\\evil", "evil"),
        ("ev\x1b[31mil\n", "ev[31mil"),
        ("\u202egpj.exe", "gpj.exe"),
        ("Shot 3.14\u202fPM.png", "Shot 3.14\u202fPM.png"),
        (" - .x ", "x"),
        ("", FALLBACK),
        ("..", FALLBACK),
        ("/", FALLBACK),
        ("-", FALLBACK),
        ("a" * 300 + ".tar", "a" * 251 + ".tar"),
        ("é" * 200 + ".jpeg", "é" * 125 + ".jpeg"),
    ],
)
def test_names(name: str, safe: str) -> None:
    assert safe_file_name(name, DIGEST) == safe


@given(st.text(max_size=400))
def test_whatever_the_name_it_is_safe(name: str) -> None:
    safe = safe_file_name(name, DIGEST)
    assert 0 < len(safe.encode()) <= MAX_NAME_BYTES
    assert not set(safe) & set("/\\")
    assert safe[0] not in ".- "
    assert is_safe_text(safe)
