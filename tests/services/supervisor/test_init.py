"""`init` makes what is missing and keeps what is there, and a server that runs from it lets the services in."""

from __future__ import annotations

import asyncio
import stat
import time
from pathlib import Path

import pytest

from services.supervisor.init import InitOptions, init, prepared_text
from services.supervisor.keep import keep
from services.supervisor.machine.errors import CannotStart
from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.node import SERVICES, service_command
from shared import exit_codes
from shared.bus.messages.subjects import BUCKET_FLAGS, BUCKET_LAYOUT
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.bus import NatsBus
from shared.bus.nats.jetstream import api, append
from shared.bus.nats.layout import SCHEMA_KEY, is_laid_out
from shared.bus.nats.users import read_seed
from shared.errors import BusError, ConfigError
from shared.process.health import judge
from shared.settings.config import BusSettings, Config, GatewaySettings, NodeSettings, child_environment
from tests.fakes.ports import free_port


def contents(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


async def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = await init(Config(), InitOptions(home=home, name="n"))
    made = contents(home)
    assert await init(Config(), InitOptions(home=home, name="n")) == first
    assert contents(home) == made
    assert set(first.seeds) == {*SERVICES, "admin", "keeper"}
    assert all((Path(directory) / "bus.seed").is_file() for directory in first.seeds.values())
    assert first.peer in prepared_text(first)


async def test_what_is_lost_is_made_again_and_nothing_else(tmp_path: Path) -> None:
    where = await init(Config(), InitOptions(home=tmp_path))
    made = contents(tmp_path)
    lost = Path(where.seeds["gateway"]) / "bus.seed"
    lost.unlink()
    await init(Config(), InitOptions(home=tmp_path))
    now = contents(tmp_path)
    changed = {name for name in made if made[name] != now[name]}
    assert changed == {str(lost.relative_to(tmp_path)), "bus/nats.conf"}


async def test_everything_is_its_owners_alone_and_the_server_file_holds_no_seed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    await init(Config(), InitOptions(home=home))
    paths = [home, *home.rglob("*")]
    assert not [str(path) for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]
    text = contents(home)["bus/nats.conf"].decode()
    assert not [1 for path in home.rglob("*.seed") if path.read_text() in text]


async def test_a_broken_seed_is_named_and_not_replaced(tmp_path: Path) -> None:
    where = await init(Config(), InitOptions(home=tmp_path))
    broken = Path(where.seeds["chunk"]) / "bus.seed"
    broken.write_text("SUA")
    with pytest.raises(ConfigError, match="no nkey seed"):
        await init(Config(), InitOptions(home=tmp_path))
    assert broken.read_text() == "SUA"


async def test_a_token_file_that_is_missing_or_no_token_is_one_line(tmp_path: Path) -> None:
    token = tmp_path / "token"
    config = Config(gateway=GatewaySettings(token_file=str(token)))
    with pytest.raises(CannotStart, match="cannot read"):
        await init(config, InitOptions(home=tmp_path / "home"))
    token.write_text("one\ntwo\n")
    with pytest.raises(CannotStart, match="one word"):
        await init(config, InitOptions(home=tmp_path / "home"))


async def test_a_server_from_it_lets_services_in_and_has_the_layout(tmp_path: Path) -> None:
    port = free_port()
    url = f"nats://127.0.0.1:{port}"
    where = await init(Config(), InitOptions(home=tmp_path / "home", nats_port=port))
    server = await asyncio.create_subprocess_exec(
        str(find_binary()), "-c", where.nats_config, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        written = contents(tmp_path / "home" / "bus")
        await init(Config(), InitOptions(home=tmp_path / "home", nats_url=url))
        assert contents(tmp_path / "home" / "bus") == written, "how the server is run was said by the first call"
        seed = (Path(where.seeds["gateway"]) / "bus.seed").read_text()
        bus = await nats_bus.connect(url, "gateway-1", seed=seed, service="gateway")
        try:
            flags = await bus.kv(BUCKET_FLAGS)
            await flags.put("x", b"1")
        finally:
            await bus.close()
    finally:
        server.kill()
        await server.wait()


async def test_keep_makes_again_what_is_lost(tmp_path: Path) -> None:
    """With the keeper's seed alone, as a container would run it."""
    port = free_port()
    url = f"nats://127.0.0.1:{port}"
    where = await init(Config(), InitOptions(home=tmp_path / "home", nats_port=port))
    seed_file = str(Path(where.seeds["keeper"]) / "bus.seed")
    seed = read_seed("", seed_file)
    pulse = tmp_path / "pulse"
    config = Config(node=NodeSettings(pulse_file=str(pulse)), bus=BusSettings(url=url, seed_file=seed_file))
    keeping = asyncio.create_task(keep(config))  # before the server
    server = await asyncio.create_subprocess_exec(
        str(find_binary()), "-c", where.nats_config, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        looking = await _connected(url, seed)
        for _ in range(2):
            async with asyncio.timeout(20):
                while not await is_laid_out(looking.connection, "node"):
                    await asyncio.sleep(0.05)
            await api(looking.connection, f"STREAM.DELETE.KV_{BUCKET_FLAGS}", {})
        await looking.close()
        assert judge(pulse, time.time()) == (True, "keeper: ready")
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        server.kill()
        await server.wait()
    assert not pulse.exists()


async def test_keep_once_ends_when_the_layout_is_made(tmp_path: Path) -> None:
    port = free_port()
    where = await init(Config(), InitOptions(home=tmp_path / "home", nats_port=port))
    seed_file = str(Path(where.seeds["keeper"]) / "bus.seed")
    bus = BusSettings(url=f"nats://127.0.0.1:{port}", seed_file=seed_file)
    making = asyncio.create_task(keep(Config(bus=bus), once=True))  # before the server
    server = await asyncio.create_subprocess_exec(
        str(find_binary()), "-c", where.nats_config, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            await making
        looking = await _connected(bus.url, read_seed("", seed_file))
        assert await is_laid_out(looking.connection, "node")
        await looking.close()
    finally:
        making.cancel()
        server.kill()
        await server.wait()


async def test_what_a_newer_version_wrote_is_refused_at_once(tmp_path: Path) -> None:
    """By the keeper and by a service, with a line that says what to do; and so is its home."""
    port = free_port()
    home = tmp_path / "home"
    where = await init(Config(), InitOptions(home=home, nats_port=port))
    bus = BusSettings(url=f"nats://127.0.0.1:{port}", seed_file=str(Path(where.seeds["keeper"]) / "bus.seed"))
    server = await asyncio.create_subprocess_exec(
        str(find_binary()), "-c", where.nats_config, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await keep(Config(bus=bus), once=True)
        looking = await _connected(bus.url, read_seed("", bus.seed_file))
        await append(looking.connection, f"$KV.{BUCKET_LAYOUT}.{SCHEMA_KEY}", b"99")
        await looking.close()
        for once in (True, False):
            with pytest.raises(CannotStart, match="its schema is 99"):
                await asyncio.wait_for(keep(Config(bus=bus), once=once), 20)
        environment = child_environment(
            {
                "SWARMBRIDGE_NODE_HOME": str(tmp_path / "chunk"),
                "SWARMBRIDGE_BUS_URL": bus.url,
                "SWARMBRIDGE_BUS_SEED_FILE": str(Path(where.seeds["chunk"]) / "bus.seed"),
            }
        )
        service = await asyncio.create_subprocess_exec(
            *service_command("chunk"), env=environment, stderr=asyncio.subprocess.PIPE
        )
        _, said = await asyncio.wait_for(service.communicate(), 60)
        assert service.returncode == exit_codes.CANNOT_START
        assert b"its schema is 99" in said
        assert b"Traceback" not in said
    finally:
        server.kill()
        await server.wait()
    (home / "schema").write_text("99\n")
    with pytest.raises(ConfigError, match="newer version"):
        await init(Config(), InitOptions(home=home))


async def _connected(url: str, seed: str | None) -> NatsBus:
    """As soon as the server is there."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await nats_bus.connect(url, "keeper-2", seed=seed, service="keeper")
            except BusError:
                await asyncio.sleep(0.05)
