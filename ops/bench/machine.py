"""On what it was measured: figures without this are worth little."""

from __future__ import annotations

import asyncio
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("nats-py", "aiortc", "msgspec", "uvloop", "cryptography")
VERSION_LIMIT_S = 5.0


async def describe(nats_binary: Path) -> dict[str, str]:
    """What this machine and the software under test are. load: how busy the machine was before we began."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": await asyncio.to_thread(_cpu_model),
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
        "nats-server": await _nats_version(nats_binary),
        **{package: _version(package) for package in PACKAGES},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


async def _nats_version(binary: Path) -> str:
    process = await asyncio.create_subprocess_exec(str(binary), "--version", stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(VERSION_LIMIT_S):
        output, _ = await process.communicate()
    return output.decode().rpartition("v")[2].strip()
