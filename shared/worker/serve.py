"""`serve_transport`: what every transport worker is, around its transport.

It gives the worker its subjects, talks on its links, carries requests both ways, reports status every second,
obeys the flag, and drains on SIGTERM. A function over the contract, not a base class: transports know
nothing of it.

A task of a link or of one request that dies costs that link or request; a task that keeps the worker going (status,
certificate, notices to managers) takes the process with it, which its supervisor starts again: a worker that hears and
does nothing would be worse than none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import assert_never

from shared.bus.bodies import BodyHolder
from shared.bus.contract import Incoming, Subscription
from shared.bus.messages.envelopes import (
    AnnounceManifests,
    CancelRequest,
    Dial,
    Dialled,
    Done,
    DrainWorker,
    Health,
    NamedGuests,
    Ping,
    Pong,
    SignalMessage,
    WorkerCommand,
)
from shared.bus.messages.records import WorkerStatus
from shared.bus.messages.subjects import QUEUE_DIAL
from shared.clock import Clock, monotonic, unix_ms
from shared.errors import BusError, Cause, LocalProtocolError, RemoteFailure, TransportError
from shared.ids import PeerToken, peer_name
from shared.process.run import Process
from shared.tasks.owned import Tasks
from shared.transport.contract import Measured, Meets, Signalled, TakesPages, Transport
from shared.worker.identity import LinkIdentity, certified_identity
from shared.worker.links import Links
from shared.worker.speeches import SPEECHES, MakeSpeech

HELD_BODY_BYTES = 256 * 2**20
"""Answers waiting for the chunk service to pull them, a worker."""

STATUS_INTERVAL_S = 1.0
DRAIN_GRACE_S = 4.0
DEFAULT_DIAL_S = 5.0
RESTART_FIRST_S = 1.0
"""A transport that ended by itself is run again after this long: its links are gone, the worker is not."""

ONE_OFF_TASKS = frozenset({"link", "serve", "close", "dismiss", "withdraw", "event", "chaos-delay"})
"""Tasks of one link, request or message. Every other one keeps the worker going."""

log = logging.getLogger(__name__)


async def serve_transport(
    process: Process,
    transport: Transport,
    clock: Clock = monotonic,
    speeches: Mapping[str, MakeSpeech] = SPEECHES,
) -> None:
    """Serve one transport until `process.stopping`, then drain. Cancellation: as for stopping, without grace."""
    server = TransportServer(process, transport, clock, speeches)
    await server.start()
    try:
        await process.stopping.wait()
        await server.drain()
    finally:
        await server.close()


class TransportServer:
    """The parts of a worker and the flag that turns the transport on and off."""

    def __init__(
        self, process: Process, transport: Transport, clock: Clock, speeches: Mapping[str, MakeSpeech]
    ) -> None:
        self._process = process
        self._transport = transport
        self._name = transport.name
        self._bus = process.bus
        self._subjects = process.subjects
        self._tasks = Tasks(self._task_died)
        self._holder = BodyHolder(process.bus, process.subjects, max_total_bytes=HELD_BODY_BYTES)
        self._links = Links(process, transport, self._holder, self._tasks, clock, speeches)
        self._clock = clock
        self._commands: Subscription | None = None
        self._dialling: Subscription | None = None
        self._announcing: Subscription | None = None
        self._naming: Subscription | None = None
        self._draining = False
        self._running: asyncio.Task[None] | None = None
        self._switch = asyncio.Lock()
        self._report_now = asyncio.Event()

    async def start(self) -> None:
        """Ask for the identity, serve the subjects, run the transport if its flag is on."""
        status = self._links.status
        status.enabled = self._process.flags.enabled(self._name)
        self._process.health = self._health
        # From the beginning: a worker that waits for its certificate is seen.
        self._tasks.start(self._report(), name="status")
        # Before any link: an answer may come with the first one, and its body has to be held.
        await self._holder.start()
        identity = await self._identity()
        if identity is None:
            return
        # Before it runs: by the key others find us, and a run without it finds nobody.
        self._transport.set_identity(identity.certificate.identity_key)
        self._tasks.start(self._renew(identity), name="renew")
        serve = self._bus.serve
        self._commands = await serve(self._subjects.worker(self._bus.instance), WorkerCommand, self._command)
        self._dialling = await serve(self._subjects.dial(self._name), Dial, self._dial, queue=QUEUE_DIAL)
        self._announcing = await serve(self._subjects.announce, AnnounceManifests, self._announce)
        # Served before the transport runs: its first link brings dials and cancels at once.
        self._naming = await serve(self._subjects.named("*", self._name), NamedGuests, self._named)
        self._links.on_change = self._report_now.set
        self._process.flags.on_change(self._flag_changed)
        await self._obey_flag()

    async def drain(self) -> None:
        """No new dials, requests or links; answers in flight go on for DRAIN_GRACE_S at most."""
        self._draining = True
        # At once: managers and views are not to send anybody here any more.
        self._report_now.set()
        if self._dialling is not None:
            await self._dialling.close()
        await self._links.drain(DRAIN_GRACE_S)

    async def close(self) -> None:
        async with self._switch:
            await self._stop_transport(Cause.DRAINING)
        for subscription in (self._commands, self._dialling, self._announcing, self._naming):
            if subscription is not None:
                await subscription.close()
        await self._tasks.close()
        # Last: until here answers of ours may still be pulled.
        await self._holder.close()

    def _task_died(self, name: str) -> None:
        if name not in ONE_OFF_TASKS:
            self._process.tasks.start(_die_of(name), name=f"worker-{name}")

    async def _identity(self) -> LinkIdentity | None:
        """The certified identity; None where the process was asked to stop before there was one."""
        asking = self._tasks.start(certified_identity(self._bus, self._subjects), name="certify")
        stopping = self._tasks.start(self._process.stopping.wait(), name="stopping")
        await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not asking.done():
            asking.cancel()
            return None
        identity: LinkIdentity = asking.result()
        self._links.identity = identity
        return identity

    async def _renew(self, identity: LinkIdentity) -> None:
        while True:
            await asyncio.sleep(identity.renew_in_s)
            identity = await certified_identity(self._bus, self._subjects)
            self._links.identity = identity

    def _flag_changed(self) -> None:
        self._tasks.start(self._obey_flag(), name="flag")

    async def _obey_flag(self) -> None:
        """Run or tear down the transport so that it is as its flag says."""
        # One switch at a time: a flag that goes off and on again quickly must leave one run, not two or none.
        async with self._switch:
            enabled = self._process.flags.enabled(self._name) and not self._draining
            status = self._links.status
            if enabled and self._running is None:
                self._links.reset_counters()
                status.enabled = True
                self._running = self._tasks.start(self._run_transport(), name="transport")
            elif not enabled and self._running is not None:
                status.enabled = False
                await self._stop_transport(Cause.DISABLED)
                self._links.reset_counters()
            status.enabled = self._process.flags.enabled(self._name)
        self._report_now.set()

    async def _run_transport(self) -> None:
        while True:
            try:
                await self._transport.run(self._links.receive)
            except TransportError as error:
                self._links.failed(error.cause)
            except Exception as error:
                log.error("the transport ended with %s", type(error).__name__, exc_info=log.isEnabledFor(logging.DEBUG))
                self._links.failed(Cause.OTHER)
            await asyncio.sleep(RESTART_FIRST_S)

    async def _stop_transport(self, cause: Cause) -> None:
        """cause: what its links are said to have ended for."""
        if self._running is None:
            return
        self._links.part(cause)
        self._running.cancel()
        # Not awaited itself: its cancellation would look like one of ours.
        await asyncio.wait({self._running})
        self._running = None
        await self._links.all_gone(cause)

    async def _command(self, command: WorkerCommand, incoming: Incoming) -> Pong | Done:
        match command:
            case Ping():
                return Pong()
            case CancelRequest():
                self._links.asking.cancel(command.request_id)
            case SignalMessage():
                if isinstance(self._transport, Signalled):
                    await self._transport.signal(command.message)
            case DrainWorker():
                self._process.stopping.set()
            case _:
                assert_never(command)
        return Done()

    async def _dial(self, call: Dial, incoming: Incoming) -> Dialled:
        if self._draining:
            raise RemoteFailure(Cause.DRAINING)
        # Switched off between the manager's look at the flag and this: said by its cause, and no fault of the
        # transport.
        if self._running is None:
            raise RemoteFailure(Cause.DISABLED)
        timeout_s = incoming.remaining_s(unix_ms(), DEFAULT_DIAL_S)
        try:
            session = await self._links.dial(call, timeout_s)
        except TransportError as error:
            self._links.status.send_failed(error.cause, unix_ms())
            self._report_now.set()
            raise
        return Dialled(self._bus.instance, session.link)

    async def _announce(self, call: AnnounceManifests, incoming: Incoming) -> None:
        self._links.announce(tuple(call.manifests))

    async def _named(self, call: NamedGuests, incoming: Incoming) -> None:
        self._links.tied.hear([(PeerToken(guest), PeerToken(peer)) for guest, peer in call.pairs])

    async def _report(self) -> None:
        """The heartbeat: every second, and at once when something changed."""
        while True:
            # Before the status is taken: what changes while it is published is in the next one, at once.
            self._report_now.clear()
            await self._publish_status()
            try:
                async with asyncio.timeout(STATUS_INTERVAL_S):
                    await self._report_now.wait()
            except TimeoutError:
                pass

    def _health(self) -> Health:
        status = self._links.status
        return Health(status.state(self._clock()).value, status.last_error or "")

    async def _publish_status(self) -> None:
        status = self._links.status
        report = WorkerStatus(
            worker=self._bus.instance,
            transport=self._name.value,
            state=status.state(self._clock()).value,
            last_error=status.last_error,
            peers=sorted(peer_name(peer) for peer in self._links.peers()),
            enabled=status.enabled,
            draining=self._draining,
            at_ms=unix_ms(),
            refused=dict(status.refused + self._links.transport_refused()),
            bytes_in=status.bytes_in,
            bytes_out=self._links.bytes_out,
            last_activity_ms=status.last_activity_ms,
            chaos=dict(self._links.chaos.counts),
            places=self._transport.meeting_places() if isinstance(self._transport, Meets) else [],
            last_error_ms=status.last_error_ms,
            measures=self._transport.measures() if isinstance(self._transport, Measured) else {},
            pages_url=self._transport.pages_url if isinstance(self._transport, TakesPages) else "",
        )
        try:
            await self._bus.publish(self._subjects.event("status"), report)
        except BusError:
            log.debug("status not published: no bus")


async def _die_of(task: str) -> None:
    """A crash that the process owns: it drains, and exits as crashed."""
    raise LocalProtocolError(f"the worker's task {task} has died")
