"""A running gateway for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.services.gateway.node import GatewayNode, gateway_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[GatewayNode]:
    async with gateway_node(tmp_path) as running:
        yield running
