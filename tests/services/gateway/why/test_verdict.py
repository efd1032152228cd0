from __future__ import annotations

import msgspec
import pytest

from services.gateway.api.why_view import clock_text_at
from services.gateway.model.history import ChangeKind
from services.gateway.why.cause_words import CAUSE_WORDS, because
from services.gateway.why.verdict import Facts, why
from shared.bus.messages.records import HopRecord
from shared.errors import Cause
from shared.gateway_api.structs import Transfer
from shared.gateway_api.why import Change, Why
from tests.services.gateway.why.test_phases import START_MS, fell_back, hedged, hop

PEER = "peer-00000000000000aa"
NOW_MS = START_MS + 60_000
TRANSFER = "ab" * 16


def _ask(
    hops: list[HopRecord],
    changes: list[Change] | None = None,
    *,
    transfer: Transfer | None = None,
    links: tuple[str, ...] = (),
    troubles: dict[str, Cause] | None = None,
    known_since_ms: int = 0,
    traces: frozenset[str] = frozenset(),
) -> Why:
    """The verdict on PEER, or on a transfer called film.bin."""
    return why(
        Facts(
            kind="transfer" if transfer else "peer",
            id=transfer.id if transfer else PEER,
            who=transfer.name if transfer else PEER,
            transfer=transfer,
            hops=hops,
            links=links,
            troubles=troubles or {},
            changes=changes or [],
            known_since_ms=known_since_ms,
            now_ms=NOW_MS,
            has_trace=traces.__contains__,
            clock_text=lambda at_ms: f"@{at_ms - START_MS}",
        )
    )


def _transfer(state: str = "running", cause: Cause | None = None, kind: str = "get") -> Transfer:
    return Transfer(TRANSFER, kind, state, "film.bin", cause=cause.value if cause else None)


def _change(
    kind: ChangeKind, at_ms: int, transport: str = "webrtc", cause: Cause | None = None, worker: str = "w1"
) -> Change:
    text = f"{transport} {kind.value}"
    return Change(START_MS + at_ms, kind, text, transport, cause=cause.value if cause else None, worker=worker)


def _switched(cause: Cause, at_ms: int = 100) -> list[HopRecord]:
    """Carried by webrtc, which is then left for a cause."""
    return [hop("d0", "webrtc"), *fell_back("d1", "webrtc", cause, "webtorrent", at_ms)]


# ── words ──


def test_every_cause_has_its_sentence() -> None:
    assert CAUSE_WORDS.keys() == set(Cause)
    sentences = [words.sentence for words in CAUSE_WORDS.values()]
    assert len(set(sentences)) == len(Cause)
    for words in CAUSE_WORDS.values():
        assert words.meaning[0].isupper()
        assert not words.meaning.endswith(".")
        assert words.advice[0].islower()
        assert words.sentence.count(". ") == 0
        assert len(words.sentence) > 60


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_is_reported_in_the_headline_the_timeline_and_its_sentence(cause: Cause) -> None:
    found = _ask(_switched(cause))
    assert (found.verdict, found.transport, found.since) == ("fallback", "webtorrent", START_MS + 100)
    assert found.headline.startswith(
        f"{PEER} is reached over webtorrent since @100 because {because(cause, 'webrtc')} ({cause.value})"
    )
    assert [(row.transport, row.outcome, row.cause) for row in found.timeline] == [
        ("webrtc", "confirmed", None),
        ("webrtc", "failed", cause.value),
        ("webtorrent", "confirmed", None),
    ]
    assert [(row.cause, row.count) for row in found.causes] == [(cause.value, 1)]
    assert found.causes[0].sentence == CAUSE_WORDS[cause].sentence


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_can_end_a_transfer(cause: Cause) -> None:
    found = _ask([hop("d0", "webrtc")], transfer=_transfer("failed", cause))
    assert found.verdict == "failed"
    assert found.headline.startswith(f"film.bin failed at @10 ({cause.value}): ")
    assert found.causes[0].cause == cause.value


