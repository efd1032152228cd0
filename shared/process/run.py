"""How every service process starts, serves and ends: configuration, telemetry, bus, flags, signals, drain.

`run("webrtc", app)` is all a service's `__main__` holds. SIGTERM and SIGINT set `stopping`; the app drains and
returns; then flags, tasks and the bus are closed. Exit codes: 0 stopped as asked, 2 bad settings, 3 could not
start, 4 a part of it crashed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from shared import exit_codes
from shared.bus.contract import Bus
from shared.bus.messages.envelopes import Health
from shared.bus.messages.records import Diagnostic
from shared.bus.messages.subjects import BUCKET_LAYOUT, Subjects
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.layout import SCHEMA_KEY, NewerSchema, refuse_newer
from shared.bus.nats.permissions import SETTINGS_WRITERS
from shared.bus.nats.users import read_seed
from shared.clock import unix_ms
from shared.errors import BusError, ConfigError
from shared.ids import new_instance_id
from shared.process.pulse import pulse
from shared.process.tracing import Telemetry
from shared.settings.blocklist import Blocklist
from shared.settings.config import Config, load
from shared.settings.flags import Flags
from shared.tasks.owned import Tasks
from shared.telemetry import names
from shared.transports import TransportState

log = logging.getLogger(__name__)


@dataclass
class Process:
    """What a service's app gets to work with."""

    service: str
    instance: str
    config: Config
    bus: Bus
    mesh: Bus | None
    subjects: Subjects
    flags: Flags
    blocklist: Blocklist
    tasks: Tasks
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    health: Callable[[], Health] = lambda: Health(TransportState.INITIALIZING)
    """How it is, for its container's health check. An app sets it when it serves."""

    def serves(self) -> None:
        """Said by an app whose subjects are all served, and which has no better word for how it is."""
        self.health = lambda: Health(TransportState.READY)


App = Callable[[Process], Awaitable[None]]
"""Wires the service, serves until `process.stopping` is set, drains, returns."""


class CannotStart(Exception):
    """An app's one clear line about why it cannot start (a taken port, say); the process exits with 3."""


def run(service: str, app: App, *, mesh: bool = False) -> int:
    """Run a service until it is asked to stop. Returns: the exit code."""
    try:
        config = load()
        logging.basicConfig(
            level=config.telemetry.log_level.upper(),
            format=f"%(asctime)s {service} %(levelname)s %(name)s: %(message)s",
        )
        return _loop_run(_serve(service, config, app, mesh))
    except ConfigError as error:  # also of what only the app can find out: a store that cannot be opened, say
        for problem in error.problems:
            print(f"{service}: {problem}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return exit_codes.USAGE


def _loop_run(main: Awaitable[int]) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_await(main))
    return uvloop.run(_await(main))


async def _await(main: Awaitable[int]) -> int:
    return await main


def _keep_pulse(process: Process, pulse_file: str) -> None:
    """Ask ourselves over the bus how we are, and leave the answer where a health check reads it."""
    if pulse_file:
        asking = pulse(process.bus, process.subjects, process.service, lambda: process.health(), Path(pulse_file))
        process.tasks.start(asking, name="pulse")


def _set_by_signals() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


async def _serve(service: str, config: Config, app: App, mesh: bool) -> int:
    instance = new_instance_id(service)
    stopping = _set_by_signals()
    crashed: list[str] = []

    def on_crash(task: str) -> None:
        crashed.append(task)
        stopping.set()

    try:
        # NATS micro for the node's account only: in `mesh` no user may announce anything.
        bus = await _connect(config, instance, service, "seed_file", announce=True)
        mesh_bus = await _connect(config, instance, service, "mesh_seed_file") if mesh else None
    except BusError as error:
        # Its texts are ours, a sentence a reason, and hold no address.
        print(f"{service}: the NATS server at bus.url cannot be used: {error}", file=sys.stderr)  # noqa: T201
        return exit_codes.CANNOT_START
    for connected in (bus, mesh_bus):
        if connected is not None:
            connected.on_crash(on_crash)
    telemetry = Telemetry(service, instance, config.node.id, config.telemetry)
    tasks = Tasks(on_crash)
    flags = Flags(config.flags)
    subjects = Subjects(config.node.id)
    blocklist = Blocklist()
    process = Process(service, instance, config, bus, mesh_bus, subjects, flags, blocklist, tasks, stopping)
    try:
        await _follow_settings(process)
        tasks.start(telemetry.bus_exporter.run(bus, subjects), name="spans")
        _keep_pulse(process, config.node.pulse_file)
        log.info("started %s", instance)
        await app(process)
    except CannotStart as error:
        print(f"{service}: {error}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return exit_codes.CANNOT_START
    finally:
        await _finish(process, telemetry)
    log.info("stopped %s", instance)
    return exit_codes.CRASHED if crashed else exit_codes.OK


async def _follow_settings(process: Process) -> None:
    await _refuse_newer(process)
    writes = process.service in SETTINGS_WRITERS
    await process.flags.start(process.bus, seed=writes)
    await process.blocklist.start(process.bus, keep=writes)
    if writes:
        process.bus.on_lost(lambda name: _report_loss(process, name))


async def _refuse_newer(process: Process) -> None:
    """Raises: CannotStart: what NATS holds is of a version that we do not know."""
    known = await (await process.bus.kv(BUCKET_LAYOUT)).get(SCHEMA_KEY)
    try:
        refuse_newer(known.value if known is not None else None)
    except NewerSchema as error:
        raise CannotStart(f"the NATS server at bus.url: {error}") from error


def _report_loss(process: Process, name: str) -> None:
    """A diagnostic for people: NATS has lost a bucket or stream, which was made again."""
    now_ms = unix_ms()
    diagnostic = Diagnostic(
        id=f"lost.{name}.{now_ms}",
        level="error",
        source="bus",
        code=names.DIAGNOSTIC_STORAGE_LOST,
        message=f"NATS had lost {name}; it was made again, and what this node still knew of it was put back",
        timestamp_ms=now_ms,
        context={"name": name},
    )

    async def publish() -> None:
        try:
            await process.bus.publish(process.subjects.event("diagnostic"), diagnostic)
        except BusError as error:
            log.warning("a loss could not be reported: %s", error.cause)

    process.tasks.start(publish(), name="loss")


async def _finish(process: Process, telemetry: Telemetry) -> None:
    await process.tasks.close()
    await asyncio.to_thread(telemetry.flush_to_bus)
    try:
        await telemetry.bus_exporter.flush(process.bus, process.subjects)
    finally:
        await process.flags.close()
        await process.blocklist.close()
        await process.bus.close()
        if process.mesh is not None:
            await process.mesh.close()
    await asyncio.to_thread(telemetry.shutdown)


async def _connect(config: Config, instance: str, service: str, setting: str, *, announce: bool = False) -> Bus:
    return await nats_bus.connect(
        config.bus.server,
        instance,
        seed=read_seed(f"bus.{setting}", getattr(config.bus, setting)),
        service=service,
        announce=announce,
        scope=config.node.id if config.bus.scoped else "",
        ca_file=config.bus.ca_file,
    )
