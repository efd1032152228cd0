from __future__ import annotations

from typing import Any

from services.gateway.model.history import (
    BUS_NOTICED_S,
    MAX_BLOCK_CHANGES,
    MAX_CHANGES,
    MAX_LINK_CHANGES,
    ChangeKind,
    History,
)
from services.gateway.model.status import WORKER_EXPIRY_S
from shared.bus.messages.records import LinkChanged, WorkerStatus
from shared.errors import Cause
from shared.gateway_api.structs import TransportStats
from shared.gateway_api.why import Change
from shared.settings.blocklist import Block, Direction
from shared.settings.chaos import ChaosFlag

PEER = "peer-00000000000000aa"
SETTLED_S = WORKER_EXPIRY_S


def _status(worker: str = "webrtc-1", *, draining: bool = False) -> WorkerStatus:
    return WorkerStatus(worker, "webrtc", "ready", None, [], True, draining, 1)


def _row(state: str, last_error: str | None = None, *, enabled: bool = True) -> TransportStats:
    return TransportStats("webrtc", "PeerJS DataChannels", enabled, state, 0, None, last_error, 0, {}, {}, 1)


def _link(change: str, at_ms: int = 5, peer: str = PEER, **changes: Any) -> LinkChanged:
    values: dict[str, Any] = {"transport": "webrtc", "worker": "w", "role": "member", "cause": None, **changes}
    return LinkChanged(peer=peer, change=change, at_ms=at_ms, **values)


def _history() -> History:
    """One that has listened long enough to miss somebody."""
    history = History(0.0, 0)
    history.look([_row("ready")], SETTLED_S, 3000, connected=True)
    return history


def _kinds(history: History, *peers: str) -> list[str]:
    return [change.kind for change in history.changes(0, peers)]


def test_flags_are_reported_when_they_change_and_not_before() -> None:
    history = History(0.0, 0)
    transports = {"webrtcTransport": "webrtc"}
    for now_ms, webrtc, telemetry in ((1, True, True), (2, True, True), (3, False, True), (4, True, False)):
        flags = {"webrtcTransport": webrtc, "transportFallbackTelemetry": telemetry}
        history.flags_are(flags, transports, now_ms)
    assert [(change.at, change.text, change.transport, change.cause) for change in history.changes(0, ())] == [
        (3, "webrtc was switched off", "webrtc", "disabled"),
        (4, "webrtc was switched on", "webrtc", None),
        (4, "transportFallbackTelemetry was switched off", None, None),
    ]
    assert [change.at for change in history.changes(4, ())] == [4, 4]


def test_chaos_is_reported_even_where_it_was_there_before_us() -> None:
    history = History(0.0, 0)
    history.chaos_is({"webrtc": ChaosFlag(drop=20, delay_ms=5, percent=50)}, 1)
    history.chaos_is({"webrtc": ChaosFlag(drop=20, delay_ms=5, percent=50)}, 2)
    history.chaos_is({"webrtc": ChaosFlag(refuse=100, peer=PEER)}, 3)
    history.chaos_is({}, 4)
    assert [change.text for change in history.changes(0, {PEER})] == [
        "chaos was set on webrtc (drop 20 %, delay 5 ms, of 50 %)",
        "chaos was set on webrtc (refuse 100 %)",
        "chaos was cleared on webrtc",
    ]
    assert len(history.changes(0, ())) == 1  # the rest was for one peer alone


