"""The rendezvous document, followed while we run: a broken version leaves the last good one in force."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from shared.errors import ConfigError
from shared.settings.rendezvous import RendezvousDocument, load_document

POLL_S = 1.0

log = logging.getLogger(__name__)


class DocumentFollower:
    """current: the last version that could be read; path "" is the empty document for ever."""

    def __init__(self, path: str, changed: Callable[[RendezvousDocument], None]) -> None:
        self._path = path
        self._changed = changed
        self._seen_ns = self._modified_ns()
        self.current = self._load() or RendezvousDocument()

    async def run(self) -> None:
        """Watch until cancelled; returns at once where there is no file to watch."""
        while self._path:
            await asyncio.sleep(POLL_S)
            modified_ns = self._modified_ns()
            if modified_ns == self._seen_ns:
                continue
            self._seen_ns = modified_ns
            document = self._load()
            if document is not None and document != self.current:
                self.current = document
                self._changed(document)

    def _load(self) -> RendezvousDocument | None:
        try:
            return load_document(self._path)
        except ConfigError:
            log.warning("the rendezvous document cannot be read")
            return None

    def _modified_ns(self) -> int:
        try:
            return Path(self._path).stat().st_mtime_ns if self._path else 0
        except OSError:
            return 0
