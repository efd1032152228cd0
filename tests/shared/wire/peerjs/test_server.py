"""The PeerServer machine, driven by hand with a clock of plain numbers. Texts are what npm's peer 1.0.2 sends."""

from __future__ import annotations

import json
from typing import Any, assert_never

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Cause
from shared.wire.peerjs import server as module
from shared.wire.peerjs.messages import MAX_MESSAGE_BYTES
from shared.wire.peerjs.server import (
    ALIVE_TIMEOUT_S,
    EXPIRE_AFTER_S,
    MAX_WAITING_MESSAGES,
    OFFER_BURST_PER_SOURCE,
    OFFER_BURST_PER_TARGET,
    PeerServer,
)
from shared.wire.peerjs.server_commands import (
    Claim,
    ClaimAnswer,
    CloseSocket,
    Command,
    Forward,
    Registered,
    SendText,
    Unregistered,
)

OPEN = '{"type":"OPEN"}'
EXPIRED_B = SendText(1, '{"type":"EXPIRE","src":"b","dst":"a"}')


def join(server: PeerServer, socket: int, peer_id: str, token: str = "t", now: float = 0.0) -> list[Command]:
    server.open_socket(socket, "peerjs", peer_id, token, now)
    return server.commands()


def say(
    server: PeerServer, socket: int, type_: str, dst: str | None = None, now: float = 0.0, **more: Any
) -> list[Command]:
    tree = {"type": type_, **more} | ({"dst": dst} if dst is not None else {})
    server.receive_text(socket, json.dumps(tree), now)
    return server.commands()


def pair() -> PeerServer:
    """`a` on socket 1, `b` on socket 2."""
    server = PeerServer()
    assert join(server, 1, "a") == [SendText(1, OPEN)]
    assert join(server, 2, "b") == [SendText(2, OPEN)]
    return server


@pytest.mark.parametrize(
    ("key", "peer_id", "token", "text", "cause"),
    [
        (
            "",
            "a",
            "t",
            '{"type":"ERROR","payload":{"msg":"No id, token, or key supplied to websocket server"}}',
            Cause.INVALID,
        ),
        (
            "peerjs",
            "a",
            "",
            '{"type":"ERROR","payload":{"msg":"No id, token, or key supplied to websocket server"}}',
            Cause.INVALID,
        ),
        ("nope", "a", "t", '{"type":"INVALID-KEY","payload":{"msg":"Invalid key provided"}}', Cause.FORBIDDEN),
        ("peerjs", "a" * 65, "t", '{"type":"ERROR","payload":{"msg":"Invalid id or token"}}', Cause.TOO_LARGE),
        ("peerjs", "é" * 33, "t", '{"type":"ERROR","payload":{"msg":"Invalid id or token"}}', Cause.TOO_LARGE),
        ("peerjs", "\ud800", "t", '{"type":"ERROR","payload":{"msg":"Invalid id or token"}}', Cause.TOO_LARGE),
        ("peerjs", "a", "t" * 65, '{"type":"ERROR","payload":{"msg":"Invalid id or token"}}', Cause.TOO_LARGE),
    ],
)
def test_sockets_that_are_refused(key: str, peer_id: str, token: str, text: str, cause: Cause) -> None:
    server = PeerServer()
    server.open_socket(1, key, peer_id, token, 0.0)
    assert server.commands() == [SendText(1, text), CloseSocket(1)]
    assert server.refused == {cause: 1}
    assert server.peer_count == 0


def test_an_id_is_taken_with_another_token() -> None:
    server = pair()
    refusal = [SendText(3, '{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}'), CloseSocket(3)]
    assert join(server, 3, "a", token="u") == refusal
    server.close_socket(3)
    assert server.peer_ids() == ["a", "b"]


def test_the_same_token_reattaches_without_open() -> None:
    server = pair()
    assert join(server, 3, "a") == [CloseSocket(1)]
    assert say(server, 2, "OFFER", "a", payload={}) == [
        SendText(3, '{"type":"OFFER","src":"b","dst":"a","payload":{}}')
    ]
    server.close_socket(1)
    assert server.peer_ids() == ["a", "b"], "the old socket's end changes nothing"
    server.close_socket(3)
    assert join(server, 4, "a", token="u") == [SendText(4, OPEN)], "free again"


