"""What is known of the managers: live ones, deliveries in flight, refusals that never go back."""

from __future__ import annotations

from services.gateway.model import managers
from services.gateway.model.managers import MANAGER_EXPIRY_S, ManagerBoard
from shared.bus.messages.records import ManagerStatus
from shared.gateway_api.structs import ManagersView


def status(name: str, deliveries: int = 0, share: float = 0.0, **refused: int) -> ManagerStatus:
    return ManagerStatus(name, deliveries, refused, share, 0, taken=10 * deliveries)


def test_live_managers_are_summed_and_a_silent_one_is_gone() -> None:
    board = ManagerBoard()
    assert board.view(0.0) == ManagersView()
    board.apply(status("m1", 3, 0.01, busy=2), 0.0)
    board.apply(status("m2", 4, 0.02, busy=1, expired=1), 1.0)
    assert board.view(1.0) == ManagersView(
        2, 7, {"busy": 3, "expired": 1}, 0.02, {"m1": 3, "m2": 4}, {"m1": 30, "m2": 40}
    )
    assert board.view(MANAGER_EXPIRY_S + 0.5) == ManagersView(
        1, 4, {"busy": 3, "expired": 1}, 0.02, {"m2": 4}, {"m2": 40}
    )


def test_refusals_never_go_back_and_are_counted_once() -> None:
    board = ManagerBoard()
    for count in (1, 1, 4):
        board.apply(status("m1", busy=count), 0.0)
    board.apply(status("m2", busy=2), 0.0)
    assert board.refused == {"busy": 6}


def test_what_is_remembered_is_bounded() -> None:
    board = ManagerBoard()
    for number in range(managers.MAX_REMEMBERED + 10):
        board.apply(status(f"m{number}", 1), 0.0)
    assert board.view(0.0).deliveries == managers.MAX_REMEMBERED
