"""The rendezvous document as this worker sees it: read at start, read again when it may have changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from shared.errors import ConfigError
from shared.settings.rendezvous import RendezvousDocument, load_document

RELOAD_EVERY_S = 2.0
"""Reading a few hundred bytes is cheaper than depending on what tells of changes on every file system."""

log = logging.getLogger(__name__)


class DocumentWatch:
    """The current document. One that cannot be read any more leaves the last good one in force."""

    def __init__(self, path: str) -> None:
        """Raises: ConfigError where the document cannot be read at start."""
        self._path = path
        self.current: RendezvousDocument = load_document(path)
        self._bad = False

    async def run(self, on_change: Callable[[], None]) -> None:
        """Reload until cancelled."""
        while self._path:
            await asyncio.sleep(RELOAD_EVERY_S)
            try:
                document = await asyncio.to_thread(load_document, self._path)
            except ConfigError:
                if not self._bad:
                    log.warning("the rendezvous document cannot be read; keeping the last good one")
                self._bad = True
                continue
            self._bad = False
            if document != self.current:
                log.info("the rendezvous document has changed")
                self.current = document
                on_change()
