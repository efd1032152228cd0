"""What only a real server can show: frozen and restarted servers, alarms, the layout, NATS micro, speed of interest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.bus.contract import Incoming, KvEntry
from shared.bus.messages.envelopes import Done, Ping, Pong, Range
from shared.bus.messages.records import HopRecord
from shared.bus.messages.subjects import BUCKET_FLAGS, BUCKET_LAYOUT, STREAM_HOPS, Subjects
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.connection import INBOUND_MESSAGES, kind_of
from shared.bus.nats.jetstream import Record, StreamGone, api
from shared.bus.nats.layout import (
    LAYOUT_SCHEMA,
    SCHEMA_KEY,
    NewerSchema,
    Place,
    ensure_layout,
    is_laid_out,
    refuse_newer,
    streams,
    wait_for_stream,
)
from shared.bus.nats.reader import OrderedReader
from shared.errors import BusError, BusUnavailable, Cause, NoResponders
from tests.fakes.nats_server import NatsServer, nats_server
from tests.fakes.ports import free_port
from tests.fakes.waiting import until
from tests.shared.bus.conftest import NODE, NatsWorld

N = Subjects(NODE)
ASK = N.worker("w1")


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsWorld]:
    async with nats_server(tmp_path / "nats") as server:
        world = NatsWorld(server)
        yield world
        server.thaw()
        for bus in list(world.buses):
            await bus.close()


async def pong(body: Ping, incoming: Incoming) -> Pong:
    return Pong(body.calls)


async def test_no_server_is_said_soon() -> None:
    started = time.monotonic()
    with pytest.raises(BusUnavailable):
        await nats_bus.connect(f"nats://127.0.0.1:{free_port()}", "a1")
    assert time.monotonic() - started < 2.0


@pytest.mark.parametrize(
    ("url", "cause", "words"),
    [
        ("http://localhost:4222", Cause.MISCONFIGURED, "no NATS URL"),
        ("nats://", Cause.MISCONFIGURED, "no NATS URL"),
        ("nats://localhost:99999", Cause.MISCONFIGURED, "no NATS URL"),
        ("ws://localhost:4222", Cause.MISCONFIGURED, "no NATS URL"),
        ("nats://127.0.0.1:1", Cause.BUS_UNAVAILABLE, "nothing takes connections"),
        ("nats://no.such.host.invalid:4222", Cause.BUS_UNAVAILABLE, "cannot be resolved"),
    ],
)
async def test_why_a_server_cannot_be_used(url: str, cause: Cause, words: str) -> None:
    with pytest.raises(BusError) as error:
        await nats_bus.connect(url, "a1")
    assert error.value.cause is cause
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("config", "cause", "words"),
    [
        ("max_payload: 2MB", Cause.MISCONFIGURED, "no JetStream"),
        ('jetstream {{ store_dir: "{store}", max_file_store: 50MB }}', Cause.STORE_FULL, "no room"),
        (
            'jetstream {{ store_dir: "{store}" }}\naccounts {{ a: {{ users: [{{user: u, password: p}}] }} }}\n'
            "no_auth_user: u",
            Cause.MISCONFIGURED,
            "no JetStream for our account",
        ),
    ],
)
async def test_why_streams_cannot_be_made(tmp_path: Path, config: str, cause: Cause, words: str) -> None:
    async with nats_server(tmp_path, config) as server:
        admin = await nats_bus.connect(server.url, "admin")
        with pytest.raises(BusError) as error:
            await ensure_layout(admin.connection, NODE)
        assert error.value.cause is cause
        assert words in str(error.value)
        await admin.close()


async def test_a_nearly_full_disk_is_room_enough(tmp_path: Path) -> None:
    """NATS grants three quarters of what is free: 110 MiB here, as on a disk with 147 MiB left."""
    async with nats_server(tmp_path, 'jetstream {{ store_dir: "{store}", max_file_store: 110MB }}') as server:
        admin = await nats_bus.connect(server.url, "admin")
        await ensure_layout(admin.connection, NODE)
        assert await is_laid_out(admin.connection, NODE)
        await admin.close()


async def test_a_user_that_is_refused_is_said(tmp_path: Path) -> None:
    config = "authorization {{ user: u, password: p }}"
    async with nats_server(tmp_path, config) as server:
        with pytest.raises(BusError) as error:
            await nats_bus.connect(server.url, "a1")
        assert error.value.cause is Cause.FORBIDDEN
        assert "refuses our user" in str(error.value)


async def test_a_dead_keeper_of_the_connection_is_reported(nats: NatsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns the process ends it: a bus that nobody renews does nothing any more."""
    bus = await nats.bus("s1")
    crashed: list[str] = []
    bus.on_crash(crashed.append)

    async def broken() -> bool:
        raise ValueError

    monkeypatch.setattr(bus.connection, "_renew", broken)
    await nats.server.kill()
    await until(lambda: crashed == ["nats connection"])
    await nats.server.start()


