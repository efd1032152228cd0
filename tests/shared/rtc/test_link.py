"""Links over real aiortc connections on loopback."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace

import pytest

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError, TransportError
from shared.rtc.contract import MAX_RECORD_BYTES, LinkSettings
from shared.rtc.link import HIGH_MARK_BYTES
from shared.settings.rendezvous import IceServer
from tests.fakes.waiting import until
from tests.shared.rtc.pair import LOOPBACK, End, close, connect

RECORD = 64 * 1024 - 1
TRANSFER_BYTES = 4 * 1024 * 1024


async def test_records_arrive_whole_in_order_with_bounded_buffer() -> None:
    dialer, listener = End(), End()
    await connect(dialer, listener)
    records = [os.urandom(RECORD) for _ in range(TRANSFER_BYTES // RECORD + 1)]
    most = 0
    for record in records:
        await dialer.link.send(record)
        most = max(most, dialer.link.queued_bytes)
    await until(lambda: len(listener.messages) == len(records), timeout_s=20)
    assert listener.messages == records
    assert RECORD < most <= HIGH_MARK_BYTES
    await close(dialer, listener)


@pytest.mark.parametrize("kind", ["stun", "turn"])
async def test_an_ice_server_that_is_silent_does_not_hold_up_an_offer(kind: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"{kind}:127.0.0.1:{silent.getsockname()[1]}"
        with_server = replace(LOOPBACK, ice_servers=(IceServer([url], "name", "word"),))
        dialer, listener = End(with_server), End(with_server)
        async with asyncio.timeout(4.5):  # aioice's own wait is 5 s at either end
            await connect(dialer, listener)
        await close(dialer, listener)


async def test_an_ice_server_that_cannot_be_read_is_our_own_fault() -> None:
    dialer = End(replace(LOOPBACK, ice_servers=(IceServer(["nonsense"]),)))
    with pytest.raises(TransportError) as raised:
        await dialer.link.offer("test")
    assert raised.value.cause is Cause.MISCONFIGURED
    await close(dialer)


async def test_both_ends_know_the_same_fingerprints_dialer_first() -> None:
    dialer, listener = End(), End()
    with pytest.raises(LocalProtocolError):
        dialer.link.fingerprints()
    await connect(dialer, listener)
    first, second = dialer.link.fingerprints()
    assert (first, second) == listener.link.fingerprints()
    assert len(first) == len(second) == 32
    assert first != second
    await close(dialer, listener)


async def test_close_reaches_the_remote_peer_and_comes_once() -> None:
    dialer, listener = End(), End()
    await connect(dialer, listener)
    await asyncio.gather(dialer.link.close(Cause.DRAINING), dialer.link.close(Cause.OTHER))
    await until(lambda: listener.closed)
    assert dialer.closed == [Cause.DRAINING]
    assert listener.closed == [Cause.CLOSED]
    with pytest.raises(TransportError) as refused:
        await dialer.link.send(b"late")
    assert refused.value.cause is Cause.CLOSED
    await close(listener)
    assert listener.closed == [Cause.CLOSED]


async def test_a_send_that_waits_ends_with_the_link() -> None:
    dialer, listener = End(), End()
    await connect(dialer, listener)

    async def flood() -> None:
        while True:
            await dialer.link.send(bytes(RECORD))

    flooding = asyncio.create_task(flood())
    await until(lambda: dialer.link.queued_bytes > HIGH_MARK_BYTES - 2 * RECORD)
    await dialer.link.close()
    with pytest.raises(TransportError) as ended:
        await asyncio.wait_for(flooding, 2)
    assert ended.value.cause is Cause.CLOSED
    await close(listener)


async def test_candidates_are_only_on_the_address_asked_for() -> None:
    end = End()
    sdp = await end.link.offer("test")
    candidates = [line for line in sdp.splitlines() if line.startswith("a=candidate:")]
    assert len(candidates) == 1
    assert candidates[0].split()[4] == "127.0.0.1"
    assert "a=end-of-candidates" in sdp
    await close(end)


async def test_an_oversized_record_is_refused_before_it_is_sent() -> None:
    dialer, listener = End(), End()
    await connect(dialer, listener)
    with pytest.raises(TransportError) as refused:
        await dialer.link.send(bytes(MAX_RECORD_BYTES + 1))
    assert refused.value.cause is Cause.TOO_LARGE
    assert dialer.link.is_open
    await close(dialer, listener)


async def test_an_oversized_record_from_the_remote_peer_closes_the_link() -> None:
    dialer, listener = End(replace(LOOPBACK, max_message_bytes=200_000)), End()
    await connect(dialer, listener)
    await dialer.link.send(bytes(MAX_RECORD_BYTES + 1))
    await until(lambda: listener.closed)
    assert listener.closed == [Cause.TOO_LARGE]
    assert listener.messages == []
    await close(dialer, listener)


async def test_an_unordered_channel_is_refused() -> None:
    dialer, listener = End(), End()
    offer = await dialer.link.offer("test", ordered=False)
    await dialer.link.accept_answer(await listener.link.accept_offer(offer))
    await until(lambda: listener.closed)
    assert listener.closed == [Cause.INVALID]
    assert listener.opened == 0
    await close(dialer, listener)


async def test_an_offer_that_is_none_is_the_peers_fault() -> None:
    listener = End()
    with pytest.raises(RemoteProtocolError):
        await listener.link.accept_offer("v=0\r\n")
    await close(listener)
    assert listener.closed == [Cause.CLOSED]


async def test_a_wrong_fingerprint_never_opens() -> None:
    dialer, listener = End(), End()
    offer = await dialer.link.offer("test")
    answer = await listener.link.accept_offer(offer)
    lines = [
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) if line.startswith("a=fingerprint:sha-256") else line
        for line in answer.splitlines()
    ]
    await dialer.link.accept_answer("\r\n".join(lines) + "\r\n")
    await until(lambda: dialer.closed)
    assert dialer.closed == [Cause.ICE_FAILED]
    assert dialer.opened == 0
    await close(dialer, listener)


async def test_trickled_candidates_are_taken_and_filtered() -> None:
    dialer, listener = End(), End()
    offer = await dialer.link.offer("test")
    answer = await listener.link.accept_offer(offer)
    trickled = [line for line in answer.splitlines() if line.startswith("a=candidate:")]
    bare = [line for line in answer.splitlines() if line not in trickled and line != "a=end-of-candidates"]
    await dialer.link.accept_answer("\r\n".join(bare) + "\r\n")
    await dialer.link.add_candidate("candidate:1 1 udp 1 192.0.2.7 9 typ host", "0", 0)
    with pytest.raises(RemoteProtocolError):
        await dialer.link.add_candidate("candidate:what", "0", 0)
    assert dialer.link.refused_candidates == 1
    await dialer.link.add_candidate(trickled[0].removeprefix("a="), "0", 0)
    await until(lambda: dialer.opened and listener.opened)
    await close(dialer, listener)


async def test_no_public_server_is_asked_by_default() -> None:
    assert LinkSettings().ice_servers == ()
    end = End()
    sdp = await end.link.offer("test")
    assert "srflx" not in sdp
    await close(end)
