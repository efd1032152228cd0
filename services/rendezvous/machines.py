"""The two protocols behind one contract, so that their sockets are served by the same code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from shared.errors import Cause
from shared.wire.peerjs.server import PeerServer, SendText
from shared.wire.wstracker.tracker import Tracker

Outgoing = tuple[int, str | None]
"""A socket's number and a text for it; None = close it after what went before."""


class Machine(Protocol):
    """A sans-IO server of numbered sockets. Nothing of it raises; `refused` counts what it dropped, by cause."""

    @property
    def refused(self) -> Counter[Cause]: ...

    def open_socket(self, socket: int, query: Mapping[str, str], now: float) -> None: ...

    def receive_text(self, socket: int, text: str | bytes, now: float) -> None: ...

    def close_socket(self, socket: int) -> None: ...

    def outgoing(self) -> list[Outgoing]: ...

    def next_deadline(self) -> float | None: ...

    def handle_timer(self, now: float) -> None: ...


class PeerServerMachine:
    """`?key=&id=&token=` registers a socket at once."""

    def __init__(self, server: PeerServer) -> None:
        self.server = server
        self.receive_text = server.receive_text
        self.close_socket = server.close_socket
        self.next_deadline = server.next_deadline
        self.handle_timer = server.handle_timer

    @property
    def refused(self) -> Counter[Cause]:
        return self.server.refused

    def open_socket(self, socket: int, query: Mapping[str, str], now: float) -> None:
        self.server.open_socket(socket, query.get("key", ""), query.get("id", ""), query.get("token", ""), now)

    def outgoing(self) -> list[Outgoing]:
        return [
            (command.socket, command.text if isinstance(command, SendText) else None)
            for command in self.server.commands()
        ]


class TrackerMachine:
    """A socket is nobody until it announces."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.receive_text = tracker.receive_text
        self.close_socket = tracker.close_socket
        self.next_deadline = tracker.next_deadline
        self.handle_timer = tracker.handle_timer

    @property
    def refused(self) -> Counter[Cause]:
        return self.tracker.refused

    def open_socket(self, socket: int, query: Mapping[str, str], now: float) -> None:
        """Nothing to do."""

    def outgoing(self) -> list[Outgoing]:
        return list(self.tracker.data_to_send())
