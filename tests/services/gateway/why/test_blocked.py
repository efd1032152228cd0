"""What `why` says where one end has blocked the other."""

from __future__ import annotations

import pytest

from services.gateway.model.history import ChangeKind
from shared.bus.messages.records import HopRecord
from shared.errors import Cause
from shared.gateway_api.why import Change
from shared.transports import ORDER
from tests.services.gateway.why.test_phases import START_MS, hop
from tests.services.gateway.why.test_verdict import PEER, _ask, _change, _switched, _transfer

BLOCKED = Cause.BLOCKED
THERE = "the block is at the other end, not here: ask who runs it"


def _block(at_ms: int, direction: str | None = "all", peer: str = PEER) -> Change:
    """None: it was lifted."""
    kind = ChangeKind.PEER_UNBLOCKED if direction is None else ChangeKind.PEER_BLOCKED
    return Change(START_MS + at_ms, kind, f"{peer} {kind.value}", peer=peer, direction=direction)


def _refused(
    delivery: str, at_ms: int, causes: tuple[Cause, ...] = (BLOCKED,) * 3, peer: str = PEER
) -> list[HopRecord]:
    """A delivery that got through over nothing."""
    return [
        hop(delivery, transport.value, "skipped", at_ms, cause=cause, number=number, peer=peer)
        for number, (transport, cause) in enumerate(zip(ORDER, causes, strict=True), 1)
    ]


@pytest.mark.parametrize(("direction", "words"), [("outbound", "outbound"), ("all", "both ways")])
def test_a_block_of_this_node_is_said_plainly_and_once(direction: str, words: str) -> None:
    block = _block(-500_000, direction)  # however long ago: it still holds
    found = _ask([hop("d0", "webrtc"), *_refused("d1", 500)], [block], links=("webrtc",))
    assert found.verdict == "stuck"
    assert found.headline == (
        f"nothing gets through for {PEER} since @500: this node has blocked the peer {words} (blocked); "
        "it last went over webrtc at @10; it is linked over webrtc now"
    )
    assert [(reason.transport, reason.change) for reason in found.reasons] == [(one.value, block.text) for one in ORDER]
    assert found.changes == [block]
    assert "`swarmbridge blocklist remove PEER` at the end that blocks" in found.causes[0].sentence


def test_a_block_beside_what_is_one_transports_own() -> None:
    changes = [_block(0), _change(ChangeKind.FLAG_OFF, 0, "webtorrent", Cause.DISABLED)]
    found = _ask(_refused("d1", 500, (BLOCKED, Cause.DISABLED, Cause.CLOSED)), changes)
    assert found.headline == (
        f"nothing gets through for {PEER} since @500: this node has blocked the peer both ways (blocked, closed); "
        "webtorrent: webtorrent was switched off (disabled)"
    )


@pytest.mark.parametrize("cause", [BLOCKED, Cause.NO_LINK, Cause.CLOSED, Cause.CIRCUIT_OPEN])
def test_a_block_explains_what_it_brings_about(cause: Cause) -> None:
    found = _ask(_switched(cause), [_block(90)])
    assert f"because this node has blocked the peer both ways ({cause.value})" in found.headline
    assert "the other end" not in found.headline


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [_block(50, peer="peer-00000000000000bb")],
        [_block(20), _block(50, None)],
        [_block(20), _block(50, "inbound")],  # it took the place of the one before
        [_block(9_000)],
    ],
)
def test_a_block_that_is_not_ours_is_the_other_ends(changes: list[Change]) -> None:
    for hops in (_refused("d1", 100), _switched(BLOCKED)):
        found = _ask(hops, changes)
        assert found.reasons[0].change is None
        assert "one end has blocked the other (blocked)" in found.headline
        assert found.headline.count("one end has blocked") == 1
        assert THERE in found.headline


def test_a_link_that_the_other_end_closed_for_a_block() -> None:
    changes = [_change(ChangeKind.LINK_CLOSED, 400, name.value, BLOCKED) for name in ORDER]
    found = _ask([hop("d0", "webrtc"), *_refused("d1", 500, (Cause.NO_LINK,) * 3)], changes)
    assert "webrtc: the webrtc link was closed (blocked, then no_link)" in found.headline
    assert found.headline.endswith(THERE)


def test_a_gateway_that_was_not_there_does_not_say_which_end_blocks() -> None:
    found = _ask(_refused("d1", 500), known_since_ms=START_MS + 501)
    assert found.headline.endswith("one end has blocked the other (blocked)")


def test_a_block_of_one_peer_explains_its_own_hops_alone() -> None:
    other = "peer-00000000000000bb"
    hops = [*_refused("d1", 500, peer=other), hop("d0", "webrtc")]
    found = _ask(hops, [_block(0)], transfer=_transfer())
    assert found.reasons[0].change is None
    assert _ask(hops, [_block(0, peer=other)], transfer=_transfer()).reasons[0].change is not None


@pytest.mark.parametrize("hops", [[], [hop("d0", "webrtc")], _switched(Cause.SILENT)])
def test_a_block_is_reported_whatever_was_so_before(hops: list[HopRecord]) -> None:
    block = _block(20_000, "inbound")
    found = _ask(hops, [block])
    assert found.headline.endswith("; this node has blocked it inbound since @20000")
    assert block in found.changes
    assert "blocked" not in _ask(hops, [block, _block(21_000, None)]).headline
    assert "blocked" not in _ask(hops, [block], transfer=_transfer()).headline


def test_a_transfer_that_failed_for_a_block() -> None:
    failed = _transfer("failed", BLOCKED)
    here = _ask(_refused("d1", 500), [_block(0)], transfer=failed).headline
    assert here.endswith("; this node has blocked the peer both ways (blocked)")
    assert "no transport is to blame" not in here
    there = _ask(_refused("d1", 500), transfer=failed).headline
    assert there.endswith(f"so no transport is to blame; {THERE}")
    # Blocked in the middle of it, before a hop could tell.
    between = _ask([hop("d0", "webrtc")], [_block(5)], transfer=failed).headline
    assert between.endswith(f"this node has blocked {PEER} both ways since @5")
    assert "blocklist remove" in _ask([], transfer=failed).causes[0].sentence
    assert THERE not in _ask([], transfer=failed).headline  # nobody was asked