def test_blocks_are_reported_with_their_own_time_even_where_they_were_there_before_us() -> None:
    history = History(0.0, 0)
    history.block_is(PEER, Block(Direction.OUTBOUND, "too much", 5), 100)
    history.block_is(PEER, Block(Direction.ALL, "", 110), 120)
    history.block_is(PEER, Block(Direction.INBOUND, "", 900), 130)  # its writer's clock is ahead
    history.block_is(PEER, None, 140)
    history.block_is(PEER, None, 150)
    assert [(change.at, change.text, change.peer, change.direction) for change in history.changes(0, {PEER})] == [
        (5, f'{PEER} was blocked (outbound, "too much")', PEER, "outbound"),
        (110, f"{PEER} was blocked (both ways)", PEER, "all"),
        (130, f"{PEER} was blocked (inbound)", PEER, "inbound"),
        (140, f"{PEER} was unblocked", PEER, None),
    ]
    assert {change.transport for change in history.changes(0, {PEER})} == {None}
    assert history.changes(0, ()) == []
    assert history.knows_peer(PEER)


def test_a_block_without_a_time_is_of_now_and_none_is_before_the_one_it_takes_the_place_of() -> None:
    history = History(0.0, 0)
    history.block_is(PEER, Block(Direction.INBOUND, "", 0), 100)
    history.block_is(PEER, Block(Direction.ALL, "", 50), 120)
    assert [change.at for change in history.changes(0, {PEER})] == [100, 100]


def test_blocks_in_force_are_not_forgotten_and_push_nothing_out() -> None:
    history = History(0.0, 0)
    history.flags_are({"f": True}, {}, 1)
    history.flags_are({"f": False}, {}, 2)
    history.block_is(PEER, Block(), 3)
    others = [f"peer-1{number:015x}" for number in range(MAX_CHANGES + MAX_BLOCK_CHANGES)]
    for peer in others:
        history.block_is(peer, Block(), 4)
        history.block_is(peer, None, 5)
    assert [change.kind for change in history.changes(0, {PEER})] == [ChangeKind.FLAG_OFF, ChangeKind.PEER_BLOCKED]
    assert len(history.changes(0, {PEER, *others})) == 2 + MAX_BLOCK_CHANGES
    assert history.knows_peer(PEER)
    assert not history.knows_peer(others[0])


def test_workers_that_were_there_before_us_did_not_come() -> None:
    history = History(0.0, 0)
    history.heard(_status(), 0.5, 500)
    history.look([], SETTLED_S, 3000, connected=True)
    history.heard(_status("webrtc-2"), SETTLED_S + 0.1, 3100)
    (came,) = history.changes(0, ())
    assert (came.kind, came.text) == (ChangeKind.WORKER_CAME, "the webrtc worker webrtc-2 came")


def test_a_silent_worker_is_lost_when_it_was_last_heard() -> None:
    history = _history()
    history.heard(_status(), 10.0, 10_000)
    history.look([], 10.0 + WORKER_EXPIRY_S, 13_000, connected=True)
    assert ChangeKind.WORKER_LOST not in _kinds(history)
    history.heard_somebody(13.0)
    history.look([], 10.1 + WORKER_EXPIRY_S, 13_100, connected=True)
    lost = history.changes(0, ())[-1]
    assert (lost.kind, lost.at, lost.transport, lost.cause) == ("worker_lost", 10_000, "webrtc", "worker_lost")


def test_a_drained_worker_leaves() -> None:
    history = _history()
    history.heard(_status(), 10.0, 10_000)
    history.heard(_status(draining=True), 10.5, 10_500)
    history.heard(_status(draining=True), 11.0, 11_000)
    history.look([], 20.0, 20_000, connected=True)
    assert _kinds(history) == [ChangeKind.WORKER_CAME, ChangeKind.DRAINING, ChangeKind.WORKER_LEFT]


def test_signalling_lost_and_back() -> None:
    history = _history()
    for now_s, row in (
        (4.0, _row("active")),
        (5.0, _row("degraded", "signalling_unavailable")),
        (6.0, _row("degraded", "signalling_unavailable")),
        (7.0, _row("initializing")),
        (8.0, _row("ready", "closed")),
        (9.0, _row("active")),
    ):
        history.look([row], now_s, round(now_s * 1000), connected=True)
    assert [(change.at, change.kind) for change in history.changes(0, ())] == [
        (5000, ChangeKind.SIGNALLING_LOST),
        (8000, ChangeKind.SIGNALLING_BACK),
    ]


