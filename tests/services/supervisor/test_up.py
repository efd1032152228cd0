"""One home, one node; the command line goes over the settings; a taken port is told before anything starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from services.supervisor.machine.errors import CannotStart
from services.supervisor.machine.home_lock import locked_home
from services.supervisor.machine.ports import free_port, port_taken
from services.supervisor.up import UpOptions, Whereabouts, told, up, with_options
from shared.ids import member_token
from shared.settings.config import Config, GatewaySettings, TrustSettings, child_environment

MEMBER = member_token(bytes(32))


def test_options_go_over_settings(tmp_path: Path) -> None:
    config = with_options(
        Config(gateway=GatewaySettings(port=1), trust=TrustSettings(members=[MEMBER])),
        UpOptions(home=tmp_path, name="n", port=0, members=[MEMBER], rendezvous=tmp_path / "r.json"),
    )
    assert config.home == tmp_path
    assert config.node.id == "n"
    assert config.gateway.port == 0
    assert config.trust.members == [MEMBER]
    assert config.rendezvous.document == str(tmp_path / "r.json")


def test_a_second_node_in_a_home_is_told_where_the_first_is(tmp_path: Path) -> None:
    with locked_home(tmp_path / "home"):
        (tmp_path / "home" / "gateway.json").write_text('{"url": "http://127.0.0.1:1234", "pid": 1}')
        with pytest.raises(CannotStart, match="already runs"), locked_home(tmp_path / "home"):
            pass
    with locked_home(tmp_path / "home"):
        pass


def test_a_home_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match="cannot use"), locked_home(tmp_path / "file" / "home"):
        pass


async def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(CannotStart, match=f"port {port} is taken"):
            await up(Config(), UpOptions(home=tmp_path / "home", port=port))
    assert not (tmp_path / "home" / "run").exists()


def test_ports() -> None:
    port = free_port("127.0.0.1")
    assert not port_taken("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert port_taken("127.0.0.1", port)
    assert not port_taken("127.0.0.1", 0)


def test_what_is_told_lets_another_node_join() -> None:
    where = Whereabouts("http://p/#token=t", "http://p", "n", MEMBER, "/h", "/h/run/rendezvous.json")
    text = told(where, Config())
    assert f"--rendezvous /h/run/rendezvous.json --member {MEMBER}" in text
    assert "trusts nobody" in text


def test_a_child_inherits_no_setting() -> None:
    environ = {"PATH": "/bin", "SWARMBRIDGE_NODE_ID": "x", "FEATURE_WEBTORRENT": "0", "SWARMBRIDGE_CONFIG": "/c"}
    assert child_environment({"SWARMBRIDGE_CONFIG": "/d"}, environ) == {"PATH": "/bin", "SWARMBRIDGE_CONFIG": "/d"}