def test_messages_are_relayed_with_the_true_source() -> None:
    server = pair()
    server.receive_text(2, '{"type":"ANSWER","dst":"a","src":"forged","payload":{"x" : 1.50},"more":1}', 0.0)
    assert server.commands() == [SendText(1, '{"type":"ANSWER","src":"b","dst":"a","payload":{"x" : 1.50}}')]
    assert say(server, 2, "LEAVE", "a") == [SendText(1, '{"type":"LEAVE","src":"b","dst":"a"}')]


def test_heartbeats_keep_alive_and_are_not_answered() -> None:
    server = pair()
    assert say(server, 1, "HEARTBEAT", now=50.0) == []
    assert server.next_deadline() == ALIVE_TIMEOUT_S
    server.handle_timer(ALIVE_TIMEOUT_S)
    assert server.commands() == [CloseSocket(2)]
    assert server.peer_ids() == ["a"]
    assert server.next_deadline() == 50.0 + ALIVE_TIMEOUT_S


def test_leave_without_a_target_unregisters() -> None:
    server = pair()
    assert say(server, 1, "LEAVE") == [CloseSocket(1)]
    assert server.peer_ids() == ["b"]
    assert say(server, 1, "HEARTBEAT") == []


def test_messages_to_an_absent_id_expire_once() -> None:
    server = pair()
    assert say(server, 1, "OFFER", "gone", now=0.0, payload=1) == []
    assert say(server, 1, "CANDIDATE", "gone", now=2.0, payload=2) == []
    assert say(server, 1, "LEAVE", "gone", now=2.0) == []
    assert server.next_deadline() == EXPIRE_AFTER_S
    server.handle_timer(EXPIRE_AFTER_S)
    assert server.commands() == [SendText(1, '{"type":"EXPIRE","src":"gone","dst":"a"}')]
    server.handle_timer(EXPIRE_AFTER_S + 10)
    assert server.commands() == []


def test_messages_wait_for_an_id_that_comes() -> None:
    server = pair()
    say(server, 1, "OFFER", "late", payload=1)
    say(server, 2, "OFFER", "late", payload=2)
    say(server, 1, "CANDIDATE", "late", payload=3)
    assert join(server, 3, "late", now=4.0) == [
        SendText(3, OPEN),
        SendText(3, '{"type":"OFFER","src":"a","dst":"late","payload":1}'),
        SendText(3, '{"type":"CANDIDATE","src":"a","dst":"late","payload":3}'),
        SendText(3, '{"type":"OFFER","src":"b","dst":"late","payload":2}'),
    ]
    server.handle_timer(EXPIRE_AFTER_S)
    assert server.commands() == []


def test_a_sender_that_left_gets_no_expire() -> None:
    server = pair()
    say(server, 1, "OFFER", "gone", payload=1)
    server.close_socket(1)
    server.handle_timer(EXPIRE_AFTER_S)
    assert server.commands() == []


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("nonsense", Cause.INVALID),
        (b"\xff", Cause.INVALID),
        ('{"type":"WEIRD","dst":"a"}', Cause.INVALID),
        ('{"type":"OFFER","payload":1}', Cause.INVALID),
        ('{"type":"OFFER","dst":"' + "x" * 65 + '"}', Cause.INVALID),
        (" " * (MAX_MESSAGE_BYTES + 1), Cause.TOO_LARGE),
    ],
)
def test_bad_messages_are_dropped_and_counted(text: str | bytes, cause: Cause) -> None:
    server = pair()
    server.receive_text(2, text, 0.0)
    assert server.commands() == []
    assert server.refused == {cause: 1}


def test_offers_of_a_source_are_limited() -> None:
    server = pair()
    burst = int(OFFER_BURST_PER_SOURCE)
    said = [command for number in range(burst + 5) for command in say(server, 1, "OFFER", "b", payload=number)]
    assert sum(command == EXPIRED_B for command in said) == 5, "what is not passed on expires at once"
    assert len(said) == burst + 5
    assert server.refused == {Cause.RATE_LIMITED: 5}
    assert say(server, 1, "ANSWER", "b", payload=1), "other messages go on"
    assert say(server, 1, "OFFER", "b", now=0.5, payload=1)


