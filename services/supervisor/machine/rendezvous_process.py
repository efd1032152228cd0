"""A rendezvous of our own as a child process, and the document that tells nodes where it is.

It is no part of a node: it has no bus, no key, and a home of its own for the one file that says where it listens.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from services.supervisor.machine.errors import CannotStart, failed_to_start
from services.supervisor.machine.node import service_command, service_module
from services.supervisor.machine.ports import check_port
from services.supervisor.machine.processes import Child, Children, Program
from services.supervisor.machine.toml_text import config_toml
from shared.bus.nats.users import write_private
from shared.gateway_api.address import read_address
from shared.process.address_file import ADDRESS_FILE
from shared.settings.config import (
    ENV_CONFIG_FILE,
    Config,
    NodeSettings,
    RendezvousSettings,
    TelemetrySettings,
    child_environment,
)
from shared.settings.rendezvous import PeerServer, RendezvousDocument

SERVICE = "rendezvous"
READY_TIMEOUT_S = 20.0
POLL_INTERVAL_S = 0.05


@dataclass(frozen=True)
class Rendezvous:
    """A running rendezvous. url: http, with its path and a slash at its end."""

    url: str
    child: Child

    def document(self, dht_nodes: Sequence[str]) -> RendezvousDocument:
        """What nodes need to meet here. dht_nodes: `host:port` of nodes in the DHT."""
        return RendezvousDocument(
            peer_servers=[PeerServer(self.url)],
            webtorrent_trackers=[f"ws{self.url.removeprefix('http')}announce"],
            dht_nodes=list(dht_nodes),
        )


async def start_rendezvous(
    children: Children, *, settings: RendezvousSettings, log_level: str, home: Path, log_file: Path
) -> Rendezvous:
    """Start it where `settings` say (port 0: any free one) and wait until it listens. Raises: CannotStart."""
    check_port("rendezvous", settings.host, settings.port, "the setting rendezvous.port")
    os.makedirs(home, mode=0o700, exist_ok=True)
    config_file = home / "rendezvous.toml"
    config = Config(
        node=NodeSettings(id=SERVICE, home=str(home)),
        telemetry=TelemetrySettings(log_level=log_level),
        rendezvous=settings,
    )
    write_private(config_file, config_toml(config).encode())
    environment = child_environment({ENV_CONFIG_FILE: str(config_file)})
    program = Program(SERVICE, service_command(SERVICE), environment, log_file, module=service_module(SERVICE))
    child = children.start(program)
    listening = asyncio.create_task(_listening(child, home))
    ended = asyncio.create_task(children.first_exit([child]))
    try:
        await asyncio.wait({listening, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            raise failed_to_start(child)
        url = listening.result()
    finally:
        listening.cancel()
        ended.cancel()
    # A restarted one comes back to the port that its document names.
    pinned = msgspec.structs.replace(settings, port=urlsplit(url).port or settings.port)
    write_private(config_file, config_toml(msgspec.structs.replace(config, rendezvous=pinned)).encode())
    path = settings.path.strip("/")
    return Rendezvous(f"{url}/{path}/" if path else f"{url}/", child)


def write_document(path: Path, document: RendezvousDocument) -> None:
    """As JSON with swarm-space's camelCase keys; complete at every moment, since nodes reload it."""
    partial = path.with_suffix(".partial")
    # Nodes go where it says: it is its owner's alone, whatever the umask.
    write_private(partial, msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    partial.replace(path)


async def _listening(child: Child, home: Path) -> str:
    """Wait for its address file. Returns: its URL, without a slash at the end."""
    give_up_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < give_up_s:
        if (address := read_address(home, ADDRESS_FILE)) is not None:
            return address.url
        await asyncio.sleep(POLL_INTERVAL_S)
    raise CannotStart(f"the rendezvous did not listen within {READY_TIMEOUT_S:.0f} s", child.log_tail())
