"""A fake gateway for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.gateway import FakeGateway, fake_gateway


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[FakeGateway]:
    home = tmp_path / "home"
    home.mkdir()
    async with fake_gateway(home) as running:
        yield running
