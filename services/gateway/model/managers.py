"""Heartbeats of the managers: how many there are, what they have in flight, what they did not take. Pure.

A manager that has not been heard of for MANAGER_EXPIRY_S is gone. What was refused only grows: a manager that starts
again counts from nothing, and its first count is added.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from shared.bus.messages.records import ManagerStatus
from shared.gateway_api.structs import ManagersView

MANAGER_EXPIRY_S = 3.0
"""Three missed heartbeats of a second each, as for workers."""

MAX_REMEMBERED = 256
"""Managers, gone ones included; the one heard of longest ago is forgotten first."""


@dataclass(frozen=True, slots=True)
class _Heard:
    status: ManagerStatus
    at_s: float


class ManagerBoard:
    """`now` is seconds of a monotonic clock. refused: by cause, since the gateway started; never goes back."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self._heard: dict[str, _Heard] = {}

    def apply(self, status: ManagerStatus, now: float) -> None:
        before = self._heard.pop(status.manager, None)
        for cause, count in status.refused.items():
            known = before.status.refused.get(cause, 0) if before is not None else 0
            self.refused[cause] += count - known if count >= known else count
        self._heard[status.manager] = _Heard(status, now)
        if len(self._heard) > MAX_REMEMBERED:
            del self._heard[next(iter(self._heard))]

    def view(self, now: float) -> ManagersView:
        live = [heard.status for heard in self._heard.values() if now - heard.at_s <= MANAGER_EXPIRY_S]
        return ManagersView(
            count=len(live),
            deliveries=sum(status.deliveries for status in live),
            refused=dict(sorted(self.refused.items())),
            instances={status.manager: status.deliveries for status in sorted(live, key=lambda status: status.manager)},
            taken={status.manager: status.taken for status in sorted(live, key=lambda status: status.manager)},
            duplicate_share=round(max((status.duplicate_share for status in live), default=0.0), 4),
        )
