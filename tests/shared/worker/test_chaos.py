"""Chaos in a real worker: requests are dropped, delayed and refused, and links live on."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.bus.messages.envelopes import CancelRequest, Done
from shared.clock import monotonic
from shared.errors import Cause, RemoteFailure
from shared.ids import member_token, peer_name
from shared.settings.chaos import ChaosFlag, Fault
from shared.settings.config import FlagSettings
from shared.settings.flags import Flags
from shared.tasks.owned import Tasks
from shared.telemetry import names
from shared.transports import TransportName
from shared.worker.chaos import IGNORED, Chaos, Injection
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.waiting import until
from tests.shared.worker.couple import Couple

WEBRTC = TransportName.WEBRTC
PEER = member_token(bytes(32))
DELAY_S = 0.1


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
async def couple() -> AsyncIterator[Couple]:
    couple = Couple()
    couple.near.environment = "development"
    await couple.start()
    await couple.near.dial(couple.far.token)
    yield couple
    await couple.stop()


async def counted(couple: Couple, **expected: int) -> None:
    await until(lambda: couple.near.status and couple.near.status.chaos == expected)


def requests(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == names.SPAN_LINK_REQUEST]


def attribute(span: ReadableSpan, name: str) -> object:
    return (span.attributes or {}).get(name)


async def test_a_dropped_request_is_accepted_and_the_peer_stays_silent(
    couple: Couple, exporter: InMemorySpanExporter
) -> None:
    await couple.near.flags.set_chaos(WEBRTC, ChaosFlag(drop=100))
    accepted = await couple.send(b"d" * 16)
    assert accepted.worker == "worker-1"
    assert (await couple.send(b"d" * 16)).link == accepted.link, "asked again by another manager: still dropped"
    await couple.near.flags.set_chaos(WEBRTC, None)
    await couple.send(b"a" * 16)
    await until(lambda: couple.near.answers)
    assert [answer.request_id for answer in couple.near.answers] == [b"a" * 16]
    assert len(couple.far.asked) == 1
    worker = couple.near.subjects.worker("worker-1")
    await couple.near.caller.request(worker, CancelRequest(b"d" * 16), Done, timeout_s=5.0)
    await until(lambda: len(requests(exporter)) == 2)
    stamps = {attribute(span, names.CHAOS_INJECTED) for span in requests(exporter)}
    assert stamps == {"drop", None}
    await counted(couple, drop=1)


async def test_a_refused_request_fails_at_once(couple: Couple, exporter: InMemorySpanExporter) -> None:
    await couple.near.flags.set_chaos(WEBRTC, ChaosFlag(refuse=100))
    with pytest.raises(RemoteFailure) as refusal:
        await couple.send()
    assert refusal.value.cause is Cause.REFUSED
    [span] = requests(exporter)
    assert attribute(span, names.CHAOS_INJECTED) == "refuse"
    assert attribute(span, names.ERROR_TYPE) == "refused"
    await counted(couple, refuse=1)
    assert couple.near.status is not None
    assert couple.near.status.last_error is Cause.REFUSED
    await couple.near.flags.set_chaos(WEBRTC, None)
    await couple.send()
    await until(lambda: couple.near.answers)


async def test_a_delayed_request_is_answered_later(couple: Couple, exporter: InMemorySpanExporter) -> None:
    await couple.near.flags.set_chaos(WEBRTC, ChaosFlag(delay_ms=round(DELAY_S * 1000)))
    asked_at = monotonic()
    await couple.send()
    assert monotonic() - asked_at < DELAY_S, "accepted at once"
    await until(lambda: couple.near.answers)
    assert monotonic() - asked_at >= DELAY_S
    [span] = requests(exporter)
    assert attribute(span, names.CHAOS_INJECTED) == "delay"
    assert attribute(span, names.CHAOS_DELAY_MS) == round(DELAY_S * 1000)


async def test_a_delayed_request_that_is_cancelled_is_never_sent(couple: Couple) -> None:
    await couple.near.flags.set_chaos(WEBRTC, ChaosFlag(delay_ms=round(DELAY_S * 1000)))
    await couple.send(b"c" * 16)
    worker = couple.near.subjects.worker("worker-1")
    await couple.near.caller.request(worker, CancelRequest(b"c" * 16), Done, timeout_s=5.0)
    await couple.send(b"s" * 16)
    await until(lambda: couple.near.answers)
    assert len(couple.far.asked) == 1
    await counted(couple, delay=2)


async def test_a_link_that_closes_fails_what_was_dropped_and_delayed(couple: Couple) -> None:
    await couple.near.flags.set_chaos(WEBRTC, ChaosFlag(drop=100))
    await couple.send(b"d" * 16)
    await couple.near.flags.set_chaos(WEBRTC, ChaosFlag(delay_ms=60_000))
    await couple.send(b"l" * 16)
    await couple.near.flags.set(WEBRTC, False)
    await until(lambda: len(couple.near.failures) == 2)
    assert {failure.request_id for failure in couple.near.failures} == {b"d" * 16, b"l" * 16}


async def test_one_peers_requests_alone(couple: Couple) -> None:
    await couple.near.flags.set_chaos(WEBRTC, ChaosFlag(drop=100, peer=peer_name(PEER)))
    await couple.send(b"a" * 16)
    await until(lambda: couple.near.answers)
    await couple.near.flags.set_chaos(WEBRTC, ChaosFlag(refuse=100, peer=peer_name(couple.far.token)))
    with pytest.raises(RemoteFailure):
        await couple.send(b"b" * 16)


async def test_switching_the_transport_off_resets_the_count(couple: Couple) -> None:
    await couple.near.flags.set_chaos(WEBRTC, ChaosFlag(drop=100))
    await couple.send()
    await counted(couple, drop=1)
    await couple.near.flags.set(WEBRTC, False)
    await counted(couple)


async def test_in_production_a_flag_is_ignored_and_counted() -> None:
    couple = Couple()
    await couple.start()
    await couple.near.dial(couple.far.token)
    await couple.near.flags.set_chaos(WEBRTC, ChaosFlag(drop=100))
    await couple.send()
    await until(lambda: couple.near.answers)
    await counted(couple, **{IGNORED: 1})
    await couple.stop()


class Rig:
    """Chaos alone, with a random source and a sleep of the test's own."""

    def __init__(self, flags: Flags, *, allowed: bool = True) -> None:
        self.waits: list[tuple[float, asyncio.Event]] = []
        self.tasks = Tasks()
        roll = random.Random(7).random
        self.chaos = Chaos(WEBRTC, flags, self.tasks, allowed=allowed, roll=roll, sleep=self._sleep)

    async def _sleep(self, delay_s: float) -> None:
        over = asyncio.Event()
        self.waits.append((delay_s, over))
        await over.wait()


