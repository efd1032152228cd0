"""`python -m services.rendezvous`: a meeting place for browsers and nodes, on its own.

It belongs to no node, so it does not start through shared.process.run; its exit codes are the same: 0 stopped as
asked, 2 bad settings, 3 could not start, 4 a part of it crashed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from services.rendezvous.app import Rendezvous
from shared import exit_codes
from shared.bus.contract import Bus
from shared.bus.messages.conversations import RENDEZVOUS
from shared.errors import BusError, ConfigError, TransportError
from shared.ids import new_instance_id
from shared.process.address_file import remove_address, write_address
from shared.settings.config import Config, load
from shared.tasks.ending import end_tasks

SPARE_FILES = 256
"""What the process needs besides its sockets."""

log = logging.getLogger(__name__)


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns: the exit code."""
    try:
        config = load()
        logging.basicConfig(
            level=config.telemetry.log_level.upper(),
            format="%(asctime)s rendezvous %(levelname)s %(name)s: %(message)s",
        )
        # aiohttp's own words about a broken request name the client's address.
        logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
        _allow_sockets(2 * config.rendezvous.max_sockets + SPARE_FILES)  # both entries full
        return _run(config)
    except ConfigError as error:
        for problem in error.problems:
            print(f"rendezvous: {problem}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return exit_codes.USAGE


def _allow_sockets(files: int) -> None:
    """Most systems start a process with 1,024 open files and let it have more."""
    try:
        import resource
    except ImportError:
        return  # not POSIX: no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files if hard == resource.RLIM_INFINITY else min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _run(config: Config) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_serve(config))
    return uvloop.run(_serve(config))


async def _serve(config: Config) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    bus: Bus | None = None
    try:
        bus = await _mesh(config)
        rendezvous = Rendezvous(config.rendezvous, bus=bus)
        await rendezvous.start()
        try:
            write_address(config.home, rendezvous.url)
            log.info("ready")
            failed = asyncio.create_task(rendezvous.failed())
            stop = asyncio.create_task(stopping.wait())
            await asyncio.wait({failed, stop}, return_when=asyncio.FIRST_COMPLETED)
            broken = failed.done()
            await end_tasks([failed, stop])
        finally:
            remove_address(config.home)
            await rendezvous.close()
            if bus is not None:
                await bus.close()
    except BusError as error:
        text = f"the bus cannot be used ({error.cause}); see bus.url and bus.mesh_seed_file"
        print(f"rendezvous: {text}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return exit_codes.CANNOT_START
    except TransportError as error:
        print(f"rendezvous: {error}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return exit_codes.CANNOT_START
    except OSError as error:
        print(f"rendezvous: {config.home}: {error.strerror}; see node.home and bus.mesh_seed_file", file=sys.stderr)  # noqa: T201
        return exit_codes.CANNOT_START
    log.info("stopped")
    return exit_codes.CRASHED if broken else exit_codes.OK


async def _mesh(config: Config) -> Bus | None:
    """The account `mesh`, where other instances are; None where no user of it is given: then we are alone.

    Raises: BusError; OSError: the seed cannot be read.
    """
    if not config.bus.mesh_seed_file:
        return None
    # Imported here: an instance that is alone needs no NATS client.
    from shared.bus.nats import bus as nats_bus

    seed = (await asyncio.to_thread(Path(config.bus.mesh_seed_file).read_text)).strip()
    return await nats_bus.connect(
        config.bus.server,
        new_instance_id("rendezvous"),
        seed=seed,
        service=RENDEZVOUS,
        ca_file=config.bus.ca_file,
    )


if __name__ == "__main__":
    sys.exit(main())