async def test_a_listener_of_reconnects_that_raises_harms_nobody(nats: NatsWorld) -> None:
    bus, other = await nats.bus("s1"), await nats.bus("a1")
    called: list[str] = []

    def bug() -> None:
        raise ValueError

    bus.on_reconnect(bug)
    bus.on_reconnect(lambda: called.append("later"))
    await bus.serve(ASK, Ping, pong)
    for _ in range(2):
        await nats.interrupt(bus, other)
        assert await other.request(ASK, Ping(), Pong, 1.0) == Pong()
    await until(lambda: len(called) == 2)


async def test_what_is_in_flight_when_the_connection_is_lost_ends_at_once(nats: NatsWorld) -> None:
    server, caller = await nats.bus("s1"), await nats.bus("a1")
    started = asyncio.Event()

    async def never(body: Ping, incoming: Incoming) -> None:
        started.set()
        await asyncio.Event().wait()

    await server.serve(ASK, Ping, never)
    asking = asyncio.create_task(caller.request(ASK, Ping(), Pong, 60.0))
    await started.wait()
    await nats.server.kill()
    with pytest.raises(BusUnavailable):
        await asking
    await nats.server.start()


async def test_no_false_503_while_interest_comes_and_goes(nats: NatsWorld) -> None:
    server, caller = await nats.bus("s1"), await nats.bus("a1")
    stop = asyncio.Event()

    async def churn() -> None:
        while not stop.is_set():
            served = [await server.serve(N.link("webrtc", f"k{index}"), Ping, pong) for index in range(5)]
            for one in served:
                await one.close()

    churning = asyncio.create_task(churn())
    for index in range(150):
        subject = N.link("webtorrent", f"k{index}")
        await server.serve(subject, Ping, pong, queue="link")
        assert await caller.request(subject, Ping(), Pong, 1.0) == Pong()
    stop.set()
    await churning


async def test_messages_that_had_arrived_are_handled_when_interest_ends(nats: NatsWorld) -> None:
    server, caller = await nats.bus("s1"), await nats.bus("a1")
    for _ in range(20):
        served = await server.serve(ASK, Ping, pong)
        requests = [asyncio.create_task(caller.request(ASK, Ping(), Pong, 1.0)) for _ in range(20)]
        await asyncio.sleep(0)
        await served.close()
        answers = await asyncio.gather(*requests, return_exceptions=True)
        # Answered, or refused since nobody serves: never left to time out.
        assert all(isinstance(answer, (Pong, NoResponders)) for answer in answers)


async def test_cancelling_whoever_waits_for_interest_does_no_harm(nats: NatsWorld) -> None:
    server, caller = await nats.bus("s1"), await nats.bus("a1")
    for _ in range(50):
        serving = asyncio.create_task(server.serve(N.worker("w2"), Ping, pong))
        await asyncio.sleep(0)
        serving.cancel()
        await asyncio.wait([serving])
    await server.serve(ASK, Ping, pong)
    assert await caller.request(ASK, Ping(), Pong, 1.0) == Pong()
    with pytest.raises(NoResponders):
        await caller.request(N.worker("w2"), Ping(), Pong, 1.0)
    await asyncio.sleep(0.3)
    assert server.connected
    assert server.counts.reconnects == 0


async def test_a_frozen_server_is_noticed_and_publishing_refused(nats: NatsWorld) -> None:
    bus, other = await nats.bus("s1"), await nats.bus("a1")
    await bus.serve(ASK, Ping, pong)
    nats.server.freeze()
    started = time.monotonic()
    await until(lambda: not bus.connected, 6.0)
    assert time.monotonic() - started < 4.5
    with pytest.raises(BusUnavailable):
        await bus.publish(ASK, Ping())
    with pytest.raises(BusUnavailable):
        await bus.request(ASK, Ping(), Pong, 1.0)
    await until(lambda: not other.connected, 6.0)
    nats.server.thaw()
    await until(lambda: bus.connected and other.connected, 10.0)
    # Connected comes before the server has read the subscriptions: until then a request has nobody to answer it.
    async with asyncio.timeout(10.0):
        while True:
            with contextlib.suppress(NoResponders):
                assert await other.request(ASK, Ping(), Pong, 1.0) == Pong()
                break


