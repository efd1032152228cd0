"""Least privilege on a real server: every service can do its work, and not another's, whatever it sends to whom.

The tables here are written out by hand: they say what must hold, and the permissions are made of another table.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from shared.bus.bodies import BodyHolder, pull
from shared.bus.contract import Incoming, KvEntry
from shared.bus.messages.codec import encode_envelope
from shared.bus.messages.conversations import ADMIN, KEEPER, MESH_ROWS, SERVICES, inbox, matches, node_rows
from shared.bus.messages.envelopes import Ping, Pong, PullRange, Range
from shared.bus.messages.records import HopRecord
from shared.bus.messages.subjects import BUCKET_LEASES, BUCKET_MANIFESTS, STREAM_HOPS, Subjects
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.bus import NatsBus
from shared.bus.nats.connection import NatsConnection
from shared.bus.nats.jetstream import api
from shared.bus.nats.layout import ensure_layout
from shared.bus.nats.permissions import (
    MESH_SERVICES,
    READERS,
    SETTINGS_BUCKETS,
    keeper_permissions,
    mesh_permissions,
    permissions,
)
from shared.errors import BusError, BusTimeout, Cause, SwarmbridgeError
from tests.fakes.nats_server import nats_server
from tests.fakes.nats_users import accounts_config
from tests.fakes.waiting import until

NODE = "n1"
N = Subjects(NODE)
DENIED_S = 0.3
BLOCKED = "peer-0123456789abcdef"

# (caller, subject, server): every conversation of the design. A peer's and an instance's name are one token each.
CONVERSATIONS = [
    ("chunk", N.deliver, "manager"),
    ("chunk", N.manager("manager-1"), "manager"),
    ("manager", N.reply("chunk-1"), "chunk"),
    ("chunk", N.reply("gateway-1"), "gateway"),
    ("manager", N.link("webrtc", "kabc"), "webrtc"),
    ("manager", N.link("webtorrent", "kabc"), "webtorrent"),
    ("manager", N.link("broadcast", "kabc"), "broadcast"),
    ("manager", N.dial("webrtc"), "webrtc"),
    ("manager", N.dial("webtorrent"), "webtorrent"),
    ("manager", N.dial("broadcast"), "broadcast"),
    ("manager", N.worker("webrtc-1"), "webrtc"),
    ("manager", N.worker("webtorrent-1"), "webtorrent"),
    ("manager", N.worker("broadcast-1"), "broadcast"),
    ("webrtc", N.inbound("webrtc"), "manager"),
    ("webtorrent", N.inbound("webtorrent"), "manager"),
    ("broadcast", N.inbound("broadcast"), "manager"),
    ("webrtc", N.manager("manager-1"), "manager"),
    ("webtorrent", N.manager("manager-1"), "manager"),
    ("broadcast", N.manager("manager-1"), "manager"),
    ("manager", N.chunk_message, "chunk"),
    ("gateway", N.chunk("put"), "chunk"),
    ("gateway", N.chunk("fetch"), "chunk"),
    ("gateway", N.chunk("status"), "chunk"),
    ("gateway", N.chunk("get"), "chunk"),
    ("gateway", N.chunk("remove"), "chunk"),
    ("gateway", N.chunk("usage"), "chunk"),
    ("gateway", N.chunk_instance("chunk-1"), "chunk"),
    ("webrtc", N.certify, "chunk"),
    ("webtorrent", N.certify, "chunk"),
    ("broadcast", N.certify, "chunk"),
    ("webtorrent", N.sign_record, "chunk"),
    ("webrtc", N.peerjs_token, "chunk"),
    ("webrtc", N.body("chunk-1", "webrtc"), "chunk"),
    ("webtorrent", N.body("chunk-1", "webtorrent"), "chunk"),
    ("broadcast", N.body("chunk-1", "broadcast"), "chunk"),
    ("gateway", N.body("chunk-1", "gateway"), "chunk"),
    ("chunk", N.body("webrtc-1", "chunk"), "webrtc"),
    ("chunk", N.body("webtorrent-1", "chunk"), "webtorrent"),
    ("chunk", N.body("broadcast-1", "chunk"), "broadcast"),
    ("chunk", N.body("gateway-1", "chunk"), "gateway"),
    ("webrtc", N.signal_offer, "webrtc"),
    ("webrtc", N.signal_send, "webrtc"),
    ("webrtc", N.worker("webrtc-1"), "webrtc"),
    *((service, N.health(service, f"{service}-1"), service) for service in SERVICES),
]

# What is said to nobody in particular: publishers, subject, who hears it.
WORKERS = ("webrtc", "webtorrent", "broadcast")
PUBLISHED = [
    (WORKERS, N.event("link"), ("gateway",)),
    (WORKERS, N.event("status"), ("gateway",)),
    (("manager",), N.event("manager"), ("gateway",)),
    (("manager", "gateway"), N.event("diagnostic"), ("gateway",)),
    (("chunk",), N.event("transfer"), ("gateway",)),
    (SERVICES, N.event("spans"), ("gateway",)),
    (("chunk",), N.announce, WORKERS),
    (("webrtc",), N.signal_pages, ("webrtc",)),
    *(((worker,), N.announced(worker), ("chunk",)) for worker in WORKERS),
    *(((worker,), N.named(worker, other), (other,)) for worker in WORKERS for other in WORKERS if other != worker),
]

SUBJECTS = sorted({subject for _, subject, _ in CONVERSATIONS} | {subject for _, subject, _ in PUBLISHED})

WRITTEN = {
    "$KV.flags.webTorrentTransport": ("gateway",),
    f"$KV.blocklist.{BLOCKED}": ("gateway",),
    "$KV.leases.signal": ("webrtc",),
    "$KV.manifests.m.0123": ("chunk",),
    "$KV.layout.flags": (),
    N.hop("webrtc"): ("manager",),
}
"""Whose writes are stored where."""

NOBODYS = [
    *(
        f"$JS.API.STREAM.{verb}.KV_{bucket}"
        for verb in ("DELETE", "PURGE", "UPDATE", "INFO")
        for bucket in SETTINGS_BUCKETS
    ),
    "$JS.API.STREAM.CREATE.mine",
    "$JS.API.STREAM.MSG.DELETE.hops",
    "$JS.API.STREAM.SNAPSHOT.KV_manifests",
    *(f"$JS.API.CONSUMER.CREATE.{stream}" for stream in ("KV_flags", "KV_leases", "KV_manifests", "hops")),
    "$JS.API.CONSUMER.CREATE.KV_flags.mine.>",
    "$JS.API.CONSUMER.MSG.NEXT.KV_flags.mine",
    "$JS.API.INFO",
    "$JS.FC.KV_flags.x",
    "$JS.ACK.KV_flags.x.1.1.1.1.1",
    "stored.flags.webTorrentTransport",
    "$SRV.PING",
    "$SYS.REQ.USER.INFO",
    "sb.n2.route.deliver",
    "sb.bc.a.b.c",
    "sb.rv.news",
    f"{inbox('admin', 'any')}.x",
    f"{inbox(KEEPER, 'store')}.x",
]

FORGED_REPLIES = [
    # NATS itself passes on no message that asks for its answer on an acknowledgement.
    reply
    for reply in [*WRITTEN, *SUBJECTS, *NOBODYS, *(f"{inbox(who, 'store')}.x.y" for who in SERVICES)]
    if not reply.startswith("$JS.ACK.")
]


class Services:
    """A bus for each service of a node, connected as its own user."""

    def __init__(self, buses: dict[str, NatsBus]) -> None:
        self._buses = buses

    def __getitem__(self, service: str) -> NatsBus:
        return self._buses[service]


@asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[Services]:
    config, seeds = accounts_config([NODE])
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats_server(directory, config))
        buses: dict[str, NatsBus] = {}
        for service in (*SERVICES, ADMIN, KEEPER):
            buses[service] = await nats_bus.connect(
                server.url, f"{service}-1", seed=seeds[NODE, service], service=service
            )
            stack.push_async_callback(buses[service].close)
        await ensure_layout(buses[KEEPER].connection, NODE)
        yield Services(buses)


async def pong(body: Ping, incoming: Incoming) -> Pong:
    return Pong(body.calls)


async def test_every_conversation(tmp_path: Path) -> None:
    async with connected(tmp_path) as services:
        for caller, subject, server in CONVERSATIONS:
            served = await services[server].serve(_heard(server, subject), Ping, pong)
            answer = await services[caller].request(subject, Ping([subject.encode()]), Pong, 1.0)
            assert answer == Pong([subject.encode()]), (caller, subject, server)
            await served.close()
        for publishers, subject, listeners in PUBLISHED:
            heard: list[str] = []

            async def listen(body: Ping, incoming: Incoming, heard: list[str] = heard) -> None:
                heard.append(incoming.subject)

            subscriptions = [await services[listener].serve(subject, Ping, listen) for listener in listeners]
            for publisher in publishers:
                await services[publisher].publish(subject, Ping())
            await until(partial(_as_many, heard, len(publishers) * len(listeners)))
            for subscription in subscriptions:
                await subscription.close()
        assert {service: services[service].counts.denied for service in SERVICES} == dict.fromkeys(SERVICES, 0)
        assert {service: services[service].counts.strays for service in SERVICES} == dict.fromkeys(SERVICES, 0)


def test_the_two_tables_are_the_same() -> None:
    """The one written out here, and the one that permissions are made of."""
    mine = {(caller, subject, server) for caller, subject, server in CONVERSATIONS}
    mine |= {
        (publisher, subject, hears)
        for publishers, subject, heard in PUBLISHED
        for publisher in publishers
        for hears in heard
    }
    for row in node_rows(NODE):
        for caller in row.callers:
            assert any(
                (caller, row.server) == (one, server) and matches(row.subject, subject) for one, subject, server in mine
            ), row
    for caller, subject, server in mine:
        assert any(
            caller in row.callers and server == row.server and matches(row.subject, subject) for row in node_rows(NODE)
        ), (caller, subject, server)


async def test_nobody_publishes_on_subjects_of_another(tmp_path: Path) -> None:
    """Every user against every subject: what it does not say itself is denied."""
    async with connected(tmp_path) as services:
        for service in SERVICES:
            own = {subject for caller, subject, _ in CONVERSATIONS if caller == service}
            own |= {subject for publishers, subject, _ in PUBLISHED if service in publishers}
            others = [subject for subject in SUBJECTS if subject not in own]
            others += [subject for subject, writers in WRITTEN.items() if service not in writers]
            others += NOBODYS
            others += [f"$JS.API.DIRECT.GET.{stream}" for stream in _streams_closed_to(service)]
            # Inboxes: of those who do not ask it, and of those who do but ask another.
            callers = {caller for caller, _, server in CONVERSATIONS if server == service}
            others += [f"{inbox(who, service)}.x.y" for who in SERVICES if who not in callers]
            others += [f"{inbox(who, other)}.x.y" for who in SERVICES for other in SERVICES if other != service]
            bus = services[service]
            for subject in others:
                await bus.connection.publish(subject, b"x")
            await bus.connection.flush()
            await until(partial(_denied_at_least, bus, len(others)))
            assert bus.counts.denied == len(others), service


async def test_nobody_hears_subjects_of_another(tmp_path: Path) -> None:
    async with connected(tmp_path) as services:
        for service in SERVICES:
            own = {subject for _, subject, server in CONVERSATIONS if server == service}
            own |= {subject for _, subject, listeners in PUBLISHED if service in listeners}
            others = [subject for subject in SUBJECTS if subject not in own]
            others += [*WRITTEN, "sb.n1.>", "sb.*.body.>", ">", "sb.bc.>", "$JS.>", "$SYS.>"]
            others += [f"{inbox(who, '*')}.>" for who in (*SERVICES, ADMIN, KEEPER) if who != service]
            others += [f"stored.{name}.>" for name, readers in READERS.items() if service not in readers]
            for subject in others:
                with pytest.raises(BusError) as error:
                    await services[service].connection.subscribe(subject, lambda *message: None)
                assert error.value.cause is Cause.FORBIDDEN, (service, subject)


async def test_no_reply_subject_makes_a_service_write_elsewhere(tmp_path: Path) -> None:
    """Whatever one asks with whatever reply subject, its server answers no place but a caller's inbox."""
    async with connected(tmp_path) as services:
        before = await _everything(services)
        asked = 0
        for caller, subject, server in CONVERSATIONS:
            served = await services[server].serve(_heard(server, subject), Ping, pong)
            for reply in FORGED_REPLIES:
                await services[caller].connection.publish(subject, encode_envelope(Ping(), 0, ""), reply)
                asked += 1
            await services[caller].connection.flush()
            await until(partial(_strays, services, asked))
            await served.close()
        assert await _everything(services) == before
        # The clients themselves refused: nothing reached the server's permissions.
        assert {service: services[service].counts.denied for service in SERVICES} == dict.fromkeys(SERVICES, 0)