# ── what carries it ──


def test_the_first_choice_all_the_time() -> None:
    found = _ask([hop("d0", "webrtc"), *hedged("d1", 5), hop("d2", "webrtc", at_ms=10)], transfer=_transfer("done"))
    assert (found.verdict, found.transport, found.reasons) == ("direct", "webrtc", [])
    assert found.headline == (
        "film.bin arrived over webrtc from @0 on, the first choice; "
        "1 of 3 deliveries were won by a hedge (webrtc: silent)"
    )


def test_tries_after_the_change_are_counted() -> None:
    records = _switched(Cause.WORKER_LOST)
    for index in range(3):
        records += fell_back(f"n{index}", "webrtc", Cause.NO_LINK, "webtorrent", 3000 + index)
    found = _ask(records, transfer=_transfer())
    assert found.headline == (
        "film.bin arrives over webtorrent since @100 because the webrtc worker was lost (worker_lost); "
        "webrtc was tried again 3 times: no_link"
    )
    assert found.reasons[0].tries == 4


def test_the_most_telling_cause_of_the_moment_is_the_reason() -> None:
    records = [
        hop("d0", "webrtc"),
        *fell_back("d1", "webrtc", Cause.NO_LINK, "webtorrent", 100),
        *fell_back("d2", "webrtc", Cause.NO_LINK, "webtorrent", 110),
        *fell_back("d3", "webrtc", Cause.WORKER_LOST, "webtorrent", 300),
        *fell_back("d4", "webrtc", Cause.BLOCKED, "webtorrent", 9000),
    ]
    assert _ask(records).reasons[0].cause == "worker_lost"


def test_what_a_spared_transport_met_when_it_was_next_tried_is_the_reason() -> None:
    records = [
        hop("d1", "webrtc", "skipped", 0, cause=Cause.CIRCUIT_OPEN),
        hop("d1", "webtorrent", at_ms=1, number=2),
        *fell_back("d2", "webrtc", Cause.REFUSED, "webtorrent", 9000),
    ]
    assert _ask(records).reasons[0].cause == "refused"
    assert _ask(records[:2]).reasons[0].cause == "circuit_open"


@pytest.mark.parametrize("trouble", [Cause.ID_TAKEN, Cause.IMPORT_FAILED])
def test_what_keeps_a_transport_from_linking_is_its_reason(trouble: Cause) -> None:
    troubled = _change(ChangeKind.TRANSPORT_TROUBLED, 50, cause=trouble)
    for cause in (Cause.NO_LINK, Cause.SIGNALLING_UNAVAILABLE, Cause.DIAL_TIMEOUT):
        found = _ask(_switched(cause), [_change(ChangeKind.DRAINING, 20), troubled])
        assert f"because {because(trouble, 'webrtc')} ({trouble.value})" in found.headline
        assert {row.cause for row in found.causes} == {cause.value, trouble.value}
        assert troubled in found.changes
    # Not what happened before it, what it cannot have brought about, or what came when it was over.
    later = _change(ChangeKind.TRANSPORT_TROUBLED, 4000, cause=trouble)
    assert _ask(_switched(Cause.NO_LINK), [later]).reasons[0].cause == "no_link"
    assert _ask(_switched(Cause.REFUSED), [troubled]).reasons[0].cause == "refused"
    over = [troubled, _change(ChangeKind.TRANSPORT_BACK, 60)]
    assert _ask(_switched(Cause.NO_LINK), over).reasons[0].cause == "no_link"


