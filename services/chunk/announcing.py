"""What peers may hear that we hold, and what they say that they hold.

    index ── files of class `shared` ──▶ AnnounceManifests ──▶ every worker ──▶ every link, when it opens too
    a page's word ── PeerAnnounced ──▶ Heard, for fetches that name a manifest by its digest alone

A page of swarm-space knows a manifest by its fileId, so that is what is announced. The whole list is said again every
ANNOUNCE_EVERY_S, for workers that have started since; a worker passes on what is new.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import OrderedDict

from services.chunk.index import ManifestIndex
from shared.bus.contract import Bus, Incoming
from shared.bus.messages.envelopes import AnnounceManifests, PeerAnnounced
from shared.bus.messages.subjects import Subjects
from shared.content.manifest import ContentClass, is_manifest_id
from shared.content.messages import MAX_ANNOUNCED
from shared.errors import BusError

LOOK_EVERY_S = 0.5
"""How soon workers hear of a new file."""
ANNOUNCE_EVERY_S = 5.0
MAX_HEARD_PEERS = 1_024
"""Peers whose word is remembered; the longest silent is forgotten first."""
MAX_HEARD_IDS = 64
"""Manifest ids of one peer, its latest."""

log = logging.getLogger(__name__)


class Announcer:
    """Driven by: `run`, in a task of the service's."""

    def __init__(self, bus: Bus, subjects: Subjects, index: ManifestIndex) -> None:
        self._bus = bus
        self._subjects = subjects
        self._index = index

    async def run(self) -> None:
        """Tell workers until cancelled."""
        known, manifests = -1, list[str]()
        rest_s = 0.0
        while True:
            if known != self._index.changes or rest_s <= 0:
                # Sorted only then: the list of a large node costs more than saying it.
                if known != self._index.changes:
                    known, manifests = self._index.changes, self.manifests()
                rest_s = ANNOUNCE_EVERY_S
                try:
                    await self._bus.publish(self._subjects.announce, AnnounceManifests(manifests))
                except BusError:
                    log.debug("manifests were not announced: no bus")
            await asyncio.sleep(LOOK_EVERY_S)
            # Counted and not timed: it is only about as often as ANNOUNCE_EVERY_S says.
            rest_s -= LOOK_EVERY_S

    def manifests(self) -> list[str]:
        """fileIds of the newest whole files of class `shared`, at most MAX_ANNOUNCED."""
        shared = (each for each in self._index if each.complete and each.content_class == ContentClass.SHARED.value)
        newest = heapq.nlargest(MAX_ANNOUNCED, shared, key=lambda summary: summary.stored_ms)
        return [summary.file_id for summary in newest]


class Heard:
    """What peers say that they hold: their word alone, by which nobody is believed and somebody may be asked."""

    def __init__(self) -> None:
        self._peers: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    async def take(self, message: PeerAnnounced, incoming: Incoming) -> None:
        """Serves `sb.N.announced.<transport>`, in every instance."""
        ids = self._peers.setdefault(message.stamp.peer, OrderedDict())
        self._peers.move_to_end(message.stamp.peer)
        for manifest_id in filter(is_manifest_id, message.manifests[-MAX_HEARD_IDS:]):
            ids[manifest_id] = None
            # The latest said is the likeliest to be asked for.
            ids.move_to_end(manifest_id)
        while len(ids) > MAX_HEARD_IDS:
            ids.popitem(last=False)
        while len(self._peers) > MAX_HEARD_PEERS:
            self._peers.popitem(last=False)

    def of(self, peer: str) -> list[str]:
        """Manifest ids that this peer has named, the latest first."""
        return list(reversed(self._peers.get(peer, ())))
