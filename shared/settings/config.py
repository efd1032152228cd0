"""Settings: one TOML file and the environment into typed structs; the only module that reads `os.environ`.

Environment over file over default. A setting `field` of `[section]` is `SWARMBRIDGE_SECTION_FIELD` in the
environment; lists are separated by commas. An empty variable says nothing: compose and scripts pass on what was
never set that way. The file is named by `SWARMBRIDGE_CONFIG`. Paths may start with `~`. Every bad key is reported at
once, by name, and nothing starts.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from shared.errors import ConfigError, SwarmbridgeError
from shared.ids import token_key

RESERVED_NODE_IDS = frozenset({"bc", "rv"})
NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""One token of a bus subject: no dot, no wildcard, no white space. Bounded, because it is part of file names too."""

DEFAULT_BUS_URL = "nats://127.0.0.1:4222"

PATHS = (
    ("node", "home"),
    ("node", "pulse_file"),
    ("bus", "seed_file"),
    ("bus", "mesh_seed_file"),
    ("bus", "ca_file"),
    ("rendezvous", "document"),
    ("chunk", "store"),
    ("broadcast", "token_file"),
    ("gateway", "token_file"),
    ("trust", "mesh_secret_file"),
)
"""Every setting that is a path; `~` is expanded here, once, so that all commands and services read them alike."""

DEFAULT_ROUTE = "default-route"
PORT_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")

PAGE_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[1-9][0-9]{0,4})?")
"""As browsers write it: lower case, no path, no slash at its end, no default port."""

MAX_PAGE_SCOPES = 16
"""Origins times channels: a worker keeps what was posted lately for each (docs/limits.md)."""
MAX_CHANNEL_CHARS = 128

ENV_PREFIX = "SWARMBRIDGE_"
ENV_CONFIG_FILE = "SWARMBRIDGE_CONFIG"
TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS = frozenset({"0", "false", "no", "off"})

# Names that others gave, and what they set (docs/swarm-space.md, OpenTelemetry's environment specification).
FOREIGN_ENV = {
    "VITE_FEATURE_WEBTORRENT": "flags.webtorrent",
    "FEATURE_WEBTORRENT": "flags.webtorrent",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "telemetry.otlp_endpoint",
}


class NodeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """id: subject token of the node on the bus. home: where keys, chunks and run-time files are kept.

    environment: production or development; chaos flags act in development.
    allow_chaos: chaos flags act in production too.
    pulse_file: where the process writes how it is after each answer of its own on the bus, for a container's health
    check (`shared.process.health`); "" = nowhere.
    """

    id: str = "node"
    home: str = ""
    environment: str = "production"
    allow_chaos: bool = False
    pulse_file: str = ""


class BusSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """url: of the NATS server; "" = not said: a service looks on this machine, `up` starts its own.

    seed_file: nkey seed of this service's user; mesh_seed_file: of its user in the account `mesh`.
    ca_file: PEM with the only authority that the server's certificate may be of, for tls://; "" = the system's.

    scoped: nodes share one account (your own server, without ours), so that names of buckets and streams carry
    the node's id; what they keep apart is names only, not permissions.
    """

    url: str = ""
    seed_file: str = ""
    mesh_seed_file: str = ""
    ca_file: str = ""
    scoped: bool = False

    @property
    def server(self) -> str:
        """The URL for a client."""
        return self.url or DEFAULT_BUS_URL


class TrustSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """members: peer tokens (`k…`) of nodes that may hold and ask for mesh content.

    mesh_secret_file: 64 hexadecimal digits that all members of a mesh know; "" = none, and no record in the DHT.
    """

    members: list[str] = []
    mesh_secret_file: str = ""


class TelemetrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """propagation: whether traces cross to members (off, link or join). log_level: debug, info, warning or error.

    otlp_endpoint: where spans go by OTLP over HTTP, `http://HOST:4318`; "" = nowhere but the page.
    """

    propagation: str = "link"
    otlp_endpoint: str = ""
    log_level: str = "info"


class RendezvousSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """document: path of the rendezvous document (JSON). host, port: where our own rendezvous listens.

    path: the base path of everything it serves. list_peers: whether anybody may ask who is registered.
    max_sockets, max_sockets_per_address: of each entry (PeerServer, tracker). trusted_proxies: addresses and networks
    whose X-Forwarded-For is believed, so that the limit is for the clients behind them.
    """

    document: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    path: str = "/"
    list_peers: bool = False
    max_sockets: int = 10_000
    max_sockets_per_address: int = 512
    trusted_proxies: list[str] = []


class WebrtcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """host: the address to gather candidates on; "" = all of this machine's, default-route = the one to the outside.

    advertise: an IP address under which others reach our UDP ports as well (a container's published range, a NAT that
    maps one to one). ports: `FIRST-LAST`, the UDP ports to use; "" = any. room: the path of a room of swarm-space
    (`/brain`) whose beacon we hold, so that pages which know nobody find us; "" = none.
    """

    host: str = ""
    advertise: str = ""
    ports: str = ""
    room: str = ""

    @property
    def port_range(self) -> range | None:
        """The ports of `ports`, None for any. Raises: ValueError where it is no range."""
        if not self.ports:
            return None
        found = PORT_RANGE.fullmatch(self.ports)
        first, last = found.groups() if found else ("1", "0")
        if not 1024 <= int(first) <= int(last) <= 65535:
            raise ValueError("FIRST-LAST, from 1024 to 65535")
        return range(int(first), int(last) + 1)


class WebtorrentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """host, port: where our peer wire listens, 0 = any port; a second worker of one supervisor has the next, and so on.

    room: names the swarm (infohash = sha1("swarm-space:" + room)). advertise: the host that others reach us at, "" =
    `host`. dht: find peers by the DHT. trackers: find peers by trackers. dht_port: UDP, 0 = any;
    a second worker has the next, and so on.
    """

    host: str = "127.0.0.1"
    port: int = 0
    advertise: str = ""
    room: str = "public"
    dht: bool = True
    dht_port: int = 0
    trackers: bool = True


class BroadcastSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """host, port: where pages join, 0 = any port; workers of one port share it.

    origin, channel: the scope of links between nodes on one bus; the channel is also where a node speaks with pages.
    origins: whose pages may join (`https://example.org`); none: no pages are taken, and nothing listens.
    channels: by which names they may, beside `channel`. token_file: holds what they must show, needed off loopback.
    url: where browsers reach host:port, where that is elsewhere (a published port); "" = http://host:port.
    max_sockets_per_address: pages of one address. trusted_proxies: as of the rendezvous.
    """

    host: str = "127.0.0.1"
    port: int = 0
    origin: str = "swarmbridge:nodes"
    channel: str = "swarm-space-webtorrent"
    origins: list[str] = []
    channels: list[str] = []
    token_file: str = ""
    url: str = ""
    max_sockets_per_address: int = 8
    trusted_proxies: list[str] = []

    @property
    def page_channels(self) -> list[str]:
        """Every channel of pages, each once, the node's own first."""
        return list(dict.fromkeys([self.channel, *self.channels]))


class ChunkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """store: directory or obstore URL; "" = <home>/store. quota_bytes: puts beyond it are refused.

    request_window: chunks asked of one peer at a time, before anything is known of it.
    """

    store: str = ""
    quota_bytes: int = 20 * 2**30
    request_window: int = 6


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """host, port: where the HTTP API and the page are, 0 = any port. token_file: holds the operator's token.

    max_upload_bytes: of one file through the page or the CLI.
    allowed_hosts: names by which browsers and scrapers may reach it beside loopback's (docs/trust.md, DNS rebinding).
    """

    host: str = "127.0.0.1"
    port: int = 0
    token_file: str = ""
    max_upload_bytes: int = 4 * 2**30
    allowed_hosts: list[str] = []


class FlagSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Start values of the run-time flags, used where no value is stored yet.

    webrtc, webtorrent, broadcast: whether the transport is used. fallback_telemetry: whether fallbacks are diagnostics.
    """

    webrtc: bool = True
    webtorrent: bool = True
    broadcast: bool = True
    fallback_telemetry: bool = True


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one process."""

    node: NodeSettings = NodeSettings()
    bus: BusSettings = BusSettings()
    trust: TrustSettings = TrustSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    rendezvous: RendezvousSettings = RendezvousSettings()
    webrtc: WebrtcSettings = WebrtcSettings()
    webtorrent: WebtorrentSettings = WebtorrentSettings()
    broadcast: BroadcastSettings = BroadcastSettings()
    chunk: ChunkSettings = ChunkSettings()
    gateway: GatewaySettings = GatewaySettings()
    flags: FlagSettings = FlagSettings()

    @property
    def home(self) -> Path:
        """The node's directory; `~/.local/share/swarmbridge` (XDG_DATA_HOME) where none is set."""
        return Path(self.node.home) if self.node.home else default_home(os.environ)


