"""From outside: a real Chromium, in a home behind a router, opens data channels to a node in a container.

What would be said over a channel is the seal's, which a page does not speak: that it opens is
looked at, and by which way.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import ssl
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.compose.moves import Nodes, Part
from tests.compose.project import ROOT, Failed, Project, run, until

INTEROP = ROOT / "tests" / "interop"
PEERJS = INTEROP / "node_modules" / "peerjs" / "dist" / "peerjs.min.js"
MACHINE = Path(__file__).parent / "machine"
PUBLIC, TURN, CADDY, HOST = (f"ops/compose/{name}.yaml" for name in ("public", "turn", "caddy", "host"))
OUTSIDE = "10.77.0.1"
"""This machine, as seen from behind the router (machine/nat.sh)."""
OPEN_S = 60.0
IN_HOME = ("ip", "netns", "exec", "swb-home")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
DIAL = """([mine, at, ice, id, timeoutMs]) => new Promise((answer) => {
  const peer = new Peer(mine, { ...at, path: "/", config: ice });
  setTimeout(() => answer({ error: "timeout" }), timeoutMs);
  peer.on("error", (error) => answer({ error: `${error.type}: ${error.message}` }));
  peer.on("open", () => {
    const began = performance.now();
    const connection = peer.connect(id, { reliable: true, serialization: "raw", metadata: { swarmbridge: 1 } });
    connection.on("open", async () => {
      const ms = performance.now() - began;
      const stats = [...(await connection.peerConnection.getStats()).values()];
      const pair = stats.find((one) => one.type === "candidate-pair" && one.nominated && one.state === "succeeded");
      const end = (id) => stats.find((one) => one.id === id) || {};
      const [local, remote] = [end(pair && pair.localCandidateId), end(pair && pair.remoteCandidateId)];
      answer({ ms, way: local.candidateType, address: remote.address, port: remote.port });
    });
  });
})"""


def reach_parts(nodes: Nodes) -> list[Part]:
    return [
        Part("behind a nat", "Chromium opens a data channel by the published ports", 300, lambda: _nat(nodes)),
        Part("turn", "Chromium that may only relay opens one through coturn", 300, lambda: _turn(nodes)),
        Part("https", "page, API and rendezvous by TLS through Caddy", 300, lambda: _https(nodes)),
        Part("host network", "workers on the host's network serve the other node", 300, lambda: _host(nodes)),
    ]


@contextmanager
def behind_router() -> Iterator[None]:
    """A home with a router between it and this machine."""
    run(str(MACHINE / "nat.sh"), "up")
    try:
        yield
    finally:
        run(str(MACHINE / "nat.sh"), "down")


@contextmanager
def changed(node: Project, *overlays: str, **settings: str) -> Iterator[None]:
    """The node up with overlays and settings more, and as it was afterwards."""
    overlays_before, settings_before = node.overlays, dict(node.settings)
    node.overlays = (*overlays_before, *overlays)
    node.settings.update(settings)
    try:
        node.up()
        yield
    finally:
        node.overlays = overlays_before
        node.settings.clear()
        node.settings.update(settings_before)
        node.up("--remove-orphans")


def dialled(
    node: Project, work: Path, *, at: dict[str, Any], ice: dict[str, Any], home: bool, flags: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What a page of a real Chromium saw when it dialled the node's public id. home: behind the router."""
    from playwright.sync_api import sync_playwright  # here: the other parts run without it

    run(str(INTEROP / "install"), timeout_s=300.0)
    chromium = work / "chromium"
    chromium.write_text(f'#!/bin/sh\nexec {" ".join(IN_HOME) if home else ""} chromium "$@"\n')
    os.chmod(chromium, 0o755)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=[*FLAGS, *flags])
        page = browser.new_page()
        page.goto(f"{'https' if at['secure'] else 'http'}://{at['host']}:{at['port']}/healthz")
        page.add_script_tag(path=str(PEERJS))
        mine = f"page-{secrets.token_hex(8)}"
        found: dict[str, Any] = page.evaluate(DIAL, [mine, at, ice, node.peerjs, OPEN_S * 1000])
        found["secure"] = page.evaluate("isSecureContext")
        browser.close()
    if found.get("error"):
        raise Failed(f"the page's channel did not open: {found['error']}")
    return found


