"""What the tests of `swarmbridge why` share: two real nodes, and what is done with them in short words."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.node import Node
from services.supervisor.machine.pair import Pair
from services.supervisor.machine.processes import Child
from shared.gateway_api.structs import Transfer
from shared.transports import ORDER
from tests.services.cli.run_cli import run_cli

MIB = 2**20
DEADLINE_S = 25.0
POLL_S = 0.02
TRANSPORTS = tuple(name.value for name in ORDER)
Json = dict[str, Any]


class Nodes(Pair):
    """A holds, B fetches and is asked why."""

    def rendezvous(self) -> Child:
        return next(child for child in self._children if child.program.name == "rendezvous")


class Scene:
    """What a test does, in short words."""

    def __init__(self, nodes: Nodes, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.nodes = nodes
        self.folder = folder
        self._file = folder / "film.bin"
        self._capsys = capsys

    async def cli(self, *arguments: str, code: int = 0, node: Node | None = None) -> str:
        """A command line of a node's operator, B's where none is said; its stdout."""
        home = (node or self.nodes.b).plan.config.home
        result = await run_cli(self._capsys, *arguments, "--home", str(home))
        assert result.code == code, result.err
        return result.out

    async def only(self, *transports: str) -> None:
        """Switch B's other transports off, and these on."""
        now = await self.nodes.b.api.transports()
        for name in TRANSPORTS:
            if now[name].enabled != (name in transports):
                await self.cli("flags", name, "on" if name in transports else "off")

    async def why(self, subject: str) -> Json:
        result = await run_cli(self._capsys, "why", subject, "--json", "--home", str(self.nodes.b.plan.config.home))
        assert result.code == 0, result.out
        found: Json = result.json
        return found

    async def why_once(self, subject: str, ready: Callable[[Json], object]) -> Json:
        """The verdict once it is as wanted: a worker is missed after 3 s only."""
        found: Json = {}
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not ready(found := await self.why(subject)):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(found) from None
        return found

    async def put(self, mib: int) -> str:
        """A new file on A. Returns: its link."""
        await asyncio.to_thread(self._file.write_bytes, os.urandom(mib * MIB))
        put = await self.ended(self.nodes.a.api, await self.nodes.a.api.put(self._file, "film.bin"))
        assert put.link
        return put.link

    async def new_link(self) -> str:
        """Of a new file of one chunk on A."""
        return await self.put(1)

    async def got(self, mib: int = 1) -> str:
        """Have B fetch a new file. Returns: the transfer."""
        transfer = await self.nodes.b.api.fetch(await self.put(mib))
        await self.done(transfer)
        return transfer

    async def got_so(self, ready: Callable[[Json], object], subject: str = "") -> Json:
        """The verdict on a fetch, or on `subject` after one; another file where the machine's load made it a hedge."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                transfer = await self.got()
                if ready(found := await self.why(subject or transfer)):
                    return found

    async def ended(self, api: Any, transfer: str) -> Transfer:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                now: Transfer = await api.transfer(transfer)
                if now.state != "running":
                    return now
                await asyncio.sleep(POLL_S)

    async def fetched(self, new_link: Callable[[], Awaitable[str]], *, spared: bool = False) -> Json:
        """Have B fetch a file of one chunk: the verdict when both of its deliveries are recorded.

        new_link: of a new file. Once more with another one where the machine's load started a hedge, or (but for
        `spared`) has let a circuit open.
        """
        async with asyncio.timeout(DEADLINE_S):
            while True:
                transfer = await self.nodes.b.api.fetch(await new_link())
                await self.done(transfer)
                found = await self.why_once(transfer, _is_whole)
                hedged = any(row["hedged"] for row in found["timeline"])
                if not hedged and (spared or "circuit_open" not in causes_of(found)):
                    return found

    async def give_up(self, transfer: str) -> None:
        """B's operator does not want it any more."""
        await self.nodes.b.api.cancel(transfer)

    async def done(self, transfer: str) -> None:
        """Wait until B has it."""
        ended = await self.ended(self.nodes.b.api, transfer)
        assert ended.state == "done", await self.why(transfer)

    async def linked(self, transport: str, peers: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while (await self.nodes.b.api.transports())[transport].connected_peers != peers:
                await asyncio.sleep(0.1)

    async def serving(self, transport: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while (await self.nodes.b.api.transports())[transport].state not in ("ready", "active"):
                await asyncio.sleep(0.1)

    async def all_linked(self) -> None:
        for transport in TRANSPORTS:
            await self.linked(transport, 1)


@asynccontextmanager
async def scene_of_two_nodes(folder: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Scene]:
    """Both nodes ready, in development, where chaos may be set."""
    nodes = Nodes(folder / "pair", environment="development")
    try:
        await nodes.start(find_binary())
        yield Scene(nodes, folder, capsys)
    finally:
        await nodes.clear()


def changes_of(found: Json, kind: str) -> list[Json]:
    return [change for change in found["changes"] if change["kind"] == kind]


def causes_of(found: Json) -> list[str]:
    """The causes in its list, each of which has its sentence."""
    assert all(row["sentence"] for row in found["causes"])
    return [row["cause"] for row in found["causes"]]


def reasons_of(found: Json) -> list[tuple[str, str]]:
    """(transport, cause) of each reason."""
    return [(reason["transport"], reason["cause"]) for reason in found["reasons"]]


def hops_of(found: Json, transport: str) -> Sequence[Json]:
    """The rows of its timeline over a transport."""
    return [row for row in found["timeline"] if row["transport"] == transport]


def _is_whole(found: Json) -> bool:
    """Whether the two deliveries of a file of one chunk are recorded: the records come by their own way."""
    confirmed: int = sum(row["count"] for row in found["timeline"] if row["outcome"] == "confirmed")
    return confirmed >= 2