def test_every_better_transport_has_its_reason() -> None:
    records = [
        hop("d0", "webrtc", "failed", 0, cause=Cause.NO_LINK),
        hop("d0", "webtorrent", "skipped", 1, cause=Cause.DISABLED, number=2),
        hop("d0", "broadcast", "confirmed", 1, number=3, fallback_from="webrtc", fallback_cause=Cause.NO_LINK),
    ]
    found = _ask(records, [_change(ChangeKind.FLAG_OFF, -500_000, "webtorrent", Cause.DISABLED)])
    assert [(reason.transport, reason.cause) for reason in found.reasons] == [
        ("webrtc", "no_link"),
        ("webtorrent", "disabled"),
    ]
    assert "because there was no webrtc link to the peer (no_link) and webtorrent was switched off" in found.headline
    assert [change.kind for change in found.changes] == ["flag_off"]  # however long ago: it still holds


def test_a_transport_that_no_hop_names_is_explained_by_how_it_is() -> None:
    found = _ask([hop("d0", "webtorrent")], troubles={"webrtc": Cause.IMPORT_FAILED})
    assert [(reason.transport, reason.cause, reason.tries) for reason in found.reasons] == [
        ("webrtc", "import_failed", 0)
    ]
    assert _ask([hop("d0", "webtorrent")]).headline.endswith("over webtorrent since @0, whose link opened first")


def test_it_returned() -> None:
    found = _ask([*_switched(Cause.DRAINING), hop("d2", "webrtc", at_ms=5000)], transfer=_transfer("done"))
    assert (found.verdict, found.transport, found.since) == ("returned", "webrtc", START_MS + 100)
    assert found.headline == (
        "film.bin arrived over webrtc again from @5000 on; from @100 to @110 it went over webtorrent "
        "because the webrtc worker was about to stop (draining)"
    )


def test_it_goes_back_and_forth() -> None:
    records = [hop(f"d{index}", "webrtc", at_ms=index * 100) for index in range(0, 12, 2)]
    for index in range(1, 12, 2):
        records += fell_back(f"d{index}", "webrtc", Cause.REFUSED, "webtorrent", index * 100)
    found = _ask(records)
    assert found.verdict == "mixed"
    assert "(webrtc 6, webtorrent 6 of the last 12)" in found.headline
    assert "webrtc: refused" in found.headline


def test_a_peer_that_is_linked_again_is_said_so() -> None:
    found = _ask(_switched(Cause.CLOSED), links=("webrtc", "webtorrent"))
    assert found.headline.endswith("webrtc is linked again now")


# ── what does not get through ──


def _nothing(delivery: str, at_ms: int) -> list[HopRecord]:
    return [
        hop(delivery, "webrtc", "failed", at_ms, cause=Cause.WORKER_LOST),
        hop(delivery, "webtorrent", "skipped", at_ms, cause=Cause.CIRCUIT_OPEN, number=2),
        hop(delivery, "broadcast", "failed", at_ms, cause=Cause.NO_LISTENER, number=3),
    ]


def test_nothing_gets_through() -> None:
    found = _ask([hop("d0", "webrtc"), *_nothing("d1", 500), *_nothing("d2", 900)], transfer=_transfer())
    assert (found.verdict, found.transport, found.since) == ("stuck", None, START_MS + 500)
    assert [reason.cause for reason in found.reasons] == ["worker_lost", "circuit_open", "no_listener"]
    assert found.headline.startswith("nothing gets through for film.bin since @500: webrtc: the webrtc worker was lost")
    assert found.headline.endswith("it last went over webrtc at @10")


def test_a_transfer_that_failed_for_want_of_a_way_names_each_transport() -> None:
    found = _ask(_nothing("d1", 500), transfer=_transfer("failed", Cause.NO_LISTENER))
    assert found.verdict == "failed"
    for words in ("(worker_lost)", "(circuit_open)", "(no_listener)"):
        assert words in found.headline
    assert "no transport is to blame" not in found.headline


def test_an_answer_that_came_over_every_transport_is_no_transports_fault() -> None:
    records = [
        hop("d1", name, "failed", index, cause=Cause.INTEGRITY_MISMATCH, number=index)
        for index, name in enumerate(("webrtc", "webtorrent"))
    ]
    found = _ask(records, transfer=_transfer("failed", Cause.INTEGRITY_MISMATCH))
    assert found.headline.endswith("that came over webrtc and webtorrent, so no transport is to blame")


