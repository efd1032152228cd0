"""The blocklist as the page and the API show it."""

from __future__ import annotations

from shared.gateway_api.structs import BlockView
from shared.settings.blocklist import Blocklist


def blocklist_view(blocklist: Blocklist) -> list[BlockView]:
    """GET /api/blocklist: every blocked peer, by name."""
    blocks = blocklist.snapshot().items()
    return [BlockView(peer, block.direction.value, block.note, block.since_ms) for peer, block in blocks]
