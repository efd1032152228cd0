"""What shared.bus.contract.Bus promises, held against the fake and against a real nats-server."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import msgspec
import pytest

from shared.bus.contract import Incoming, KvEntry
from shared.bus.messages.envelopes import Done, ManagerMessage, Ping, Pong, Range, Taken, Verdict
from shared.bus.messages.records import HopRecord
from shared.bus.messages.subjects import BUCKET_LEASES, STREAM_HOPS, Subjects
from shared.clock import unix_ms
from shared.errors import BusTimeout, BusUnavailable, Cause, NoResponders, RemoteFailure, SwarmbridgeError
from tests.fakes.waiting import until
from tests.shared.bus.conftest import NODE, World

SUBJECTS = Subjects(NODE)
ASK = SUBJECTS.worker("w1")


async def pong(body: Ping, incoming: Incoming) -> Pong:
    return Pong(body.calls)


def hop(number: int, delivery: str = "d") -> HopRecord:
    return HopRecord(
        delivery, number, "webrtc", "peer-1", "failed", Cause.SILENT, "", None, False, 1, 2.0, 3, "", "", "m"
    )


async def test_request_reaches_a_server_and_returns_its_answer(world: World) -> None:
    server, caller = await world.bus("s1"), await world.bus("a1")
    seen: list[Incoming] = []

    async def handler(body: Ping, incoming: Incoming) -> Pong:
        seen.append(incoming)
        return Pong(body.calls)

    await server.serve(ASK, Ping, handler)
    assert await caller.request(ASK, Ping([b"one"]), Pong, 2.0) == Pong([b"one"])
    assert seen[0].subject == ASK
    assert 1.0 < seen[0].remaining_s(unix_ms(), 9.0) <= 2.1


async def test_nobody_there_is_known_at_once(world: World) -> None:
    caller = await world.bus("a1")
    started = time.monotonic()
    with pytest.raises(NoResponders):
        await caller.request(ASK, Ping(), Pong, 5.0)
    assert time.monotonic() - started < 1.0


async def test_interest_is_live_when_serve_returns_and_gone_when_close_does(world: World) -> None:
    server, caller = await world.bus("s1"), await world.bus("a1")
    for _ in range(50):
        served = await server.serve(ASK, Ping, pong)
        assert await caller.request(ASK, Ping(), Pong, 1.0) == Pong()
        await served.close()
        with pytest.raises(NoResponders):
            await caller.request(ASK, Ping(), Pong, 1.0)


async def test_answers_none_raised_and_crashed(world: World) -> None:
    server, caller = await world.bus("s1"), await world.bus("a1")

    async def handler(body: Ping, incoming: Incoming) -> None:
        match body.calls:
            case [b"busy"]:
                raise RemoteFailure(Cause.BUSY, 1.5)
            case [b"refuse"]:
                raise SwarmbridgeError(Cause.FORBIDDEN)
            case [b"crash"]:
                raise ValueError("secret text")
            case _:
                pass

    await server.serve(ASK, Ping, handler)
    assert await caller.request(ASK, Ping(), Done, 1.0) == Done()
    for word, cause, retry_after_s in [
        (b"busy", Cause.BUSY, 1.5),
        (b"refuse", Cause.FORBIDDEN, 0.0),
        (b"crash", Cause.OTHER, 0.0),
    ]:
        with pytest.raises(RemoteFailure) as failure:
            await caller.request(ASK, Ping([word]), Done, 1.0)
        assert (failure.value.cause, failure.value.retry_after_s) == (cause, retry_after_s)


async def test_a_bug_of_ours_is_logged_by_its_place_and_counted(world: World, caplog: pytest.LogCaptureFixture) -> None:
    server, caller = await world.bus("s1"), await world.bus("a1")

    async def handler(body: Ping, incoming: Incoming) -> None:
        raise ValueError("secret text")

    await server.serve(ASK, Ping, handler)
    with pytest.raises(RemoteFailure):
        await caller.request(ASK, Ping(), Done, 1.0)
    assert server.counts.crashed == 1
    [record] = [record for record in caplog.records if record.name == "shared.bus.serving"]
    assert "ValueError at tests/shared/bus/test_contract.py:" in record.getMessage()
    assert "secret" not in caplog.text


async def test_silence_is_a_timeout(world: World) -> None:
    server, caller = await world.bus("s1"), await world.bus("a1")

    async def never(body: Ping, incoming: Incoming) -> None:
        await asyncio.Event().wait()

    await server.serve(ASK, Ping, never)
    with pytest.raises(BusTimeout):
        await caller.request(ASK, Ping(), Done, 0.1)
    await world.kill(server)


async def test_handlers_run_side_by_side_and_one_too_many_is_busy(world: World) -> None:
    server, caller = await world.bus("s1"), await world.bus("a1")
    go, running = asyncio.Event(), 0

    async def handler(body: Ping, incoming: Incoming) -> None:
        nonlocal running
        running += 1
        await go.wait()

    await server.serve(ASK, Ping, handler, max_concurrent=3)
    requests = [asyncio.create_task(caller.request(ASK, Ping(), Done, 5.0)) for _ in range(3)]
    await until(lambda: running == 3)
    with pytest.raises(RemoteFailure) as failure:
        await caller.request(ASK, Ping(), Done, 1.0)
    assert failure.value.cause is Cause.BUSY
    assert failure.value.retry_after_s > 0
    assert server.counts.busy == 1
    go.set()
    assert await asyncio.gather(*requests) == [Done()] * 3


async def test_a_wrong_body_is_invalid_and_a_wrong_reply_too(world: World) -> None:
    server, caller = await world.bus("s1"), await world.bus("a1")
    await server.serve(ASK, Ping, pong)
    with pytest.raises(RemoteFailure) as failure:
        await caller.request(ASK, Taken("not a ping"), Pong, 1.0)
    assert failure.value.cause is Cause.INVALID
    assert server.counts.undecodable == 1
    with pytest.raises(RemoteFailure) as failure:
        await caller.request(ASK, Ping([b"x"]), Taken, 1.0)
    assert failure.value.cause is Cause.INVALID


async def test_unions_are_distinguished_by_their_tags(world: World) -> None:
    server, caller = await world.bus("s1"), await world.bus("a1")

    async def handler(body: ManagerMessage, incoming: Incoming) -> Pong:
        return Pong([type(body).__name__.encode()])

    await server.serve(ASK, ManagerMessage, handler)
    assert await caller.request(ASK, Ping(), Pong, 1.0) == Pong([b"Ping"])
    assert await caller.request(ASK, Verdict(b"d", 1, None, 2), Pong, 1.0) == Pong([b"Verdict"])


async def test_bytes_arrive_whole_and_too_large_is_said(world: World) -> None:
    server, caller = await world.bus("s1"), await world.bus("a1")
    data = bytes(range(256)) * 1024

    async def handler(body: Ping, incoming: Incoming) -> Range:
        return Range(memoryview(data if not body.calls else bytes(3_000_000)))

    await server.serve(ASK, Ping, handler)
    answer = await caller.request(ASK, Ping(), Range, 2.0)
    assert isinstance(answer.data, memoryview)
    assert bytes(answer.data) == data
    with pytest.raises(RemoteFailure) as failure:
        await caller.request(ASK, Ping([b"big"]), Range, 2.0)
    assert failure.value.cause is Cause.TOO_LARGE
    with pytest.raises(SwarmbridgeError) as error:
        await caller.publish(ASK, Range(memoryview(bytes(3_000_000))))
    assert error.value.cause is Cause.TOO_LARGE


async def test_a_queue_group_gets_each_message_once_and_others_all(world: World) -> None:
    first, second, listener, caller = [await world.bus(name) for name in ("s1", "s2", "l1", "a1")]
    got: dict[str, int] = {"s1": 0, "s2": 0, "l1": 0}

    def counting(name: str) -> object:
        async def handler(body: Ping, incoming: Incoming) -> None:
            got[name] += 1

        return handler

    await first.serve(ASK, Ping, counting("s1"), queue="q")  # type: ignore[arg-type]
    await second.serve(ASK, Ping, counting("s2"), queue="q")  # type: ignore[arg-type]
    await listener.serve(SUBJECTS.worker("*"), Ping, counting("l1"))  # type: ignore[arg-type]
    for _ in range(60):
        await caller.publish(ASK, Ping())
    await until(lambda: got["s1"] + got["s2"] == 60 and got["l1"] == 60)
    assert got["s1"] > 5
    assert got["s2"] > 5


async def test_wildcards(world: World) -> None:
    server, caller = await world.bus("s1"), await world.bus("a1")
    await server.serve(f"sb.{NODE}.link.*.x", Ping, pong)
    await server.serve(f"sb.{NODE}.event.>", Ping, pong)
    for subject, served in [
        ("link.webrtc.x", True),
        ("link.webrtc.y", False),
        ("link.webrtc.x.z", False),
        ("event.a", True),
        ("event.a.b", True),
        ("event", False),
    ]:
        asked = caller.request(f"sb.{NODE}.{subject}", Ping(), Pong, 1.0)
        if served:
            assert await asked == Pong()
        else:
            with pytest.raises(NoResponders):
                await asked


async def test_a_killed_server_times_out_then_is_nobody(world: World) -> None:
    server, caller = await world.bus("s1"), await world.bus("a1")
    asked = asyncio.Event()

    async def never(body: Ping, incoming: Incoming) -> None:
        asked.set()
        await asyncio.Event().wait()

    await server.serve(ASK, Ping, never)
    request = asyncio.create_task(caller.request(ASK, Ping(), Pong, 0.5))
    await asked.wait()
    await world.kill(server)
    with pytest.raises(BusTimeout):
        await request
    with pytest.raises(NoResponders):
        await caller.request(ASK, Ping(), Pong, 0.5)


async def test_close_lets_handlers_finish(world: World) -> None:
    server, caller = await world.bus("s1"), await world.bus("a1")
    started, go = asyncio.Event(), asyncio.Event()

    async def handler(body: Ping, incoming: Incoming) -> None:
        started.set()
        await go.wait()

    await server.serve(ASK, Ping, handler)
    request = asyncio.create_task(caller.request(ASK, Ping(), Done, 3.0))
    await started.wait()
    closing = asyncio.create_task(server.close())
    asyncio.get_running_loop().call_later(0.05, go.set)
    assert await request == Done()
    await closing
    assert not server.connected
    with pytest.raises(BusUnavailable):
        await server.publish(ASK, Ping())


async def test_kv_compare_and_set(world: World) -> None:
    one, two = await world.bus("s1"), await world.bus("s2")
    mine, theirs = await one.kv(BUCKET_LEASES), await two.kv(BUCKET_LEASES)
    assert await mine.get("signal") is None
    revision = await mine.create("signal", b"one", 10.0)
    assert revision is not None
    assert await theirs.create("signal", b"two", 10.0) is None
    entry = await theirs.get("signal")
    assert entry is not None
    assert (entry.key, entry.value, entry.revision) == ("signal", b"one", revision)
    renewed = await mine.update("signal", b"one", revision, 10.0)
    assert renewed is not None
    assert renewed > revision
    assert await theirs.update("signal", b"two", revision, 10.0) is None
    await theirs.put("other.key", b"x")
    assert await mine.keys() == ["other.key", "signal"]
    await mine.delete("signal")
    assert await theirs.get("signal") is None
    assert await mine.keys() == ["other.key"]
    assert await theirs.create("signal", b"two") is not None


async def test_kv_entry_expires_and_can_be_created_again(world: World) -> None:
    bus = await world.bus("s1")
    leases = await bus.kv(BUCKET_LEASES)
    assert await leases.create("signal", b"one", 1.0)
    deadline = time.monotonic() + 5
    while await leases.create("signal", b"two", 1.0) is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    entry = await leases.get("signal")
    assert entry is not None
    assert entry.value == b"two"


async def test_kv_watch_starts_with_what_is_there_and_follows(world: World) -> None:
    one, two = await world.bus("s1"), await world.bus("s2")
    mine, theirs = await one.kv(BUCKET_LEASES), await two.kv(BUCKET_LEASES)
    await theirs.put("a", b"1")
    await theirs.put("gone", b"1")
    await theirs.delete("gone")
    entries: list[KvEntry] = []
    watch = await mine.watch(entries.append)
    assert [(entry.key, entry.value) for entry in entries] == [("a", b"1")]
    await theirs.put("a", b"2")
    await theirs.put("b", b"3")
    await theirs.delete("a")
    await until(lambda: len(entries) == 4)
    assert [(entry.key, entry.value) for entry in entries[1:]] == [("a", b"2"), ("b", b"3"), ("a", None)]
    await watch.close()
    await theirs.put("a", b"4")
    assert len(entries) == 4


async def test_records_are_stored_once_and_followed_in_order(world: World) -> None:
    one, two = await world.bus("s1"), await world.bus("s2")
    got: list[int] = []

    def on_record(record: HopRecord, stored_ms: int) -> None:
        assert abs(stored_ms - unix_ms()) < 5000
        got.append(record.number)

    for number in range(1, 6):
        await one.append(SUBJECTS.hop("webrtc"), hop(number), f"d.{number}")
    await one.append(SUBJECTS.hop("webrtc"), hop(5), "d.5")
    follower = await two.follow(STREAM_HOPS, HopRecord, on_record)
    await until(lambda: len(got) == 5)
    await one.append(SUBJECTS.hop("webtorrent"), hop(6), "d.6")
    await until(lambda: len(got) == 6)
    assert got == [1, 2, 3, 4, 5, 6]
    await follower.close()


async def test_after_an_interruption_all_goes_on_and_nothing_comes_twice(world: World) -> None:
    one, two = await world.bus("s1"), await world.bus("s2")
    await one.serve(ASK, Ping, pong)
    leases = await one.kv(BUCKET_LEASES)
    await leases.put("a", b"1")
    entries: list[tuple[str, bytes | None]] = []
    records: list[int] = []
    back: list[str] = []
    await leases.watch(lambda entry: entries.append((entry.key, entry.value)))
    await one.append(SUBJECTS.hop("webrtc"), hop(1), "d.1")
    await one.follow(STREAM_HOPS, HopRecord, lambda record, stored_ms: records.append(record.number))
    one.on_reconnect(lambda: back.append("one"))

    await world.interrupt(one, two)

    await until(lambda: back == ["one"])
    assert await two.request(ASK, Ping(), Pong, 1.0) == Pong()
    theirs = await two.kv(BUCKET_LEASES)
    await theirs.put("b", b"2")
    await two.append(SUBJECTS.hop("webrtc"), hop(2), "d.2")
    await until(lambda: len(entries) == 2 and len(records) == 2)
    assert entries == [("a", b"1"), ("b", b"2")]
    assert records == [1, 2]


async def test_a_closed_bus_says_so(world: World) -> None:
    bus = await world.bus("a1")
    await bus.close()
    with suppress(BusUnavailable):
        await bus.serve(ASK, Ping, pong)
        pytest.fail("served on a closed bus")
    with pytest.raises(BusUnavailable):
        await bus.request(ASK, Ping(), Pong, 0.1)


def test_bodies_of_the_contract_are_structs() -> None:
    assert issubclass(Pong, msgspec.Struct)
