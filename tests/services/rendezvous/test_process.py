"""`python -m services.rendezvous` as a process: its address file, its signals, its exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from shared.process.address_file import ADDRESS_FILE, remove_address, write_address
from tests.services.rendezvous.conftest import DEADLINE_S, until

ROOT = Path(__file__).resolve().parents[3]


async def start(home: Path, settings: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWARMBRIDGE_")}
    environ = {**kept, "SWARMBRIDGE_NODE_HOME": str(home), "PYTHONPATH": str(ROOT), **(settings or {})}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "services.rendezvous", env=environ, stderr=asyncio.subprocess.PIPE
    )


async def end(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Its exit code and what it wrote to stderr."""
    async with asyncio.timeout(2 * DEADLINE_S):
        _, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stderr.decode()


async def test_it_says_where_it_is_and_drains_on_sigterm(tmp_path: Path) -> None:
    process = await start(tmp_path)
    file = tmp_path / ADDRESS_FILE
    try:

        async def is_ready() -> bool:
            return file.exists()

        await until(is_ready)
        address = json.loads(file.read_text())
        assert address["pid"] == process.pid
        assert file.stat().st_mode & 0o777 == 0o600
        async with aiohttp.ClientSession() as http:
            ws = await http.ws_connect(f"{address['url']}/peerjs?key=peerjs&id=secret-id&token=secret-token")
            assert (await ws.receive_str(timeout=DEADLINE_S)) == '{"type":"OPEN"}'
            process.send_signal(signal.SIGTERM)
            message = await ws.receive(timeout=DEADLINE_S)
            assert message.data == aiohttp.WSCloseCode.GOING_AWAY
        code, log = await end(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert code == 0
    assert os.listdir(tmp_path) == []
    assert "ready" in log
    assert not any(word in log for word in ("secret", "127.0.0.1"))


async def test_bad_settings_and_a_taken_port_have_their_own_exit_codes(tmp_path: Path) -> None:
    code, text = await end(await start(tmp_path, {"SWARMBRIDGE_RENDEZVOUS_PORT": "x"}))
    assert (code, text) == (2, "rendezvous: SWARMBRIDGE_RENDEZVOUS_PORT: must be a whole number\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, text = await end(await start(tmp_path, {"SWARMBRIDGE_RENDEZVOUS_PORT": port}))
    assert code == 3
    assert f"rendezvous: port {port} of 127.0.0.1 is taken" in text
    assert os.listdir(tmp_path) == []


def test_an_address_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_address(tmp_path, "http://127.0.0.1:1", "gateway.json")
    finally:
        os.umask(before)
    file = tmp_path / "gateway.json"
    assert file.stat().st_mode & 0o777 == 0o600
    remove_address(tmp_path, "gateway.json")
    assert not file.exists()


def test_a_file_that_is_none_of_ours_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / ADDRESS_FILE
    file.write_text('{"peerServers": []}')
    write_address(tmp_path, "http://127.0.0.1:1")
    remove_address(tmp_path)
    assert file.read_text() == '{"peerServers": []}'
    file.write_text('{"url": "http://127.0.0.1:2", "pid": 1}')
    write_address(tmp_path, "http://127.0.0.1:1")
    assert json.loads(file.read_text()) == {"url": "http://127.0.0.1:1", "pid": os.getpid()}
    file.write_text('{"url": "http://127.0.0.1:2", "pid": 1}')
    remove_address(tmp_path)
    assert file.exists(), "another process's"
