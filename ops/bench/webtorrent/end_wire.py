"""An end of our own wire, over TCP or over a data channel: the worker's transport and its seal, and no bus.

The receiver asks with one frame; the sender answers with frames as long as a record takes. What a worker adds (frames
of requests, the bus) is in the whole system's row.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from typing import assert_never

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ops.bench.webtorrent.speaking import Watch, asked_to_begin, run_end, say, until_closed
from services.webtorrent.transport import WebtorrentTransport
from shared.errors import TransportError
from shared.ids import LinkId, peerjs_id
from shared.settings.config import Config, RendezvousSettings, WebtorrentSettings
from shared.transport.contract import LinkDown, LinkUp, PeerHint, RecordReceived, StateChanged, TransportEvent
from shared.wire.sealed.certificate import sign_certificate
from shared.wire.sealed.sealed_link import MAX_FRAME_BYTES, FrameOpened, Sealed, SealedLink

SEEDS = {"send": b"\x01" * 32, "receive": b"\x02" * 32}
CERTIFICATE_S = 3600
DIAL_S = 30.0
POLL_S = 0.005
REQUEST = b"all of it"
NOBODY_LISTENS = "127.0.0.9"
"""Advertised where a data channel is wanted: nodes that meet at a tracker dial each other over TCP first, and would
stay there. The first byte of that leg has the worker's wait for TCP in it."""


class WireEnd:
    """watch: of the receiver, None at the sender, which sends size_bytes on each link that asks."""

    def __init__(self, transport: WebtorrentTransport, seed: bytes, size_bytes: int, watch: Watch | None) -> None:
        self._transport = transport
        self._seed = seed
        self._size_bytes = size_bytes
        self._watch = watch
        self._seals: dict[LinkId, SealedLink] = {}
        self._asked = False
        self._tasks: set[asyncio.Task[None]] = set()

    def receive(self, event: TransportEvent) -> None:
        match event:
            case LinkUp():
                self._open(event)
            case RecordReceived():
                self._take(event)
            case LinkDown():
                self._seals.pop(event.link, None)
            case StateChanged():
                pass
            case _:
                assert_never(event)

    def _open(self, up: LinkUp) -> None:
        static = X25519PrivateKey.generate()
        certificate = sign_certificate(
            self._seed, static.public_key().public_bytes_raw(), int(time.time()) + CERTIFICATE_S
        )
        seal = SealedLink(
            dialer=up.dialer,
            static_private=static.private_bytes_raw(),
            ephemeral_private=os.urandom(32),
            certificate=certificate,
            prologue=up.binding,
            expected_key=up.expected_key,
        )
        self._seals[up.link] = seal
        self._start(up.link, seal.data_to_send())

    def _take(self, event: RecordReceived) -> None:
        seal = self._seals.get(event.link)
        if seal is None:
            return
        for found in seal.receive_record(event.record, time.time()):
            match found:
                case Sealed():
                    handshake = seal.data_to_send()
                    # Two links may come of one search; the first that is sealed carries it all.
                    if self._watch is not None and not self._asked:
                        self._asked = True
                        handshake.append(seal.seal(REQUEST))
                    self._start(event.link, handshake)
                case FrameOpened() if self._watch is not None:
                    self._watch.count(len(found.frame))
                case FrameOpened():
                    self._keep(asyncio.create_task(self._send_all(event.link, seal)))
                case _:
                    assert_never(found)
        self._start(event.link, seal.data_to_send())

    async def _send_all(self, link: LinkId, seal: SealedLink) -> None:
        frame = bytes(MAX_FRAME_BYTES)
        for start in range(0, self._size_bytes, MAX_FRAME_BYTES):
            await self._transport.send(link, seal.seal(frame[: min(MAX_FRAME_BYTES, self._size_bytes - start)]))

    def _start(self, link: LinkId, records: list[bytes]) -> None:
        if records:
            self._keep(asyncio.create_task(self._send(link, records)))

    async def _send(self, link: LinkId, records: list[bytes]) -> None:
        for record in records:
            await self._transport.send(link, record)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def transport_of(document: str) -> WebtorrentTransport:
    """document: of the trackers to meet at, where data channels are wanted; "" = TCP to an endpoint."""
    nowhere = NOBODY_LISTENS if document else ""
    settings = WebtorrentSettings(dht=False, trackers=bool(document), advertise=nowhere)
    return WebtorrentTransport(Config(rendezvous=RendezvousSettings(document=document), webtorrent=settings))


async def listening(transport: WebtorrentTransport) -> str:
    async with asyncio.timeout(DIAL_S):
        while transport.endpoint is None:  # noqa: ASYNC110 - the transport says it in no other way
            await asyncio.sleep(POLL_S)
    return str(transport.endpoint)


async def dial(transport: WebtorrentTransport, endpoint: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(SEEDS["send"]).public_key().public_bytes_raw()
    hint = PeerHint(key, peerjs_id(key), (endpoint,) if endpoint else ())
    async with asyncio.timeout(DIAL_S):
        while True:
            with contextlib.suppress(TransportError):  # just starting, or no tracker has answered yet
                await transport.dial(hint, DIAL_S)
                return
            await asyncio.sleep(POLL_S)


async def main() -> None:
    options = json.loads(sys.argv[1])
    sends = options["role"] == "send"
    transport = transport_of(options["document"])
    if not sends:
        say()
        await asked_to_begin()
    watch = None if sends else Watch(options["size"], transport.measures)
    end = WireEnd(transport, SEEDS[options["role"]], options["size"], watch)
    running = asyncio.create_task(transport.run(end.receive))
    endpoint = await listening(transport)
    if sends:
        say(endpoint="" if options["document"] else endpoint)
    else:
        await dial(transport, options["endpoint"])
    await until_closed()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    run_end(main())
