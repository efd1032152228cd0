"""The suite itself: a right transport passes every check, and each broken one fails a check that names its fault."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import Cause, TransportError
from shared.ids import LinkId, new_link_id
from shared.transport.contract import Capabilities, LinkDown, LinkUp, PeerHint, RecordReceived
from tests.conformance import suite
from tests.conformance.suite import CHECKS, Check, End, Pair
from tests.fakes.loop_transport import LoopNet, LoopTransport

NEAR, FAR = b"\x01" * 32, b"\x02" * 32


class Reordering(LoopTransport):
    _held: bytes | None = None

    def deliver(self, link: LinkId, record: bytes) -> None:
        if self._held is None:
            self._held = record
            return
        held, self._held = self._held, None
        super().deliver(link, record)
        super().deliver(link, held)


class Duplicating(LoopTransport):
    def deliver(self, link: LinkId, record: bytes) -> None:
        super().deliver(link, record)
        super().deliver(link, record)


class Losing(LoopTransport):
    _count = 0

    def deliver(self, link: LinkId, record: bytes) -> None:
        self._count += 1
        if self._count % 7:
            super().deliver(link, record)


class Splitting(LoopTransport):
    def deliver(self, link: LinkId, record: bytes) -> None:
        if len(record) > 16_384:
            self.emit(RecordReceived(link, record[:16_384]))
            record = record[16_384:]
        super().deliver(link, record)


class PostingToNobody(LoopTransport):
    """What the reference did: a post to an empty channel counted as delivered."""

    async def send(self, link: LinkId, record: bytes) -> None:
        try:
            await super().send(link, record)
        except TransportError:
            return


class ConnectingToNobody(LoopTransport):
    async def dial(self, hint: PeerHint, timeout_s: float) -> None:
        try:
            await super().dial(hint, timeout_s)
        except TransportError:
            self.emit(LinkUp(new_link_id(), dialer=True, binding=bytes(32), expected_key=hint.key))


class ClosingTwice(LoopTransport):
    async def close(self, link: LinkId, cause: Cause) -> None:
        await super().close(link, cause)
        self.emit(LinkDown(link, cause))


class SharingBindings(LoopTransport):
    def __init__(self, net: LoopNet, identity_key: bytes = b"") -> None:
        net.new_binding = lambda: bytes(32)  # type: ignore[method-assign]
        super().__init__(net, identity_key)


class Unordered(LoopTransport):
    capabilities = Capabilities(65_535, ordered=False, reliable=True)


class LeavingLinksOpen(LoopTransport):
    async def run(self, emit: object) -> None:
        self._emit = emit  # type: ignore[assignment]
        self.net.listening[self.identity_key] = self
        await asyncio.Event().wait()


BROKEN: list[tuple[type[LoopTransport], Check]] = [
    (Reordering, suite.records_arrive_whole_and_in_order),
    (Duplicating, suite.records_arrive_whole_and_in_order),
    (Losing, suite.bulk_arrives_without_loss),
    (Splitting, suite.records_arrive_whole_and_in_order),
    (PostingToNobody, suite.refuses_to_send_where_nobody_is),
    (PostingToNobody, suite.a_closed_link_takes_nothing),
    (ConnectingToNobody, suite.an_absent_peer_is_never_a_success),
    (ClosingTwice, suite.a_link_goes_down_once_with_our_cause),
    (SharingBindings, suite.every_link_has_a_binding_of_its_own),
    (Unordered, suite.promises_what_a_seal_needs),
    (LeavingLinksOpen, suite.stopping_closes_every_link_and_it_runs_again),
]


async def _run(kind: type[LoopTransport], check: Check) -> None:
    net = LoopNet()
    near = End(kind(net, NEAR), PeerHint(NEAR, "peer-near"))
    far = End(kind(net, FAR), PeerHint(FAR, "peer-far"))
    await near.start()
    await far.start()
    try:
        await check(Pair(near, far))
    finally:
        await near.stop()
        await far.stop()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_a_right_transport_passes(check: Check) -> None:
    await _run(LoopTransport, check)


@pytest.mark.parametrize(("kind", "check"), BROKEN, ids=lambda item: item.__name__)
async def test_a_broken_transport_fails(
    kind: type[LoopTransport], check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def quick_until(self: End, condition: object, what: str, timeout_s: float = 1.0) -> None:
        await _UNTIL(self, condition, what, min(timeout_s, 0.5))  # type: ignore[arg-type]

    monkeypatch.setattr(End, "until", quick_until)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await _run(kind, check)


_UNTIL = End.until
