"""The API as a table: one function a request, which says what is sent and what the answer is read into. Pure.

A `Call` is a value, so that a blocking and an async client are two ways to execute the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from shared.gateway_api import structs

if TYPE_CHECKING:
    from shared.gateway_api import traces, why

KEY_HEADER = "X-Swarmbridge-Key"

T = TypeVar("T")
Faults = dict[str, Any]
FlagsView = dict[str, Any]
"""Every switch by name, true or false, and `chaos`: the faults that are set, by transport."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. path: quoted. answer: the type of its JSON. body: JSON, None for none."""

    method: str
    path: str
    answer: type[T]
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


def node() -> Call[structs.NodeView]:
    return Call("GET", "/api/node", structs.NodeView)


def stats() -> Call[structs.Stats]:
    return Call("GET", "/api/stats", structs.Stats)


def peers() -> Call[list[structs.PeerView]]:
    return Call("GET", "/api/peers", list[structs.PeerView])


def pages() -> Call[structs.PagesView]:
    return Call("GET", "/api/pages", structs.PagesView)


def files(offset: int = 0) -> Call[list[structs.FileView]]:
    """Newest first, from `offset` on; as many as the gateway gives at once. An empty list is the end."""
    return Call("GET", "/api/files", list[structs.FileView], {"offset": str(offset)} if offset else {})


def remove_file(manifest: str) -> Call[structs.RemovedView]:
    return Call("DELETE", f"/api/files/{_part(manifest)}", structs.RemovedView)


def usage() -> Call[structs.UsageView]:
    return Call("GET", "/api/usage", structs.UsageView)


def fetch(link: str) -> Call[structs.Started]:
    return Call("POST", "/api/fetches", structs.Started, body=_json(structs.FetchRequest(link)))


def transfer(transfer_id: str) -> Call[structs.Transfer]:
    return Call("GET", f"/api/transfers/{_part(transfer_id)}", structs.Transfer)


def cancel(transfer_id: str) -> Call[structs.Transfer]:
    return Call("DELETE", f"/api/transfers/{_part(transfer_id)}", structs.Transfer)


def hops(transfer_id: str, limit: int) -> Call[list[structs.HopView]]:
    """The latest `limit` hops of a transfer, newest first."""
    query = {"transfer": transfer_id, "limit": str(limit)}
    return Call("GET", "/api/hops", list[structs.HopView], query)


def diagnostics() -> Call[list[structs.DiagnosticView]]:
    """The latest, newest first; as many as the gateway gives unasked."""
    return Call("GET", "/api/diagnostics", list[structs.DiagnosticView])


def flags() -> Call[FlagsView]:
    return Call("GET", "/api/flags", FlagsView)


def set_flag(name: str, enabled: bool) -> Call[FlagsView]:
    return Call("PUT", f"/api/flags/{_part(name)}", FlagsView, body=_json(structs.FlagRequest(enabled)))


def set_chaos(transport: str, faults: Faults) -> Call[FlagsView]:
    """faults: as `shared.settings.chaos.ChaosFlag` has them; what is left out is 0, or for everybody."""
    return Call("PUT", f"/api/chaos/{_part(transport)}", FlagsView, body=_json(faults))


def clear_chaos(transport: str) -> Call[FlagsView]:
    return Call("DELETE", f"/api/chaos/{_part(transport)}", FlagsView)


def blocklist() -> Call[list[structs.BlockView]]:
    return Call("GET", "/api/blocklist", list[structs.BlockView])


def block(peer: str, wanted: structs.BlockRequest) -> Call[list[structs.BlockView]]:
    """peer: a name or a token. The answer is the list as it is then."""
    return Call("PUT", f"/api/blocklist/{_part(peer)}", list[structs.BlockView], body=_json(wanted))


def unblock(peer: str) -> Call[list[structs.BlockView]]:
    return Call("DELETE", f"/api/blocklist/{_part(peer)}", list[structs.BlockView])


def why_of(subject: str, utc_offset_minutes: int) -> Call[why.Why]:
    """subject: a peer's name or token, a transfer's id or its beginning."""
    from shared.gateway_api import why  # here and below: what a command does not ask for it need not load

    return Call("GET", f"/api/why/{_part(subject)}", why.Why, {"utcOffset": str(utc_offset_minutes)})


def trace_list(limit: int = 0, *, fallback_only: bool = False) -> Call[list[traces.TraceSummary]]:
    """limit: at most so many, 0 = as many as the gateway gives unasked."""
    from shared.gateway_api import traces

    query = ({"fallback": "1"} if fallback_only else {}) | ({"limit": str(limit)} if limit else {})
    return Call("GET", "/api/traces", list[traces.TraceSummary], query)


def spans(trace_id: str) -> Call[list[traces.SpanView]]:
    from shared.gateway_api import traces

    return Call("GET", f"/api/traces/{_part(trace_id)}", list[traces.SpanView])


def waterfall(trace_id: str) -> Call[traces.Waterfall]:
    from shared.gateway_api import traces

    return Call("GET", f"/api/traces/{_part(trace_id)}/waterfall", traces.Waterfall)


def upload_query(name: str, mime: str, content_class: str, *, again: bool = False) -> dict[str, str]:
    """The query of `POST /api/files`."""
    return {"name": name, "mime": mime, "class": content_class} | ({"again": "1"} if again else {})


def content_path(manifest: str) -> str:
    """Where the plain bytes of a stored file are."""
    return f"/api/files/{_part(manifest)}/content"


def _part(text: str) -> str:
    """One part of a path, whatever is in it."""
    return quote(text, safe="")


def _json(body: object) -> bytes:
    return msgspec.json.encode(body)
