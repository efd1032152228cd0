"""One node under docker compose, driven as a person would: the docker command, and the gateway's HTTP API.

Standard library only, so that it runs against any checkout. Every command has a time limit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMAND_TIMEOUT_S = 180.0
HTTP_TIMEOUT_S = 10.0
POLL_S = 0.2
SLOW_S = 120.0
"""For a machine that is busy ten times over."""
LONG_RUNNING = (
    "chunk", "manager", "webrtc", "webtorrent", "broadcast", "gateway", "rendezvous", "jaeger", "nats", "keeper",
)  # fmt: skip


class Skipped(Exception):
    """There is nothing here for a part to try: why."""


class Failed(Exception):
    """What was expected did not happen; the text says what did."""


def run(
    *command: str,
    env: dict[str, str] | None = None,
    timeout_s: float = COMMAND_TIMEOUT_S,
    both: bool = False,
    either: bool = False,
) -> str:
    """Run a command to its end; both: with what it wrote to standard error; either: its exit code says nothing.

    Returns: its standard output. Raises: Failed with its last words.
    """
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}: not done within {timeout_s:.0f} s") from None
    if done.returncode and not either:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}: {' '.join(done.stderr.split())[-600:]}")
    return done.stdout + (done.stderr if both else "")


def until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Poll until `condition()` is truthy. Returns: what it returned. Raises: Failed."""
    give_up_s = time.monotonic() + timeout_s
    last = ""
    while True:
        try:
            found = condition()
            if found:
                return found
        except (Failed, OSError, ValueError) as error:
            last = f" (last: {error})"
        if time.monotonic() > give_up_s:
            raise Failed(f"{what}: not within {timeout_s:.0f} s{last}")
        time.sleep(POLL_S)


@dataclass
class Project:
    """A compose project. settings: environment over compose.yaml's defaults. root: the checkout it is of."""

    name: str
    settings: dict[str, str]
    overlays: tuple[str, ...] = ()
    scales: dict[str, int] = field(default_factory=dict)
    root: Path = ROOT
    _token: str = ""

    @property
    def command(self) -> list[str]:
        """`docker compose` for this project."""
        files = [part for path in ("compose.yaml", *self.overlays) for part in ("-f", str(self.root / path))]
        return ["docker", "compose", "-p", self.name, "--project-directory", str(self.root), *files]

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SWARMBRIDGE_")}
        return {**clean, **self.settings}

    def compose(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        return run(*self.command, *arguments, env=self.environment, timeout_s=timeout_s)

    def up(self, *arguments: str, **scales: int) -> None:
        """Until every container is healthy; scales stay until others are said."""
        self.scales.update(scales)
        scale = [part for service, count in self.scales.items() for part in ("--scale", f"{service}={count}")]
        command = ("up", "--detach", "--wait", "--wait-timeout", "120", *scale, *arguments)
        try:
            self.compose(*command)
        except Failed as error:
            # Compose gives up at the first container that is unhealthy at that moment, be it for a second.
            if "is unhealthy" not in str(error):
                raise
            until(self.all_healthy, SLOW_S, "every container healthy")
            self.compose(*command)

    def down(self, *, volumes: bool = False) -> None:
        self.compose("down", "--timeout", "20", *(["--volumes"] if volumes else []))

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).split()

    def crash(self, service: str) -> None:
        """SIGKILL the process of each container of a service from outside, as a crash: the engine then restarts it.

        (`docker kill` would count as a person's stop, after which nothing is restarted.)
        """
        for container in self.containers(service):
            os.kill(int(inspect(container, "{{.State.Pid}}")), signal.SIGKILL)

    def healthy(self, service: str, count: int = 1) -> bool:
        states = [
            inspect(c, "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}")
            for c in self.containers(service)
        ]
        return len(states) == count and all(state.strip() in ("running healthy", "running") for state in states)

    def all_healthy(self) -> bool:
        return all(self.healthy(service, self.scales.get(service, 1)) for service in LONG_RUNNING)

    # ── the node's own API ───────────────────────────────────────────────────────────────────────────────

    def url(self, service: str = "gateway", port: int = 8080) -> str:
        return f"http://{self.compose('port', service, str(port)).strip()}"

    def api(self, path: str, method: str = "GET", data: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self.url()}/api/{path}", data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise Failed(f"{method} {path}: {error.code} {error.read().decode(errors='replace')[:200]}") from None

    @property
    def token(self) -> str:
        """The operator's."""
        if not self._token:
            self._token = self.compose("exec", "-T", "gateway", "cat", "/secret/gateway.token").strip()
        return self._token

    @property
    def peer(self) -> str:
        return str(self.api("node")["peer"])

    @property
    def peerjs(self) -> str:
        """The node's id at PeerServers: of the key in its peer token (shared.ids)."""
        token = self.peer[1:].upper()
        key = base64.b32decode(token + "=" * (-len(token) % 8))
        return f"peer-{hashlib.sha256(key).hexdigest()[:16]}"

    def set_transports(self, **enabled: bool) -> None:
        for name, on in enabled.items():
            self.api(f"flags/{name}Transport", "PUT", json.dumps({"enabled": on}).encode())

    def put(self, content: bytes) -> str:
        """Returns: the file's link."""
        query = urllib.parse.urlencode({"name": "file", "mime": "application/octet-stream", "class": "mesh"})
        transfer = self.api(f"files?{query}", "POST", content)["transfer"]
        return str(self.finished(transfer, 60.0)["link"])

    def fetch(self, link: str) -> str:
        """Start fetching. Returns: the transfer's id."""
        return str(self.api("fetches", "POST", json.dumps({"link": link}).encode())["transfer"])

    def finished(self, transfer: str, timeout_s: float) -> dict[str, Any]:
        """Wait until it has ended. Raises: Failed where it did not end well."""
        result = self.ended(transfer, timeout_s)
        if result["state"] != "done":
            raise Failed(f"a transfer {result['state']}: {result['cause']}")
        return result

    def ended(self, transfer: str, timeout_s: float) -> dict[str, Any]:
        """Wait until it has ended, well or not."""

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = self.api(f"transfers/{transfer}")
            return found if found["state"] != "running" else None

        result: dict[str, Any] = until(ended, timeout_s, "a transfer")
        return result

    def sha256(self, link: str) -> str:
        """Of the stored file's content."""
        digest = link.removeprefix("swarmbridge:").partition("?")[0]
        request = urllib.request.Request(f"{self.url()}/api/files/{digest}/content")
        request.add_header("Authorization", f"Bearer {self.token}")
        found = hashlib.sha256()
        with urllib.request.urlopen(request, timeout=60.0) as response:
            while part := response.read(1 << 20):
                found.update(part)
        return found.hexdigest()


def inspect(container: str, template: str) -> str:
    return run("docker", "inspect", "--format", template, container).strip()
