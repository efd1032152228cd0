"""Ports of this machine: whether one can be listened on, and one that is free.

Only EADDRINUSE means that somebody else has it. What else can be wrong (no such host, an address of another
machine, a port that needs privileges) is said as what it is.
"""

from __future__ import annotations

import errno
import socket

from services.supervisor.machine.errors import CannotStart
from shared.process.listening import why_not_listening


def check_port(setting: str, host: str, port: int, option: str) -> None:
    """Whether host:port can be listened on now; port 0, any, checks the host alone.

    Args:   setting: the section of host and port. option: what chooses another port.
    Raises: CannotStart saying why it cannot.
    """
    try:
        _bound(host, port, socket.SOCK_STREAM).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(f"port {port} is taken; choose another with {option}") from None
        raise CannotStart(why_not_listening(error, setting, host, port)) from None


def port_is_free(host: str, port: int) -> bool:
    """Whether host:port can be listened on now, whatever the reason."""
    try:
        _bound(host, port, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def free_port(setting: str, host: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that was free a moment ago; whoever gets it must be ready to lose it to somebody else.

    Raises: CannotStart: nobody can listen on that host.
    """
    try:
        with _bound(host, 0, kind) as held:
            port: int = held.getsockname()[1]
            return port
    except OSError as error:
        raise CannotStart(why_not_listening(error, setting, host, 0)) from None


def usable_host(host: str) -> bool:
    """Whether the address is one of this machine's: on Linux all of 127.0.0.0/8 is, elsewhere 127.0.0.1 alone."""
    try:
        with _bound(host, 0, socket.SOCK_STREAM):
            return True
    except OSError:
        return False


def _bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0]
    except UnicodeError as error:  # a label that no name can have: longer than 63, or empty
        raise socket.gaierror(socket.EAI_NONAME, "no name") from error
    held = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
        if kind == socket.SOCK_STREAM:
            held.listen(1)
    except OSError:
        held.close()
        raise
    return held
