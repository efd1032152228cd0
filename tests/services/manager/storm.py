"""A whole node in a storm, in virtual time: what may happen to it, and what must be true after it.

Managers are killed, stopped, cut off and started; workers too, and their peers refuse, fall silent, answer late,
twice or badly; links come and go; flags and the blocklist change; deliveries are asked for all the while. Then all is
mended. Everything between is the real thing: managers, the caller's stub, bus semantics; see tests/fakes.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import (
    Answered,
    BodyRef,
    CancelDelivery,
    Deliver,
    LinkAnswer,
    LinkProgress,
    Receipt,
    ReplyMessage,
    SendRequest,
    Verdict,
)
from shared.bus.messages.records import ManagerStatus
from shared.content.messages import RequestManifest
from shared.errors import BusError, Cause, RemoteFailure
from shared.ids import peer_name
from shared.settings.blocklist import Blocklist, Direction
from shared.transports import ORDER, TransportName
from tests.services.manager.node import (
    ANSWER,
    BODY_BYTES,
    PEER,
    SUBJECTS,
    Behaviour,
    FakeWorker,
    Node,
    answer,
    fail,
    only_ack,
    stay_silent,
)

TIMEOUT_S = 5.0
SLACK_S = 0.05
"""Of the caller's stub: a delivery is over this soon after its deadline at the latest."""
RULES_SLACK_S = 0.005
"""A request that left before its manager heard of another flag or block."""
MAX_MANAGERS = 4
MENDED_WITHIN_S = 12.0
"""A probe every 5 s, and the longest back-off that five seconds of storm can bring about."""


async def answer_late(worker: FakeWorker, call: SendRequest) -> None:
    await asyncio.sleep(1.0)
    await answer(worker, call)


async def answer_twice(worker: FakeWorker, call: SendRequest) -> None:
    await answer(worker, call)
    await answer(worker, call)


async def answer_slowly(worker: FakeWorker, call: SendRequest) -> None:
    for number in range(20):
        await worker.tell(call.manager, LinkProgress(call.request_id, call.hop, number * 40))
        await asyncio.sleep(0.05)
    body = BodyRef(worker.bus.instance, b"token", BODY_BYTES)
    await worker.tell(call.manager, LinkAnswer(call.request_id, call.hop, ANSWER, body))


BEHAVIOURS: dict[str, Behaviour] = {
    "answer": answer,
    "late": answer_late,
    "twice": answer_twice,
    "slow": answer_slowly,
    "silent": stay_silent,
    "only_ack": only_ack,
    "closed": fail(Cause.CLOSED),
    "busy": fail(Cause.BUSY),
    "source_lost": fail(Cause.SOURCE_LOST),
    "no_acks": answer,
    "no_acks, late": answer_late,
    "no_acks, silent": stay_silent,
    "no_answers": stay_silent,
}
CANNOT_ACK = ("no_acks", "no_acks, late", "no_acks, silent", "no_answers")
CANNOT_ANSWER = ("no_answers",)
REFUSALS = {
    "full": RemoteFailure(Cause.BUSY, 0.05),
    "full for long": RemoteFailure(Cause.BUSY, 3.0),
    "refuses": RemoteFailure(Cause.REFUSED),
}


@dataclass
class Asked:
    """One delivery. outcome: a Receipt, or what the caller got instead.

    judged, good_count: answers that were given to the caller, and those that it liked. steady: one manager at least
    was well all the while, and none stopped or cut off, so that nothing excuses it from a receipt. without_acks:
    transports whose peer could not ack all the while.
    """

    delivery_id: bytes
    started_at: float
    ended_at: float = 0.0
    judged: list[Answered] = field(default_factory=list)
    good_count: int = 0
    steady: bool = False
    without_acks: set[str] = field(default_factory=set)
    outcome: Receipt | BusError | asyncio.CancelledError | None = None

    @property
    def receipt(self) -> Receipt | None:
        return self.outcome if isinstance(self.outcome, Receipt) else None


