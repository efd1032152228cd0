"""Who asks whom on the bus: the one table that permissions, inboxes and the check of a reply's place come from.

A row is a subject, the services that publish on it and the one that serves it. What is not here is not said on the
bus, apart from buckets, the hops stream and NATS micro (`shared.bus.nats.permissions`).

*Inboxes by name.* The answer to a request goes to `_INBOX.<caller>.<server>.<connection>.<random>`: only the caller's
service hears it, only the server's may publish there, and its last token is new with each request. NATS delivers a
request whatever its reply subject is, so that a server that answered anywhere could be made to write wherever it may
write itself; `may_answer` refuses any other place before the server's permissions have to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from shared.bus.messages.subjects import BROADCAST_SUBJECTS, CHUNK_CALLS, OURS, RENDEZVOUS_SUBJECTS, Subjects
from shared.transports import ORDER, TransportName

MANAGER: Final = "manager"
CHUNK: Final = "chunk"
GATEWAY: Final = "gateway"
BROADCAST: Final = "broadcast"
RENDEZVOUS: Final = "rendezvous"
KEEPER: Final = "keeper"
"""Makes streams and buckets, in the account that holds them; the only user there."""

ADMIN: Final = "admin"
"""The operator's own user: it may ask everything of everybody."""

WORKERS: Final = tuple(str(name) for name in ORDER)
SERVICES: Final = (MANAGER, CHUNK, *WORKERS, GATEWAY)
STORE: Final = "store"
"""Who answers for JetStream: the server itself."""

MAX_KNOWN: Final = 4_096
"""Subjects whose row is remembered: most name an instance or a peer, and the same ones come again and again."""

INBOX: Final = "_INBOX"
UNNAMED: Final = "any"
"""In an inbox, whoever has no name of its own: a process without a user, a subject that is in no row."""


@dataclass(frozen=True, slots=True)
class Row:
    """callers publish on `subject` (wildcards are whole tokens), `server` subscribes to it and may answer them.

    answered: False for what is published and not asked. heard: what the server subscribes to, where that is wider.
    """

    subject: str
    callers: tuple[str, ...]
    server: str
    answered: bool = True
    heard: str = ""


def node_rows(node: str) -> list[Row]:
    """Everything that the services of one node say to each other. node "*": of whichever node."""
    subjects = Subjects(node)
    rows = [
        Row(subjects.deliver, (CHUNK,), MANAGER),
        Row(subjects.manager("*"), (CHUNK, *WORKERS), MANAGER),
        Row(subjects.reply(f"{CHUNK}.*"), (MANAGER,), CHUNK),
        Row(subjects.reply(f"{GATEWAY}.*"), (CHUNK,), GATEWAY),
        Row(subjects.chunk_message, (MANAGER,), CHUNK),
        Row(subjects.chunk_instance("*"), (GATEWAY,), CHUNK),
        *(Row(subjects.chunk(call), (GATEWAY,), CHUNK) for call in CHUNK_CALLS),
        Row(subjects.certify, WORKERS, CHUNK),
        Row(subjects.sign_record, (TransportName.WEBTORRENT,), CHUNK),
        Row(subjects.peerjs_token, (TransportName.WEBRTC,), CHUNK),
        _body(subjects, GATEWAY, CHUNK),
        _body(subjects, CHUNK, GATEWAY),
        *(Row(subjects.announce, (CHUNK,), transport, answered=False) for transport in WORKERS),
        Row(subjects.signal_offer, (TransportName.WEBRTC,), TransportName.WEBRTC),
        Row(subjects.signal_send, (TransportName.WEBRTC,), TransportName.WEBRTC),
        Row(subjects.signal_pages, (TransportName.WEBRTC,), TransportName.WEBRTC, answered=False),
        # A process asks itself how it is, so that its answer has crossed the bus.
        *(Row(subjects.health(service, "*"), (service,), service) for service in SERVICES),
        *(Row(subjects.event(what), publishers, GATEWAY, answered=False) for what, publishers in EVENTS.items()),
    ]
    for transport in WORKERS:
        # Workers of WebRTC ask one another who holds the signalling lease.
        callers = (MANAGER, transport) if transport == TransportName.WEBRTC else (MANAGER,)
        rows += [
            Row(subjects.link(transport, "*"), (MANAGER,), transport),
            Row(subjects.dial(transport), (MANAGER,), transport),
            Row(subjects.worker(f"{transport}.*"), callers, transport),
            Row(subjects.inbound(transport), (transport,), MANAGER),
            Row(subjects.announced(transport), (transport,), CHUNK, answered=False, heard=subjects.announced("*")),
            *(_named(subjects, transport, other) for other in WORKERS if other != transport),
            _body(subjects, transport, CHUNK),
            _body(subjects, CHUNK, transport),
        ]
    return rows


