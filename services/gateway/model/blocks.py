"""The blocklist as the page and the API show it."""

from __future__ import annotations

from services.gateway.http.answers import ApiStruct
from shared.settings.blocklist import Blocklist, Direction


class BlockView(ApiStruct, frozen=True):
    """One blocked peer. peer: its name. since: wall clock, ms; 0 where the stored entry cannot be read."""

    peer: str
    direction: Direction
    note: str
    since: int


def blocklist_view(blocklist: Blocklist) -> list[BlockView]:
    """GET /api/blocklist: every blocked peer, by name."""
    blocks = blocklist.snapshot().items()
    return [BlockView(peer, block.direction, block.note, block.since_ms) for peer, block in blocks]
