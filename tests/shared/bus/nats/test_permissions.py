"""Least privilege on a real server: every service can do its work, and not another's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from shared.bus.contract import Incoming, KvEntry
from shared.bus.messages.envelopes import Done, Ping, Pong
from shared.bus.messages.records import Attempt
from shared.bus.messages.subjects import (
    BUCKET_LEASES,
    BUCKET_MANIFESTS,
    STREAM_ATTEMPTS,
    Subjects,
)
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.bus import NatsBus
from shared.bus.nats.layout import ensure_layout
from shared.bus.nats.permissions import (
    ADMIN,
    MESH_SERVICES,
    SERVICES,
    SETTINGS_BUCKETS,
    inbox_prefix,
    mesh_permissions,
    permissions,
)
from shared.errors import BusError, BusTimeout, Cause
from tests.fakes.nats_server import nats_server
from tests.fakes.nats_users import accounts_config
from tests.fakes.waiting import until

NODE = "n1"
N = Subjects(NODE)
DENIED_S = 0.3

# (asker, subject, server): every conversation of the design. A peer's and an instance's name are one token each.
CONVERSATIONS = [
    ("chunk", N.deliver, "manager"),
    ("chunk", N.manager("m1"), "manager"),
    ("manager", N.reply("chunk-1"), "chunk"),
    ("chunk", N.reply("gateway-1"), "gateway"),
    ("manager", N.link("webrtc", "kabc"), "webrtc"),
    ("manager", N.link("webtorrent", "kabc"), "webtorrent"),
    ("manager", N.link("broadcast", "kabc"), "broadcast"),
    ("manager", N.dial("webrtc"), "webrtc"),
    ("manager", N.worker("w1"), "webtorrent"),
    ("webrtc", N.inbound("webrtc"), "manager"),
    ("webtorrent", N.inbound("webtorrent"), "manager"),
    ("broadcast", N.manager("m1"), "manager"),
    ("manager", N.chunk_message, "chunk"),
    ("gateway", N.chunk("put"), "chunk"),
    ("gateway", N.chunk("fetch"), "chunk"),
    ("gateway", N.chunk("status"), "chunk"),
    ("gateway", N.chunk("get"), "chunk"),
    ("gateway", N.chunk_instance("c1"), "chunk"),
    ("webrtc", N.certify, "chunk"),
    ("webtorrent", N.certify, "chunk"),
    ("broadcast", N.certify, "chunk"),
    ("webrtc", N.peerjs_token, "chunk"),
    ("webrtc", N.body("chunk-1"), "chunk"),
    ("chunk", N.body("webrtc-1"), "webrtc"),
    ("chunk", N.body("gateway-1"), "gateway"),
    ("gateway", N.body("chunk-1"), "chunk"),
    ("webrtc", N.signal_offer, "webrtc"),
    ("webrtc", N.signal_send, "webrtc"),
    ("webrtc", N.worker("w2"), "webrtc"),
    ("webtorrent", N.event("status"), "gateway"),
    ("manager", N.event("diagnostic"), "gateway"),
]

MAY_NOT_SERVE = [
    ("webrtc", N.deliver),
    ("webrtc", N.link("webtorrent", "kabc")),
    ("webrtc", N.certify),
    ("webrtc", N.reply("chunk-1")),
    ("webtorrent", N.signal_offer),
    ("webtorrent", N.manager("m1")),
    ("broadcast", N.inbound("broadcast")),
    ("gateway", N.link("webrtc", "kabc")),
    ("gateway", N.deliver),
    ("gateway", N.certify),
    ("gateway", N.chunk("put")),
    ("manager", N.link("webrtc", "kabc")),
    ("manager", N.certify),
    ("manager", N.body("chunk-1")),
    ("chunk", N.deliver),
    ("chunk", N.link("webrtc", "kabc")),
    ("webrtc", "sb.n1.>"),
    ("webrtc", ">"),
    ("webrtc", "_INBOX_chunk.>"),
    ("gateway", "sb.bc.>"),
]

MAY_NOT_ASK = [
    ("webtorrent", N.peerjs_token, "chunk"),
    ("broadcast", N.peerjs_token, "chunk"),
    ("gateway", N.peerjs_token, "chunk"),
    ("manager", N.peerjs_token, "chunk"),
    ("gateway", N.certify, "chunk"),
    ("webrtc", N.inbound("webtorrent"), "manager"),
    ("webrtc", N.deliver, "manager"),
    ("gateway", N.deliver, "manager"),
    ("webrtc", N.chunk("put"), "chunk"),
    ("gateway", N.chunk_message, "chunk"),
    ("gateway", N.link("webrtc", "kabc"), "webrtc"),
    ("webtorrent", N.signal_send, "webrtc"),
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
        for service in (*SERVICES, ADMIN):
            buses[service] = await nats_bus.connect(
                server.url, f"{service}-1", seed=seeds[NODE, service], inbox_prefix=inbox_prefix(service)
            )
            stack.push_async_callback(buses[service].close)
        await ensure_layout(buses[ADMIN].connection, NODE)
        yield Services(buses)


async def pong(body: Ping, incoming: Incoming) -> Pong:
    return Pong(body.calls)


async def denied(services: Services, service: str, attempt: Callable[[], Awaitable[object]]) -> bool:
    """Whether the server denied what `attempt` did, and we noticed."""
    before = services[service].counts.denied
    with pytest.raises(BusError):
        await attempt()
    await until(lambda: services[service].counts.denied > before)
    return True


async def test_every_conversation_and_no_other(tmp_path: Path) -> None:
    async with connected(tmp_path) as services:
        for asker, subject, server in CONVERSATIONS:
            served = await services[server].serve(subject, Ping, pong)
            answer = await services[asker].request(subject, Ping([subject.encode()]), Pong, 1.0)
            assert answer == Pong([subject.encode()]), (asker, subject, server)
            await served.close()
        assert [services[service].counts.denied for service in SERVICES] == [0] * len(SERVICES)

        for service, subject in MAY_NOT_SERVE:
            with pytest.raises(BusError) as error:
                await services[service].serve(subject, Ping, pong)
            assert error.value.cause is Cause.FORBIDDEN, (service, subject)

        for asker, subject, server in MAY_NOT_ASK:
            served = await services[server].serve(subject, Ping, pong)

            async def ask(asker: str = asker, subject: str = subject) -> object:
                with pytest.raises(BusTimeout):
                    await services[asker].request(subject, Ping(), Pong, 0.05)
                raise BusTimeout

            assert await denied(services, asker, ask), (asker, subject)
            await served.close()


async def test_buckets_and_attempts(tmp_path: Path) -> None:
    record = Attempt("d", 1, "webrtc", "peer-1", "failed", None, "", None, False, 1, 2.0, 3, "", "", "m")
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

        got: list[Attempt] = []
        await services["gateway"].follow(STREAM_ATTEMPTS, Attempt, lambda body, stored_ms: got.append(body))
        await services["manager"].append(N.attempt("webrtc"), record, "d.1")
        await until(lambda: got == [record])
        assert [services[service].counts.denied for service in SERVICES] == [0] * len(SERVICES)


@pytest.mark.parametrize("service", ["webrtc", "gateway", "chunk"])
async def test_only_the_manager_appends_attempts(tmp_path: Path, service: str) -> None:
    async with connected(tmp_path) as services:
        await services[service].publish(N.attempt("webrtc"), Done())
        await until(lambda: services[service].counts.denied == 1)
        got: list[Done] = []
        await services["manager"].follow(STREAM_ATTEMPTS, Done, lambda body, stored_ms: got.append(body))
        assert not got


async def test_buckets_of_others_are_closed(tmp_path: Path) -> None:
    async with connected(tmp_path) as services:
        for service, subject in [
            ("webtorrent", "$KV.leases.signal"),
            ("webrtc", "$KV.flags.webTorrentTransport"),
            ("manager", "$KV.flags.chaos.webrtc"),
            ("webrtc", "$KV.blocklist.peer-0123456789abcdef"),
            ("webrtc", "$KV.manifests.m"),
            ("gateway", "$KV.manifests.m"),
            ("webrtc", "$JS.API.CONSUMER.CREATE.attempts"),
            ("gateway", "$JS.API.STREAM.DELETE.KV_flags"),
            ("gateway", "$JS.API.STREAM.PURGE.attempts"),
        ]:
            bus = services[service]
            before = bus.counts.denied
            await bus.connection.publish(subject, b"{}")
            await until(partial(_denied_more_than, bus, before))


async def test_nodes_and_the_mesh_are_apart(tmp_path: Path) -> None:
    config, seeds = accounts_config(["n1", "n2"])
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats_server(tmp_path, config))

        async def connect(account: str, service: str) -> NatsBus:
            bus = await nats_bus.connect(
                server.url, f"{account}-{service}", seed=seeds[account, service], inbox_prefix=inbox_prefix(service)
            )
            stack.push_async_callback(bus.close)
            return bus

        one, other = await connect("n1", "chunk"), await connect("n2", "chunk")
        await one.serve(N.certify, Ping, pong)
        with pytest.raises(BusTimeout):
            await other.request(N.certify, Ping(), Pong, DENIED_S)
        mine, theirs = await connect("n1-mesh", "broadcast"), await connect("n2-mesh", "broadcast")
        await mine.serve("sb.bc.a.b.>", Ping, pong)
        assert await theirs.request("sb.bc.a.b.c", Ping(), Pong, 1.0) == Pong()
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
        allowed = permissions(service, NODE)
        assert f"{inbox_prefix(service)}.>" in allowed.subscribe
        assert msgspec.json.encode(allowed.as_config())
    for service in SERVICES:
        assert not {">", "$JS.API.>", f"sb.{NODE}.>"} & set(permissions(service, NODE).publish)
    for service in MESH_SERVICES:
        own = {"broadcast": "sb.bc.>", "rendezvous": "sb.rv.>"}[service]
        assert mesh_permissions(service).publish == [own]
    with pytest.raises(KeyError):
        permissions("nobody", NODE)
    with pytest.raises(KeyError):
        mesh_permissions("manager")


def _has_key(entries: list[KvEntry], key: str) -> bool:
    return any(entry.key == key for entry in entries)


def _denied_more_than(bus: NatsBus, count: int) -> bool:
    return bus.counts.denied > count
