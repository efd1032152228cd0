"""DHT nodes of the document: each with its own state and reason; and the format of a ping, which libtorrent answers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.webtorrent import bootstrap
from services.webtorrent.bootstrap import answered_transaction, encode_ping
from shared.errors import Cause
from tests.services.webtorrent.swarm_parts import DhtNode, config, running, write_document


def test_a_ping_is_bep_5s() -> None:
    wanted = b"d1:ad2:id20:" + b"i" * 20 + b"e1:q4:ping2:roi1e1:t4:abcd1:y1:qe"
    assert encode_ping(b"abcd", b"i" * 20) == wanted
    assert answered_transaction(b"d1:rd2:id20:" + b"x" * 20 + b"e1:t4:abcd1:y1:re") == b"abcd"
    assert answered_transaction(wanted) is None, "a query is no answer"
    assert answered_transaction(b"d1:t4:abcd1:y1:ee") is None, "an error neither"
    assert answered_transaction(b"d1:rde1:t9:abcdefghi1:y1:re") is None


@given(st.binary(max_size=200))
def test_arbitrary_datagrams_answer_nothing(datagram: bytes) -> None:
    assert answered_transaction(datagram) is None


async def test_each_node_has_a_state_and_a_reason_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "ASK_TIMEOUT_S", 0.5)
    good = DhtNode("127.0.0.7")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.8", 0))
        nodes = [
            "no node",
            f"127.0.0.8:{silent.getsockname()[1]}",
            "nowhere.invalid:6881",
            "a..b:6881",
            good.address(),
        ]
        document = write_document(tmp_path / "document.json", dht_nodes=nodes)
        async with running(config(document, dht=True)) as (node,):

            def states() -> list[tuple[str, Cause | None]]:
                return [(each.state, each.cause) for each in node.transport.meeting_places()]

            await node.until(lambda: ("connecting", None) not in states() and len(states()) == 5)
            found = states()
            assert found[1] == ("waiting", Cause.SILENT)
            assert found[2][0] == "waiting"
            assert found[2][1] in (Cause.SIGNALLING_UNAVAILABLE, Cause.SILENT), "a resolver may be slow to say no"
            assert found[4] == ("open", None)
            places = node.transport.meeting_places()
            assert places[1].retry_ms > places[1].since_ms > 0
            assert places[4].retry_ms == 0
            await node.until(lambda: node.transport.measures().get("dht_nodes", 0) > 0)