def test_other_troubles_and_what_is_switched_off() -> None:
    history = _history()
    rows = [
        _row("degraded", "import_failed"),
        _row("idle", enabled=False),
        _row("error", "worker_lost"),
        _row("ready"),
    ]
    for index, row in enumerate(rows):
        history.look([row], 10.0 + index, 10_000 + index, connected=True)
    assert [change.text for change in history.changes(0, ())] == [
        "webrtc is degraded (import_failed)",
        "webrtc has no worker left",
        "webrtc serves again",
    ]


def test_what_was_so_at_the_start_is_no_change() -> None:
    history = History(0.0, 0)
    for now_s in (0.5, SETTLED_S, SETTLED_S + 1):
        history.look([_row("degraded", "signalling_unavailable")], now_s, 1, connected=True)
    assert history.changes(0, ()) == []


def test_nobody_is_lost_while_we_could_hear_nobody() -> None:
    history = _history()
    history.heard(_status(), 3.0, 3000)
    history.look([], 4.0, 4000, connected=False)
    history.look([_row("error", "worker_lost")], 20.0, 20_000, connected=False)
    history.look([_row("error", "worker_lost")], 21.0, 21_000, connected=True)
    history.heard(_status(), 21.5, 21_500)
    history.look([_row("ready")], 21.0 + WORKER_EXPIRY_S, 24_000, connected=True)
    assert _kinds(history) == [ChangeKind.WORKER_CAME, ChangeKind.BUS_LOST, ChangeKind.BUS_BACK]


def test_where_all_are_silent_at_once_it_may_be_the_bus() -> None:
    history = _history()
    history.heard(_status(), 3.0, 3000)
    for now_s in (6.5, 7.5):
        history.look([_row("error", "worker_lost")], now_s, 6500, connected=True)  # which is not noticed yet
    history.look([], 8.0, 8000, connected=False)
    assert _kinds(history) == [ChangeKind.WORKER_CAME, ChangeKind.BUS_LOST]


def test_where_the_bus_stays_the_silence_of_all_is_their_own() -> None:
    history = _history()
    history.heard(_status(), 3.0, 3000)
    history.look([_row("ready")], 4.0, 4000, connected=True)
    history.look([_row("error", "worker_lost")], 3.0 + WORKER_EXPIRY_S + BUS_NOTICED_S, 9000, connected=True)
    lost = [ChangeKind.WORKER_LOST, ChangeKind.TRANSPORT_TROUBLED]
    assert [kind for kind in _kinds(history) if kind in lost] == lost


def test_links_are_asked_to_those_who_ask_about_their_peer() -> None:
    history = _history()
    history.link_changed(_link("opened"))
    history.link_changed(_link("closed", 6, cause=Cause.SILENT))
    history.link_changed(_link("opened", 7, peer="peer-00000000000000bb"))
    opened, closed = history.changes(0, {PEER})
    assert (opened.text, opened.cause) == (f"the webrtc link to {PEER} was opened", None)
    assert (closed.text, closed.cause) == (f"the webrtc link to {PEER} was closed (silent)", "silent")
    assert history.changes(0, ()) == []
    assert history.knows_peer(PEER)
    assert not history.knows_peer("peer-00000000000000cc")


def test_a_flapping_peer_does_not_push_out_a_flag() -> None:
    history = _history()
    history.flags_are({"f": True}, {}, 1)
    history.flags_are({"f": False}, {}, 2)
    for index in range(MAX_LINK_CHANGES + 10):
        history.link_changed(_link("opened", index))
    assert len(history.changes(0, {PEER})) == MAX_LINK_CHANGES + 1
    for index in range(MAX_CHANGES + 10):
        history.flags_are({"f": bool(index % 2)}, {}, index)
    found: list[Change] = history.changes(0, ())
    assert len(found) == MAX_CHANGES
