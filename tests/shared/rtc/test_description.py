"""What is let in of a stranger's session description."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import RemoteProtocolError
from shared.rtc.addresses import AddressRule, address_rule
from shared.rtc.description import MAX_CANDIDATES, admit_candidate, admit_description, fingerprint_of

PRINT = ":".join(["5A"] * 32)
OTHER = ":".join(["A5"] * 32)
LAN = address_rule("", ["192.168.1.5"])
LOOPBACK = address_rule("127.0.0.1", [])


def description(*lines: str) -> str:
    head = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel"]
    return "\r\n".join([*head, f"a=fingerprint:sha-256 {PRINT}", *lines]) + "\r\n"


def candidate(address: str, protocol: str = "udp", component: int = 1) -> str:
    return f"a=candidate:1 {component} {protocol} 2130706431 {address} 50000 typ host"


def test_a_plain_description_passes_unchanged() -> None:
    text = description(candidate("192.168.1.9"), "a=setup:actpass")
    admitted = admit_description(text, LAN)
    assert admitted.sdp == text
    assert admitted.fingerprint == b"\x5a" * 32
    assert (admitted.candidates, admitted.refused) == (1, 0)


@pytest.mark.parametrize(
    ("address", "kept", "refused"),
    [
        ("10.1.2.3", 1, 0),
        ("2001:db8::1", 1, 0),
        ("127.0.0.1", 0, 1),
        ("::1", 0, 1),
        ("::ffff:127.0.0.1", 0, 1),
        ("0.0.0.0", 0, 1),
        ("224.0.0.251", 0, 1),
        ("255.255.255.255", 0, 1),
        ("example.org", 0, 1),
        ("3f2a-11.local", 0, 0),
    ],
)
def test_only_unicast_addresses_of_others_are_kept(address: str, kept: int, refused: int) -> None:
    admitted = admit_description(description(candidate(address)), LAN)
    assert (admitted.candidates, admitted.refused) == (kept, refused)
    assert (candidate(address) in admitted.sdp) == bool(kept)


def test_a_node_on_loopback_stays_there() -> None:
    admitted = admit_description(description(candidate("127.0.0.1"), candidate("192.168.1.9")), LOOPBACK)
    assert (admitted.candidates, admitted.refused) == (1, 1)


def test_a_machine_without_a_network_meets_itself() -> None:
    assert address_rule("", []) == AddressRule(("127.0.0.1",), loopback=True)


def test_tcp_and_second_components_are_left_out() -> None:
    admitted = admit_description(description(candidate("10.0.0.1", "tcp"), candidate("10.0.0.1", component=2)), LAN)
    assert admitted.candidates == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v=0\r\n",
        description("m=audio 9 UDP/TLS/RTP/SAVPF 0"),
        description().replace("m=application", "m=audio"),
        description().replace("sha-256", "sha-512"),
        description(f"a=fingerprint:SHA-256 {OTHER}"),
        description("a=fingerprint:sha-256 ZZ"),
        description(f"s=\u2028a=fingerprint:sha-256 {OTHER}"),
        description("s=x\x0ba=setup:active"),
        description(*[candidate("10.0.0.1")] * (MAX_CANDIDATES + 1)),
        description("a=" + "x" * 70_000),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        admit_description(text, LAN)


def test_the_same_fingerprint_twice_is_one() -> None:
    assert fingerprint_of(description(f"a=fingerprint:sha-256 {PRINT.lower()}")) == b"\x5a" * 32


def test_trickled_candidates() -> None:
    line = candidate("10.0.0.1").removeprefix("a=")
    assert admit_candidate(line, LAN) == line.removeprefix("candidate:")
    assert admit_candidate(candidate("127.0.0.1").removeprefix("a="), LAN) is None
    with pytest.raises(RemoteProtocolError):
        admit_candidate("candidate:1 1 udp", LAN)


@settings(max_examples=100)
@given(st.one_of(st.text(), st.lists(st.text()).map(lambda lines: description(*lines))))
def test_any_text_is_admitted_or_the_peers_fault(text: str) -> None:
    try:
        admit_description(text, LAN)
    except RemoteProtocolError:
        pass
