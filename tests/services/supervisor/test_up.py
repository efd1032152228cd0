"""One home, one node; the command line goes over the settings; a taken port is reported before anything starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from services.supervisor.machine.errors import CannotStart
from services.supervisor.machine.home_lock import locked_home
from services.supervisor.machine.ports import check_port, free_port, port_is_free
from services.supervisor.machine.processes import Children
from services.supervisor.up import Machine, UpOptions, Whereabouts, up, whereabouts_text, with_options
from shared.errors import ConfigError
from shared.ids import member_token
from shared.settings.config import (
    DEFAULT_BUS_URL,
    BusSettings,
    Config,
    GatewaySettings,
    NodeSettings,
    TrustSettings,
    child_environment,
)

MEMBER = member_token(bytes(32))


def test_options_go_over_settings(tmp_path: Path) -> None:
    config = with_options(
        Config(gateway=GatewaySettings(port=1)),
        UpOptions(home=tmp_path, name="n", port=0, rendezvous=tmp_path / "r.json"),
    )
    assert config.home == tmp_path
    assert config.node.id == "n"
    assert config.gateway.port == 0
    assert config.rendezvous.document == str(tmp_path / "r.json")


def test_a_second_node_in_a_home_hears_where_the_first_is(tmp_path: Path) -> None:
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


async def test_a_taken_port_is_reported_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(CannotStart, match=f"port {port} is taken"):
            await up(Config(), UpOptions(home=tmp_path / "home", port=port))
    assert not (tmp_path / "home" / "run").exists()


def test_only_a_taken_port_is_called_taken() -> None:
    port = free_port("gateway", "127.0.0.1")
    check_port("gateway", "127.0.0.1", port, "--port")
    check_port("gateway", "127.0.0.1", 0, "--port")
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free("127.0.0.1", port)
        with pytest.raises(CannotStart, match=f"port {port} is taken; choose another with --port"):
            check_port("gateway", "127.0.0.1", port, "--port")


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("no.such.host.invalid", "cannot be resolved"),
        ("a..b", "cannot be resolved"),
        ("x" * 70, "cannot be resolved"),
        ("192.0.2.1", "no address of this machine"),
    ],
)
def test_a_host_that_cannot_be_listened_on_is_named(host: str, said: str) -> None:
    for port in (0, 8080):
        with pytest.raises(CannotStart, match=rf"gateway\.host: .*{said}"):
            check_port("gateway", host, port, "--port")
    with pytest.raises(CannotStart, match=said):
        free_port("gateway", host)


async def test_bad_settings_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    config = Config(gateway=GatewaySettings(host="no.such.host.invalid"))
    with pytest.raises(CannotStart, match="cannot be resolved"):
        await up(config, UpOptions(home=tmp_path / "home"))
    with pytest.raises(ConfigError, match="--name"):
        await up(Config(), UpOptions(home=tmp_path / "home", name='a"b'))
    missing = Config(bus=BusSettings(seed_file=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match=r"bus\.seed_file: cannot read .*none"):
        await up(missing, UpOptions(home=tmp_path / "home", nats_url="nats://127.0.0.1:9"))
    (tmp_path / "token").write_text("one\ntwo")
    torn = Config(gateway=GatewaySettings(token_file=str(tmp_path / "token")))
    with pytest.raises(CannotStart, match="one word"):
        await up(torn, UpOptions(home=tmp_path / "home", nats_url="nats://127.0.0.1:9"))
    assert not (tmp_path / "home" / "run").exists()


async def test_a_second_up_in_a_home_touches_nothing_of_the_first(tmp_path: Path) -> None:
    with locked_home(tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "node.toml").write_text("of the first")
        with pytest.raises(CannotStart, match="already runs"):
            await up(Config(), UpOptions(home=tmp_path))
        assert (tmp_path / "run" / "node.toml").read_text() == "of the first"


def test_a_nats_url_is_used_even_where_it_equals_the_default(tmp_path: Path) -> None:
    assert with_options(Config(), UpOptions(home=tmp_path)).bus.url == ""
    assert with_options(Config(), UpOptions(home=tmp_path, nats_url=DEFAULT_BUS_URL)).bus.url == DEFAULT_BUS_URL


def test_what_up_was_given_is_remembered(tmp_path: Path) -> None:
    config = Config(node=NodeSettings(home=str(tmp_path)))
    first = prepared(config, UpOptions(members=[MEMBER]))
    assert first.trust.members == [MEMBER]
    again = prepared(config, UpOptions())
    assert again.trust.members == [MEMBER]
    assert again.gateway.port == first.gateway.port
    assert prepared(config, UpOptions(forgotten=[MEMBER])).trust.members == []
    assert prepared(config, UpOptions()).trust.members == []
    with socket.create_server(("127.0.0.1", first.gateway.port)):
        assert prepared(config, UpOptions()).gateway.port != first.gateway.port, "somebody else has it meanwhile"


def test_members_of_the_settings_are_not_remembered(tmp_path: Path) -> None:
    """They are the settings' own to take back."""
    home = NodeSettings(home=str(tmp_path))
    assert prepared(Config(node=home, trust=TrustSettings(members=[MEMBER])), UpOptions()).trust.members == [MEMBER]
    assert prepared(Config(node=home), UpOptions()).trust.members == []


def test_a_broken_memory_is_reported_and_kept(tmp_path: Path) -> None:
    (tmp_path / "remembered.json").write_text("[")
    with pytest.raises(CannotStart, match="correct it, or remove it"):
        prepared(Config(node=NodeSettings(home=str(tmp_path))), UpOptions())
    assert (tmp_path / "remembered.json").read_text() == "["


def prepared(config: Config, options: UpOptions) -> Config:
    machine = Machine(with_options(config, options), options, Children())
    machine.prepare()
    return machine.config


def test_what_is_printed_lets_another_node_join() -> None:
    where = Whereabouts("http://p/#token=t", "http://p", "n", MEMBER, "/h", "/h/run/rendezvous.json")
    text = whereabouts_text(where, Config())
    assert f"--rendezvous /h/run/rendezvous.json --member {MEMBER}" in text
    assert "trusts nobody" in text
    assert "--nats-url" not in text
    own_server = Config(bus=BusSettings(url="nats://10.0.0.1:4222"))
    assert "up --home OTHER_HOME --name OTHER_NAME --nats-url nats://10.0.0.1:4222 --rend" in whereabouts_text(
        where, own_server
    )


def test_a_child_inherits_no_setting() -> None:
    environ = {"PATH": "/bin", "SWARMBRIDGE_NODE_ID": "x", "FEATURE_WEBTORRENT": "0", "SWARMBRIDGE_CONFIG": "/c"}
    assert child_environment({"SWARMBRIDGE_CONFIG": "/d"}, environ) == {"PATH": "/bin", "SWARMBRIDGE_CONFIG": "/d"}
