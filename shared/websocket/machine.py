"""A protocol of numbered sockets behind one contract, so that every one is served by the same code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from shared.errors import Cause
from shared.websocket.admission import Caller

Payload = str | bytes
"""A text message or a binary one."""
Outgoing = tuple[int, Payload | None]
"""A socket's number and a message for it; None = close it after what went before."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a socket came. query: of its URL."""

    query: Mapping[str, str]
    caller: Caller


class Machine(Protocol):
    """A sans-IO server of numbered sockets. Nothing of it raises; `refused` counts what it dropped, by cause."""

    @property
    def refused(self) -> Counter[Cause]: ...

    def refusal(self, reason: str) -> str | None:
        """The protocol's own words for a socket that is not served; None where it has none."""

    def open_socket(self, socket: int, opening: Opening, now: float) -> None: ...

    def receive_text(self, socket: int, text: str | bytes, now: float) -> None: ...

    def close_socket(self, socket: int) -> None: ...

    def outgoing(self) -> list[Outgoing]: ...

    def next_deadline(self) -> float | None: ...

    def handle_timer(self, now: float) -> None: ...
