from __future__ import annotations

from services.rendezvous.admission import Admission


def test_sockets_are_bounded_in_all_and_by_address() -> None:
    admission = Admission(max_sockets=3, max_per_address=2)
    assert [admission.admit(address) for address in ("a", "a", "a", "b", "c")] == [True, True, False, True, False]
    admission.release("a")
    assert [admission.admit("b"), admission.admit("b")] == [True, False]
    for address in ("a", "b", "b"):
        admission.release(address)
    assert admission.socket_count == 0
    assert not admission._open