def _nat(nodes: Nodes) -> str:
    public = {"SWARMBRIDGE_ADVERTISE": OUTSIDE, "SWARMBRIDGE_PUBLIC_BIND": OUTSIDE}
    with behind_router(), tempfile.TemporaryDirectory() as work, changed(nodes.a, PUBLIC, **public):
        at = {"host": OUTSIDE, "port": 9000, "secure": False}
        found = dialled(nodes.a, Path(work), at=at, ice={"iceServers": []}, home=True)
    if found["address"] != OUTSIDE or not 50000 <= found["port"] <= 50031:
        raise Failed(f"it opened by another way: {found}")
    return f"open after {found['ms']:.0f} ms, to {found['address']}:{found['port']}"


def _turn(nodes: Nodes) -> str:
    run(str(MACHINE / "stand_ins.sh"), "turn", timeout_s=300.0)
    user, password = "page", secrets.token_hex(16)
    example = (ROOT / "ops/compose/turn/turnserver.conf.example").read_text()
    with behind_router(), tempfile.TemporaryDirectory() as work:
        config = Path(work) / "turnserver.conf"
        config.write_text(example.replace("user=CHANGE-ME:CHANGE-ME", f"user={user}:{password}"))
        # Read by the container's user, as the example says.
        os.chmod(work, 0o755)
        os.chmod(config, 0o600)
        os.chown(config, 10001, 10001)
        settings = {
            "SWARMBRIDGE_TURN_CONFIG": str(config),
            "SWARMBRIDGE_ADVERTISE": OUTSIDE,
            "SWARMBRIDGE_PUBLIC_BIND": OUTSIDE,
        }
        with changed(nodes.a, PUBLIC, TURN, **settings):
            server = {"urls": f"turn:{OUTSIDE}:3478", "username": user, "credential": password}
            ice = {"iceServers": [server], "iceTransportPolicy": "relay"}
            at = {"host": OUTSIDE, "port": 9000, "secure": False}
            try:
                found = dialled(nodes.a, Path(work), at=at, ice=ice, home=True)
            except Failed as error:
                raise Failed(f"{error}; coturn: {nodes.a.compose('logs', '--tail', '40', 'turn')}") from None
            whole = run("docker", "inspect", *nodes.a.containers("turn"))
            if password in whole:
                raise Failed("the password in docker inspect")
    if found["way"] != "relay":
        raise Failed(f"it opened by another way: {found}")
    return f"open after {found['ms']:.0f} ms, by way of {found['way']}"


def _https(nodes: Nodes) -> str:
    run(str(MACHINE / "stand_ins.sh"), "caddy", timeout_s=300.0)
    with tempfile.TemporaryDirectory() as work, changed(nodes.a, CADDY):
        root = until(
            lambda: nodes.a.compose("exec", "-T", "caddy", "cat", "/data/caddy/pki/authorities/local/root.crt"),
            OPEN_S,
            "Caddy's authority",
        )
        trusted = ssl.create_default_context(cadata=root)
        with urllib.request.urlopen("https://localhost:8443/", context=trusted, timeout=10) as response:
            page = response.read().decode()
        if "swarmbridge" not in page:
            raise Failed("the page is another")
        request = urllib.request.Request("https://localhost:8443/api/node")
        request.add_header("Authorization", f"Bearer {nodes.a.token}")
        with urllib.request.urlopen(request, context=trusted, timeout=10) as response:
            peer = json.load(response)["peer"]
        if peer != nodes.a.peer:
            raise Failed("the API is another")
        # Chromium knows the server by its key: putting the authority into its store needs a tool of its own.
        server = ssl.get_server_certificate(("localhost", 9443))
        flag = f"--ignore-certificate-errors-spki-list={_key_hash(server, Path(work))}"
        at = {"host": "localhost", "port": 9443, "secure": True}
        found = dialled(nodes.a, Path(work), at=at, ice={"iceServers": []}, home=False, flags=(flag,))
        if not found["secure"]:
            raise Failed("the page is no secure context")
    return f"page and API by HTTPS; a secure page registers by wss and opens a channel after {found['ms']:.0f} ms"


def _key_hash(certificate: str, work: Path) -> str:
    """SHA-256 of a certificate's public key, as Chromium's flag wants it."""
    path = work / "server.pem"
    path.write_text(certificate)
    public = run("openssl", "x509", "-in", str(path), "-pubkey", "-noout")
    der = base64.b64decode("".join(line for line in public.splitlines() if "-" not in line))
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def _host(nodes: Nodes) -> str:
    with changed(nodes.a, HOST):
        nodes.a.up(webrtc=2)
        try:
            took = [nodes.moved() for _ in range(2)]
        finally:
            nodes.a.up(webrtc=1)
    return f"files came by {[result['byTransport'] for result in took]}"
