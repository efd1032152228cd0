"""`keep`: makes a node's streams and buckets, and makes them again when NATS loses them, until it is asked to end.

For nodes whose processes something else than `up` starts. It reads what every service reads: `bus.url`, `node.id`,
and `bus.seed_file`, the keeper's, which `init` made. It needs no home, no other seed, and no network but NATS's.
"""

from __future__ import annotations

import asyncio

from services.supervisor.machine.errors import CannotStart
from services.supervisor.machine.node import keep_laid_out, keeper_connection
from shared.bus.nats.users import read_seed
from shared.errors import BusError
from shared.settings.config import Config

NATS_RETRY_S = 1.0
"""NATS may start after us; a refusal is final, an absence is not."""
NATS_WAIT_S = 60.0


async def keep(config: Config) -> None:
    """Keep the layout until cancelled. Raises: CannotStart; ConfigError: the seed cannot be read."""
    seed = read_seed("bus.seed_file", config.bus.seed_file)
    scope = config.node.id if config.bus.scoped else ""
    for _ in range(round(NATS_WAIT_S / NATS_RETRY_S)):
        try:
            await keep_laid_out(keeper_connection(config.bus.server, {}, seed), config.node.id, scope)
        except BusError as error:
            reason = error
        await asyncio.sleep(NATS_RETRY_S)
    raise CannotStart(f"node {config.node.id}: the NATS server cannot be used: {reason}") from reason