def _body(subjects: Subjects, holder: str, puller: str) -> Row:
    """One subscription an instance hears every puller's requests."""
    return Row(subjects.body(f"{holder}.*", puller), (puller,), holder, heard=subjects.body(f"{holder}.*", "*"))


def _named(subjects: Subjects, transport: str, other: str) -> Row:
    return Row(subjects.named(transport, other), (transport,), other, answered=False, heard=subjects.named("*", other))


EVENTS: Final = {
    "link": WORKERS,
    "status": WORKERS,
    "manager": (MANAGER,),
    "diagnostic": (MANAGER, GATEWAY),
    "transfer": (CHUNK,),
    "spans": SERVICES,
}
"""Events by who publishes them: past facts for views."""

MESH_ROWS: Final = (
    Row(BROADCAST_SUBJECTS, (BROADCAST,), BROADCAST),
    Row(RENDEZVOUS_SUBJECTS, (RENDEZVOUS,), RENDEZVOUS),
)
"""Account `mesh`, which nodes on one bus share: each service with its own kind."""


def inbox(caller: str, server: str) -> str:
    """What the reply subjects of `caller`'s requests to `server` start with; "*" for either in a permission."""
    return f"{INBOX}.{caller or UNNAMED}.{server}"


def server_of(subject: str) -> str:
    """The service that serves a subject, for the inbox of its answer."""
    if subject.startswith("$"):
        return STORE
    row = _row(subject)
    return UNNAMED if row is None else row.server


def may_answer(service: str, subject: str, reply: str) -> bool:
    """Whether `reply` is where a caller of `subject` hears the answers of `service`; "" for one without a name."""
    tokens = reply.split(".")
    if len(tokens) < 3 or tokens[0] != INBOX:
        return False
    row = _row(subject)
    if row is None:
        return not service  # no subject of ours
    caller, server = tokens[1], tokens[2]
    may_ask = (row.answered and caller in row.callers) or caller == ADMIN or (not service and caller == UNNAMED)
    return may_ask and server == row.server


def matches(pattern: str, subject: str) -> bool:
    """Whether NATS would deliver what is published on `subject` to a subscription of `pattern`.

    `*` is one token, `>` one or more at the end.
    """
    wanted, tokens = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(tokens) > index
        if index >= len(tokens) or part not in ("*", tokens[index]):
            return False
    return len(wanted) == len(tokens)


_ROWS: Final[Sequence[Row]] = (*MESH_ROWS, *node_rows("*"))
_BY_KIND: Final[dict[str, list[Row]]] = {}
for _one in _ROWS:
    _BY_KIND.setdefault(_one.subject.split(".")[2] if _one not in MESH_ROWS else "", []).append(_one)


@lru_cache(MAX_KNOWN)
def _row(subject: str) -> Row | None:
    if not subject.startswith(OURS):
        return None
    tokens = subject.split(".", 3)
    # A node cannot be called `bc` or `rv`, so that the two worlds cannot meet.
    kind = "" if tokens[1] in ("bc", "rv") else tokens[2] if len(tokens) > 2 else ""
    for row in _BY_KIND.get(kind, ()):
        if matches(row.subject, subject):
            return row
    return None
