"""What commands ask of the gateway; how a transfer may end; what ends a command."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from services.cli.daemon import Daemon
from services.cli.failures import CliFailure
from shared import exit_codes
from shared.gateway_api.calls import Call
from shared.gateway_api.client import GatewayClient
from shared.gateway_api.structs import Transfer
from shared.terminal.text import printable

T = TypeVar("T")

_ENDS = {
    "refused": (
        "no holder has it, or those who have it keep it for the members of their mesh",
        "take a fresh link; or give their operator your token (`swarmbridge peers --self`) for `trust.members`",
    ),
    "store_full": ("the node's store has no room for it", "do `swarmbridge rm`, or raise chunk.quota_bytes"),
    "disk_full": ("the disk under the node's store is full", "free space on it, or move chunk.store"),
    "store_failed": ("the node's store cannot be used", "see the chunk service's log"),
    "bus_unavailable": (
        "the node's bus was away for too long",
        "see whether its NATS server runs, then do it again: what is stored stays",
    ),
}
"""How a transfer ended for a reason that is no transport's: by cause, what happened and what to do."""


def client_of(daemon: Daemon) -> GatewayClient:
    """Raises: GatewayError for an address that is none."""
    return GatewayClient(daemon.url, daemon.token, daemon.proof_key)


def ask(daemon: Daemon, call: Call[T]) -> T:
    """One request. Raises: GatewayError."""
    with interruptible(), client_of(daemon) as client:
        return client.ask(call)


def failed(transfer: Transfer) -> CliFailure:
    """Why, in words, and what to do."""
    cause = transfer.cause or "other"
    if cause in _ENDS:
        return CliFailure(cause, *_ENDS[cause])
    reason = printable(transfer.reason).rstrip(".")
    message = f"the transfer failed ({cause}): {reason}" if reason else f"the transfer failed: {cause}"
    return CliFailure(cause, message, f"see `swarmbridge why {transfer.id}`")


@contextmanager
def interruptible(hint: str = "") -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does, so that nothing half-written stays behind.

    hint: what to do about an interrupted one. A SIGHUP that was ignored when we started, as under nohup, stays ignored.
    """
    of_main = threading.current_thread() is threading.main_thread()  # in a test it is not, and signals are not ours
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _interrupt) for number in numbers if of_main}
    try:
        yield
    except KeyboardInterrupt:  # click has a line of its own for it
        raise CliFailure("interrupted", "interrupted", hint, exit_code=exit_codes.INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
