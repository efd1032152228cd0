"""`python -m tests.services.webtorrent.lone_worker DOCUMENT`: a webtorrent worker's transport, alone in a process.

Prints where its wire listens, then serves until its input ends. Whoever sends it a frame is sent records from then on,
as many as it reads.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

from services.webtorrent.transport import WebtorrentTransport
from shared.errors import TransportError
from shared.ids import LinkId
from shared.tasks.owned import Tasks
from shared.transport.contract import RecordReceived, TransportEvent
from tests.services.webtorrent.swarm_parts import config

RECORD = bytes(65_535)


async def main(document: Path) -> None:
    transport = WebtorrentTransport(config(document, host="127.0.0.2", dht=True, trackers=True))
    tasks = Tasks()
    answering: set[LinkId] = set()

    async def answer(link: LinkId) -> None:
        with suppress(TransportError):
            while True:
                await transport.send(link, RECORD)

    def receive(event: TransportEvent) -> None:
        if isinstance(event, RecordReceived) and event.link not in answering:
            answering.add(event.link)
            tasks.start(answer(event.link), name="answer")

    running = asyncio.create_task(transport.run(receive))
    while transport.endpoint is None:
        await asyncio.sleep(0.01)
    print(transport.endpoint, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await tasks.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
