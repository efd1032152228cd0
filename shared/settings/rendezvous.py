"""The rendezvous document: where peers meet. Read from a file; `rendezvous_follower` reloads it when it changes.

A member of one of its lists that cannot be used is left out and named in `faults`, so that it never harms the
others: it is our configuration's fault, known before anything is dialled, and never that of a peer. A file that
is no document at all is a ConfigError.

Nothing public is in it by default; an empty document is valid and leaves each transport what it can do
without (shared.settings.config: `rendezvous.document`).
Source: RFC 7064 and 7065 for the URLs of STUN and TURN servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from shared.errors import ConfigError
from shared.undecodable import UNDECODABLE

MAX_DOCUMENT_BYTES = 1024 * 1024
"""Ours: a few hundred bytes are usual; a larger file is something else."""
MAX_MEMBERS = 64
"""Ours: of each list; what is used of them is the transports' own, smaller choice."""
MAX_HOST_CHARS = 253
"""RFC 1035: the longest name."""

_ICE_URL = re.compile(
    r"(?:stuns?|turns?):(?P<host>[^?:\s/@]+)(?::(?P<port>[0-9]{1,5}))?(?:\?transport=(?P<transport>udp|tcp))?"
)
T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class Fault:
    """A member that is left out. list: its key in the file. index: its place there, from 0. reason: for people."""

    list: str
    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file says: the members that can be used, and those that cannot."""

    document: RendezvousDocument = field(default_factory=RendezvousDocument)
    faults: tuple[Fault, ...] = ()


class _Lists(msgspec.Struct, rename="camel"):
    """A document whose members are not looked at yet."""

    peer_servers: list[Any] = []
    webtorrent_trackers: list[Any] = []
    ice_servers: list[Any] = []
    dht_nodes: list[Any] = []


def load_document(path: str) -> Reading:
    """Read a document; "" gives the empty one.

    Raises: ConfigError naming the file and the field.
    """
    if not path:
        return Reading()
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_DOCUMENT_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise ConfigError([f"rendezvous.document: cannot read {path}: {reason}"]) from error
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise ConfigError([f"rendezvous.document: {path}: over {MAX_DOCUMENT_BYTES} bytes"])
    try:
        return parse_document(raw)
    except UNDECODABLE as error:
        raise ConfigError([f"rendezvous.document: {path}: {error}"]) from error


def parse_document(raw: bytes) -> Reading:
    """Decode a document, member by member. Raises: one of UNDECODABLE where it is none."""
    lists = msgspec.json.decode(raw, type=_Lists)
    faults: list[Fault] = []
    document = RendezvousDocument(
        _usable("peerServers", lists.peer_servers, PeerServer, _peer_server_fault, faults),
        _usable("webtorrentTrackers", lists.webtorrent_trackers, str, _tracker_fault, faults),
        _usable("iceServers", lists.ice_servers, IceServer, _ice_server_fault, faults),
        _usable("dhtNodes", lists.dht_nodes, str, _dht_node_fault, faults),
    )
    return Reading(document, tuple(faults))


def _usable(name: str, members: list[Any], kind: type[T], fault_of: Callable[[T], str], faults: list[Fault]) -> list[T]:
    usable: list[T] = []
    for index, raw in enumerate(members):
        if isinstance(raw, dict) and isinstance(raw.get("urls"), str):
            raw = {**raw, "urls": [raw["urls"]]}  # an RTCIceServer of WebRTC may have one without a list
        try:
            member = msgspec.convert(raw, kind)
        except msgspec.ValidationError:
            faults.append(Fault(name, index, "not of the form that this list has"))
            continue
        reason = fault_of(member) if len(usable) < MAX_MEMBERS else f"more than {MAX_MEMBERS}"
        if reason:
            faults.append(Fault(name, index, reason))
        else:
            usable.append(member)
    return usable


def _peer_server_fault(server: PeerServer) -> str:
    return _url_fault(server.url, ("http", "https", "ws", "wss"))


def _tracker_fault(url: str) -> str:
    return _url_fault(url, ("ws", "wss"))


def _ice_server_fault(server: IceServer) -> str:
    if not server.urls:
        return "no URL"
    for url in server.urls:
        found = _ICE_URL.fullmatch(url)
        if found is None or not _is_host(found["host"]):
            return "not a stun:, stuns:, turn: or turns: URL"
        if found["transport"] and url.startswith("stun"):
            return "a STUN URL has no transport"
        if found["port"] and not 0 < int(found["port"]) < 65536:
            return "a port is 1 to 65535"
        if url.startswith("turn") and not (server.username and server.credential):
            return "a TURN server needs a username and a credential"
    return ""


def _dht_node_fault(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        return "not host:port with a port of 1 to 65535"
    return "" if _is_host(host.removeprefix("[").removesuffix("]")) else "not a host"


def _url_fault(url: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:  # a broken IPv6 address, or a port that is none
        return "not a URL, or its port is not 1 to 65535"
    if parts.scheme not in schemes:
        return f"not a {' or '.join(f'{scheme}://' for scheme in schemes)} URL"
    if port == 0:
        return "a port is 1 to 65535"
    return "" if host and _is_host(host) else "its host is none"


def _is_host(host: str) -> bool:
    """Whether the resolver can be asked for it: it raises UnicodeError, no OSError, at `a..b` and at long labels."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return 0 < len(host) <= MAX_HOST_CHARS and not any(char.isspace() for char in host)
