"""What a process does not use it does not import: imports are most of what starting costs, in time and in memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

DRAWING = frozenset({"rich", "click"})
BACKENDS = frozenset({"opentelemetry.exporter", "requests", "urllib3"})
"""OTLP's exporter and what it brings: only where an endpoint is configured."""
OPTIONAL = frozenset({"aiortc", "av", "libtorrent", "numpy"})
"""Loaded by the worker that has them, off its event loop, or by the nursery."""

UNUSED = {
    "services.manager.app": DRAWING | BACKENDS | OPTIONAL | {"obstore"},
    "services.chunk.app": DRAWING | BACKENDS | OPTIONAL,
    "services.gateway.app": DRAWING | BACKENDS | OPTIONAL | {"obstore"},
    "services.broadcast.app": DRAWING | BACKENDS | OPTIONAL | {"obstore"},
    "services.webrtc.app": DRAWING | BACKENDS | OPTIONAL | {"obstore"},
    "services.webtorrent.app": DRAWING | BACKENDS | OPTIONAL | {"obstore"},
    "services.rendezvous.app": DRAWING | BACKENDS | OPTIONAL | {"obstore", "nats", "opentelemetry.sdk"},
    "services.supervisor.app": DRAWING | BACKENDS | OPTIONAL | {"obstore", "opentelemetry.sdk"},
    "services.supervisor.nursery.start": DRAWING | BACKENDS | OPTIONAL | {"asyncio", "aiohttp", "nats", "cryptography"},
    "services.cli.__main__": DRAWING | {"asyncio", "aiohttp", "msgspec"},
    "services.cli.commands": {"rich", "asyncio", "aiohttp", "msgspec"},
    "services.cli.version_command": {"rich", "asyncio", "aiohttp", "msgspec"},
    "services.cli.put_command": {"rich.progress", "asyncio", "aiohttp"},
    "services.cli.get_command": {"rich.progress", "asyncio", "aiohttp"},
}


@pytest.mark.parametrize("module", sorted(UNUSED))
def test_nothing_is_loaded_that_is_not_used(module: str) -> None:
    code = f"import sys, {module}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & UNUSED[module]
