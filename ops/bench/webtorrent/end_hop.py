"""An end of one hop over NATS: a body is held by one process and pulled by another, as bytes cross the bus here."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing
from pathlib import Path

import msgspec

from ops.bench.webtorrent.speaking import Watch, asked_to_begin, run_end, say, until_closed
from shared.bus.bodies import RANGE_BYTES, RANGE_SLACK_BYTES, BodyHolder, pull_ranges
from shared.bus.contract import Bus
from shared.bus.messages.conversations import ADMIN
from shared.bus.messages.envelopes import BodyRef
from shared.bus.messages.subjects import Subjects
from shared.bus.nats import bus as nats_bus
from shared.ids import new_instance_id

TIMEOUT_S = 600.0
SENDER, RECEIVER = "chunk", "webtorrent"
"""Services, for the bus answers no others."""


async def hold(bus: Bus, subjects: Subjects, size_bytes: int) -> None:
    holder = BodyHolder(bus, subjects, max_total_bytes=0, ttl_s=TIMEOUT_S)
    await holder.start()
    zeros = bytes(RANGE_BYTES + RANGE_SLACK_BYTES)

    async def read(offset: int, length: int) -> bytes:
        return zeros[:length]

    say(body=msgspec.msgpack.encode(holder.hold_reader(size_bytes, read, RECEIVER)).hex())
    await until_closed()
    await holder.close()


async def fetch(bus: Bus, subjects: Subjects, ref: BodyRef, size_bytes: int) -> None:
    say()
    await asked_to_begin()
    watch = Watch(size_bytes)
    async with aclosing(pull_ranges(bus, subjects, ref, timeout_s=TIMEOUT_S)) as ranges:
        async for part in ranges:
            watch.count(len(part))
    await until_closed()


async def main() -> None:
    options = json.loads(sys.argv[1])
    subjects = Subjects(options["node"])
    seed = (await asyncio.to_thread(Path(options["seed"]).read_text)).strip()
    sends = options["role"] == "send"
    instance = new_instance_id(SENDER if sends else RECEIVER)
    bus = await nats_bus.connect(options["url"], instance, seed=seed, service=ADMIN)
    try:
        if sends:
            await hold(bus, subjects, options["size"])
        else:
            ref = msgspec.msgpack.decode(bytes.fromhex(options["body"]), type=BodyRef)
            await fetch(bus, subjects, ref, options["size"])
    finally:
        await bus.close()


if __name__ == "__main__":
    run_end(main())
