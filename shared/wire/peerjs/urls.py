"""Where a PeerServer is reached: its socket and its REST calls, from one http(s) URL with its path."""

from __future__ import annotations

from urllib.parse import SplitResult, quote, urlencode, urlsplit, urlunsplit

from shared.errors import Cause, SwarmbridgeError

CLIENT_VERSION = "1.5.5"
"""What we say we speak: the peerjs release whose protocol this is."""


def socket_url(server_url: str, peer_id: str, token: str, key: str, version: str = CLIENT_VERSION) -> str:
    """`ws(s)://HOST:PORT{path}peerjs?key=…&id=…&token=…&version=…` for `http(s)://HOST:PORT{path}`.

    Raises: SwarmbridgeError(INVALID): not an http, https, ws or wss URL with a host.
    """
    parts = _split(server_url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    # Escaped as a URL has it (`%20`, not `+`): servers of other languages read `+` as itself.
    query = urlencode({"key": key, "id": peer_id, "token": token, "version": version}, quote_via=quote)
    return urlunsplit((scheme, parts.netloc, _slashed(parts.path) + "peerjs", query, ""))


def _split(server_url: str) -> SplitResult:
    try:
        parts = urlsplit(server_url)
    except ValueError:
        raise SwarmbridgeError(Cause.INVALID, "not a URL") from None
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.netloc:
        raise SwarmbridgeError(Cause.INVALID, "a PeerServer is an http or https URL")
    return parts


def _slashed(path: str) -> str:
    return path if path.endswith("/") else path + "/"