async def flags() -> Flags:
    made = Flags(FlagSettings())
    await made.start(MemoryHub().bus("a"))
    return made


async def test_faults_come_in_the_shares_asked_for_and_are_counted() -> None:
    node_flags = await flags()
    rig = Rig(node_flags)
    assert rig.chaos.injection(PEER) is None
    await node_flags.set_chaos(TransportName.BROADCAST, ChaosFlag(drop=100))
    assert rig.chaos.injection(PEER) is None, "another transport's"
    await node_flags.set_chaos(WEBRTC, ChaosFlag(drop=20, refuse=10, delay_ms=250))
    found = Counter(rig.chaos.injection(PEER) for _ in range(1000))
    assert set(found) == {Injection(Fault.DROP, 0), Injection(Fault.REFUSE, 0), Injection(Fault.DELAY, 0.25)}
    assert abs(found[Injection(Fault.DROP, 0)] - 200) < 40
    assert abs(found[Injection(Fault.REFUSE, 0)] - 100) < 30
    assert rig.chaos.counts == {each.fault.value: count for each, count in found.items() if each}


async def test_a_delay_waits_on_the_clock_it_was_given() -> None:
    rig = Rig(await flags())
    sent: list[str] = []
    rig.chaos.later(0.25, lambda: sent.append("first"))
    second = rig.chaos.later(0.5, lambda: sent.append("second"))
    await until(lambda: len(rig.waits) == 2)
    assert [delay_s for delay_s, _ in rig.waits] == [0.25, 0.5]
    second.cancel()
    for _, over in rig.waits:
        over.set()
    await until(lambda: not len(rig.tasks))
    assert sent == ["first"]


async def test_a_flag_that_may_not_act_is_counted_each_time_it_is_set() -> None:
    node_flags = await flags()
    rig = Rig(node_flags, allowed=False)
    for drop in (5, 10):
        await node_flags.set_chaos(WEBRTC, ChaosFlag(drop=drop))
        await node_flags.set(TransportName.BROADCAST, drop == 10)
        assert rig.chaos.injection(PEER) is None
    assert rig.chaos.counts == {IGNORED: 2}
    rig.chaos.reset()
    assert rig.chaos.counts == {IGNORED: 1}, "it is still set"
    await node_flags.set_chaos(WEBRTC, None)
    rig.chaos.reset()
    assert not rig.chaos.counts
