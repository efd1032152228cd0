"""The two protocols behind one contract, so that their sockets are served by the same code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import assert_never

from shared.errors import Cause
from shared.websocket.machine import Opening, Outgoing
from shared.wire.peerjs.messages import Error, ErrorText, encode_message
from shared.wire.peerjs.server import PeerServer
from shared.wire.peerjs.server_commands import Claim, CloseSocket, Forward, Registered, SendText, Unregistered
from shared.wire.wstracker.tracker import News, Tracker

LinkCommand = Claim | Forward | Registered | Unregistered


class PeerServerMachine:
    """`?key=&id=&token=` registers a socket at once."""

    def __init__(self, server: PeerServer) -> None:
        self.on_link: Callable[[LinkCommand], None] | None = None
        """Takes what is for other instances; None = this one is alone."""
        self.server = server
        self.receive_text = server.receive_text
        self.close_socket = server.close_socket
        self.next_deadline = server.next_deadline
        self.handle_timer = server.handle_timer

    @property
    def refused(self) -> Counter[Cause]:
        return self.server.refused

    def refusal(self, reason: str) -> str | None:
        """ERROR, which `peerjs` hands to the page with its words."""
        return encode_message(Error(ErrorText(reason)))

    def open_socket(self, socket: int, opening: Opening, now: float) -> None:
        query = opening.query
        self.server.open_socket(socket, query.get("key", ""), query.get("id", ""), query.get("token", ""), now)

    def outgoing(self) -> list[Outgoing]:
        out: list[Outgoing] = []
        for command in self.server.commands():
            match command:
                case SendText(socket, text):
                    out.append((socket, text))
                case CloseSocket(socket):
                    out.append((socket, None))
                case Claim() | Forward() | Registered() | Unregistered():
                    if self.on_link is not None:
                        self.on_link(command)
                case _:
                    assert_never(command)
        return out


class TrackerMachine:
    """A socket is nobody until it announces."""

    def __init__(self, tracker: Tracker) -> None:
        self.on_news: Callable[[News], None] | None = None
        """As on_link."""
        self.tracker = tracker
        self.receive_text = tracker.receive_text
        self.close_socket = tracker.close_socket
        self.next_deadline = tracker.next_deadline
        self.handle_timer = tracker.handle_timer

    @property
    def refused(self) -> Counter[Cause]:
        return self.tracker.refused

    def refusal(self, reason: str) -> str | None:
        """None: a failure that names no torrent makes a client give up the socket of all its torrents."""

    def open_socket(self, socket: int, opening: Opening, now: float) -> None:
        """Nothing to do."""

    def outgoing(self) -> list[Outgoing]:
        for news in self.tracker.news():
            if self.on_news is not None:
                self.on_news(news)
        return list(self.tracker.data_to_send())
