"""`keep`: makes a node's streams and buckets, and makes them again when NATS loses them, until it is asked to end.

For nodes whose processes something else than `up` starts. It reads what every service reads: `bus.url`, `node.id`,
and `bus.seed_file`, the keeper's, which `init` made. It needs no home, no other seed, and no network but NATS's.

With `node.pulse_file` it writes there how it is after each look, for a container's health check. It serves nothing on
the bus, being in the account of the streams; its question crosses the server all the same.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.supervisor.machine.errors import CannotStart
from services.supervisor.machine.node import keep_laid_out, keeper_connection, lay_out
from shared.bus.messages.envelopes import Health
from shared.bus.nats.layout import NewerSchema
from shared.bus.nats.users import read_seed
from shared.errors import BusError
from shared.process.pulse import remove_pulse, write_pulse
from shared.settings.config import Config
from shared.transports import TransportState

NATS_RETRY_S = 1.0
"""NATS may start after us; a refusal is final, an absence is not."""
NATS_WAIT_S = 60.0
INSTANCE = "keeper"


async def keep(config: Config, *, once: bool = False) -> None:
    """Keep the layout until cancelled; once: end when it is made.

    Raises: CannotStart; ConfigError: the seed cannot be read.
    """
    if once:
        await _once(config)
        return
    seed = read_seed("bus.seed_file", config.bus.seed_file)
    path = Path(config.node.pulse_file) if config.node.pulse_file else None

    def looked(refused: str) -> None:
        if path is not None:
            state = TransportState.ERROR if refused else TransportState.READY
            write_pulse(path, INSTANCE, Health(state, refused))

    try:
        for _ in range(round(NATS_WAIT_S / NATS_RETRY_S)):
            connection = keeper_connection(config.bus.server, {}, seed, config.bus.ca_file)
            try:
                await keep_laid_out(connection, config.node.id, _scope(config), looked)
            except NewerSchema as error:
                raise CannotStart(f"node {config.node.id}: {error}") from error
            except BusError as error:
                reason = error
            await asyncio.sleep(NATS_RETRY_S)
    finally:
        if path is not None:
            remove_pulse(path)
    raise CannotStart(f"node {config.node.id}: the NATS server cannot be used: {reason}") from reason


async def _once(config: Config) -> None:
    bus = config.bus
    seed = read_seed("bus.seed_file", bus.seed_file)
    for _ in range(round(NATS_WAIT_S / NATS_RETRY_S)):
        try:
            await lay_out(config.node.id, bus.server, {}, seed, scope=_scope(config), ca_file=bus.ca_file)
            return
        except CannotStart as error:
            if isinstance(error.__cause__, NewerSchema):
                raise  # waiting would not help
            reason = error
        await asyncio.sleep(NATS_RETRY_S)
    raise reason


def _scope(config: Config) -> str:
    return config.node.id if config.bus.scoped else ""