async def test_a_service_that_answers_anywhere_is_denied(tmp_path: Path) -> None:
    """The same where the answering process checks nothing, or asks itself: the server's permissions hold alone."""
    async with connected(tmp_path) as services:
        before = await _everything(services)
        for caller, subject, server in CONVERSATIONS:
            answering = services[server].connection
            sending: set[asyncio.Task[None]] = set()

            def answer(
                at: str,
                data: bytes,
                reply: str,
                headers: Mapping[str, str] | None,
                answering: NatsConnection = answering,
                sending: set[asyncio.Task[None]] = sending,
            ) -> None:
                sending.add(asyncio.get_running_loop().create_task(answering.publish(reply, b"{}")))

            interest = await answering.subscribe(_heard(server, subject), answer)
            counts = services[server].counts
            denied, forged = counts.denied, [r for r in FORGED_REPLIES if not _may_publish(server, r)]
            for reply in forged:
                await services[caller].connection.publish(subject, b"x", reply)
            await services[caller].connection.flush()
            await until(partial(_denied_at_least, services[server], denied + len(forged)))
            await asyncio.gather(*sending)
            await interest.close()
        assert await _everything(services) == before


async def test_jetstream_writes_nowhere_for_anybody(tmp_path: Path) -> None:
    """JetStream answers with the server's own rights, wherever it is asked to: it reaches no bucket and no handler."""
    async with connected(tmp_path) as services:
        webrtc = services["webrtc"].connection
        # What a thief would like to have written elsewhere: a deletion, and a message that decodes.
        await webrtc.request("$KV.leases.gone", b"", 1.0, {"KV-Operation": "DEL"})
        await webrtc.request("$KV.leases.signal", encode_envelope(Ping(), 0, ""), 1.0)
        handled: list[str] = []

        async def handle(body: Ping, incoming: Incoming) -> None:
            handled.append(incoming.subject)

        for server, subject in dict.fromkeys((server, subject) for _, subject, server in CONVERSATIONS):
            await services[server].serve(_heard(server, subject), Ping, handle)
        before = await _everything(services)
        for service in SERVICES:
            connection = services[service].connection
            for name, readers in READERS.items():
                if service in readers:
                    stream = "hops" if name == STREAM_HOPS else f"KV_{name}"
                    for reply in FORGED_REPLIES:
                        await connection.publish(f"$JS.API.DIRECT.GET.{stream}", b'{"seq":1,"batch":9}', reply)
                        if name != STREAM_HOPS:
                            await connection.publish(f"$JS.API.DIRECT.GET.{stream}.$KV.{name}.signal", b"", reply)
            for subject, writers in WRITTEN.items():
                if service in writers and subject != f"$KV.blocklist.{BLOCKED}":
                    for reply in FORGED_REPLIES:
                        # Refused as a compare-and-set, so that the write itself changes nothing: the refusal is sent.
                        await connection.publish(subject, b"x", reply, {"Nats-Expected-Last-Sequence": "999999"})
            await connection.flush()
        await asyncio.sleep(0.2)
        assert await _everything(services) == before
        assert not handled
        assert sum(services[service].counts.strays for service in SERVICES) > 0


