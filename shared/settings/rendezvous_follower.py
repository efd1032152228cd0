"""The one follower of the rendezvous document: every process that needs it reads and reloads it here.

A version that cannot be read leaves the last good one in force; at start, without any good one, the empty document.
Neither stops a process: `problem` says that it is so, its owner shows itself as degraded, and a mended file is taken
up by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from shared.errors import ConfigError
from shared.settings.rendezvous import Fault, Reading, RendezvousDocument, load_document

RELOAD_EVERY_S = 1.0
"""Reading a few hundred bytes is cheaper than depending on what notices changes on every file system."""

log = logging.getLogger(__name__)


class DocumentFollower:
    """The document of one file. path "" is the empty document indefinitely.

    Driven by:    the owner, which runs `run` or calls `reload` whenever it likes.
    Cancellation: `run` has nothing to clean up.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.problem = ""
        """Why the newest version is not in force, for people on this machine; "" where it is."""
        self._reading = Reading()
        self._read()

    @property
    def current(self) -> RendezvousDocument:
        """The last version that could be read, without the members that cannot be used."""
        return self._reading.document

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Members of `current` that were left out."""
        return self._reading.faults

    async def run(self, on_change: Callable[[], None]) -> None:
        """Reload until cancelled; returns at once where there is no file. on_change: also for a new `problem`."""
        while self._path:
            await asyncio.sleep(RELOAD_EVERY_S)
            if await asyncio.to_thread(self._read):
                on_change()

    async def reload(self) -> bool:
        """Look at the file now. Returns: whether anything has changed."""
        return bool(self._path) and await asyncio.to_thread(self._read)

    def _read(self) -> bool:
        before = (self._reading, self.problem)
        try:
            self._reading, self.problem = load_document(self._path), ""
        except ConfigError as error:
            self.problem = error.problems[0]
        changed = before != (self._reading, self.problem)
        if changed and self.problem:
            # Not what is wrong: a parser quotes what it read.
            log.warning("the rendezvous document cannot be read; the last good one stays in force")
        elif changed:
            log.info("the rendezvous document is read; %d members cannot be used", len(self.faults))
        return changed
