"""Several workers of one node: each a wire peer of its own, on a port of its own, as configured."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.ports import free_port
from tests.services.webtorrent.swarm_parts import config, running, tracker_server, write_document


async def test_each_worker_is_a_peer_of_its_own_and_a_lost_one_takes_only_its_links(tmp_path: Path) -> None:
    async with tracker_server() as tracker:
        document = write_document(tmp_path / "document.json", trackers=[tracker.url])
        one = config(document, trackers=True)
        async with running(one, one, one) as (first, second, other):
            await other.up(2)
            ports = {node.transport.endpoint.port for node in (first, second, other) if node.transport.endpoint}
            assert len(ports) == 3
            ids = {node.transport._worker._peer_id for node in (first, second, other)}  # type: ignore[union-attr]
            assert len(ids) == 3
            await first.stop()
            await other.until(lambda: len(other.downs) == 1)
            # What is left goes on, over the other worker.
            link = next(up.link for up in other.ups if up.link != other.downs[0].link)
            await other.transport.send(link, b"goes on")
            await second.until(lambda: any(records == [b"goes on"] for records in second.records.values()))


async def test_the_port_and_the_advertised_address_can_be_set(tmp_path: Path) -> None:
    port = free_port("0.0.0.0")  # of the address that is bound: one of 127.0.0.x may have another's port
    settings = config(host="0.0.0.0", port=port, advertise="192.0.2.7")
    async with running(settings) as (node,):
        endpoint = node.transport.endpoint
        assert endpoint is not None
        assert endpoint.port == port
        addresses = node.transport._worker._addresses  # type: ignore[union-attr]
        assert addresses.advertised(port, "10.0.0.1") == [f"192.0.2.7:{port}"]
