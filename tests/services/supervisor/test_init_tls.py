"""With TLS, nobody is served in clear, and no service says anything to a server that is not the node's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.supervisor.init import InitOptions, Prepared, init
from services.supervisor.keep import keep
from services.supervisor.machine.bus_tls import ensure_bus_tls
from services.supervisor.machine.nats_process import find_binary
from shared.bus.messages.subjects import BUCKET_FLAGS
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.bus import NatsBus
from shared.bus.nats.users import read_seed
from shared.errors import BusError, BusUnavailable, Cause
from shared.settings.config import BusSettings, Config
from tests.fakes.ports import free_port


@asynccontextmanager
async def served(home: Path) -> AsyncIterator[tuple[int, Prepared]]:
    port = free_port()
    where = await init(Config(), InitOptions(home=home, nats_port=port, nats_tls=("localhost", "127.0.0.1")))
    server = await asyncio.create_subprocess_exec(
        str(find_binary()), "-c", where.nats_config, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield port, where
    finally:
        server.kill()
        await server.wait()


async def connected(url: str, where: Prepared, ca_file: str) -> NatsBus:
    """As soon as the server is there. Raises: BusError for every other reason."""
    seed = read_seed("", str(Path(where.seeds["gateway"]) / "bus.seed"))
    async with asyncio.timeout(20):
        while True:
            try:
                return await nats_bus.connect(url, "gateway-1", seed=seed, service="gateway", ca_file=ca_file)
            except BusUnavailable:
                pass
            await asyncio.sleep(0.05)


async def test_services_work_over_tls(tmp_path: Path) -> None:
    async with served(tmp_path / "home") as (port, where):
        ca_file = str(tmp_path / "home/bus/tls/ca.pem")
        seed_file = str(Path(where.seeds["keeper"]) / "bus.seed")
        url = f"tls://localhost:{port}"
        await keep(Config(bus=BusSettings(url=url, seed_file=seed_file, ca_file=ca_file)), once=True)
        bus = await connected(url, where, ca_file)
        try:
            await (await bus.kv(BUCKET_FLAGS)).put("x", b"1")
        finally:
            await bus.close()


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_another_authority_is_not_believed(tmp_path: Path, scheme: str) -> None:
    other = ensure_bus_tls(tmp_path / "other", ["localhost"])
    async with served(tmp_path / "home") as (port, where):
        with pytest.raises(BusError, match="cannot be verified") as refused:
            await connected(f"{scheme}://localhost:{port}", where, str(other.ca))
        assert refused.value.cause is Cause.UNAUTHENTICATED


async def test_a_server_that_asks_for_no_tls_hears_nothing(tmp_path: Path) -> None:
    """Whoever is between could answer in the server's stead that TLS is not needed."""
    heard = bytearray()
    ended = asyncio.Event()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": "2.15.1", "max_payload": 1000, "nonce": "a", "tls_required": False}
        writer.write(b"INFO " + json.dumps(info).encode() + b" \r\n")
        heard.extend(await reader.read(1000))
        writer.close()
        ended.set()

    server = await asyncio.start_server(between, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    where = await init(Config(), InitOptions(home=tmp_path / "home"))
    try:
        with pytest.raises(BusError, match="speaks no TLS"):
            await connected(f"tls://127.0.0.1:{port}", where, "")
        async with asyncio.timeout(20):
            await ended.wait()
        assert not heard
    finally:
        server.close()


def test_what_fits_is_kept_and_the_rest_made_again(tmp_path: Path) -> None:
    first = ensure_bus_tls(tmp_path, ["nats"])
    ca, certificate = first.ca.read_bytes(), first.certificate.read_bytes()
    assert ensure_bus_tls(tmp_path, ["nats"]).certificate.read_bytes() == certificate
    assert ensure_bus_tls(tmp_path, ["nats", "10.0.0.1"]).certificate.read_bytes() != certificate
    assert first.ca.read_bytes() == ca
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
