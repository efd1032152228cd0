"""The answer of `GET /api/why/{subject}`: a verdict, its reasons, and what it is derived from."""

from __future__ import annotations

from shared.gateway_api.structs import ApiStruct


class Change(ApiStruct, frozen=True):
    """One change in the node. kind: a word of the gateway's history. text: one clause, for people. The rest: where
    it has one. direction: of a block, as the blocklist has it.
    """

    at: int
    kind: str
    text: str
    transport: str | None = None
    peer: str | None = None
    cause: str | None = None
    worker: str | None = None
    direction: str | None = None


class TimelineRow(ApiStruct, frozen=True):
    """One hop, or many alike in a row. at: of the first, wall clock ms. ms: the median, max_ms: the longest."""

    at: int
    transport: str
    outcome: str
    cause: str | None
    count: int
    ms: float
    max_ms: float
    fallback_from: str | None
    hedged: bool
    trace_id: str


class ReasonView(ApiStruct, frozen=True):
    """Why a transport does not carry it. change: the text of what explains it."""

    transport: str
    cause: str
    words: str
    change: str | None
    tries: int


class CauseView(ApiStruct, frozen=True):
    """A cause that was seen: on how many hops (0 = the transfer's own), what it means and what to do."""

    cause: str
    count: int
    sentence: str


class Why(ApiStruct, frozen=True):
    """The verdict. since: from when on it is so, wall clock ms. peers: names. omitted: hops before the timeline.

    changes_known_since: the gateway's memory of changes begins there. trace_kept: whether the trace can be drawn.
    """

    kind: str
    id: str
    verdict: str
    headline: str
    transport: str | None
    since: int | None
    reasons: list[ReasonView]
    causes: list[CauseView]
    timeline: list[TimelineRow]
    omitted: int
    changes: list[Change]
    changes_known_since: int
    peers: list[str]
    links: list[str]
    trace_id: str | None
    trace_kept: bool