def test_content_that_nobody_has_is_no_transports_fault() -> None:
    found = _ask([hop("d0", "webrtc", bytes=0)], transfer=_transfer("failed", Cause.REFUSED))
    assert "does not hold what was asked for" in found.headline
    assert found.headline.endswith("the peer was reached over webrtc, so no transport is to blame")
    assert [(row.cause, row.count) for row in found.causes] == [("refused", 0)]


def test_what_its_caller_gave_up_did_not_fail() -> None:
    given_up = [hop("d1", "webrtc", "failed", 20, cause=Cause.BUSY), hop("d1", "webtorrent", "cancelled", 30, number=2)]
    assert _ask([hop("d0", "webrtc"), *given_up]).verdict == "direct"
    assert _ask(given_up).verdict == "idle"


def test_a_transfer_that_failed_before_anybody_was_asked() -> None:
    found = _ask([], transfer=_transfer("failed", Cause.PEER_UNKNOWN))
    assert found.headline.startswith("film.bin failed before any peer was asked (peer_unknown): the peer is not")
    assert (found.since, found.trace_id) == (None, None)


@pytest.mark.parametrize(
    ("transfer", "words"),
    [
        (_transfer("done", kind="put"), "film.bin is kept on this node: a put asks no peer"),
        (_transfer("done"), "film.bin was already here: no peer was asked"),
        (_transfer(), "film.bin has had no answer from any peer yet, and nothing has failed either"),
    ],
)
def test_where_no_peer_was_asked(transfer: Transfer, words: str) -> None:
    found = _ask([], transfer=transfer)
    assert (found.verdict, found.headline, found.trace_id, found.since) == ("idle", words, None, None)


def test_a_linked_peer_that_was_asked_nothing() -> None:
    found = _ask([], links=("webrtc", "broadcast"))
    assert found.headline == f"nothing was asked of {PEER} yet; it is linked over webrtc and broadcast"
    assert _ask([]).headline.endswith("it has no link to this node now")


# ── what was done to the system ──


@pytest.mark.parametrize(
    ("kind", "cause", "words"),
    [
        (ChangeKind.WORKER_LOST, Cause.NO_LINK, "the webrtc worker was lost (no_link)"),
        (ChangeKind.WORKER_LOST, Cause.SILENT, "the webrtc worker was lost (silent)"),
        (ChangeKind.DRAINING, Cause.CLOSED, "the webrtc worker was stopped (closed)"),
        (ChangeKind.FLAG_OFF, Cause.CLOSED, "webrtc was switched off (closed)"),
        (ChangeKind.CHAOS_SET, Cause.SILENT, "webrtc chaos_set (silent)"),
        (ChangeKind.SIGNALLING_LOST, Cause.DIAL_TIMEOUT, "webrtc could reach no signalling server (dial_timeout)"),
        (ChangeKind.TRANSPORT_TROUBLED, Cause.IMPORT_FAILED, "webrtc transport_troubled (import_failed)"),
        (ChangeKind.LINK_CLOSED, Cause.NO_LINK, "the webrtc link was closed (silent, then no_link)"),
    ],
)
def test_a_change_that_fits_the_cause_explains_it(kind: ChangeKind, cause: Cause, words: str) -> None:
    change = _change(kind, 90, cause=Cause.SILENT)
    found = _ask(_switched(cause), [change])
    assert f"because {words}" in found.headline
    assert found.reasons[0].change == change.text
    assert found.changes == [change]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ([_change(ChangeKind.WORKER_LOST, 90)], Cause.TOO_LARGE),  # it cannot have brought that about
        ([_change(ChangeKind.WORKER_LOST, 90, "broadcast")], Cause.NO_LINK),
        ([_change(ChangeKind.WORKER_LOST, -70_000)], Cause.NO_LINK),
        ([_change(ChangeKind.WORKER_LOST, 9_000)], Cause.NO_LINK),
        ([_change(ChangeKind.WORKER_LOST, 20), _change(ChangeKind.LINK_OPENED, 50, worker="w2")], Cause.NO_LINK),
        ([_change(ChangeKind.LINK_CLOSED, 20), _change(ChangeKind.LINK_OPENED, 50)], Cause.NO_LINK),
        ([_change(ChangeKind.FLAG_OFF, 20), _change(ChangeKind.FLAG_ON, 50)], Cause.NO_LINK),
        ([_change(ChangeKind.SIGNALLING_LOST, 20), _change(ChangeKind.SIGNALLING_BACK, 50)], Cause.NO_LINK),
    ],
)
def test_a_change_that_does_not_fit_explains_nothing(changes: list[Change], cause: Cause) -> None:
    assert _ask(_switched(cause), changes).reasons[0].change is None


