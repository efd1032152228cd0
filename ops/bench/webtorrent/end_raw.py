"""An end of a plain TCP connection on loopback: what the machine gives, with blocking sockets and nothing above."""

from __future__ import annotations

import asyncio
import json
import socket
import sys

from ops.bench.webtorrent.speaking import Watch, asked_to_begin, run_end, say, until_closed

PART_BYTES = 256 * 1024


def send_all(listener: socket.socket, size_bytes: int) -> None:
    connection, _ = listener.accept()
    part = bytes(PART_BYTES)
    with connection:
        for start in range(0, size_bytes, PART_BYTES):
            connection.sendall(part[: min(PART_BYTES, size_bytes - start)])


def receive_all(port: int, watch: Watch) -> None:
    buffer = bytearray(PART_BYTES)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while not watch.done.is_set():
            if not (length := connection.recv_into(buffer)):
                raise ConnectionError("the sender has left")
            watch.count(length)


async def main() -> None:
    options = json.loads(sys.argv[1])
    if options["role"] == "send":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            say(port=listener.getsockname()[1])
            await asyncio.to_thread(send_all, listener, options["size"])
            await until_closed()
        return
    say()
    await asked_to_begin()
    await asyncio.to_thread(receive_all, options["port"], Watch(options["size"]))
    await until_closed()


if __name__ == "__main__":
    run_end(main())
