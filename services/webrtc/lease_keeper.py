"""Keeps the signalling lease: executes the lease machine's commands on KV and the bus.

While it holds, `signalling` runs; when the lease is lost, or the bus for a TTL, its sockets are closed.
Cancellation: sockets close first, then the lease is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import assert_never

import msgspec

from services.webrtc.lease import (
    LEASE_KEY,
    PING_TIMEOUT_S,
    Command,
    LeaseRecord,
    PingHolder,
    ReadLease,
    SignalLease,
    WriteLease,
)
from services.webrtc.signalling import Signalling
from shared.bus.contract import Bus, KeyValue
from shared.bus.messages.envelopes import Ping, Pong
from shared.bus.messages.subjects import BUCKET_LEASES, Subjects
from shared.clock import Clock
from shared.errors import BusError, BusTimeout, NoResponders, RemoteFailure
from shared.undecodable import UNDECODABLE

BUS_TIMEOUT_S = 2.0
"""For one command; a bus that takes longer counts as lost, so that a lease that ran out is noticed in time."""
RELEASE_TIMEOUT_S = 1.0

log = logging.getLogger(__name__)


class LeaseKeeper:
    """One worker's part in holding the node's signalling socket. Lives for one `run`."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        lease: SignalLease,
        signalling: Signalling,
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._lease = lease
        self._signalling = signalling
        self._clock = clock
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._bucket: KeyValue | None = None
        self._withdrawn = False
        signalling.on_change = self._socket_changed

    @property
    def signalling_up(self) -> bool:
        """Whether some worker of the node has a registered socket, as far as this one knows."""
        return self._lease.signalling_up(self._clock())

    async def run(self) -> None:
        """Follow or hold, until cancelled."""
        try:
            while True:
                await self._step()
                self._on_change()
                await self._sleep_until(self._lease.next_deadline())
        finally:
            await self._release()

    async def withdraw(self) -> None:
        """Give the lease back and want it no more: this worker is about to stop."""
        self._withdrawn = True
        await self._release()

    async def _step(self) -> None:
        if self._withdrawn:
            return
        command = self._lease.handle_timer(self._clock())
        if not self._lease.holding(self._clock()):
            await self._signalling.stop()  # before the bus is asked: it may hang, and the lease is lost
        while command is not None:
            try:
                async with asyncio.timeout(BUS_TIMEOUT_S):
                    command = await self._execute(command)
                # After each command: a lease that was just taken has its sockets before the bus is asked again.
                await self._follow_lease()
            except (BusError, TimeoutError):
                self._bucket = None
                self._lease.bus_failed(self._clock())
                return

    async def _follow_lease(self) -> None:
        if self._lease.holding(self._clock()) and not self._withdrawn:
            await self._signalling.start()
        else:
            await self._signalling.stop()

    async def _execute(self, command: Command) -> Command | None:
        match command:
            case ReadLease():
                record, revision = await self._read()
                return self._lease.lease_read(record, revision, self._clock())
            case WriteLease():
                revision_now = await self._write(command)
                if revision_now is None:
                    return self._lease.lease_refused()
                self._lease.lease_written(revision_now, self._clock())
                return None
            case PingHolder(holder):
                return await self._ping(holder)
            case _:
                assert_never(command)

    async def _ping(self, holder: str) -> Command | None:
        try:
            await self._bus.request(self._subjects.worker(holder), Ping(), Pong, PING_TIMEOUT_S)
        except NoResponders:
            log.info("the holder of the signalling lease is gone; taking over")
            return self._lease.holder_gone(self._clock())
        except (BusTimeout, RemoteFailure):
            self._lease.holder_silent()
        else:
            self._lease.holder_answered()
        return None

    async def _leases(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._bus.kv(BUCKET_LEASES)
        return self._bucket

    async def _read(self) -> tuple[LeaseRecord | None, int]:
        entry = await (await self._leases()).get(LEASE_KEY)
        if entry is None or entry.value is None:
            return None, 0
        try:
            return msgspec.json.decode(entry.value, type=LeaseRecord), entry.revision
        except UNDECODABLE:
            return LeaseRecord(""), entry.revision  # nobody of ours wrote this: vacant

    async def _write(self, command: WriteLease) -> int | None:
        value = msgspec.json.encode(command.record)
        leases = await self._leases()
        if command.revision is None:
            return await leases.create(LEASE_KEY, value, command.ttl_s)
        return await leases.update(LEASE_KEY, value, command.revision, command.ttl_s)

    def _socket_changed(self) -> None:
        self._lease.socket_changed(self._signalling.is_open, self._clock())
        self._wake.set()
        self._on_change()

    async def _sleep_until(self, deadline: float) -> None:
        # What set it meanwhile has moved the lease's deadline, which is read next.
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if self._withdrawn else max(0.0, deadline - self._clock())):
                await self._wake.wait()

    async def _release(self) -> None:
        command = self._lease.release(self._clock())
        async with _always():
            # Before the lease is given back: two workers of a node must not be registered at a time.
            await self._signalling.stop()
            if isinstance(command, WriteLease):
                with contextlib.suppress(BusError):
                    await self._write(command)


@contextlib.asynccontextmanager
async def _always() -> AsyncIterator[None]:
    """Bounds what is done while ending, so that a hanging bus cannot hold up a stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RELEASE_TIMEOUT_S):
            yield
