"""A process that follows the flags: prints `ready`, then for each change the webTorrentTransport flag and when.

    python -m tests.shared.settings.flag_watcher INSTANCE

Settings as any service's. A line is `on` or `off` and CLOCK_MONOTONIC in ns, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import sys
import time

from shared.bus.nats import bus as nats_bus
from shared.settings.config import load
from shared.settings.flags import Flags
from shared.transports import TransportName


async def main(instance: str) -> None:
    config = load()
    bus = await nats_bus.connect(config.bus.server, instance)
    flags = Flags(config.flags)

    def tell() -> None:
        word = "on" if flags.enabled(TransportName.WEBTORRENT) else "off"
        print(word, time.monotonic_ns(), flush=True)

    flags.on_change(tell)
    await flags.start(bus)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