async def test_five_of_five_bodies_stay_with_whom_they_are_for(tmp_path: Path) -> None:
    """A thief that knows everything, token included, neither pulls, nor hears the puller, nor hears the answer."""
    async with connected(tmp_path) as services:
        chunk, gateway = services["chunk"], services["gateway"]
        holder = BodyHolder(gateway, N, max_total_bytes=2**20)
        await holder.start()
        for number in range(5):
            ref = holder.hold(bytes([number]) * 1000, "chunk")
            for thief in ("manager", "webrtc", "webtorrent", "broadcast"):
                bus = services[thief]
                before = bus.counts.denied
                for puller in ("chunk", thief):
                    with pytest.raises(SwarmbridgeError):
                        await bus.request(N.body(ref.instance, puller), PullRange(ref.token, 0, 1000), Range, DENIED_S)
                    with pytest.raises(BusError) as error:
                        await bus.serve(N.body(ref.instance, puller), Ping, pong)
                    assert error.value.cause is Cause.FORBIDDEN
                assert bus.counts.denied == before + 4
            assert await pull(chunk, N, ref, timeout_s=5.0) == bytes([number]) * 1000
        await holder.close()


async def test_buckets_and_hops(tmp_path: Path) -> None:
    record = HopRecord("d", 1, "webrtc", "peer-1", "failed", None, "", None, False, 1, 2.0, 3, "", "", "m")
    async with connected(tmp_path) as services:
        for name in SETTINGS_BUCKETS:
            writer = await services["gateway"].kv(name)
            for service in SERVICES:
                entries: list[KvEntry] = []
                bucket = await services[service].kv(name)
                watch = await bucket.watch(entries.append)
                await writer.put(service, b"{}")
                assert await bucket.get(service) is not None
                assert service in await bucket.keys()
                await until(partial(_has_key, entries, service))
                await watch.close()
        leases = await services["webrtc"].kv(BUCKET_LEASES)
        revision = await leases.create("signal", b"w1", 10.0)
        assert revision is not None
        assert await leases.update("signal", b"w1", revision, 10.0) is not None
        manifests = await services["chunk"].kv(BUCKET_MANIFESTS)
        assert await manifests.put("m", b"1")

        got: list[HopRecord] = []
        await services["gateway"].follow(STREAM_HOPS, HopRecord, lambda body, stored_ms: got.append(body))
        await services["manager"].append(N.hop("webrtc"), record, "d.1")
        await until(lambda: got == [record])
        assert [services[service].counts.denied for service in SERVICES] == [0] * len(SERVICES)