class Storm:
    """wrong: what must never happen and did, said where it was seen."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.node = Node(self.loop.time)
        self.wrong: list[str] = []
        self.asked: list[Asked] = []
        self.lost_a_manager = False
        self.statuses: dict[str, ManagerStatus] = {}
        self.blocklist = Blocklist()
        self._deliveries: list[asyncio.Task[None]] = []
        self._manager_count = 0
        self._worker_count = 0
        self._manager_since: dict[str, float] = {}
        self._managers_troubled_at = 0.0
        self._behaves_since = dict.fromkeys(ORDER, self.loop.time())
        self._frozen: set[str] = set()
        self._cut_off: set[str] = set()

    async def start(self, managers: int, linked: tuple[TransportName, ...]) -> None:
        await self.node.start(managers=0, linked=linked)
        await self.node.caller.serve(SUBJECTS.event("manager"), ManagerStatus, self._heard)
        for worker in self.node.workers.values():
            self._watch(worker)
        await self.blocklist.start(self.node.caller)
        for _ in range(managers):
            await self.start_manager()

    # ── what happens ──

    async def deliver(self, cancel_after_s: float | None = None) -> None:
        asked = Asked(os.urandom(16), self.loop.time())
        self.asked.append(asked)
        task = self.loop.create_task(self._ask(asked))
        self._deliveries.append(task)
        if cancel_after_s is not None:
            self.loop.call_later(cancel_after_s, task.cancel)

    async def start_manager(self) -> None:
        if len(self.node.managers) < MAX_MANAGERS:
            self._manager_count += 1
            name = f"manager-{self._manager_count}"
            await self.node.start_manager(name)
            self._manager_since[name] = self.loop.time()

    async def kill_manager(self, which: int) -> None:
        name = self._pick(sorted(self.node.managers), which)
        if name is not None:
            self._mend(name)
            self.lost_a_manager = True  # with whatever it had not written down yet
            self.node.hub.kill(name)
            await self.node.managers.pop(name).end()

    async def stop_manager(self, which: int) -> None:
        """As SIGTERM does."""
        name = self._pick(sorted(self.node.managers), which)
        if name is not None and name not in self._frozen | self._cut_off:
            await self.node.managers.pop(name).stop()
            self.node.hub.kill(name)

    async def freeze(self, which: int) -> None:
        name = self._pick(self._processes(), which)
        if name is not None:
            self._frozen.add(name)
            self.node.hub.freeze(name)

    async def cut_off(self, which: int) -> None:
        name = self._pick(self._processes(), which)
        if name is not None:
            self._cut_off.add(name)
            self.node.hub.disconnect(name)

    async def mend(self, which: int) -> None:
        name = self._pick(sorted(self._frozen | self._cut_off), which)
        if name is not None:
            self._mend(name)

    async def kill_worker(self, transport: TransportName, replaced: bool) -> None:
        worker = self.node.workers[transport]
        if worker.bus.alive:
            self._mend(worker.bus.instance)
            self.node.hub.kill(worker.bus.instance)
        if replaced:
            self._worker_count += 1
            self._behaves_since[transport] = self.loop.time()
            name = f"{transport.value}-again-{self._worker_count}"
            self._watch(await self.node.start_worker(transport, linked=False, name=name))

    async def link(self, transport: TransportName, up: bool) -> None:
        worker = self.node.workers[transport]
        if worker.bus.alive and worker.bus.instance not in self._frozen | self._cut_off and worker.linked != up:
            await (worker.link() if up else worker.unlink())

    async def behave(self, transport: TransportName, how: str) -> None:
        worker = self.node.workers[transport]
        worker.refuse = REFUSALS.get(how)
        worker.behave = _heeding_death(BEHAVIOURS.get(how, answer))
        self._behaves_since[transport] = self.loop.time()
        worker.acks, worker.confirms = how not in CANNOT_ACK, how not in CANNOT_ANSWER

    async def dials(self, transport: TransportName, cause: Cause | None) -> None:
        self.node.workers[transport].dial_cause = cause

    async def answers_are(self, transport: TransportName, verdict: Cause | None) -> None:
        self.node.verdicts.pop(transport.value, None)
        if verdict is not None:
            self.node.verdicts[transport.value] = verdict

    async def switch(self, transport: TransportName, on: bool) -> None:
        await self.node.flags.set(transport, on)

    async def block(self, blocked: bool) -> None:
        if blocked:
            await self.blocklist.block(peer_name(PEER), Direction.OUTBOUND)
        else:
            await self.blocklist.unblock(peer_name(PEER))

    # ── afterwards ──

    async def calm(self) -> None:
        """Mend everything, and wait until every delivery that was asked for is over."""
        for name in list(self._frozen | self._cut_off):
            self._mend(name)
        await self.block(False)
        for transport in ORDER:
            await self.switch(transport, True)
            await self.dials(transport, None)
            await self.answers_are(transport, None)
            if not self.node.workers[transport].bus.alive:
                await self.kill_worker(transport, True)
            await self.behave(transport, "answer")
            await self.link(transport, True)
        if not self.node.managers:
            await self.start_manager()
        await asyncio.gather(*self._deliveries)
        await asyncio.sleep(MENDED_WITHIN_S)

    async def close(self) -> None:
        for task in self._deliveries:
            task.cancel()
        await self.node.close()

    # ── within ──

    def _processes(self) -> list[str]:
        workers = [worker.bus.instance for worker in self.node.workers.values() if worker.bus.alive]
        return [name for name in sorted([*self.node.managers, *workers]) if name not in self._frozen | self._cut_off]

    def _pick(self, names: list[str], which: int) -> str | None:
        return names[which % len(names)] if names else None

    def _mend(self, name: str) -> None:
        if name in self.node.managers and name in self._frozen | self._cut_off:
            self._managers_troubled_at = self.loop.time()
        if name in self._frozen:
            self._frozen.discard(name)
            self.node.hub.thaw(name)
        if name in self._cut_off:
            self._cut_off.discard(name)
            self.node.hub.reconnect(name)

    def _watch(self, worker: FakeWorker) -> None:
        """See that nothing is sent over what its manager knows to be off, or to whom it knows to be blocked."""
        worker.behave = _heeding_death(answer)
        worker.on_asked = lambda call: self._check_allowed(worker.transport, call)

    def _check_allowed(self, transport: TransportName, call: SendRequest) -> None:
        manager = self.node.managers.get(call.manager)
        if manager is None or call.manager in self._frozen | self._cut_off:
            return
        if self.loop.time() - manager.rules_changed_at < RULES_SLACK_S:
            return  # it was on its way
        if not manager.process.flags.enabled(transport):
            self.wrong.append(f"asked over {transport.value}, which is off")
        if manager.process.blocklist.blocks(peer_name(PEER), Direction.OUTBOUND):
            self.wrong.append(f"a blocked peer was asked over {transport.value}")

    async def _heard(self, status: ManagerStatus, incoming: Incoming) -> None:
        self.statuses[status.manager] = status

    async def _ask(self, asked: Asked) -> None:
        call = Deliver(asked.delivery_id, self.node.caller.instance, PEER, RequestManifest("00"), "t1")

        async def on_message(message: ReplyMessage) -> bool:
            if isinstance(message, Answered):
                cause = self.node.verdicts.get(message.transport)
                asked.judged.append(message)
                asked.good_count += cause is None
                verdict = Verdict(asked.delivery_id, message.hop, cause, BODY_BYTES)
                await self.node.caller.publish(SUBJECTS.manager(message.manager), verdict)
            return isinstance(message, Receipt)

        try:
            outcome = await self.node.calls.call(
                SUBJECTS.deliver,
                asked.delivery_id,
                call,
                TIMEOUT_S,
                on_message,
                on_cancel=CancelDelivery(asked.delivery_id),
            )
            assert isinstance(outcome, Receipt)
            asked.outcome = outcome
        except (BusError, asyncio.CancelledError) as error:
            asked.outcome = error
        asked.ended_at = self.loop.time()
        asked.steady = self._were_steady(asked.started_at)
        asked.without_acks = {
            transport.value
            for transport, worker in self.node.workers.items()
            if not worker.acks and self._behaves_since[transport] < asked.started_at
        }

    def _were_steady(self, since: float) -> bool:
        troubled = self._managers_troubled_at >= since or (self._frozen | self._cut_off) & self.node.managers.keys()
        return not troubled and any(
            self._manager_since.get(name, self.loop.time()) < since for name in self.node.managers
        )


def _heeding_death(behave: Behaviour) -> Behaviour:
    """A worker that is killed or cut off in the middle says no more; so does its task."""

    async def behaving(worker: FakeWorker, call: SendRequest) -> None:
        try:
            await behave(worker, call)
        except BusError:
            pass

    return behaving
