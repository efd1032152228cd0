"""What the supervisor and its nursery say to each other: one JSON object a packet, over a SOCK_SEQPACKET pair.

    supervisor -> nursery   {"fork": id, "module", "arguments", "environment"}   with the log's descriptor (SCM_RIGHTS)
                            {"signal": id, "number"}
    nursery -> supervisor   {"forked": id, "pid"} {"ended": id, "code"} {"unable": why}

An id is the supervisor's own count: unlike a pid it never comes to mean another process. JSON and the standard
library alone, because this is imported before anything else is.
"""

from __future__ import annotations

import json
from typing import Any

MAX_PACKET_BYTES = 1 << 20
"""An environment may hold 128 KiB a variable (Linux's MAX_ARG_STRLEN); a larger packet is refused by the sender."""


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


def decode(packet: bytes) -> dict[str, Any]:
    """Both ends are the same program, and nobody else holds the socket: a packet is what was sent."""
    message: dict[str, Any] = json.loads(packet)
    return message