async def test_nodes_and_the_mesh_are_apart(tmp_path: Path) -> None:
    config, seeds = accounts_config(["n1", "n2"])
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats_server(tmp_path, config))

        async def connect(account: str, service: str) -> NatsBus:
            seed = seeds[account, service]
            bus = await nats_bus.connect(server.url, f"{service}-{account}", seed=seed, service=service)
            stack.push_async_callback(bus.close)
            return bus

        one, other = await connect("n1", "chunk"), await connect("n2", "chunk")
        await one.serve(N.certify, Ping, pong)
        with pytest.raises(BusTimeout):
            await other.request(N.certify, Ping(), Pong, DENIED_S)
        mine, theirs = await connect("n1-mesh", "broadcast"), await connect("n2-mesh", "broadcast")
        await mine.serve("sb.bc.a.b.>", Ping, pong)
        assert await theirs.request("sb.bc.a.b.c", Ping(), Pong, 1.0) == Pong()
        for reply in ("sb.rv.news", "sb.bc.a.b.d", f"{inbox('rendezvous', 'rendezvous')}.x.y"):
            await theirs.connection.publish("sb.bc.a.b.c", encode_envelope(Ping(), 0, ""), reply)
        await until(lambda: mine.counts.strays == 3)
        with pytest.raises(BusError) as error:
            await theirs.serve(N.certify, Ping, pong)
        assert error.value.cause is Cause.FORBIDDEN


