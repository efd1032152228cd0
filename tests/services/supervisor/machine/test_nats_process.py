"""A real nats-server as a child: ready, with accounts that keep services apart, and clear lines when it cannot."""

from __future__ import annotations

import asyncio
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.supervisor.machine.errors import CannotStart
from services.supervisor.machine.nats_process import NatsServer, find_binary, start_nats
from services.supervisor.machine.node import lay_out
from services.supervisor.machine.processes import Children
from shared.bus.messages.subjects import BUCKET_FLAGS
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.users import BusUsers, make_users
from shared.errors import BusError

SERVICES = ("chunk", "manager", "gateway", "broadcast")


@pytest.fixture
async def children() -> AsyncIterator[Children]:
    all_of_them = Children()
    yield all_of_them
    await all_of_them.close()


async def started(children: Children, tmp_path: Path, users: BusUsers) -> NatsServer:
    return await start_nats(
        children,
        binary=find_binary(),
        run_dir=tmp_path / "run",
        store_dir=tmp_path / "store",
        log_file=tmp_path / "nats.log",
        accounts=users.accounts,
    )


async def test_services_get_in_with_their_seeds_and_nobody_without(children: Children, tmp_path: Path) -> None:
    users = make_users(tmp_path / "seeds", {"a": SERVICES, "b": SERVICES})
    server = await started(children, tmp_path, users)
    await lay_out("a", server.url, {name: seeds for (node, name), seeds in users.seeds.items() if node == "a"})
    seed_file = users.seeds["a", "gateway"].node
    assert stat.S_IMODE(seed_file.stat().st_mode) == 0o600
    bus = await nats_bus.connect(server.url, "gateway-1", seed=seed_file.read_text(), service="gateway")
    try:
        flags = await bus.kv(BUCKET_FLAGS)
        await flags.put("x", b"1")
        entry = await flags.get("x")
        assert entry is not None
        assert entry.value == b"1"
    finally:
        await bus.close()
    with pytest.raises(BusError):
        await nats_bus.connect(server.url, "nobody-1", seed=None)


async def test_a_restarted_server_keeps_its_port_and_its_data(children: Children, tmp_path: Path) -> None:
    users = make_users(tmp_path / "seeds", {"a": SERVICES})
    server = await started(children, tmp_path, users)
    seeds = {name: found for (_, name), found in users.seeds.items()}
    await lay_out("a", server.url, seeds)
    await server.child.kill(restart=True)
    server.child.start()
    async with asyncio.timeout(10):
        while True:
            try:
                await lay_out("a", server.url, seeds)
                break
            except CannotStart:
                await asyncio.sleep(0.05)


async def test_a_server_that_cannot_run_says_so(children: Children, tmp_path: Path) -> None:
    users = make_users(tmp_path / "seeds", {"a": SERVICES})
    (tmp_path / "store").write_text("in the way")
    with pytest.raises((CannotStart, OSError)):
        await started(children, tmp_path, users)


async def test_a_program_that_is_no_server_says_so(children: Children, tmp_path: Path) -> None:
    users = make_users(tmp_path / "seeds", {"a": SERVICES})
    with pytest.raises(CannotStart, match="ended with code"):
        await start_nats(
            children,
            binary=Path(sys.executable),
            run_dir=tmp_path / "run",
            store_dir=tmp_path / "store",
            log_file=tmp_path / "nats.log",
            accounts=users.accounts,
        )


def test_a_missing_binary_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="--nats-binary"):
        find_binary(str(tmp_path / "none"))


def test_each_seed_is_its_own(tmp_path: Path) -> None:
    users = make_users(tmp_path, {"a": SERVICES, "b": SERVICES})
    files = [seeds.node for seeds in users.seeds.values()] + [s.mesh for s in users.seeds.values() if s.mesh]
    assert len({file.read_text() for file in files}) == len(files)
    assert users.seeds["a", "broadcast"].mesh is not None
    assert users.seeds["a", "chunk"].mesh is None
