"""`GET /api/why/{subject}`: whom or what is meant, the facts about it, and the verdict.

A subject is a peer's name or token, or a transfer's id or the beginning of it, if no other begins so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

from aiohttp import web

from services.gateway.api.peers import named_peer
from services.gateway.http.answers import json_answer
from services.gateway.http.problems import invalid, not_found
from services.gateway.http.queries import whole_number
from services.gateway.model.feed import Feed
from services.gateway.why.verdict import Facts, why
from services.gateway.why.words import PEER, TRANSFER
from shared.bus.messages.records import HopRecord
from shared.clock import unix_ms
from shared.errors import Cause
from shared.gateway_api.structs import Transfer
from shared.transports import TransportState

MIN_PREFIX_CHARS = 6
MAX_NAME_CHARS = 60
"""Of a file's name in a headline; the rest of a long one is cut."""
MAX_OFFSET_MINUTES = 24 * 60 - 1

_TRANSFER_ID = re.compile(r"[0-9a-f]{6,32}")
_TROUBLED = (TransportState.DEGRADED.value, TransportState.ERROR.value)


class WhyRoutes:
    """The one route of this module."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/why/{subject}", self._why)]

    async def _why(self, request: web.Request) -> web.Response:
        subject = request.match_info["subject"]
        clock_text = clock_text_at(_offset(request), unix_ms())
        name = named_peer(subject)
        if name is not None:
            return json_answer(why(self._peer(name, clock_text)))
        if _TRANSFER_ID.fullmatch(subject):
            return json_answer(why(self._transfer(self._full_id(subject), clock_text)))
        raise not_found(
            "this names neither a peer nor a transfer",
            f"give a peer's name or token, or {MIN_PREFIX_CHARS} or more characters of a transfer's id",
        )

    def _peer(self, name: str, clock_text: Callable[[int], str]) -> Facts:
        hops = [record for record in self._feed.hops if record.peer == name]
        links = next((peer.transports for peer in self._feed.peers() if peer.peer == name), [])
        if not hops and not links and not self._feed.history.knows_peer(name):
            raise not_found("nothing is known of this peer", "see `swarmbridge peers`")
        return self._facts(PEER, name, name, None, hops, links, {name}, clock_text)

    def _transfer(self, transfer_id: str, clock_text: Callable[[int], str]) -> Facts:
        transfer = self._feed.transfers.get(transfer_id)
        hops = [record for record in self._feed.hops if record.transfer == transfer_id]
        peers = {record.peer for record in hops}
        links = {name for peer in self._feed.peers() if peer.peer in peers for name in peer.transports}
        in_order = [row.id for row in self._feed.transports() if row.id in links]
        return self._facts(TRANSFER, transfer_id, _called(transfer), transfer, hops, in_order, peers, clock_text)

    def _facts(
        self,
        kind: str,
        subject_id: str,
        who: str,
        transfer: Transfer | None,
        hops: list[HopRecord],
        links: list[str],
        peers: set[str],
        clock_text: Callable[[int], str],
    ) -> Facts:
        history = self._feed.history
        return Facts(
            kind=kind,
            id=subject_id,
            who=who,
            transfer=transfer,
            hops=hops,
            links=links,
            troubles=self._troubles(),
            changes=history.changes(0, peers),
            known_since_ms=history.started_ms,
            now_ms=unix_ms(),
            has_trace=lambda trace_id: self._feed.traces.get(trace_id) is not None,
            clock_text=clock_text,
        )

    def _troubles(self) -> dict[str, Cause]:
        """Transports that cannot serve now, and why."""
        troubles = {}
        for row in self._feed.transports():
            if not row.enabled:
                troubles[row.id] = Cause.DISABLED
            elif row.state in _TROUBLED:
                troubles[row.id] = Cause(row.last_error or Cause.OTHER)
        return troubles

    def _full_id(self, prefix: str) -> str:
        known = {transfer.id for transfer in self._feed.transfers.newest_first()}
        known |= {record.transfer for record in self._feed.hops}
        found = [transfer_id for transfer_id in known if transfer_id.startswith(prefix)]
        if not found:
            raise not_found("nothing is known of this transfer", "it may have made room for newer ones")
        if len(found) > 1:
            raise invalid(f"{len(found)} transfers begin so", "give more of the id")
        return found[0]


def clock_text_at(offset_minutes: int | None, now_ms: int) -> Callable[[int], str]:
    """Wall clock ms as the caller's clock shows it: the time, and the day where it is another; None: as UTC says."""
    zone = UTC if offset_minutes is None else timezone(timedelta(minutes=offset_minutes))
    today = datetime.fromtimestamp(now_ms / 1000, zone).date()

    def text(at_ms: int) -> str:
        at = datetime.fromtimestamp(at_ms / 1000, zone)
        shown = f"{at:%H:%M:%S}" if at.date() == today else f"{at:%Y-%m-%d %H:%M:%S}"
        return shown if offset_minutes is not None else f"{shown} UTC"

    return text


def _offset(request: web.Request) -> int | None:
    """Minutes east of UTC; None where the caller did not say."""
    if "utcOffset" not in request.query:
        return None
    return whole_number(request, "utcOffset", 0, -MAX_OFFSET_MINUTES, MAX_OFFSET_MINUTES)


def _called(transfer: Transfer | None) -> str:
    if transfer is None or not transfer.name:
        return "the file"
    name = transfer.name
    return name if len(name) <= MAX_NAME_CHARS else name[: MAX_NAME_CHARS - 1] + "…"
