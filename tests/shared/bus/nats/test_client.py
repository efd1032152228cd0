"""What importing the bus brings with it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("first", ["", "import aiohttp; "])
def test_the_bus_needs_no_http_client(first: str) -> None:
    """nats-py imports one for WebSocket URLs; who needs it for itself still gets it, before or after."""
    loaded = "import sys; import shared.bus.nats.bus; print('aiohttp' in sys.modules)"
    code = f"{first}{loaded}; import aiohttp; aiohttp.ClientSession"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == [str(bool(first))]
