"""The PeerServer machine, driven by hand with a clock of plain numbers. Texts are what npm's peer 1.0.2 sends."""

from __future__ import annotations

import json
from typing import Any

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
    CloseSocket,
    Command,
    PeerServer,
    SendText,
)

OPEN = '{"type":"OPEN"}'


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
        ('{"type":"EXPIRE","dst":"a"}', Cause.INVALID),
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
    relayed = [say(server, 1, "OFFER", "b", payload=number) for number in range(burst + 5)]
    assert sum(map(len, relayed)) == burst
    assert server.refused == {Cause.RATE_LIMITED: 5}
    assert say(server, 1, "ANSWER", "b", payload=1), "other messages go on"
    assert say(server, 1, "OFFER", "b", now=0.5, payload=1)


def test_offers_to_a_target_are_limited() -> None:
    server = PeerServer()
    join(server, 0, "target")
    burst = int(OFFER_BURST_PER_TARGET)
    relayed = 0
    for socket in range(1, burst + 11):
        join(server, socket, f"peer-{socket}")
        relayed += len(say(server, socket, "OFFER", "target", payload=1))
    assert relayed == burst
    assert server.refused == {Cause.RATE_LIMITED: 10}


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
            assert command.socket not in closed, "nothing after a close"
            if isinstance(command, CloseSocket):
                closed.add(command.socket)
        assert sorted(server._ids.values()) == sorted(server._clients) == sorted(server._heard)
        assert set(server._ids) <= set(up.values()) - closed
        assert server._waiting_bytes == sum(each.size_bytes for each in server._waiting.values())
