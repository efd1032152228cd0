"""Limits of pages on a broadcast worker (docs/limits.md). How many an address may have is a setting.

`broadcast.js` has those that a page keeps itself; a test holds the two together.
"""

from __future__ import annotations

MAX_VALUE_BYTES = 1_992_294
"""docs/limits.md: 1.9 MiB a message. With its envelope it fits the bus's 2,000,000 bytes."""

MAX_SOCKETS = 256
"""docs/limits.md: pages of one worker. How many an address may have is a setting."""

PAGE_MESSAGES_PER_S = 50.0
PAGE_BURST = 200.0
"""docs/limits.md: 50 messages/s of one page; a faster one is read more slowly, and notified. The burst is ours: a page
that opens and says what it has."""

MAX_FRAME_BYTES = MAX_VALUE_BYTES + 1024
"""A post's value and what is around it; a longer message closes the socket (1009)."""

PAGE_QUEUE_BYTES = 4 * 2**20
PAGE_QUEUE_MESSAGES = 2_048
"""docs/limits.md: not yet written to a page. One that does not read is cut off."""

PAGE_WINDOW_BYTES = 4 * 2**20
PAGE_WINDOW_MESSAGES = 64
"""Posts of a page that are not acknowledged; `broadcast.js` keeps the rest until there is room."""

PAGE_PING_S = 3.0
"""WebSocket pings; unanswered for half of it the page is gone: 4.5 s at most after a browser was cut off or frozen.
(One that was killed is gone when its machine closes its sockets, at once.)"""

HELLO_TIMEOUT_S = 10.0
"""A socket that has not said who it is by then is closed."""

LOG_BYTES = 3 * 2**20
LOG_S = 30.0
"""Posts of a channel that are kept for pages that come back. With what is live they fit a page's queue."""

MAX_SENDERS = 4_096
"""Of a channel: whose last number is remembered. A page that is forgotten could be heard twice."""

MAX_WORKERS = 64
"""Other workers that one channel knows of."""

PRESENCE_INTERVAL_S = 1.0
PRESENCE_EXPIRY_S = 3.0
"""A worker that was silent for so long has no pages any more; its own have come to others by then."""

PRESENCE_SETTLE_S = 0.2
"""Between saying that we are there and taking pages, so that no post goes past us meanwhile."""

RELAY_TIMEOUT_S = 1.0
RELAY_RETRY_S = 0.1
"""Of a batch of posts to another worker; it is sent again while that worker is there."""

RELAY_BYTES = 64 * 2**20
"""Posts that wait for other workers; a page that posts beyond it is asked to come back later."""

LISTEN_RETRY_FIRST_S, LISTEN_RETRY_CAP_S = 1.0, 10.0
"""Between attempts to listen where somebody else has the port."""

DRAIN_S = 2.0
"""For pages to go elsewhere when we stop."""
