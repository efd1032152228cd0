from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.gateway.transfers import limits
from services.gateway.transfers.spool import Spool
from shared.errors import Cause, SwarmbridgeError


async def _parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.sweep()
    return spool


def test_the_folder_is_private_and_swept(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o755)
    (folder / "upload-left").write_bytes(b"x")
    Spool(folder).sweep()
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o700


async def test_what_is_written_is_read_by_ranges(spool: Spool) -> None:
    data = os.urandom(3 * limits.MIB + 17)
    file = spool.open()
    await file.write_all(_parts(data[:10], data[10 : 2 * limits.MIB], data[2 * limits.MIB :]), len(data))
    assert file.length == len(data)
    assert await file.read(5, 2 * limits.MIB) == data[5 : 5 + 2 * limits.MIB]
    with pytest.raises(SwarmbridgeError) as caught:
        await file.read(len(data), 1)
    assert caught.value.cause is Cause.SOURCE_LOST
    file.close()
    file.close()
    with pytest.raises(SwarmbridgeError):
        await file.read(0, 1)


async def test_one_byte_too_many_is_refused(spool: Spool) -> None:
    file = spool.open()
    with pytest.raises(SwarmbridgeError) as caught:
        await file.write_all(_parts(b"x" * 100, b"x"), 100)
    assert caught.value.cause is Cause.TOO_LARGE
    file.close()


async def test_an_upload_that_stands_still_ends(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPLOAD_STALL_S", 0.01)

    async def stuck() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    file = spool.open()
    with pytest.raises(SwarmbridgeError) as caught:
        await file.write_all(stuck(), 100)
    assert caught.value.cause is Cause.TIMEOUT
    file.close()


async def test_closing_waits_for_a_read_in_flight(spool: Spool) -> None:
    file = spool.open()
    await file.write_all(_parts(b"x" * limits.MIB), limits.MIB)
    reading = asyncio.create_task(file.read(0, limits.MIB))
    await asyncio.sleep(0)
    reading.cancel()
    file.close()
    with pytest.raises(asyncio.CancelledError):
        await reading
