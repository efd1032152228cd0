"""What a service that listens says of it: where a client on this machine reaches it, or why it cannot listen."""

from __future__ import annotations

import errno
import socket


def local_url(bound_host: str, bound_port: int) -> str:
    """The URL that a client on this machine can use for what a listening socket is bound to."""
    return f"http://{_reachable(bound_host)}:{bound_port}"


def why_not_listening(error: OSError, section: str, host: str, port: int) -> str:
    """One line for whoever has set `section.host` and `section.port`."""
    if isinstance(error, socket.gaierror):
        return f"{section}.host: {host!r} is no address and cannot be resolved"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken; set {section}.port to another, or 0 for any"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{section}.host: {host} is no address of this machine"
    if error.errno == errno.EACCES:
        return f"{section}.port: this user may not listen on port {port}; choose one of 1024 or more"
    return f"{section}: cannot listen on {host}, port {port}: {error.strerror}"


def _reachable(host: str) -> str:
    if host == "0.0.0.0":  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    if host == "::":
        # Whether `::` serves IPv4 too is the system's choice (asyncio switches it off), so its own loopback is named.
        return "[::1]"
    return f"[{host}]" if ":" in host else host
