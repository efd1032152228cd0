"""A process asks itself over the bus how it is, and writes the answer where its container's health check reads it.

The question takes the way of every other: out to the server and back through the subscription. So a process that
hangs, one that the server has dropped and one that is cut off all fail to answer, where an open port would not show it.
The check itself only reads a file (`shared.process.health`): a Python with a NATS client a container, every few
seconds, would cost a tenth of a core.

Cancellation: the file is removed, so that a process that has ended is not taken for a live one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from shared.bus.contract import Bus, Incoming
from shared.bus.messages.envelopes import Health, Ping
from shared.bus.messages.subjects import Subjects
from shared.errors import BusError
from shared.process.health import PULSE_INTERVAL_S

ANSWER_TIMEOUT_S = 2.0
"""An answer from this very process takes under a millisecond; one this late is one that does not come."""

log = logging.getLogger(__name__)


async def pulse(bus: Bus, subjects: Subjects, service: str, state: Callable[[], Health], path: Path) -> None:
    """Ask and write until cancelled.

    Args:   state: how the process is now. path: the file; its directory exists.
    Raises: BusError where the subject may not be served; OSError where the file cannot be written.
    """

    async def answer(ping: Ping, incoming: Incoming) -> Health:
        return state()

    subject = subjects.health(service, bus.instance)
    serving = await bus.serve(subject, Ping, answer)
    try:
        while True:
            with suppress(BusError):  # no answer, no pulse: the file grows old, and the check says so
                health = await bus.request(subject, Ping(), Health, ANSWER_TIMEOUT_S)
                write_pulse(path, bus.instance, health)
            await asyncio.sleep(PULSE_INTERVAL_S)
    finally:
        remove_pulse(path)
        await serving.close()


def remove_pulse(path: Path) -> None:
    """A process that has ended has none."""
    path.unlink(missing_ok=True)


def write_pulse(path: Path, instance: str, health: Health) -> None:
    """Say how a process is, whole at every moment. Raises: OSError."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"instance": instance, "state": health.state, "reason": health.reason}))
    draft.replace(path)
