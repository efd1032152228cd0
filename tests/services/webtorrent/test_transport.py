"""Two whole transports on loopback, found as real ones are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.webtorrent.connection import WireConnection
from shared.errors import Cause, TransportError
from shared.ids import LinkId
from shared.transport.contract import Measured
from shared.transports import TransportState
from tests.services.webtorrent.raw_peer import raw_peer
from tests.services.webtorrent.swarm_parts import (
    NO_HINT,
    DhtNode,
    Node,
    config,
    free_udp_port,
    running,
    tracker_server,
    write_document,
)

KEY = b"k" * 32


async def exchange(first: Node, second: Node) -> None:
    """Records of all sizes both ways over the links that are up."""
    up, other = await first.up(), await second.up()
    assert up.dialer != other.dialer
    assert up.binding == other.binding
    assert len(up.binding) == 60
    sent = [bytes([size % 251]) * size for size in (0, 1, 1200, 16_384, 65_535)]
    for record in sent:
        await first.transport.send(up.link, record)
        await second.transport.send(other.link, record)
    await first.until(lambda: len(first.records.get(up.link, [])) == len(sent))
    await second.until(lambda: len(second.records.get(other.link, [])) == len(sent))
    assert first.records[up.link] == second.records[other.link] == sent


async def test_found_by_a_tracker_alone(tmp_path: Path) -> None:
    async with tracker_server() as tracker:
        document = write_document(tmp_path / "document.json", trackers=[tracker.url])
        settings = config(document, trackers=True)
        async with running(settings, settings) as (first, second):
            await first.until(lambda: any(each.state is TransportState.READY for each in first.states))
            await second.transport.dial(NO_HINT, 5.0)
            await exchange(first, second)
            measures = second.transport.measures()
            assert (measures["trackers_up"], measures.get("dht_nodes")) == (1, None)
            await second.until(lambda: second.transport.measures()["swarm_size_tracker"] >= 1)


async def test_found_by_the_dht_alone(tmp_path: Path) -> None:
    router = DhtNode("127.0.0.4")
    document = write_document(tmp_path / "document.json", dht_nodes=[router.address()])
    first_settings, second_settings = (config(document, host=f"127.0.0.{each}", dht=True) for each in (2, 3))
    async with running(first_settings, second_settings) as (first, second):
        await exchange(first, second)
        await first.until(lambda: first.states[-1].state is TransportState.READY)
        measures = first.transport.measures()
        assert measures["dht_nodes"] > 0
        assert "dht_join_s" in measures
        assert measures.get("known_dht", 0) + measures.get("known_peer", 0) >= 1


async def test_a_dht_of_two_is_enough(tmp_path: Path) -> None:
    """Neither holds its own announce: each learns of the other from the announce that reaches it."""
    ports = {host: free_udp_port(host) for host in ("127.0.0.2", "127.0.0.3")}
    document = write_document(tmp_path / "document.json", dht_nodes=[f"{host}:{port}" for host, port in ports.items()])
    settings = [config(document, host=host, dht=True, dht_port=port) for host, port in ports.items()]
    async with running(*settings) as (first, second):
        await exchange(first, second)


async def test_a_hint_is_dialled_for_the_wanted_key_alone() -> None:
    async with running(config(), config()) as (first, second):
        await first.transport.dial(second.hint(KEY), 5.0)
        up, other = await first.up(), await second.up()
        assert (up.dialer, up.expected_key) == (True, KEY)
        assert (other.dialer, other.expected_key) == (False, None)
        await exchange(first, second)
        # Linked already: asking again opens nothing, and the listener does not dial back.
        await first.transport.dial(second.hint(KEY), 5.0)
        await second.transport.dial(first.hint(KEY), 5.0)
        await asyncio.gather(exchange_once(first, second), exchange_once(second, first))
        assert len(first.ups) == len(second.ups) == 1


async def exchange_once(sender: Node, receiver: Node) -> None:
    count = len(receiver.records.get(receiver.ups[0].link, []))
    await sender.transport.send(sender.ups[0].link, b"x")
    await receiver.until(lambda: len(receiver.records[receiver.ups[0].link]) > count)


async def test_each_run_has_another_binding_and_cancel_closes_all() -> None:
    async with running(config(), config()) as (first, second):
        await first.transport.dial(second.hint(), 5.0)
        up, other = await first.up(), await second.up()
        await first.stop()
        assert [(down.link, down.cause) for down in first.downs] == [(up.link, Cause.CLOSED)]
        assert first.transport.endpoint is None
        await second.until(lambda: [down.link for down in second.downs] == [other.link])
        with pytest.raises(TransportError) as raised:
            await first.transport.send(up.link, b"x")
        assert raised.value.cause is Cause.CLOSED
        with pytest.raises(TransportError) as raised:
            await first.transport.dial(second.hint(), 5.0)
        assert raised.value.cause is Cause.DISABLED
        await first.start()
        await first.transport.dial(second.hint(), 5.0)
        assert (await first.up(2)).binding != up.binding


async def test_a_closed_link_is_down_at_both_ends_with_its_cause() -> None:
    async with running(config(), config()) as (first, second):
        await first.transport.dial(second.hint(), 5.0)
        up, other = await first.up(), await second.up()
        await first.transport.close(up.link, Cause.UNAUTHENTICATED)
        await first.transport.close(up.link, Cause.OTHER)
        await first.transport.close(LinkId("unknown"), Cause.OTHER)
        assert [(down.link, down.cause) for down in first.downs] == [(up.link, Cause.UNAUTHENTICATED)]
        await second.until(lambda: [down.link for down in second.downs] == [other.link])


async def test_send_waits_for_a_peer_that_does_not_read_and_ends_with_the_link() -> None:
    async with running(config()) as (node,):
        async with raw_peer(node) as (reader, writer):
            up = await node.up()
            reader._transport.pause_reading()  # type: ignore[attr-defined]

            async def flood() -> None:
                while True:
                    await node.transport.send(up.link, bytes(65_535))

            flooding = asyncio.create_task(flood())
            wires = node.transport._worker.wires  # type: ignore[union-attr]
            connection = wires._links[up.link].connection
            assert isinstance(connection, WireConnection)
            await node.until(lambda: not connection._writable.is_set())
            transport = connection._transport
            assert transport is not None
            assert transport.get_write_buffer_size() < 1.2e6
            writer.transport.abort()
            with pytest.raises(TransportError) as raised:
                await asyncio.wait_for(flooding, 5.0)
            assert raised.value.cause is Cause.CLOSED
        with pytest.raises(TransportError) as raised:
            await node.transport.send(up.link, bytes(65_536))
        assert raised.value.cause is Cause.TOO_LARGE


async def test_nothing_to_find_anybody_by_is_degraded_and_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("health", "worker"):
        monkeypatch.setattr(f"services.webtorrent.{module}.START_GRACE_S", 0.0)
    async with running(config()) as (node,):
        await node.until(lambda: bool(node.states))
        assert (node.states[-1].state, node.states[-1].last_error) == (
            TransportState.DEGRADED,
            Cause.SIGNALLING_UNAVAILABLE,
        )
        with pytest.raises(TransportError) as raised:
            await node.transport.dial(NO_HINT, 5.0)
        assert raised.value.cause is Cause.SIGNALLING_UNAVAILABLE


async def test_a_taken_port_is_an_error() -> None:
    async with running(config()) as (node,):
        taken = node.transport.endpoint
        assert taken is not None
        other = Node(type(node.transport)(config(port=taken.port)))
        with pytest.raises(TransportError) as raised:
            await other.transport.run(other.receive)
        assert raised.value.cause is Cause.REFUSED


async def test_without_libtorrent_it_is_degraded_and_still_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("services.webtorrent.dht.importlib.import_module", missing)
    async with running(config(dht=True), config()) as (first, second):
        await first.until(lambda: first.states[-1].last_error is Cause.IMPORT_FAILED)
        assert first.states[-1].state is TransportState.DEGRADED
        await first.transport.dial(second.hint(), 5.0)
        await exchange(first, second)


async def test_new_trackers_in_the_document_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.settings.rendezvous_follower.RELOAD_EVERY_S", 0.05)
    document = write_document(tmp_path / "document.json")
    async with tracker_server() as tracker, running(config(document, trackers=True)) as (node,):
        document.write_text("not JSON")
        await node.until(lambda: node.states[-1].last_error is Cause.MISCONFIGURED)
        write_document(document, trackers=[tracker.url])
        await node.until(lambda: node.transport.measures()["trackers_up"] == 1)


async def test_its_numbers_are_on_the_bus(tmp_path: Path) -> None:
    async with tracker_server() as tracker:
        document = write_document(tmp_path / "document.json", trackers=[tracker.url])
        one = config(document, trackers=True)
        async with running(one, one) as (node, other):
            assert isinstance(node.transport, Measured)
            up = await node.up()
            await other.up()
            await node.transport.send(up.link, bytes(1_000))
            await other.until(lambda: bool(other.records))
            measures = node.transport.measures()
            assert measures["wires_tcp"] == 1
            assert measures["wires_channel"] == measures["wires_guest"] == 0
            assert measures["swarm_size_tracker"] >= 1, "as it reports"
            assert "swarm_size_dht" not in measures, "what we know is `known_…`: another number"
            assert 0 < measures["tracker_round_trip_s"] < 15
            assert 0 < measures["time_to_peer_s"] < 15
            assert measures["offers_made"] >= 1
            assert measures["wire_bytes_out"] > 1_000
            assert "dht_nodes" not in measures, "what is switched off is not measured"
