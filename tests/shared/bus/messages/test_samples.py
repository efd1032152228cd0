"""What every tagged version has on the bus and in NATS is read by this one, field by field.

A field that was appended since has its default; one that was removed, renamed or moved fails here. So does a struct
that is gone while an older version still sends it.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from shared.bus.messages.codec import decode_envelope
from shared.version import VERSION
from tests.shared.bus.messages.samples import DIRECTORY, encoded, everything, kind_of, sample, shown

FILES = sorted(DIRECTORY.glob("*.json"))
KINDS = dict(everything())


def cases() -> list[Any]:
    return [
        pytest.param(name, vector, id=f"{file.stem}-{name}")
        for file in FILES
        for name, vector in json.loads(file.read_text(encoding="utf-8")).items()
    ]


def read(name: str, data: bytes) -> msgspec.Struct:
    kind = KINDS[name]
    if kind_of(name) == "envelope":
        return decode_envelope(data, kind).body
    decoded: msgspec.Struct = (msgspec.msgpack if kind_of(name) == "msgpack" else msgspec.json).decode(data, type=kind)
    return decoded


def same(then: Any, now: Any) -> bool:
    """What it said then it says now; what it did not know then may have been added."""
    if isinstance(then, dict) and isinstance(now, dict):
        return all(key in now and same(value, now[key]) for key, value in then.items())
    if isinstance(then, list) and isinstance(now, list):
        return len(then) == len(now) and all(map(same, then, now))
    return bool(then == now)


def test_the_version_that_is_tagged_next_has_samples() -> None:
    assert VERSION in [file.stem for file in FILES], "run python -m tests.shared.bus.messages.samples"


@pytest.mark.parametrize(("name", "vector"), cases())
def test_a_stored_sample_is_read(name: str, vector: dict[str, Any]) -> None:
    assert same(vector["fields"], shown(read(name, bytes.fromhex(vector["hex"]))))


@pytest.mark.parametrize("name", KINDS)
def test_a_sample_of_today_is_read(name: str) -> None:
    """The samples are able to show a difference: each field comes back as what was put in."""
    value = sample(KINDS[name])
    assert shown(read(name, encoded(name, value))) == shown(value)


@pytest.mark.parametrize("name", [name for name in KINDS if kind_of(name) == "envelope"])
def test_what_a_newer_version_appends_is_ignored(name: str) -> None:
    value = sample(KINDS[name])
    envelope = msgspec.msgpack.decode(encoded(name, value))
    envelope[3] = [*envelope[3], "new"]
    data = msgspec.msgpack.encode([*envelope, "new"])
    assert shown(read(name, data)) == shown(value)
