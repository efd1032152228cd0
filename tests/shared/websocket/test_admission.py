from __future__ import annotations

import pytest

from shared.websocket.admission import Admission, Caller, Refusal
from shared.websocket.forwarded import client_address, networks


def test_sockets_are_bounded_in_all_and_by_address() -> None:
    admission = Admission(max_sockets=3, max_per_address=2)
    of_a, of_b, of_c = Caller("a"), Caller("b"), Caller("c")
    assert [admission.admit(caller) for caller in (of_a, of_a, of_a, of_b, of_c)] == [
        None,
        None,
        Refusal.SOCKETS_OF_ADDRESS,
        None,
        Refusal.SOCKETS,
    ]
    admission.release(of_a)
    assert [admission.admit(of_b), admission.admit(of_b)] == [None, Refusal.SOCKETS]
    for caller in (of_a, of_b, of_b):
        admission.release(caller)
    assert admission.socket_count == 0
    assert not admission._open


def test_origin_and_token_are_asked_for_where_they_are_set() -> None:
    admission = Admission(3, 3, origins=frozenset({"https://a.example"}), token="secret")
    assert admission.admit(Caller("", "https://b.example", "secret")) is Refusal.ORIGIN
    assert admission.admit(Caller("", "https://a.example", "guess")) is Refusal.TOKEN
    assert admission.admit(Caller("", "https://a.example", "\ud800")) is Refusal.TOKEN
    assert admission.socket_count == 0
    assert admission.admit(Caller("", "https://a.example", "secret")) is None


@pytest.mark.parametrize(
    ("peer", "header", "address"),
    [
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("::ffff:10.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("", "203.0.113.9", ""),
    ],
)
def test_forwarded_addresses_are_believed_from_proxies_alone(peer: str, header: str, address: str) -> None:
    assert client_address(peer, header, networks(["10.0.0.0/8"])) == address