def default_home(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_DATA_HOME") or str(Path(environ.get("HOME") or "/var/lib") / ".local" / "share")
    return Path(base) / "swarmbridge"


def child_environment(settings: Mapping[str, str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that we start: ours without any setting of ours or FOREIGN_ENV, then `settings`.

    Its settings come from the file and variables that its starter wrote for it alone, never by inheritance.
    """
    environ = os.environ if environ is None else environ
    kept = {name: value for name, value in environ.items() if not name.startswith(ENV_PREFIX)}
    for foreign in FOREIGN_ENV:
        kept.pop(foreign, None)
    return {**kept, **settings}


def replace_environment(environment: Mapping[str, str]) -> None:
    """Make this the whole environment of a process that was forked, as executing it would have done."""
    os.environ.clear()
    os.environ.update(environment)


def load(environ: Mapping[str, str] | None = None) -> Config:
    """Read the file named by SWARMBRIDGE_CONFIG, then the environment, then check everything.

    Raises: ConfigError naming each bad key, in the file's or the environment's own words.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    tree = _read_file(environ.get(ENV_CONFIG_FILE, ""), problems)
    _overlay_environment(tree, environ, problems)
    values: dict[str, Any] = {}
    for section, struct in _sections().items():
        values[section] = _convert_section(section, struct, tree.pop(section, {}), problems)
    problems += [f"[{name}]: no such section; known: {', '.join(_sections())}" for name in tree]
    config = _expanded(Config(**values), problems)
    problems += _check(config)
    if problems:
        raise ConfigError(problems)
    return config


def checked(config: Config) -> Config:
    """A configuration that was changed after it was loaded, by a command line say. Raises: ConfigError, as `load`."""
    problems: list[str] = []
    config = _expanded(config, problems)
    problems += _check(config)
    if problems:
        raise ConfigError(problems)
    return config


def _expanded(config: Config, problems: list[str]) -> Config:
    """With `~` and `~user` at the start of every path replaced."""
    for section, field in PATHS:
        table = getattr(config, section)
        text: str = getattr(table, field)
        if not text.startswith("~"):
            continue
        path = os.path.expanduser(text)
        if path.startswith("~"):
            problems.append(f"{section}.{field}: there is no such user as in {text!r}")
        table = msgspec.structs.replace(table, **{field: path})
        config = msgspec.structs.replace(config, **{section: table})
    return config


def _sections() -> dict[str, type[msgspec.Struct]]:
    return {field.name: field.type for field in msgspec.structs.fields(Config)}


def _read_file(path: str, problems: list[str]) -> dict[str, Any]:
    if not path:
        return {}
    try:
        return tomllib.loads(Path(os.path.expanduser(path)).read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{ENV_CONFIG_FILE}: cannot read {path}: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path}: not TOML: {error}")
    return {}


def _overlay_environment(tree: dict[str, Any], environ: Mapping[str, str], problems: list[str]) -> None:
    names = {
        f"{ENV_PREFIX}{section}_{field.name}".upper(): (section, field)
        for section, struct in _sections().items()
        for field in msgspec.structs.fields(struct)
    }
    fields = {f"{section}.{field.name}": (section, field) for section, field in names.values()}
    found: dict[str, tuple[str, str]] = {}
    for foreign, target in FOREIGN_ENV.items():
        if environ.get(foreign, "").strip():
            found[target] = (foreign, environ[foreign])
    for name in environ:
        if not name.startswith(ENV_PREFIX) or name == ENV_CONFIG_FILE:
            continue
        if name not in names:
            problems.append(f"{name}: no such setting")
            continue
        if not environ[name].strip():
            continue
        section, field = names[name]
        found[f"{section}.{field.name}"] = (name, environ[name])
    for target, (name, text) in found.items():
        section, field = fields[target]
        table = tree.setdefault(section, {})
        if not isinstance(table, dict):
            continue  # the file's section is no table: said where it is converted
        try:
            table[field.name] = _parse(text, field.type)
        except ValueError as error:
            problems.append(f"{name}: {error}")


def _parse(text: str, kind: Any) -> Any:
    if kind is bool:
        word = text.strip().lower()
        if word in TRUE_WORDS or word in FALSE_WORDS:
            return word in TRUE_WORDS
        raise ValueError("say true or false")
    if kind is int:
        digits = text.strip()
        if not (digits.isascii() and digits.removeprefix("-").isdigit()):
            raise ValueError("must be a whole number")
        return int(digits)
    if kind == list[str]:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _convert_section(section: str, struct: type[msgspec.Struct], raw: Any, problems: list[str]) -> msgspec.Struct:
    if not isinstance(raw, dict):
        problems.append(f"[{section}]: must be a table")
        return struct()
    known = {field.name: field for field in msgspec.structs.fields(struct)}
    good: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            problems.append(f"{section}.{key}: no such setting; known: {', '.join(known)}")
            continue
        try:
            good[key] = msgspec.convert(value, known[key].type)
        except msgspec.ValidationError as error:
            problems.append(f"{section}.{key}: {error}")
    return struct(**good)


def _check_webrtc(settings: WebrtcSettings) -> list[str]:
    problems = []
    try:
        settings.port_range  # noqa: B018 - asked for what it raises
    except ValueError as error:
        problems.append(f"webrtc.ports: {error}")
    if settings.advertise:
        try:
            ipaddress.ip_address(settings.advertise)
        except ValueError:
            problems.append("webrtc.advertise: an IP address; names are not resolved")
    if settings.room and not (settings.room.startswith("/") and settings.room.isprintable()):
        problems.append("webrtc.room: a path that starts with /")
    return problems


def _check_broadcast(settings: BroadcastSettings) -> list[str]:
    problems = [
        f"broadcast.origins: {origin!r} is no origin, like https://example.org or http://127.0.0.1:8080"
        for origin in settings.origins
        if not PAGE_ORIGIN.fullmatch(origin)
    ]
    channels = settings.page_channels
    if not all(0 < len(name) <= MAX_CHANNEL_CHARS for name in channels):
        problems.append(f"broadcast.channels: names of 1 to {MAX_CHANNEL_CHARS} characters")
    if len(settings.origins) * len(channels) > MAX_PAGE_SCOPES:
        problems.append(f"broadcast.origins: at most {MAX_PAGE_SCOPES} origins times channels")
    if settings.url and not PAGE_ORIGIN.fullmatch(settings.url):
        problems.append("broadcast.url: like https://example.org or http://127.0.0.1:9000, no path")
    if settings.max_sockets_per_address < 1:
        problems.append("broadcast.max_sockets_per_address: 1 or more")
    return problems


def _check(config: Config) -> list[str]:
    problems = []
    if config.node.id in RESERVED_NODE_IDS:
        problems.append("node.id (--name): bc and rv are taken: subjects that nodes share start with them")
    if not NODE_ID.fullmatch(config.node.id):
        problems.append("node.id (--name): 1 to 64 letters, digits, - and _, the first no sign: part of bus subjects")
    if config.node.environment not in ("production", "development"):
        problems.append("node.environment: production or development")
    problems += _check_webrtc(config.webrtc)
    problems += _check_broadcast(config.broadcast)
    if config.telemetry.propagation not in ("off", "link", "join"):
        problems.append("telemetry.propagation: off, link or join")
    if config.telemetry.log_level not in ("debug", "info", "warning", "error"):
        problems.append("telemetry.log_level: debug, info, warning or error")
    for member in config.trust.members:
        try:
            if token_key(member) is None:
                problems.append("trust.members: a guest token cannot be a member")
        except SwarmbridgeError:
            problems.append(f"trust.members: {member!r} is no peer token (k and 52 letters)")
    for section, port in (
        ("rendezvous.port", config.rendezvous.port),
        ("webtorrent.port", config.webtorrent.port),
        ("webtorrent.dht_port", config.webtorrent.dht_port),
        ("broadcast.port", config.broadcast.port),
        ("gateway.port", config.gateway.port),
    ):
        if not 0 <= port <= 65535:
            problems.append(f"{section}: 0 to 65535")
    for name, count in (
        ("rendezvous.max_sockets", config.rendezvous.max_sockets),
        ("rendezvous.max_sockets_per_address", config.rendezvous.max_sockets_per_address),
    ):
        if count < 1:
            problems.append(f"{name}: 1 or more")
    for section, proxies in (
        ("rendezvous", config.rendezvous.trusted_proxies),
        ("broadcast", config.broadcast.trusted_proxies),
    ):
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                problems.append(f"{section}.trusted_proxies: {proxy!r} is no address or network, like 10.0.0.0/8")
    if not 1 <= config.chunk.request_window <= 64:
        problems.append("chunk.request_window: 1 to 64")
    for name, size in (
        ("chunk.quota_bytes", config.chunk.quota_bytes),
        ("gateway.max_upload_bytes", config.gateway.max_upload_bytes),
    ):
        if size < 0:
            problems.append(f"{name}: not below 0")
    return problems
