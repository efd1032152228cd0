"""Who is remembered as of no use, and for how many dials."""

from __future__ import annotations

from services.webtorrent.strangers import MAX_REMEMBERED, REFUSALS_CAP, REFUSALS_FIRST, REMEMBERED_S, Strangers


def refusals(strangers: Strangers, address: str, now: float) -> int:
    """Encrypted starts of the address that are refused before one is answered."""
    count = 0
    while not strangers.answers_encrypted(address, now):
        count += 1
    return count


def test_a_peer_without_the_extension_is_known_by_its_id_and_its_address() -> None:
    strangers = Strangers()
    assert not strangers.is_useless(b"p" * 20, 0.0)
    assert strangers.answers_encrypted("192.0.2.1", 0.0)
    strangers.useless(b"p" * 20, "192.0.2.1", 0.0)
    assert strangers.is_useless(b"p" * 20, REMEMBERED_S - 1)
    assert not strangers.is_useless(b"p" * 20, REMEMBERED_S)
    assert not strangers.is_useless(b"q" * 20, 0.0), "another peer behind the same address comes in by its id"
    assert refusals(strangers, "192.0.2.1", 1.0) == REFUSALS_FIRST
    assert strangers.answers_encrypted("192.0.2.2", 0.0)


def test_who_goes_on_is_refused_longer_up_to_a_bound_and_forgotten() -> None:
    strangers = Strangers()
    counts = []
    for number in range(8):
        strangers.redials("192.0.2.1", float(number))
        counts.append(refusals(strangers, "192.0.2.1", float(number)))
    assert counts == [3, 6, 12, 24, 48, 96, 96, 96]
    assert counts[-1] == REFUSALS_CAP
    strangers.redials("192.0.2.1", 8.0)
    assert strangers.answers_encrypted("192.0.2.1", 8.0 + REMEMBERED_S)
    strangers.redials("192.0.2.1", 8.0 + 2 * REMEMBERED_S)
    assert refusals(strangers, "192.0.2.1", 9.0 + 2 * REMEMBERED_S) == REFUSALS_FIRST


def test_a_dial_of_ours_says_nothing_of_an_address() -> None:
    strangers = Strangers()
    strangers.useless(b"p" * 20, "", 0.0)
    assert strangers.is_useless(b"p" * 20, 1.0)
    assert strangers.answers_encrypted("", 1.0)


def test_memory_is_bounded() -> None:
    strangers = Strangers()
    for number in range(2 * MAX_REMEMBERED):
        strangers.useless(b"%020d" % number, f"192.0.{number // 256}.{number % 256}", 0.0)
    assert len(strangers._ids) == len(strangers._addresses) == MAX_REMEMBERED
    assert not strangers.is_useless(b"%020d" % 0, 1.0)
