from __future__ import annotations

from shared.speech.budget import ByteBudget


def test_a_link_has_its_own_bound_and_shares_the_workers() -> None:
    worker = ByteBudget(10)
    one, two = ByteBudget(8, worker), ByteBudget(8, worker)
    assert one.take(8)
    assert not one.take(1)
    assert not two.take(3), "the worker's"
    assert two.used_bytes == 0
    assert two.take(2)
    one.give_all()
    assert (one.used_bytes, worker.used_bytes) == (0, 2)
    assert two.take(6)
