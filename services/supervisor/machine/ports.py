"""Ports of this machine: whether one is free, and one that is."""

from __future__ import annotations

import socket


def port_taken(host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    """Whether nobody can listen on host:port now. Port 0 (any) never is."""
    if port == 0:
        return False
    try:
        with _bound(host, port, kind):
            return False
    except OSError:
        return True


def free_port(host: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that was free a moment ago; whoever gets it must be ready to lose it to somebody else."""
    with _bound(host, 0, kind) as held:
        port: int = held.getsockname()[1]
        return port


def usable_host(host: str) -> bool:
    """Whether the address is one of this machine's: on Linux all of 127.0.0.0/8 is, elsewhere 127.0.0.1 alone."""
    try:
        with _bound(host, 0, socket.SOCK_STREAM):
            return True
    except OSError:
        return False


def _bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
        if kind == socket.SOCK_STREAM:
            held.listen(1)
    except OSError:
        held.close()
        raise
    return held
