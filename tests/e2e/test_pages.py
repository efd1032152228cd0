"""Pages on three broadcast workers of a whole node, behind one port: they spread, they come back by themselves when a
worker is killed or drained, and nothing that they said is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from services.supervisor.machine.nats_process import find_binary, start_nats
from services.supervisor.machine.node import SERVICES, Node, NodePlan
from services.supervisor.machine.processes import Child, Children
from shared.bus.nats.users import make_users
from shared.settings.config import BroadcastSettings, Config, NodeSettings
from tests.fakes.ports import free_port
from tests.fakes.waiting import until
from tests.services.broadcast.pages.worker import ORIGIN, SocketPage

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

WORKERS, PAGES, ROUNDS = 3, 18, 40
DEADLINE_S = 60.0


@asynccontextmanager
async def node(work: Path, broadcast: BroadcastSettings) -> AsyncIterator[Node]:
    children = Children()
    users = make_users(work / "seeds", {"n": SERVICES})
    try:
        nats = await start_nats(
            children,
            binary=find_binary(""),
            run_dir=work / "nats",
            store_dir=work / "nats" / "store",
            log_file=work / "logs" / "nats-server.log",
            accounts=users.accounts,
        )
        config = Config(node=NodeSettings(id="n", home=str(work / "home")), broadcast=broadcast)
        running = Node(NodePlan(config, nats.url, users.of_node("n"), {"broadcast": WORKERS}), children)
        try:
            await running.start()
            await running.ready()
            yield running
        finally:
            await running.stop()
    finally:
        await children.close()


async def all_present(pages: list[SocketPage]) -> None:
    await until(lambda: all(page.present == len(pages) for page in pages), timeout_s=DEADLINE_S)


async def talk(pages: list[SocketPage], number: int) -> None:
    """Every page says its next word."""
    for page in pages:
        await page.say(page.secret + number.to_bytes(4, "big"))
    await asyncio.sleep(0.02)


async def test_workers_die_and_are_drained_and_pages_lose_nothing(tmp_path: Path) -> None:
    port = free_port()
    settings = BroadcastSettings(port=port, origins=[ORIGIN], channels=["c"], max_sockets_per_address=64)
    pages = [SocketPage() for _ in range(PAGES)]
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(node(tmp_path, settings))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        staying = [asyncio.create_task(page.stay(http, f"http://127.0.0.1:{port}")) for page in pages]
        try:
            await all_present(pages)
            dead: list[Child] = running.processes("broadcast")
            for number in range(ROUNDS):
                if number == 10:
                    await dead[0].kill()
                if number == 25:
                    stack.push_async_callback(asyncio.wait, {asyncio.create_task(dead[1].stop())})
                await talk(pages, number)
            await until(lambda: not any(page.outbox for page in pages), timeout_s=DEADLINE_S)
            await until(lambda: all(len(page.heard) == (PAGES - 1) * ROUNDS for page in pages), timeout_s=DEADLINE_S)
            for page in pages:
                assert page.gaps == 0
                for other in pages:
                    said = [value for value in page.values() if value.startswith(other.secret)]
                    wanted = [other.secret + number.to_bytes(4, "big") for number in range(ROUNDS)]
                    assert said == ([] if other is page else wanted)
            await all_present(pages)
        finally:
            for task in staying:
                task.cancel()
            await asyncio.wait(staying)
            for page in pages:
                await page.gone()
