"""What one gateway takes in at most. The first block is docs/limits.md; the rest bounds our own memory and disk."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# docs/limits.md
MAX_CONNECTIONS = 256
MAX_HEADER_BYTES = 16 * KIB
HEADER_TIMEOUT_S = 10.0
MAX_JSON_BYTES = 1 * MIB
# From a request's head to the end of its JSON: a MiB in this time is a slow modem's, one byte is an attack.
JSON_TIMEOUT_S = 10.0
# How long the rest of a refused body is read, so that its sender sees the answer; aiohttp's own is 10 s.
LINGER_S = 1.0
MAX_EVENT_STREAMS = 32
MAX_BAD_TOKENS = 5
BAD_TOKEN_WINDOW_S = 60.0

# A browser keeps a connection between requests; a forgotten one must not hold a place among 256 for long.
KEEPALIVE_S = 30.0
# Addresses whose bad tokens are remembered; the one seen longest ago is forgotten first.
MAX_TRACKED_ADDRESSES = 1024

# Messages a slow event stream may be behind before it is asked to read everything again.
MAX_QUEUED_EVENTS = 256
STREAM_KEEPALIVE_S = 15.0
# How long open requests have on SIGTERM.
SHUTDOWN_S = 5.0
