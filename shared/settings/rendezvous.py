"""The rendezvous document: where peers meet. Read from a file and reloaded when it changes.

Nothing public is in it by default; an empty document is valid and leaves each transport what it can do
without (shared.settings.config: `rendezvous.document`).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from shared.errors import ConfigError
from shared.undecodable import UNDECODABLE


class PeerServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A PeerServer: http(s) URL with its path, e.g. `http://127.0.0.1:9000/`."""

    url: str
    key: str = "peerjs"


class IceServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    urls: list[str]
    username: str = ""
    credential: str = ""


class RendezvousDocument(msgspec.Struct, frozen=True, rename="camel"):
    """webtorrent_trackers: `ws(s)://` URLs. dht_nodes: `host:port` to join the DHT through."""

    peer_servers: list[PeerServer] = []
    webtorrent_trackers: list[str] = []
    ice_servers: list[IceServer] = []
    dht_nodes: list[str] = []


def load_document(path: str) -> RendezvousDocument:
    """Read a document; "" gives the empty one.

    Raises: ConfigError naming the file and the field.
    """
    if not path:
        return RendezvousDocument()
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=RendezvousDocument)
    except OSError as error:
        raise ConfigError([f"rendezvous.document: cannot read {path}: {error.strerror}"]) from error
    except UNDECODABLE as error:
        raise ConfigError([f"rendezvous.document: {path}: {error}"]) from error
