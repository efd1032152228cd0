"""Asks managers for deliveries as the chunk service does, and remembers what it heard."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from shared.bus.bodies import pull, release
from shared.bus.calls import Calls
from shared.bus.contract import Bus
from shared.bus.messages.envelopes import Answered, Deliver, Done, Receipt, ReplyMessage, Verdict
from shared.bus.messages.subjects import Subjects
from shared.clock import monotonic
from shared.content.messages import PeerRequest
from shared.errors import BusError, Cause, SwarmbridgeError
from shared.ids import new_request_id

DEADLINE_S = 10.0
"""The deadline of a delivery (docs/delivering.md), every fallback included."""
PULL_TIMEOUT_S = 8.0
VERDICT_TIMEOUT_S = 1.0


@dataclass
class Caller:
    """By delivery id. receipts: its final answer. taken: the (manager, hop) whose answer was kept; offered: how
    many answers came, those of a second manager or of a late hop included; finals: final answers. elapsed_s: by
    the caller's own clock, whoever it had to ask again.
    """

    bus: Bus
    subjects: Subjects
    receipts: dict[bytes, Receipt] = field(default_factory=dict)
    taken: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    offered: Counter[bytes] = field(default_factory=Counter)
    finals: Counter[bytes] = field(default_factory=Counter)
    elapsed_s: dict[bytes, float] = field(default_factory=dict)

    async def start(self) -> None:
        self.calls = Calls(self.bus, self.subjects, self.subjects.manager)
        await self.calls.start()

    async def close(self) -> None:
        await self.calls.close()

    async def deliver(self, peer: str, request: PeerRequest, timeout_s: float = DEADLINE_S) -> Receipt:
        """Raises: BusTimeout where no final answer came by the deadline."""
        call_id = new_request_id()

        async def on_message(message: ReplyMessage) -> bool:
            if isinstance(message, Answered):
                await self._judge(message)
            elif isinstance(message, Receipt):
                self.finals[call_id] += 1
            return isinstance(message, Receipt)

        call = Deliver(call_id, self.bus.instance, peer, request)
        asked_at = monotonic()
        receipt = await self.calls.call(self.subjects.deliver, call_id, call, timeout_s, on_message)
        assert isinstance(receipt, Receipt)
        assert receipt.delivery_id == call_id
        self.elapsed_s[call_id] = monotonic() - asked_at
        self.receipts[call_id] = receipt
        return receipt

    async def _judge(self, answered: Answered) -> None:
        """The first answer whose body arrives is taken; a later one gets its verdict and is not taken again."""
        self.offered[answered.delivery_id] += 1
        cause: Cause | None = None
        size = 0
        if answered.body is not None:
            try:
                size = len(await pull(self.bus, self.subjects, answered.body, timeout_s=PULL_TIMEOUT_S))
            except SwarmbridgeError:
                cause = Cause.WORKER_LOST  # as the chunk service says it: the holder of this body is the worker
            await release(self.bus, self.subjects, answered.body)
        if cause is None:
            self.taken.setdefault(answered.delivery_id, (answered.manager, answered.hop))
        verdict = Verdict(answered.delivery_id, answered.hop, cause, size)
        try:
            await self.bus.request(self.subjects.manager(answered.manager), verdict, Done, VERDICT_TIMEOUT_S)
        except BusError:
            pass  # it was killed or stopped: another manager will give the answer again