def test_offers_to_a_target_are_limited() -> None:
    server = PeerServer()
    join(server, 0, "target")
    burst = int(OFFER_BURST_PER_TARGET)
    relayed, expired = 0, 0
    for socket in range(1, burst + 11):
        join(server, socket, f"peer-{socket}")
        for command in say(server, socket, "OFFER", "target", payload=1):
            assert isinstance(command, SendText)
            relayed += command.socket == 0
            expired += command.socket == socket and "EXPIRE" in command.text
    assert (relayed, expired) == (burst, 10)
    assert server.refused == {Cause.RATE_LIMITED: 10}


def test_a_page_that_joins_a_room_of_fifty_reaches_all() -> None:
    server = PeerServer()
    join(server, 0, "page")
    said: list[Command] = []
    for number in range(1, 51):
        join(server, number, f"peer-{number}")
        said += say(server, 0, "OFFER", f"peer-{number}", payload=1)
    assert [command.socket for command in said if isinstance(command, SendText)] == list(range(1, 51))


def test_a_clients_expire_reaches_its_addressee() -> None:
    server = pair()
    assert say(server, 2, "EXPIRE", "a") == [SendText(1, '{"type":"EXPIRE","src":"b","dst":"a"}')]
    assert say(server, 2, "EXPIRE", "gone") == []
    assert server.next_deadline() == ALIVE_TIMEOUT_S, "it waits for nobody"


class Instances:
    """Linked servers, and the bus between them: claims and messages reach the others, in order."""

    def __init__(self, count: int) -> None:
        self.servers = [PeerServer(linked=True) for _ in range(count)]
        self.sent: list[tuple[int, int, str]] = []
        self.closed: list[tuple[int, int]] = []

    def settle(self, now: float = 0.0) -> None:
        moved = True
        while moved:
            moved = False
            for number, server in enumerate(self.servers):
                for command in server.commands():
                    moved = True
                    self._do(number, command, now)

    def texts(self, instance: int, socket: int) -> list[str]:
        return [text for where, to, text in self.sent if (where, to) == (instance, socket)]

    def _do(self, number: int, command: Command, now: float) -> None:
        server = self.servers[number]
        others = [(place, other) for place, other in enumerate(self.servers) if place != number]
        match command:
            case SendText(socket, text):
                self.sent.append((number, socket, text))
            case CloseSocket(socket):
                self.closed.append((number, socket))
                server.close_socket(socket)
            case Claim(socket, peer_id, digest):
                answers = [other.claimed_elsewhere(peer_id, digest) for _, other in others]
                server.claimed(socket, ClaimAnswer.TAKEN in answers, now)
            case Forward():
                answers_ = [
                    other.receive_forwarded(command.target, command.source, command.type, command.text, now)
                    for _, other in others
                ]
                if None not in answers_:
                    server.not_forwarded(command, Cause.PEER_UNKNOWN, now)
            case Registered(peer_id, digest):
                for place, other in others:
                    other.registered_elsewhere(peer_id, digest, they_keep=number < place)
            case Unregistered():
                pass
            case _:
                assert_never(command)


def test_peers_of_two_instances_signal_to_each_other() -> None:
    both = Instances(2)
    one, two = both.servers
    one.open_socket(1, "peerjs", "a", "t", 0.0)
    two.open_socket(1, "peerjs", "b", "t", 0.0)
    both.settle()
    assert both.texts(0, 1) == both.texts(1, 1) == [OPEN]
    one.receive_text(1, '{"type":"OFFER","dst":"b","payload":1}', 0.0)
    both.settle()
    two.receive_text(1, '{"type":"ANSWER","dst":"a","payload":2}', 0.0)
    both.settle()
    assert both.texts(1, 1)[1:] == ['{"type":"OFFER","src":"a","dst":"b","payload":1}']
    assert both.texts(0, 1)[1:] == ['{"type":"ANSWER","src":"b","dst":"a","payload":2}']


def test_an_id_is_taken_on_every_instance_and_moves_with_its_token() -> None:
    both = Instances(2)
    one, two = both.servers
    one.open_socket(1, "peerjs", "a", "t", 0.0)
    both.settle()
    two.open_socket(1, "peerjs", "a", "another", 0.0)
    both.settle()
    assert both.texts(1, 1) == ['{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}']
    two.open_socket(2, "peerjs", "a", "t", 0.0)
    both.settle()
    assert (one.peer_ids(), two.peer_ids()) == ([], ["a"])
    assert (0, 1) in both.closed


