"""What the rendezvous allows (TRUST, limits; start values). The machines hold the limits of their own messages.

Where each refusal is counted: `refused` of `GET /healthz`, by entry and cause.
"""

from __future__ import annotations

MAX_SOCKETS = 10_000
"""TRUST: of each entry (PeerServer, tracker)."""
MAX_SOCKETS_PER_ADDRESS = 64
"""TRUST: of each entry. Behind a reverse proxy all clients have its address: limit there instead."""
MESSAGES_PER_S = 20.0
MESSAGE_BURST = 100.0
"""TRUST: of one socket. A faster one is read more slowly, so that nothing of a burst of candidates is lost."""
MAX_TEXT_BYTES = 128 * 1024
"""Ours: twice what the machines take (64 KiB). They refuse what is longer; beyond this the socket is closed."""
MAX_QUEUED_BYTES = 512 * 1024
MAX_QUEUED_MESSAGES = 512
"""Ours: not yet written to a socket. One that reads so slowly is cut off."""
WRITE_TIMEOUT_S = 30.0
"""Ours: how long one message may take to get out."""
CLOSE_TIMEOUT_S = 2.0
"""Ours: for the other side's half of the closing handshake."""
TRACKER_PING_S = 30.0
"""Ours: WebSocket pings of the tracker, which has no heartbeat of its own; a PeerServer's clients send theirs."""
DRAIN_S = 3.0
"""Ours: from SIGTERM to the end of the last socket."""
MAX_LINE_BYTES = 8 * 1024
MAX_HEADER_BYTES = 16 * 1024
"""TRUST, HTTP."""
KEEPALIVE_S = 15.0
"""Ours: an HTTP connection between two requests."""