async def test_a_message_that_nats_py_drops_is_an_alarm(nats: NatsWorld) -> None:
    server, caller = await nats.bus("s1"), await nats.bus("a1")
    interest = await server.connection.subscribe(ASK, lambda *message: None)
    subscription = interest._subscription
    assert subscription is not None
    assert subscription._pending_queue.maxsize == INBOUND_MESSAGES
    subscription._pending_bytes_limit = 1000
    await caller.publish(ASK, Range(memoryview(bytes(2000))))
    await until(lambda: server.counts.slow_consumer == 1)


async def test_services_wait_for_the_layout(nats: NatsWorld) -> None:
    service, admin = await nats.bus("s1"), await nats.bus("admin")
    opening = asyncio.create_task(service.kv(BUCKET_FLAGS))
    await asyncio.sleep(0.1)
    assert not opening.done()
    await ensure_layout(admin.connection, NODE)
    flags = await opening
    assert await flags.put("a", b"1")
    with pytest.raises(StreamGone):
        await wait_for_stream(service.connection, Place("nothing"), 0.1)


async def test_the_layout_is_idempotent_and_mended(nats: NatsWorld) -> None:
    admin = await nats.bus("admin")
    names = [place.name for place, _ in streams(NODE)]
    assert await ensure_layout(admin.connection, NODE) == names
    await admin.append(N.hop("webrtc"), Done(), "d.1")
    assert await ensure_layout(admin.connection, NODE) == [], "what is there was not made, whatever the server calls it"
    await api(admin.connection, f"STREAM.DELETE.KV_{BUCKET_FLAGS}", {})
    assert await ensure_layout(admin.connection, NODE) == [BUCKET_FLAGS]
    _, wanted = streams(NODE)[-1]
    await api(admin.connection, f"STREAM.UPDATE.{STREAM_HOPS}", {**wanted, "max_msgs": 5})
    await ensure_layout(admin.connection, NODE)
    info = await api(admin.connection, f"STREAM.INFO.{STREAM_HOPS}", {})
    assert info["config"]["max_msgs"] == wanted["max_msgs"]
    assert info["state"]["messages"] == 1
    assert info["config"]["discard"] == "old"
    flags = await api(admin.connection, f"STREAM.INFO.KV_{BUCKET_FLAGS}", {})
    assert flags["config"]["allow_msg_ttl"] is True
    assert not flags["config"].get("subject_delete_marker_ttl")


async def test_a_layout_of_a_newer_version_is_left_alone(nats: NatsWorld) -> None:
    admin = await nats.bus("admin")
    await ensure_layout(admin.connection, NODE)
    layout = await admin.kv(BUCKET_LAYOUT)
    stored = await layout.get(SCHEMA_KEY)
    assert stored is not None
    assert stored.value == str(LAYOUT_SCHEMA).encode()
    for newer in (str(LAYOUT_SCHEMA + 1).encode(), b"2a", b""):
        await layout.put(SCHEMA_KEY, newer)
        await api(admin.connection, f"STREAM.DELETE.KV_{BUCKET_FLAGS}", {})
        with pytest.raises(NewerSchema, match="newer version"):
            await ensure_layout(admin.connection, NODE)
        with pytest.raises(NewerSchema):
            refuse_newer(newer)
        assert not await is_laid_out(admin.connection, NODE), "nothing was made"
        await layout.put(SCHEMA_KEY, b"1")
        await ensure_layout(admin.connection, NODE)
    refuse_newer(None)
    refuse_newer(b"0")


