"""What every delivery of one manager works with."""

from __future__ import annotations

from dataclasses import dataclass

from services.manager.dialler import Dialler
from services.manager.outbox import Outbox
from services.manager.recorder import Recorder
from services.manager.routing.facts import Routing
from shared.bus.contract import Bus
from shared.bus.messages.subjects import Subjects
from shared.clock import Clock
from shared.tasks.owned import Tasks


@dataclass(frozen=True, slots=True)
class Desk:
    """tasks: owns every request in flight; closed with the manager."""

    bus: Bus
    subjects: Subjects
    clock: Clock
    routing: Routing
    recorder: Recorder
    outbox: Outbox
    dialler: Dialler
    tasks: Tasks
