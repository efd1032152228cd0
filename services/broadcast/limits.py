"""Limits of the broadcast transport (docs/limits.md), and under which name a refusal is counted."""

from __future__ import annotations

MAX_RECORD_BYTES = 1_992_294
"""docs/limits.md: 1.9 MiB a message. With its envelope it fits the bus's 2,000,000 bytes."""

QUEUE_BYTES = 4 * 2**20
"""docs/limits.md: queue 4 MiB. Bytes of one link that were sent and not yet acknowledged; the same for bytes that
arrived
ahead of one that is missing."""

WINDOW_RECORDS = 8
"""Records of one link that were sent and not yet acknowledged."""

MAX_LINKS = 256
"""Links of one worker, dialled and accepted (docs/limits.md: 256 sockets)."""

POST_TIMEOUT_S = 1.0
"""Silence after which a record counts as posted to nobody: a live worker acknowledges within a millisecond."""

PROBE_AFTER_S = 2.0
"""A link that nothing was heard of for so long is asked whether it is still there."""

PROBE_INTERVAL_S = 0.5
MAX_MISSES = 2
"""Unanswered probes after which a link is down."""

LINK_ID_BYTES = 16

REFUSED_LINKS = "links"
REFUSED_RECORD = "record_too_large"
REFUSED_ORDER = "out_of_window"
REFUSED_MESSAGE = "invalid_message"
