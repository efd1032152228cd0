"""Texts and names use the words of the field, one for each thing: a reader must not wonder whether two mean the same.

All that is written is looked at: code with its names and comments, documents, the page, configuration.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.imports import ROOT

WORDS = {
    r"far[ -]ends?": "remote peer",
    r"askers?": "caller",
    r"under[ -]way": "in flight",
    r"for ever": "indefinitely",
    r"anew": "again",
    r"one's own": "your own",
    r"let go": "ignored, released or closed",
    r"told": "reported, notified, asked to",
    r"walls": "boundaries",
    r"each (?:second|minute|hour|s|ms|\d[\d.]* ?(?:s|ms|seconds|minutes))": "every 250 ms",
}
"""What is not written (a regular expression, whole words, any case, names in snake_case too) -> what is instead."""

NOT_OURS = ("LICENSE", "uv.lock", "package-lock.json", "tests/vectors/", "tests/architecture/test_words.py")
"""Others' texts, data, and this list itself."""


def written() -> Iterator[tuple[str, str]]:
    """(path, text) of every tracked file that is a text of ours."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in listed.split("\0"):
        path = ROOT / name
        if name and not any(part in name for part in NOT_OURS) and path.is_file() and not path.is_symlink():
            yield name, _text(path)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""  # a picture, an archive


@pytest.mark.parametrize(("word", "instead"), WORDS.items())
def test_one_word_a_thing(word: str, instead: str) -> None:
    wanted = re.compile(rf"(?<![^\W_]){word}(?![^\W_])", re.IGNORECASE)
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in written()
        for number, line in enumerate(text.splitlines(), 1)
        if wanted.search(line.replace("_", " "))
    ]
    assert not found, f"write: {instead}"