def test_a_lost_workers_own_last_link_does_not_undo_its_loss() -> None:
    changes = [_change(ChangeKind.WORKER_LOST, 20), _change(ChangeKind.LINK_OPENED, 50)]
    assert _ask(_switched(Cause.NO_LINK), changes).reasons[0].change == changes[0].text


def test_our_lost_worker_says_more_than_the_link_it_closed() -> None:
    changes = [_change(ChangeKind.WORKER_LOST, 80), _change(ChangeKind.LINK_CLOSED, 85)]
    assert _ask(_switched(Cause.NO_LINK), changes).reasons[0].change == changes[0].text


def test_where_nothing_here_explains_it_the_other_end_is_named() -> None:
    away = "look at the other end"
    assert away in _ask(_switched(Cause.NO_LINK)).headline
    assert away in _ask(_switched(Cause.NO_LINK), [_change(ChangeKind.LINK_CLOSED, 50)]).headline
    assert away not in _ask(_switched(Cause.NO_LINK), [_change(ChangeKind.WORKER_LOST, 50)]).headline
    assert away not in _ask(_switched(Cause.DISABLED)).headline
    assert away not in _ask(_switched(Cause.NO_LINK), troubles={"webrtc": Cause.WORKER_LOST}).headline
    # A gateway that was not there cannot say that nothing happened.
    assert away not in _ask(_switched(Cause.NO_LINK), known_since_ms=START_MS).headline


def test_changes_from_a_minute_before_the_change_on_are_reported() -> None:
    changes = [_change(ChangeKind.WORKER_CAME, at_ms, "broadcast") for at_ms in (-70_000, -50_000, 200)]
    assert _ask(_switched(Cause.CLOSED), changes).changes == changes[1:]


def test_the_trace_is_of_a_delivery_that_shows_it_and_is_kept_if_one_is() -> None:
    records = [*_switched(Cause.CLOSED), *fell_back("d2", "webrtc", Cause.NO_LINK, "webtorrent", 200)]
    first = _ask(records)
    assert (first.trace_id, first.trace_kept) == ("trace-d1", False)
    second = _ask(records, traces=frozenset({"trace-d2"}))
    assert (second.trace_id, second.trace_kept) == ("trace-d2", True)


def test_times_as_the_callers_clock_shows_them() -> None:
    noon_ms = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC
    assert clock_text_at(None, noon_ms)(noon_ms) == "22:13:20 UTC"
    assert clock_text_at(-60, noon_ms)(noon_ms) == "21:13:20"
    assert clock_text_at(330, noon_ms)(noon_ms - 86_400_000) == "2023-11-14 03:43:20"


def test_it_is_json() -> None:
    body = msgspec.json.decode(msgspec.json.encode(_ask(_switched(Cause.CLOSED), [_change(ChangeKind.FLAG_OFF, 1)])))
    assert {"verdict", "headline", "traceId", "traceKept", "changesKnownSince"} <= body.keys()
    assert body["timeline"][0].keys() >= {"at", "maxMs", "fallbackFrom"}
