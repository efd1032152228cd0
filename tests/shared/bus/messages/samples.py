"""One value of every struct that crosses the bus or is stored, made of its type alone, and how it is kept as a vector.

    python -m tests.shared.bus.messages.samples      writes tests/vectors/envelopes/<this version>.json

Run once for each version that is tagged. A vector is what a process of that version has on the wire, as hexadecimal,
beside the values of its fields: by it a later version shows that it still reads that one.
"""

from __future__ import annotations

import enum
import importlib
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from shared.bus.messages.codec import encode_envelope
from shared.version import VERSION

DIRECTORY = Path(__file__).parents[3] / "vectors" / "envelopes"
ON_THE_BUS = ("shared.bus.messages.envelopes", "shared.bus.messages.records", "shared.bus.messages.meeting")
IN_MSGPACK = ("shared.content.messages", "services.chunk.index", "services.chunk.store")
IN_JSON = ("services.webrtc.lease", "shared.settings.blocklist", "shared.settings.flags", "shared.settings.chaos")
GENERIC = {"Envelope", "Reply"}
DEADLINE_MS = 1_700_000_000_000
TRACEPARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def structs(modules: tuple[str, ...]) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """Those that a module defines itself, by `module.Name`."""
    for name in modules:
        module = importlib.import_module(name)
        for attribute, value in sorted(vars(module).items()):
            own = isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == name
            if own and attribute not in GENERIC and not attribute.startswith("_"):
                yield f"{name}.{attribute}", value


def kind_of(name: str) -> str:
    """How it travels: `envelope`, `msgpack` or `json`."""
    module = name.rpartition(".")[0]
    return "envelope" if module in ON_THE_BUS else "msgpack" if module in IN_MSGPACK else "json"


def encoded(name: str, value: msgspec.Struct) -> bytes:
    kind = kind_of(name)
    if kind == "envelope":
        return encode_envelope(value, DEADLINE_MS, TRACEPARENT)
    return msgspec.msgpack.encode(value) if kind == "msgpack" else msgspec.json.encode(value)


def sample(kind: Any, name: str = "") -> Any:
    """A value of a type, the same each time; nothing is empty or a default that a missing field would have too."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return sample(next(one for one in arguments if one is not type(None)), name)
    if origin is typing.Literal:
        return arguments[-1]
    if origin is list:
        return [sample(arguments[0], name)]
    if origin is tuple:
        return tuple(sample(one, name) for one in arguments if one is not ...)
    if origin is dict:
        return {sample(arguments[0], name): sample(arguments[1], name)}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, localns={"bytes": bytes})
        fields = msgspec.structs.fields(kind)
        return kind(**{field.name: sample(_type(field, hints), field.name) for field in fields})
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return list(kind)[-1]
    plain: dict[Any, Any] = {
        str: f"a {name}" if name else "text",
        bool: True,
        int: 7 + len(name),
        float: 1.5,
        bytes: b"\x01\x02" + name.encode(),
        memoryview: memoryview(b"\x03\x04" + name.encode()),
    }
    return plain[kind]


def _type(field: msgspec.structs.FieldInfo, hints: dict[str, Any]) -> Any:
    return field.type if field.type is not None else hints[field.name]


def shown(value: Any) -> Any:
    """A value as JSON can hold it, by the names of its fields."""
    if isinstance(value, msgspec.Struct):
        return {field: shown(getattr(value, field)) for field in value.__struct_fields__}
    if isinstance(value, (list, tuple)):
        return [shown(one) for one in value]
    if isinstance(value, dict):
        return {str(shown(key)): shown(one) for key, one in value.items()}
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).hex()
    return value.value if isinstance(value, enum.Enum) else value


def everything() -> Iterator[tuple[str, type[msgspec.Struct]]]:
    return structs(ON_THE_BUS + IN_MSGPACK + IN_JSON)


def main() -> None:
    vectors = {}
    for name, kind in everything():
        value = sample(kind)
        vectors[name] = {"hex": encoded(name, value).hex(), "fields": shown(value)}
    DIRECTORY.mkdir(exist_ok=True)
    text = json.dumps(vectors, indent=1, sort_keys=True, ensure_ascii=False)
    (DIRECTORY / f"{VERSION}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
