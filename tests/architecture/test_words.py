"""Texts and names use the words of the field, one for each thing: a reader must not wonder whether two mean the same.

All that is written is looked at: code with its names and comments, documents, the page, configuration.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.imports import ROOT, is_within, modules

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


OF_A_PROTOCOL = ("shared.wire", "shared.speech")
"""What two ends say to each other has the same names in every protocol: an offer is an offer."""

TWICE = {
    "Answer": "NATS's answer to a request, PeerJS's to an OFFER",
    "CannotStart": "of a service, of a whole node: both end with exit code 3",
    "Certificate": "on the bus and on the wire",
    "Fault": "made by the demo, by chaos flags, found in the rendezvous document",
    "Machine": "what the bounded server drives, what `up` starts",
    "Nursery": "both ends of one pipe",
    "Opening": "of a socket, of a speech",
    "PeerServer": "the protocol, and where one is",
    "Refusal": "of a request, of a socket",
    "Rendezvous": "the service, and its process",
    "Report": "a manager's, the demo's",
    "Row": "of a table of the demo, of the table of conversations",
    "Admission": "of wires, of sockets",
}
"""A class name that two rooms have -> what each means. Everything else is one name, one meaning."""


def test_a_class_name_has_one_meaning() -> None:
    homes: dict[str, set[str]] = {}
    for module in modules():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, set()).add(module.name)
    twice = {
        name
        for name, places in homes.items()
        if len(places) > 1 and not all(any(is_within(place, room) for room in OF_A_PROTOCOL) for place in places)
    }
    assert twice == TWICE.keys()
