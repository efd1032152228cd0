"""What people may call a file, and what would hide or rearrange the rest."""

from __future__ import annotations

import os

import pytest

from shared.text import is_safe_text, shows_something, without_unsafe

SAFE = [
    "",
    "photo.jpg",
    "Screenshot 2026-11-27 at 3.14.15\u202fPM.png",  # macOS writes U+202F
    "100\u00a0km.txt",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.pdf",  # Persian needs U+200C
    "\U0001f469\u200d\U0001f4bb.png",  # one emoji of two, joined by U+200D
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England, in tags
    "\u05e9\u05dc\u05d5\u05dd\u200f (1).doc",
    "e\u0301.txt",
    "\U0001fae9.png",  # newer than some Pythons' Unicode
]
UNSAFE = [
    "a\nb",
    "a\x00",
    "\x1b[31m",
    "a\x7f",
    "a\x9bb",
    "a\u2028b",
    "a\u2029b",
    "a\u202eexe.txt",
    "\u2066a",
    "a\ud800",
]


@pytest.mark.parametrize("text", SAFE)
def test_names_that_people_use_are_safe(text: str) -> None:
    assert is_safe_text(text)
    assert without_unsafe(text) == text


@pytest.mark.parametrize("text", UNSAFE)
def test_what_hides_or_rearranges_the_rest_is_not(text: str) -> None:
    assert not is_safe_text(text)
    assert is_safe_text(without_unsafe(text, "\ufffd"))


def test_a_name_that_is_no_utf_8_is_not_safe() -> None:
    assert not is_safe_text(os.fsdecode(b"caf\xe9"))


def test_a_name_must_show_something() -> None:
    assert [shows_something(text) for text in ("", " ", "\u200b\u202f", "\u0301", "a", "\u3164x")] == [False] * 4 + [
        True
    ] * 2
