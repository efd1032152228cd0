"""Behind a published port range: which addresses an offer names, and which ports it binds."""

from __future__ import annotations

import re
import socket

import pytest

from shared.errors import ConfigError
from shared.rtc.addresses import advertised
from shared.rtc.contract import LinkSettings
from shared.rtc.gathering import default_route_address
from shared.settings.config import Config, WebrtcSettings, load
from tests.fakes.waiting import until
from tests.shared.rtc.pair import End, close

OURS = "a=candidate:F1 1 udp 2130706431 172.18.0.5 40001 typ host"
RELAYED = "a=candidate:F2 1 udp 16777215 198.51.100.9 3478 typ relay raddr 172.18.0.5 rport 40001"
SIX = "a=candidate:F3 1 udp 2130706431 fd00::5 40002 typ host"
SDP = "\r\n".join(["v=0", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", OURS, RELAYED, SIX, "a=mid:0"]) + "\r\n"


def test_the_address_comes_beside_ours_with_the_same_port() -> None:
    lines = advertised(SDP, "203.0.113.7").splitlines()
    assert lines[2:4] == [OURS, "a=candidate:F1n 1 udp 2130706430 203.0.113.7 40001 typ host"]
    assert [line for line in lines if "203.0.113.7" in line] == lines[3:4], "neither relays nor the other family"


def test_without_one_nothing_changes() -> None:
    assert advertised(SDP, "") == SDP


async def test_links_of_a_port_range_bind_its_ports_and_no_others() -> None:
    ports = range(42100, 42110)
    settings = LinkSettings(host="127.0.0.1", ports=ports, advertise="127.0.0.9")
    dialer, listener = End(settings), End(settings)
    try:
        offer = await dialer.link.offer("test")
        answer = await listener.link.accept_offer(offer)
        await dialer.link.accept_answer(answer)
        await until(lambda: dialer.opened and listener.opened)
        for sdp in (offer, answer):
            found = re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", sdp)
            assert {int(port) for _, port in found} <= set(ports)
            assert {address for address, _ in found} == {"127.0.0.1", "127.0.0.9"}
    finally:
        await close(dialer, listener)


async def test_a_range_that_is_taken_leaves_no_candidate_and_no_other_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        end = End(LinkSettings(host="127.0.0.1", ports=range(port, port + 1)))
        try:
            assert "a=candidate" not in await end.link.offer("data")
        finally:
            await end.link.close()


def test_the_default_route_is_one_of_ours_or_none() -> None:
    address = default_route_address()
    assert address is None or re.fullmatch(r"[0-9.]+", address)


@pytest.mark.parametrize("ports", ["40000", "40100-40000", "80-90", "1024-70000", "a-b", "-", "40000-40100-"])
def test_a_bad_range_is_refused_by_name(ports: str) -> None:
    with pytest.raises(ConfigError, match=r"webrtc\.ports"):
        load({"SWARMBRIDGE_WEBRTC_PORTS": ports})


def test_an_advertised_name_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"webrtc\.advertise"):
        load({"SWARMBRIDGE_WEBRTC_ADVERTISE": "node.example"})


def test_a_good_range() -> None:
    assert WebrtcSettings(ports="40000-40019").port_range == range(40000, 40020)
    assert Config().webrtc.port_range is None