async def test_a_recreated_stream_is_read_from_its_start(nats: NatsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.bus.nats.reader.POLL_S", 0.2)
    admin, reader = await nats.bus("admin"), await nats.bus("m1")
    await ensure_layout(admin.connection, NODE)
    got: list[str] = []
    for number in range(5):
        await admin.append(N.hop("webrtc"), _hop(f"old{number}"), f"old.{number}")
    await reader.follow(STREAM_HOPS, HopRecord, lambda record, stored_ms: got.append(record.delivery))
    await api(admin.connection, f"STREAM.DELETE.{STREAM_HOPS}", {})
    await ensure_layout(admin.connection, NODE)
    await admin.append(N.hop("webrtc"), _hop("new0"), "new.0")
    await until(lambda: "new0" in got, 15.0)
    assert got == [f"old{number}" for number in range(5)] + ["new0"]


async def test_many_records_are_read_in_order(nats: NatsWorld) -> None:
    admin = await nats.bus("admin")
    await ensure_layout(admin.connection, NODE)
    for first in range(0, 2000, 250):
        await asyncio.gather(*(admin.append(N.hop("webrtc"), _hop(str(n)), str(n)) for n in range(first, first + 250)))
    sequences: list[int] = []
    reader = OrderedReader(admin.connection, Place(STREAM_HOPS), lambda record: sequences.append(record.sequence))
    await reader.start()
    assert sequences == list(range(1, 2001))
    await reader.close()


async def test_a_hint_that_is_lost_costs_one_poll(nats: NatsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.bus.nats.reader.POLL_S", 0.2)
    admin = await nats.bus("admin")
    await ensure_layout(admin.connection, NODE)
    got: list[int] = []

    def on_record(record: Record) -> None:
        got.append(record.sequence)

    reader = OrderedReader(admin.connection, Place(STREAM_HOPS), on_record)
    await reader.start()
    await admin.append(N.hop("webrtc"), _hop("1"), "1")
    await until(lambda: got == [1])
    assert reader._interest is not None
    await reader._interest.close()
    await admin.append(N.hop("webrtc"), _hop("2"), "2")
    await until(lambda: got == [1, 2])
    await reader.close()


async def test_records_whose_numbers_come_again_are_read(nats: NatsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was killed may have lost its last records: the numbers are given to others then."""
    monkeypatch.setattr("shared.bus.nats.reader.POLL_S", 0.2)
    admin = await nats.bus("admin")
    await ensure_layout(admin.connection, NODE)
    got: list[str] = []
    await admin.append(N.hop("webrtc"), _hop("kept"), "1")
    await admin.append(N.hop("webrtc"), _hop("lost"), "2")
    await nats.server.stop()
    saved = nats.server.directory / "saved"
    shutil.copytree(nats.server.directory / "jetstream", saved)
    await nats.server.start()
    reader = await nats.bus("m1")
    await until(lambda: admin.connected)
    await reader.follow(STREAM_HOPS, HopRecord, lambda record, stored_ms: got.append(record.delivery))
    await admin.append(N.hop("webrtc"), _hop("lost too"), "3")
    await until(lambda: len(got) == 3)
    await nats.server.kill()
    shutil.rmtree(nats.server.directory / "jetstream")
    shutil.copytree(saved, nats.server.directory / "jetstream")
    await nats.server.start()
    await until(lambda: admin.connected and reader.connected, 10.0)
    await admin.append(N.hop("webrtc"), _hop("new"), "4")
    await until(lambda: got[-1] == "new")
    assert got == ["kept", "lost", "lost too", "new"]


async def test_a_watch_survives_a_restart_within_a_second(nats: NatsWorld) -> None:
    watching, writing = await nats.bus("s1"), await nats.bus("s2")
    await ensure_layout(writing.connection, NODE)
    entries: list[KvEntry] = []
    flags = await watching.kv(BUCKET_FLAGS)
    theirs = await writing.kv(BUCKET_FLAGS)
    await theirs.put("a", b"1")
    await flags.watch(entries.append)
    await nats.server.stop()
    await nats.server.start()
    await until(lambda: watching.counts.reconnects and writing.counts.reconnects, 10.0)
    started = time.monotonic()
    await theirs.put("a", b"2")
    await until(lambda: len(entries) == 2)
    assert time.monotonic() - started < 1.0
    assert [entry.value for entry in entries] == [b"1", b"2"]


async def test_nats_micro_lists_the_service(nats: NatsWorld) -> None:
    bus = await nats_bus.connect(nats.server.url, "chunk-1", service="chunk", announce=True)
    nats.buses.append(bus)
    caller = await nats.bus("a1")
    answer = await caller.connection.request("$SRV.PING.swarmbridge-chunk", b"", 1.0)
    found = json.loads(answer.data)
    assert (found["name"], found["metadata"]) == ("swarmbridge-chunk", {"instance": "chunk-1"})
    await nats.interrupt_all()
    assert json.loads((await caller.connection.request("$SRV.INFO", b"", 1.0)).data)["name"] == "swarmbridge-chunk"


async def test_an_unreachable_server_then_a_late_one(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    try:
        await server.start()
        bus = await nats_bus.connect(f"nats://127.0.0.1:{free_port()},{server.url}", "a1")
        assert bus.connected
        await bus.close()
    finally:
        await server.kill()


@pytest.mark.parametrize(
    ("subject", "logged"),
    [
        ("sb.n1.link.webrtc.kabcdef", "sb.N.link.webrtc"),
        ("sb.n1.reply.chunk-1", "sb.N.reply"),
        ("$KV.manifests.0123abcd", "$KV.manifests"),
        ("$JS.API.DIRECT.GET.KV_manifests.$KV.manifests.0123", "$JS.API.DIRECT"),
        ("_INBOX.chunk.manager.abc.def", "_INBOX.chunk.manager"),
    ],
)
def test_names_in_subjects_are_not_logged(subject: str, logged: str) -> None:
    assert kind_of(subject) == logged


def _hop(delivery: str) -> HopRecord:
    return HopRecord(delivery, 1, "webrtc", "peer-1", "failed", None, "", None, False, 1, 2.0, 3, "", "", "m")