async def test_a_user_the_server_does_not_know(tmp_path: Path) -> None:
    config, _ = accounts_config([NODE])
    _, others = accounts_config([NODE])
    async with nats_server(tmp_path, config) as server:
        for seed in (None, others[NODE, "chunk"]):
            with pytest.raises(BusError) as error:
                await nats_bus.connect(server.url, "chunk-1", seed=seed)
            assert error.value.cause is Cause.FORBIDDEN


def test_the_table_names_every_service_and_no_more() -> None:
    for service in (*SERVICES, ADMIN):
        assert permissions(service, NODE).publish
        assert permissions(service, NODE).subscribe
    for service in SERVICES:
        assert f"{inbox(service, '*')}.>" in permissions(service, NODE).subscribe
        assert not {">", "$JS.API.>", f"sb.{NODE}.>", "_INBOX.>"} & set(permissions(service, NODE).publish)
    assert not any(subject.startswith("sb.") for subject in keeper_permissions(NODE).publish)
    for row in MESH_ROWS:
        own = [row.subject, f"{inbox(row.server, row.server)}.>"]
        assert mesh_permissions(row.server).publish == own
    assert {row.server for row in MESH_ROWS} == set(MESH_SERVICES)
    with pytest.raises(KeyError):
        permissions("nobody", NODE)
    with pytest.raises(KeyError):
        mesh_permissions("manager")


def _heard(server: str, subject: str) -> str:
    """What a server subscribes to for a subject: a body's holder hears every puller."""
    return N.body(f"{server}-1", "*") if ".body." in subject else subject


def _may_publish(service: str, subject: str) -> bool:
    return any(matches(allowed, subject) for allowed in permissions(service, NODE).publish)


def _streams_closed_to(service: str) -> list[str]:
    closed = [name for name, readers in READERS.items() if service not in readers]
    return ["hops" if name == STREAM_HOPS else f"KV_{name}" for name in closed]


async def _everything(services: Services) -> dict[str, object]:
    """What is stored, by stream: that it is there, and its last number and count."""
    found: dict[str, object] = {}
    for stream in ("hops", *(f"KV_{name}" for name in READERS if name != STREAM_HOPS)):
        info = await api(services[KEEPER].connection, f"STREAM.INFO.{stream}", {})
        found[stream] = info["created"], info["state"]["last_seq"], info["state"]["messages"]
    return found


def _strays(services: Services, count: int) -> bool:
    return sum(services[service].counts.strays for service in SERVICES) >= count


def _denied_at_least(bus: NatsBus, count: int) -> bool:
    return bus.counts.denied >= count


def _as_many(heard: list[str], count: int) -> bool:
    return len(heard) == count


def _has_key(entries: list[KvEntry], key: str) -> bool:
    return any(entry.key == key for entry in entries)
