"""A peer in a process of its own, to be stopped and killed: dials the node of a test, then sends or only listens.

Run: python -m tests.services.webrtc.remote_end FOLDER SERVER_PORT PEER_ID_KEY_HEX [--send]
Prints `up` when its link is open, and with each MiB that it has received how many bytes there were.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from shared.errors import TransportError
from shared.ids import peerjs_id
from shared.settings.rendezvous import PeerServer
from shared.transport.contract import PeerHint, RecordReceived
from tests.services.webrtc.node import Node

RECORD = bytes(60_000)
MIB = 2**20


async def main(folder: str, port: str, key: str, *flags: str) -> None:
    node = await Node("far", Path(folder), [PeerServer(f"http://127.0.0.1:{port}/")]).start()
    hint = PeerHint(bytes.fromhex(key), peerjs_id(bytes.fromhex(key)))
    while not node.worker.ups:
        with contextlib.suppress(TransportError):
            await node.worker.transport.dial(hint, 3)
        await asyncio.sleep(0.05)
    print("up", flush=True)
    link = node.worker.ups[0].link
    received = said = 0
    while not node.worker.downs:
        if "--send" in flags:
            await node.worker.transport.send(link, RECORD)
            continue
        events = node.worker.events
        received += sum(len(event.record) for event in events if isinstance(event, RecordReceived))
        events[:] = [event for event in events if not isinstance(event, RecordReceived)]
        if received // MIB > said:
            said = received // MIB
            print(received, flush=True)
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
