"""An end that is libtorrent, over TCP: a seed of zeros from a sparse file, or who fetches them into a folder."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from ops.bench.webtorrent.speaking import Watch, asked_to_begin, run_end, say, until_closed

lt: Any = importlib.import_module("libtorrent")  # its stubs know less than it does
POLL_S = 0.005
SETTINGS = {
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "allow_multiple_connections_per_ip": True,
    "alert_mask": 0,
}


def handle_of(session: Any, torrent: Path, folder: Path, *, seeds: bool) -> Any:
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(str(torrent))
    parameters.save_path = str(folder)
    parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if seeds:
        parameters.flags |= lt.torrent_flags.seed_mode
    return session.add_torrent(parameters)


async def fetch(handle: Any, port: int, watch: Watch) -> None:
    handle.connect_peer(("127.0.0.1", port))
    counted = 0
    while not watch.done.is_set():
        status = handle.status()
        # The last piece counts when its hash is checked, as at the other ends.
        arrived = (
            status.total_wanted if status.is_seeding else min(status.total_payload_download, status.total_wanted - 1)
        )
        watch.count(arrived - counted)
        counted = arrived
        await asyncio.sleep(POLL_S)


async def main() -> None:
    options = json.loads(sys.argv[1])
    session = lt.session(SETTINGS)
    folder, torrent = Path(options["folder"]), Path(options["torrent"])
    if options["role"] == "send":
        handle = handle_of(session, torrent, folder, seeds=True)
        while not handle.status().is_seeding:  # noqa: ASYNC110 - libtorrent has no event loop of ours
            await asyncio.sleep(POLL_S)
        say(port=session.listen_port())
        await until_closed()
        return
    say()
    await asked_to_begin()
    watch = Watch(options["size"])
    await fetch(handle_of(session, torrent, folder, seeds=False), options["port"], watch)
    await until_closed()


if __name__ == "__main__":
    run_end(main())
