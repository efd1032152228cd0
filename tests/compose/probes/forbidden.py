"""Runs in a container on a node's bus with one service's secrets: tries what that service must not do.

    python forbidden.py NODE SERVICE URL

Prints one JSON object: `connected`: "" or why not; `allowed`: what should have been refused and was not; `refused`:
what the service needs and was refused; `tried`: how much. nats-py and nothing of ours: what is tried is written out by
hand, and the judge is the server.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import nats
from nats.errors import Error

SETTLE_S = 0.5
"""For the server's refusals, which come on their own; a round trip is waited for before."""
DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)
WORKERS = {"webrtc", "webtorrent", "broadcast"}

NOBODY: set[str] = set()
PUBLISH = {
    "sb.N.route.deliver": {"chunk"},
    "sb.N.reply.chunk.x": {"manager"},
    "sb.N.hop.webrtc": {"manager"},
    "sb.N.link.webrtc.kabc": {"manager"},
    "sb.N.dial.webtorrent": {"manager"},
    "sb.N.chunk.message": {"manager"},
    "sb.N.chunk.put": {"gateway"},
    "sb.N.chunk.remove": {"gateway"},
    "sb.N.identity.certify": WORKERS,
    "sb.N.identity.peerjs": {"webrtc"},
    "sb.N.signal.offer": {"webrtc"},
    "sb.N.inbound.webrtc": {"webrtc"},
    "sb.N.inbound.webtorrent": {"webtorrent"},
    # A body is read by whom it is held for, and by nobody else.
    "sb.N.body.chunk.x.webrtc": {"webrtc"},
    "sb.N.body.chunk.x.webtorrent": {"webtorrent"},
    "sb.N.body.chunk.x.gateway": {"gateway"},
    "sb.N.body.webrtc.x.chunk": {"chunk"},
    "sb.N.event.diagnostic": {"manager", "gateway"},
    "$KV.flags.x": {"gateway"},
    "$KV.blocklist.x": {"gateway"},
    "$KV.leases.x": {"webrtc"},
    "$KV.manifests.x": {"chunk"},
    "$KV.layout.flags": {"keeper"},
    "$JS.API.STREAM.CREATE.x": {"keeper"},
    "$JS.API.STREAM.DELETE.KV_flags": {"keeper"},
    "$JS.API.CONSUMER.CREATE.KV_flags": NOBODY,
    "$JS.API.CONSUMER.CREATE.hops.x": NOBODY,
    "$JS.API.CONSUMER.DURABLE.CREATE.hops.x": NOBODY,
    "$JS.API.CONSUMER.MSG.NEXT.hops.x": NOBODY,
    "$SYS.REQ.SERVER.PING": NOBODY,
    "sb.other.route.deliver": NOBODY,
    "sb.bc.x.y": NOBODY,
    "_INBOX.admin.other.x": NOBODY,
}
"""Subject -> who may publish there, in the node's own account."""

SUBSCRIBE = {
    ">": NOBODY,
    "sb.>": NOBODY,
    "sb.N.>": NOBODY,
    "_INBOX.>": NOBODY,
    "$KV.>": NOBODY,
    "$JS.>": NOBODY,
    "$SYS.>": NOBODY,
    "sb.other.>": NOBODY,
    "sb.bc.>": NOBODY,
    "sb.N.route.deliver": {"manager"},
    "sb.N.chunk.put": {"chunk"},
    "sb.N.identity.certify": {"chunk"},
    "sb.N.identity.peerjs": {"chunk"},
    "sb.N.body.chunk.*.*": {"chunk"},
    "sb.N.body.webrtc.*.*": {"webrtc"},
    "sb.N.link.webrtc.*": {"webrtc"},
    "sb.N.link.webtorrent.*": {"webtorrent"},
    "sb.N.inbound.webrtc": {"manager"},
    "sb.N.event.transfer": {"gateway"},
    **{f"_INBOX.{service}.*.>": {service} for service in ("chunk", "manager", "gateway", "keeper", *sorted(WORKERS))},
}
"""Subject -> who may hear it."""


async def tried(node: str, service: str, url: str) -> dict[str, object]:
    """Everything, over one connection."""
    refused: set[tuple[str, str]] = set()

    async def note(error: Exception) -> None:
        found = DENIED.search(str(error))
        if found:
            refused.add((found[1].lower(), found[2].lower()))

    seed = await asyncio.to_thread(Path("/secret/bus.seed").read_text)
    try:
        client = await nats.connect(
            url, nkeys_seed_str=seed.strip(), error_cb=note, allow_reconnect=False, connect_timeout=5
        )
    except (Error, OSError, TimeoutError) as error:
        return {"connected": str(error) or type(error).__name__, "allowed": [], "refused": [], "tried": 0}
    wrong: dict[str, list[str]] = {"allowed": [], "refused": []}
    count = 0
    for verb, table in (("subscription", SUBSCRIBE), ("publish", PUBLISH)):
        for template, may in table.items():
            subject = template.replace(".N.", f".{node}.")
            if service in may and verb == "publish":
                continue  # it would be work for somebody
            count += 1
            if verb == "publish":
                await client.publish(subject, b"")
            else:
                await client.subscribe(subject)
            await asyncio.sleep(0)
        await client.flush()
        await asyncio.sleep(SETTLE_S)
        for template, may in table.items():
            denied = (verb, template.replace(".N.", f".{node}.").lower()) in refused
            if service not in may and not denied:
                wrong["allowed"].append(f"{verb} {template}")
            if service in may and denied:
                wrong["refused"].append(f"{verb} {template}")
    await client.close()
    return {"connected": "", **wrong, "tried": count}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(tried(*sys.argv[1:]))))
