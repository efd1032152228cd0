"""What the rendezvous allows. How many sockets is a setting, the rest is here.

The machines hold the limits of their own messages.

Where each refusal is counted: `refused` of `GET /healthz`, by entry and cause.
"""

from __future__ import annotations

from dataclasses import replace

from shared.websocket.server import SocketLimits

MAX_TEXT_BYTES = 128 * 1024
"""Ours: twice what the machines take (64 KiB). They refuse what is longer; beyond this the socket is closed."""
MESSAGES_PER_S = 100.0
MESSAGE_BURST = 1_000.0
"""Ours: of one socket. A page that joins a room of 50 sends 50 offers and their candidates, some 400 messages, at
once. A faster one is read more slowly, so that nothing is lost."""
MAX_QUEUED_BYTES = 4 * 2**20
MAX_QUEUED_MESSAGES = 2_048
"""Ours: not yet written to a socket: what a whole room answers. One that reads so slowly is cut off."""
TRACKER_PING_S = 30.0
"""Ours: WebSocket pings of the tracker, which has no heartbeat of its own; a PeerServer's clients send theirs."""
PEER_SOCKETS = SocketLimits(MAX_TEXT_BYTES, MESSAGES_PER_S, MESSAGE_BURST, MAX_QUEUED_BYTES, MAX_QUEUED_MESSAGES)
TRACKER_SOCKETS = replace(PEER_SOCKETS, ping_s=TRACKER_PING_S)
DRAIN_S = 3.0
"""Ours: from SIGTERM to the end of the last socket."""
MAX_LINE_BYTES = 8 * 1024
MAX_HEADER_BYTES = 16 * 1024
"""Of an HTTP request; what a head is made of is small."""
KEEPALIVE_S = 15.0
"""Ours: an HTTP connection between two requests."""
