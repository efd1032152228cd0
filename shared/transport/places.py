"""The members of the rendezvous document as a status report tells of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from shared.bus.messages.records import MeetingPlace
from shared.errors import Cause
from shared.settings.rendezvous import Fault
from shared.websocket.client import ClientState

SPARE = "spare"
KNOWN = "known"
UNUSABLE = "unusable"
T = TypeVar("T")


def places_of(
    name: str, members: Sequence[T], faults: Sequence[Fault], describe: Callable[[T, int], MeetingPlace]
) -> list[MeetingPlace]:
    """One list of the document in its file's order. describe: a usable member and its index there."""
    broken = {fault.index for fault in faults if fault.list == name}
    found = [MeetingPlace(name, index, UNUSABLE, Cause.MISCONFIGURED) for index in sorted(broken)]
    index = 0
    for member in members:
        while index in broken:
            index += 1
        found.append(describe(member, index))
        index += 1
    return sorted(found, key=lambda place: place.index)


class Tried(Protocol):
    """A member that is tried again and again, as it stands. since, retry_at: on one clock; 0 = no next try."""

    @property
    def state(self) -> ClientState: ...
    @property
    def cause(self) -> Cause | None: ...
    @property
    def since(self) -> float: ...
    @property
    def retry_at(self) -> float: ...


def connected_place(name: str, index: int, client: Tried | None, now: float, now_ms: int) -> MeetingPlace:
    """A member that we keep in touch with. client: None where it is not used now. now: on the client's clock."""
    if client is None:
        return MeetingPlace(name, index, SPARE)
    retry_ms = now_ms + round((client.retry_at - now) * 1000) if client.retry_at else 0
    since_ms = now_ms - round((now - client.since) * 1000)
    return MeetingPlace(name, index, client.state.value, client.cause, since_ms, retry_ms)
