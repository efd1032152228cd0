"""Whatever happens, in whatever order: one outcome, by the deadline, every hop accounted for."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.manager.delivery.hop import Hop, HopState
from services.manager.delivery.machine import Delivery
from services.manager.delivery.steps import (
    AskedAgain,
    Command,
    DeliveryCancelled,
    DialFailed,
    DialSucceeded,
    DialTransport,
    Event,
    Finish,
    GiveAnswer,
    HopAccepted,
    HopAnswered,
    HopFailed,
    HopProgress,
    HopUnaccepted,
    HopVerdict,
    RecordHop,
    RulesChanged,
    SendOnLink,
    TimerFired,
    WorkerLost,
)
from services.manager.routing.rank import ANSWER_MIN_S, Known, Route, Routes
from shared.bus.messages.envelopes import BodyRef
from shared.errors import Cause
from shared.transports import ORDER, TransportName
from tests.services.manager.rig import ANSWER

TIMEOUT_S = 5.0
ROUNDING_S = 1e-9
HOPS = st.integers(1, 4)
TRANSPORTS = st.sampled_from(ORDER)
CAUSES = st.sampled_from([Cause.NO_LINK, Cause.CLOSED, Cause.BUSY, Cause.SOURCE_LOST, Cause.REFUSED, Cause.DRAINING])
WORKERS = st.sampled_from(["worker-1", "worker-2"])
SKIPS = st.sampled_from([None, None, None, Cause.DISABLED, Cause.BLOCKED, Cause.CIRCUIT_OPEN])
LINKS = st.sampled_from(list(Known))


class DeliveryStory(RuleBasedStateMachine):
    """Plays the bus, the workers, the caller, the operator and the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.seen: list[Command] = []
        self.after_end: list[Command] = []
        self.asked_on_forbidden: list[TransportName] = []
        self.cannot_ack: dict[int, bool] = {}
        self.unanswerable = False
        self.hastily: list[int] = []

    @initialize(links=st.lists(LINKS, min_size=3, max_size=3), off=st.sets(TRANSPORTS), hedge=st.booleans())
    def begin(self, links: list[Known], off: set[TransportName], hedge: bool) -> None:
        self.routes = Routes(
            {
                transport: Route(
                    transport, link, Cause.DISABLED if transport in off else None, 0.1, 0.4, answer_delay_s=ANSWER_MIN_S
                )
                for transport, link in zip(ORDER, links, strict=True)
            },
            hedge,
        )
        self.machine = Delivery(self.now, self.now + TIMEOUT_S)
        self.take(self.machine.start(self.routes, self.now))

    def happens(self, event: Event) -> None:
        ended = self.finishes
        commands = self.machine.handle(event, self.routes, self.now)
        if ended:
            self.after_end += commands
        self.take(commands)

    def take(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, SendOnLink | DialTransport) and self.routes[command.transport].barred:
                self.asked_on_forbidden.append(command.transport)
            if isinstance(command, RecordHop):
                self.check_patience(command.hop)
        self.seen += commands

    def check_patience(self, hop: Hop) -> None:
        """A hop whose peer cannot ack was not called silent before its answer was late."""
        silent = hop.cause is Cause.SILENT and hop.state is HopState.SENT
        if silent and self.cannot_ack.get(hop.number) and hop.ended_at - hop.heard_at < ANSWER_MIN_S - ROUNDING_S:
            self.hastily.append(hop.number)

    @property
    def finishes(self) -> list[Finish]:
        return [command for command in self.seen if isinstance(command, Finish)]

    @rule(hop=HOPS, worker=WORKERS, acks=st.booleans(), confirms=st.sampled_from([True, True, True, False]))
    def accepted(self, hop: int, worker: str, acks: bool, confirms: bool) -> None:
        self.cannot_ack[hop] = not acks
        live = self.machine.hop(hop)
        if live is not None and live.state is HopState.SENT and not confirms:
            self.unanswerable = True
        self.happens(HopAccepted(hop, worker, acks, confirms))

    @rule(hop=HOPS, count=st.integers(0, 10_000))
    def progressed(self, hop: int, count: int) -> None:
        self.happens(HopProgress(hop, count))

    @rule(hop=HOPS)
    def answered(self, hop: int) -> None:
        self.happens(HopAnswered(hop, ANSWER, BodyRef("worker-1", b"t", 9)))

    @rule(hop=HOPS, bad=st.booleans())
    def judged(self, hop: int, bad: bool) -> None:
        self.happens(HopVerdict(hop, Cause.INTEGRITY_MISMATCH if bad else None, 9))

    @rule(hop=HOPS, cause=CAUSES, retry_after_s=st.floats(0, 1))
    def failed(self, hop: int, cause: Cause, retry_after_s: float) -> None:
        self.happens(HopFailed(hop, cause, retry_after_s))

    @rule(hop=HOPS)
    def unaccepted(self, hop: int) -> None:
        self.happens(HopUnaccepted(hop))

    @rule(transport=TRANSPORTS)
    def dialled(self, transport: TransportName) -> None:
        self.happens(DialSucceeded(transport))

    @rule(transport=TRANSPORTS, cause=CAUSES, tried=st.booleans())
    def dial_failed(self, transport: TransportName, cause: Cause, tried: bool) -> None:
        self.happens(DialFailed(transport, cause, tried))

    @rule(worker=WORKERS)
    def worker_lost(self, worker: str) -> None:
        self.happens(WorkerLost(worker))

    @rule(transport=TRANSPORTS, skip=SKIPS)
    def switched(self, transport: TransportName, skip: Cause | None) -> None:
        route = replace(self.routes[transport], skip=skip)
        self.routes = replace(self.routes, routes={**self.routes.routes, transport: route})
        self.happens(RulesChanged())

    @rule(blocked=st.booleans())
    def block_changed(self, blocked: bool) -> None:
        cause = Cause.BLOCKED if blocked else None
        self.routes = Routes({name: replace(route, skip=cause) for name, route in self.routes.routes.items()})
        self.happens(RulesChanged())

    @rule(link=LINKS, transport=TRANSPORTS, hedge=st.booleans(), skip=SKIPS)
    def learnt(self, link: Known, transport: TransportName, hedge: bool, skip: Cause | None) -> None:
        """Facts change; the next event meets them, whichever it is."""
        route = replace(self.routes[transport], link=link, skip=skip)
        self.routes = Routes({**self.routes.routes, transport: route}, hedge)

    @rule()
    def asked_again(self) -> None:
        self.happens(AskedAgain())

    @precondition(lambda self: self.now > 1.0)
    @rule()
    def cancelled(self) -> None:
        self.happens(DeliveryCancelled())

    @rule(seconds=st.floats(0.001, 1.5))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        fired = 0
        while (due := self.machine.next_deadline()) is not None and due <= end:
            assert due > self.now, "a timer that is always due would spin"
            self.now = due
            self.happens(TimerFired())
            fired += 1
            assert fired < 200
        self.now = end

    @invariant()
    def nothing_is_asked_of_what_may_not_be_used(self) -> None:
        assert self.asked_on_forbidden == []

    @invariant()
    def nobody_is_called_silent_for_want_of_acks(self) -> None:
        assert self.hastily == []

    @invariant()
    def accepted_means_that_a_peer_has_it_which_cannot_answer(self) -> None:
        if self.finishes and self.finishes[0].outcome == "accepted":
            assert self.unanswerable

    @invariant()
    def one_outcome_and_nothing_after_it(self) -> None:
        assert len(self.finishes) <= 1
        assert self.after_end == []
        if self.finishes:
            assert isinstance(self.seen[-1], Finish)

    @invariant()
    def every_hop_is_recorded_once(self) -> None:
        numbers = [command.hop.number for command in self.seen if isinstance(command, RecordHop)]
        assert len(numbers) == len(set(numbers))
        if self.finishes:
            sent = {command.hop for command in self.seen if isinstance(command, SendOnLink)}
            assert sent <= set(numbers)
            assert sorted(numbers) == list(range(1, len(numbers) + 1))

    @invariant()
    def confirmed_means_exactly_one_confirmed_hop_that_was_given(self) -> None:
        confirmed = [c.hop for c in self.seen if isinstance(c, RecordHop) and c.hop.outcome == "confirmed"]
        if self.finishes and self.finishes[0].outcome == "confirmed":
            assert len(confirmed) == 1
            assert confirmed[0].number in {c.hop for c in self.seen if isinstance(c, GiveAnswer)}
        else:
            assert confirmed == []

    def teardown(self) -> None:
        if hasattr(self, "machine"):
            self.time_passes(TIMEOUT_S + 1.0)
            assert len(self.finishes) == 1
            self.every_hop_is_recorded_once()


DeliveryStory.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestDeliveryStory = DeliveryStory.TestCase