def test_what_waits_on_one_instance_reaches_who_registers_on_the_other() -> None:
    both = Instances(2)
    one, two = both.servers
    one.open_socket(1, "peerjs", "a", "t", 0.0)
    both.settle()
    one.receive_text(1, '{"type":"OFFER","dst":"b","payload":1}', 0.0)
    both.settle()
    two.open_socket(1, "peerjs", "b", "t", 1.0)
    both.settle(1.0)
    assert both.texts(1, 1) == [OPEN, '{"type":"OFFER","src":"a","dst":"b","payload":1}']
    one.handle_timer(EXPIRE_AFTER_S)
    both.settle(EXPIRE_AFTER_S)
    assert both.texts(0, 1) == [OPEN], "nothing expired"


def test_an_id_nowhere_expires_as_on_one_instance() -> None:
    both = Instances(2)
    one, _ = both.servers
    one.open_socket(1, "peerjs", "a", "t", 0.0)
    both.settle()
    one.receive_text(1, '{"type":"OFFER","dst":"b","payload":1}', 0.0)
    both.settle()
    one.handle_timer(EXPIRE_AFTER_S)
    both.settle(EXPIRE_AFTER_S)
    assert both.texts(0, 1) == [OPEN, EXPIRED_B.text]


def test_two_registrations_in_the_same_moment_leave_one() -> None:
    one, two = PeerServer(linked=True), PeerServer(linked=True)
    for server, token in ((one, "t"), (two, "u")):
        server.open_socket(1, "peerjs", "a", token, 0.0)
        server.commands()
        server.claimed(1, False, 0.0)
    [of_one] = [command for command in one.commands() if isinstance(command, Registered)]
    [of_two] = [command for command in two.commands() if isinstance(command, Registered)]
    one.registered_elsewhere(of_two.peer_id, of_two.digest, they_keep=False)
    two.registered_elsewhere(of_one.peer_id, of_one.digest, they_keep=True)
    assert (one.peer_ids(), two.peer_ids()) == (["a"], [])
    assert SendText(1, '{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}') in two.commands()


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    server = pair()
    for number in range(MAX_WAITING_MESSAGES + 3):
        say(server, 1, "CANDIDATE", "gone", payload=number)
    assert server.refused == {Cause.BUSY: 3}
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 0)
    assert say(server, 2, "OFFER", "gone", payload=1) == [SendText(2, '{"type":"EXPIRE","src":"gone","dst":"b"}')]
    monkeypatch.undo()
    server.handle_timer(EXPIRE_AFTER_S)
    assert server.commands() == [SendText(1, '{"type":"EXPIRE","src":"gone","dst":"a"}')]
    assert (server._waiting_bytes, server._senders) == (0, {})


sockets = st.integers(0, 5)
names = st.sampled_from(["a", "b", "c"])
steps = st.one_of(
    st.tuples(st.just("open"), sockets, names, st.sampled_from(["t", "u"])),
    st.tuples(st.just("close"), sockets, names, st.just("")),
    st.tuples(st.just("say"), sockets, names | st.just(""), st.sampled_from(["OFFER", "LEAVE", "HEARTBEAT", "junk"])),
    st.tuples(st.just("time"), st.integers(1, 60), names, st.just("")),
)


@settings(max_examples=100)
@given(st.lists(steps, max_size=40))
def test_any_story_keeps_sockets_and_ids_in_step(script: list[tuple[str, int, str, str]]) -> None:
    server, now, up, serial = PeerServer(), 0.0, dict[int, int](), 0
    closed: set[int] = set()
    for what, number, name, word in script:
        if what == "open" and number not in up:
            serial += 1
            up[number] = serial
            server.open_socket(serial, "peerjs", name, word, now)
        elif what == "close" and number in up:
            server.close_socket(up.pop(number))
        elif what == "say" and number in up:
            server.receive_text(up[number], json.dumps({"type": word, "dst": name}), now)
        elif what == "time":
            now += number
            server.handle_timer(now)
        for command in server.commands():
            assert isinstance(command, SendText | CloseSocket)
            assert command.socket not in closed, "nothing after a close"
            if isinstance(command, CloseSocket):
                closed.add(command.socket)
        assert sorted(server._ids.values()) == sorted(server._clients) == sorted(server._heard)
        assert set(server._ids) <= set(up.values()) - closed
        assert server._waiting_bytes == sum(each.size_bytes for each in server._waiting.values())
