"""Configuration: environment over file over default, and every bad key named at once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from shared.errors import ConfigError
from shared.ids import guest_token, member_token
from shared.settings.config import (
    DEFAULT_BUS_URL,
    FOREIGN_ENV,
    PATHS,
    BusSettings,
    Config,
    NodeSettings,
    checked,
    child_environment,
    default_home,
    load,
)

MEMBER = member_token(bytes(32))


def write(path: Path, text: str) -> dict[str, str]:
    file = path / "swarmbridge.toml"
    file.write_text(text)
    return {"SWARMBRIDGE_CONFIG": str(file)}


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(environ)
    return error.value.problems


def test_nothing_set_is_the_defaults() -> None:
    assert load({}) == Config()
    assert load({"PATH": "/bin", "OTHER_VAR": "x"}) == Config()


def test_environment_over_file_over_default(tmp_path: Path) -> None:
    environ = write(tmp_path, '[node]\nid = "from-file"\nhome = "/file"\n[webtorrent]\nport = 1\ndht = false\n')
    config = load({**environ, "SWARMBRIDGE_NODE_ID": "from-env", "SWARMBRIDGE_WEBTORRENT_DHT_PORT": " 2 "})
    assert (config.node.id, config.node.home) == ("from-env", "/file")
    assert (config.webtorrent.port, config.webtorrent.dht_port, config.webtorrent.dht) == (1, 2, False)
    assert config.webtorrent.room == "public"


def test_every_kind_of_value(tmp_path: Path) -> None:
    config = load(
        {
            "SWARMBRIDGE_TRUST_MEMBERS": f" {MEMBER} , ,{MEMBER}",
            "SWARMBRIDGE_FLAGS_WEBRTC": "No",
            "SWARMBRIDGE_FLAGS_BROADCAST": " on ",
            "SWARMBRIDGE_CHUNK_QUOTA_BYTES": "1000",
            "SWARMBRIDGE_WEBTORRENT_ROOM": "42",
        }
    )
    assert config.trust.members == [MEMBER, MEMBER]
    assert (config.flags.webrtc, config.flags.broadcast) == (False, True)
    assert (config.chunk.quota_bytes, config.webtorrent.room) == (1000, "42")
    assert load(write(tmp_path, f'[trust]\nmembers = ["{MEMBER}"]\n')).trust.members == [MEMBER]


@pytest.mark.parametrize("word", ["0", "false", "no", "off", "FALSE"])
def test_foreign_names_switch_webtorrent(word: str) -> None:
    assert load({"VITE_FEATURE_WEBTORRENT": word}).flags.webtorrent is False
    assert load({"FEATURE_WEBTORRENT": word}).flags.webtorrent is False
    assert load({"FEATURE_WEBTORRENT": word, "SWARMBRIDGE_FLAGS_WEBTORRENT": "true"}).flags.webtorrent is True


def test_a_node_is_in_production_unless_said_otherwise(tmp_path: Path) -> None:
    assert (Config().node.environment, Config().node.allow_chaos) == ("production", False)
    node = load({"SWARMBRIDGE_NODE_ENVIRONMENT": "development"}).node
    assert (node.environment, node.allow_chaos) == ("development", False)
    assert load(write(tmp_path, "[node]\nallow_chaos = true\n")).node.allow_chaos
    assert problems({"SWARMBRIDGE_NODE_ENVIRONMENT": "Staging"}) == [
        "node.environment: production or development",
    ]


def test_otlp_endpoint_by_its_own_name() -> None:
    assert load({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}).telemetry.otlp_endpoint.endswith("4318")


def test_every_bad_key_is_named_at_once(tmp_path: Path) -> None:
    environ = write(
        tmp_path,
        '[node]\nid = "a b"\ncolour = "red"\n[webtorrent]\nport = "many"\n[gateway]\nport = 70000\n[nonsense]\nx = 1\n',
    )
    environ |= {
        "SWARMBRIDGE_NODE_COLOUR": "red",
        "SWARMBRIDGE_RENDEZVOUS_PORT": "many",
        "SWARMBRIDGE_FLAGS_WEBRTC": "perhaps",
        "SWARMBRIDGE_TELEMETRY_PROPAGATION": "sometimes",
        "SWARMBRIDGE_TELEMETRY_LOG_LEVEL": "loud",
        "SWARMBRIDGE_TRUST_MEMBERS": f"nobody,{guest_token('x')},é,k",
        "SWARMBRIDGE_CHUNK_REQUEST_WINDOW": "65",
    }
    found = problems(environ)
    for key in (
        "node.id",
        "node.colour",
        "webtorrent.port",
        "gateway.port",
        "[nonsense]",
        "SWARMBRIDGE_NODE_COLOUR",
        "SWARMBRIDGE_RENDEZVOUS_PORT",
        "SWARMBRIDGE_FLAGS_WEBRTC",
        "telemetry.propagation",
        "telemetry.log_level",
        "trust.members: 'nobody'",
        "trust.members: a guest",
        "trust.members: 'é'",
        "chunk.request_window",
    ):
        assert any(key in problem for problem in found), (key, found)


@pytest.mark.parametrize("text", ["not toml", "a = [", "\x00"])
def test_a_file_that_is_no_toml(tmp_path: Path, text: str) -> None:
    assert len(problems(write(tmp_path, text))) >= 1


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot read" in problems({"SWARMBRIDGE_CONFIG": str(tmp_path / "missing.toml")})[0]
    assert "cannot read" in problems({"SWARMBRIDGE_CONFIG": str(tmp_path)})[0]
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert problems({"SWARMBRIDGE_CONFIG": str(binary)})


def test_a_section_that_is_no_table_and_the_environment_over_it(tmp_path: Path) -> None:
    environ = write(tmp_path, "node = 5\n")
    assert problems(environ) == ["[node]: must be a table"]
    assert "[node]: must be a table" in problems({**environ, "SWARMBRIDGE_NODE_ID": "x"})


@pytest.mark.parametrize("node", ["a.b", "a>", "*", "a b", "ä", "-", "a\n", 'a"b', "a" * 65, "bc", "rv"])
def test_a_node_id_must_be_safe_in_subjects(node: str) -> None:
    assert any("node.id" in problem for problem in problems({"SWARMBRIDGE_NODE_ID": node}))


@pytest.mark.parametrize("number", ["1.5", "0x10", "-1", "99999", "٣"])
def test_ports(number: str) -> None:
    assert problems({"SWARMBRIDGE_GATEWAY_PORT": number})


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("ORIGINS", "https://example.org/", "is no origin"),
        ("ORIGINS", "example.org", "is no origin"),
        ("ORIGINS", "null", "is no origin"),
        ("ORIGINS", "https://Example.org", "is no origin"),
        ("ORIGINS", ",".join(f"http://a{number}" for number in range(17)), "at most 16"),
        ("CHANNELS", "x" * 129, "1 to 128 characters"),
        ("CHANNEL", "x" * 129, "1 to 128 characters"),
        ("URL", "http://a/b", "no path"),
        ("MAX_SOCKETS_PER_ADDRESS", "0", "1 or more"),
        ("TRUSTED_PROXIES", "nowhere", "is no address or network"),
    ],
)
def test_whose_pages_may_join_is_said_exactly(name: str, value: str, word: str) -> None:
    with pytest.raises(ConfigError) as error:
        load({f"SWARMBRIDGE_BROADCAST_{name}": value})
    assert word in str(error.value)


def test_channels_of_pages_are_each_once_the_nodes_own_first() -> None:
    config = load({"SWARMBRIDGE_BROADCAST_CHANNEL": "own", "SWARMBRIDGE_BROADCAST_CHANNELS": "a,own,b,a"})
    assert config.broadcast.page_channels == ["own", "a", "b"]
    origins = "https://example.org,http://127.0.0.1:8080,http://[::1]:80"
    assert len(load({"SWARMBRIDGE_BROADCAST_ORIGINS": origins}).broadcast.origins) == 3


def test_negative_sizes_are_refused() -> None:
    for name in ("SWARMBRIDGE_CHUNK_QUOTA_BYTES", "SWARMBRIDGE_GATEWAY_MAX_UPLOAD_BYTES"):
        assert problems({name: "-1"})


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_home({"HOME": "/h"}) == Path("/h/.local/share/swarmbridge")
    assert default_home({"HOME": "/h", "XDG_DATA_HOME": "/x"}) == Path("/x/swarmbridge")
    assert default_home({}) == Path("/var/lib/.local/share/swarmbridge")
    monkeypatch.setenv("XDG_DATA_HOME", "/x")
    assert load({}).home == Path("/x/swarmbridge")
    assert load({"SWARMBRIDGE_NODE_HOME": "/mine"}).home == Path("/mine")


def test_a_child_gets_only_the_settings_it_is_given() -> None:
    environ = {"PATH": "/bin", "SWARMBRIDGE_NODE_ID": "mine", "FEATURE_WEBTORRENT": "0"}
    assert child_environment({"SWARMBRIDGE_NODE_ID": "child"}, environ) == {
        "PATH": "/bin",
        "SWARMBRIDGE_NODE_ID": "child",
    }


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    """Every setting, and the names that others gave: what compose passes on of a variable that nobody set."""
    names = [
        *(
            f"SWARMBRIDGE_{section.name}_{field.name}".upper()
            for section in msgspec.structs.fields(Config)
            for field in msgspec.structs.fields(section.type)
        ),
        *FOREIGN_ENV,
    ]
    environ = write(tmp_path, "[flags]\nwebrtc = false\n[gateway]\nport = 81\n")
    config = load({**environ, **dict.fromkeys(names, " ")})
    assert config == load(environ)
    assert (config.flags.webrtc, config.flags.webtorrent, config.gateway.port) == (False, True, 81)


def test_every_path_may_start_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    sections = {section: "".join(f'{field} = "~/x"\n' for of, field in PATHS if of == section) for section, _ in PATHS}
    text = "".join(f"[{section}]\n{fields}" for section, fields in sections.items())
    config = load(write(tmp_path, text))
    assert str(config.home) == "/home/somebody/x"
    for section, field in PATHS:
        assert getattr(getattr(config, section), field) == "/home/somebody/x", field
    assert "~" not in checked(Config(bus=BusSettings(mesh_seed_file="~/x"))).bus.mesh_seed_file
    assert problems(write(tmp_path, '[node]\nhome = "~nobody-of-that-name/x"\n'))


def test_every_setting_that_sounds_like_a_path_is_treated_as_one() -> None:
    sounding = {
        (section.name, field.name)
        for section in msgspec.structs.fields(Config)
        for field in msgspec.structs.fields(section.type)
        if field.name.endswith(("file", "home", "document", "store", "dir"))
    }
    assert sounding == set(PATHS)


def test_a_url_that_equals_the_default_is_still_said() -> None:
    assert Config().bus.url == ""
    assert Config().bus.server == DEFAULT_BUS_URL
    assert load({"SWARMBRIDGE_BUS_URL": DEFAULT_BUS_URL}).bus.url == DEFAULT_BUS_URL


def test_what_a_command_line_changed_is_checked_as_well() -> None:
    with pytest.raises(ConfigError, match="--name"):
        checked(Config(node=NodeSettings(id='a"b')))
