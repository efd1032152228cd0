"""From outside: a real Chromium, in a home behind a router, opens data channels to a node in a container."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.compose.moves import Nodes, Part
from tests.compose.project import ROOT, Failed, run

INTEROP = ROOT / "tests" / "interop"
PEERJS = INTEROP / "node_modules" / "peerjs" / "dist" / "peerjs.min.js"
NAT = Path(__file__).parent / "machine" / "nat.sh"
PUBLIC = "ops/compose/public.yaml"
OUTSIDE = "10.77.0.1"
"""This machine, as seen from behind the router (machine/nat.sh)."""
OPEN_S = 60.0
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
DIAL = """([host, port, id, timeoutMs]) => new Promise((told) => {
  const peer = new Peer({ host, port, path: "/", secure: false, config: { iceServers: [] } });
  setTimeout(() => told({ error: "timeout" }), timeoutMs);
  peer.on("error", (error) => told({ error: error.type }));
  peer.on("open", () => {
    const began = performance.now();
    const connection = peer.connect(id, { reliable: true, serialization: "raw", metadata: { swarmbridge: 1 } });
    connection.on("open", async () => {
      const ms = performance.now() - began;
      const stats = [...(await connection.peerConnection.getStats()).values()];
      const pair = stats.find((one) => one.type === "candidate-pair" && one.nominated && one.state === "succeeded");
      const remote = pair && stats.find((one) => one.id === pair.remoteCandidateId);
      told({ ms, address: remote && remote.address, port: remote && remote.port });
    });
  });
})"""
"""The data channel is what is looked at; what would be said over it is the seal's, which a page does not speak."""


def reach_parts(nodes: Nodes) -> list[Part]:
    return [Part("behind a nat", "Chromium opens a data channel by the published ports", 300, lambda: _nat(nodes))]


@contextmanager
def behind_router() -> Iterator[None]:
    """A home with a router between it and this machine."""
    run(str(NAT), "up")
    try:
        yield
    finally:
        run(str(NAT), "down")


def _nat(nodes: Nodes) -> str:
    from playwright.sync_api import sync_playwright  # here: the other parts run without it

    run(str(INTEROP / "install"), timeout_s=300.0)
    plain = nodes.a.overlays
    settings = {"SWARMBRIDGE_ADVERTISE": OUTSIDE, "SWARMBRIDGE_PUBLIC_BIND": OUTSIDE}
    with behind_router(), tempfile.TemporaryDirectory() as work:
        nodes.a.overlays = (*plain, PUBLIC)
        nodes.a.settings.update(settings)
        try:
            nodes.a.up()
            chromium = Path(work) / "chromium"
            chromium.write_text('#!/bin/sh\nexec ip netns exec swb-home chromium "$@"\n')
            os.chmod(chromium, 0o755)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=str(chromium), args=list(FLAGS))
                page = browser.new_page()
                page.goto("about:blank")
                page.add_script_tag(path=str(PEERJS))
                found = page.evaluate(DIAL, [OUTSIDE, 9000, nodes.a.peerjs, OPEN_S * 1000])
                browser.close()
        finally:
            nodes.a.overlays = plain
            for name in settings:
                del nodes.a.settings[name]
            nodes.a.up()
    if found.get("error"):
        raise Failed(f"the page's channel did not open: {found['error']}")
    if found["address"] != OUTSIDE or not 50000 <= found["port"] <= 50031:
        raise Failed(f"it opened by another way: {found}")
    return f"open after {found['ms']:.0f} ms, to {found['address']}:{found['port']}"
