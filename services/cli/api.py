"""What commands ask of the gateway: one request, or a transfer followed to its end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from services.cli.daemon import Daemon
from services.cli.failures import CliFailure
from services.cli.progress import Following, Step
from shared import exit_codes
from shared.gateway_api import calls
from shared.gateway_api.calls import Call
from shared.gateway_api.client import GatewayClient
from shared.gateway_api.errors import GatewayError
from shared.gateway_api.structs import Transfer
from shared.terminal.text import printable

FIRST_POLL_INTERVAL_S = 0.01
POLL_INTERVAL_S = 0.15
CANCEL_WAIT_S = 2.0
"""Ctrl-C must not hang on a node that does not answer."""

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


def settled(client: GatewayClient, transfer_id: str, step: Step) -> Transfer:
    """A transfer's end, each state shown by `step`; when we are interrupted, it is cancelled at the node.

    Raises: CliFailure when it failed; GatewayError when nobody can say how it is.
    """
    try:
        return _finished(client, transfer_id, Following(step))
    except KeyboardInterrupt:
        with suppress(GatewayError):
            client.ask(calls.cancel(transfer_id), CANCEL_WAIT_S)
        raise


def _finished(client: GatewayClient, transfer_id: str, on_change: Callable[[Transfer], None]) -> Transfer:
    interval_s = FIRST_POLL_INTERVAL_S
    while True:
        transfer = client.ask(calls.transfer(transfer_id))
        on_change(transfer)
        if transfer.state == "done":
            return transfer
        if transfer.state == "failed":
            raise _failed(transfer)
        time.sleep(interval_s)
        # A small file is done at once, a large one takes its time.
        interval_s = min(2 * interval_s, POLL_INTERVAL_S)


def _failed(transfer: Transfer) -> CliFailure:
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
