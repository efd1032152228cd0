"""Which modules a nursery loads: what our services import at their start, and what they import soon after."""

from __future__ import annotations

import subprocess

from services.supervisor.nursery.client import Nursery, can_fork
from shared.settings.config import child_environment

MODULES = (
    "services.rendezvous.app",
    "services.chunk.app",
    "services.manager.app",
    "services.gateway.app",
    "services.broadcast.app",
    "services.webrtc.app",
    "services.webtorrent.app",
    "shared.rtc.link",
    "shared.rtc.sctp_tuning",
    "shared.rtc.gathering",
    "libtorrent",
    "uvloop",
)
"""In the order in which a starting node needs them. aiortc, under `shared.rtc`, is half of the whole cost."""


def start_nursery() -> Nursery | None:
    """Returns: a nursery that is loading, ours to close; None where processes are executed instead."""
    if not can_fork():
        return None
    try:
        return Nursery(MODULES, child_environment({}))
    except (OSError, subprocess.SubprocessError):
        return None  # no room for one: executing needs no more than it
