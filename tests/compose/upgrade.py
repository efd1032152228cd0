"""A new version, another place, and the commands that people type: nothing that a node holds is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.compose.moves import Nodes, Part
from tests.compose.project import ROOT, Failed, Project, Skipped, run, until

FROM = "SWARMBRIDGE_UPGRADE_FROM"
"""A revision to come from, where it shall not be the last tag."""
NAME = "swarmbridge-test-c"
TAG = "before"
UPGRADE_S = 400.0


def upgrade_parts(nodes: Nodes) -> list[Part]:
    return [
        Part("make", "restart and logs work, and say where things are", 180, lambda: _make(nodes)),
        Part("backup", "a node restored elsewhere is the same, with every file", 300, lambda: _backup(nodes)),
        Part(
            "upgrade",
            "the last tag's node becomes this version's, files moving meanwhile",
            900,
            lambda: _upgrade(nodes),
        ),
    ]


def made(node: Project, target: str, *arguments: str) -> str:
    """`make TARGET` for that project, as its operator would type it."""
    return run(
        *("make", "--silent", target, f"COMPOSE={' '.join(node.command)}", *arguments),
        env=node.environment,
        timeout_s=180.0,
        both=True,
    )


def _make(nodes: Nodes) -> str:
    said = made(nodes.a, "restart", "service=webrtc")
    for word in ("page:", "metrics:", "jaeger:"):
        if word not in said:
            raise Failed(f"`make restart` does not say {word} {said[-300:]}")
    if "gateway" not in made(nodes.a, "logs", "service=gateway"):
        raise Failed("`make logs` says nothing")
    made(nodes.a, "stop", "service=webrtc")
    if nodes.a.containers("webrtc"):
        raise Failed("`make stop service=webrtc` left it running")
    nodes.a.up()
    nodes.moved()
    return "each did its work; a file moved afterwards"


def _backup(nodes: Nodes) -> str:
    link, digest = nodes.file()
    peer, files = nodes.a.peer, len(nodes.a.api("files"))
    with tempfile.TemporaryDirectory() as work:
        archive = Path(work) / "node.tar"
        started_s = time.monotonic()
        made(nodes.a, "backup", f"FILE={archive}")
        took_s = time.monotonic() - started_s
        if archive.stat().st_mode & 0o077:
            raise Failed("others may read the backup")
        try:
            made(nodes.a, "restore", f"FILE={archive}")
        except Failed as error:
            refused = "already" in str(error)
        else:
            refused = False
        if not refused:
            raise Failed("a restore over a living node was not refused")
        nodes.a.down(volumes=True)
        made(nodes.a, "restore", f"FILE={archive}")
        size_mib = archive.stat().st_size >> 20
    nodes.a.up()
    if (nodes.a.peer, len(nodes.a.api("files"))) != (peer, files):
        raise Failed("another node came back")
    if nodes.a.sha256(link) != digest:
        raise Failed("the file has changed")
    nodes.moved()
    return f"{size_mib} MiB in {took_s:.1f} s with the pause; same peer, {files} files, a new one moved"


def _upgrade(nodes: Nodes) -> str:
    revision = os.environ.get(FROM) or run("git", "describe", "--tags", "--abbrev=0", either=True).strip()
    if not revision:
        raise Skipped("no tag yet: there is nothing to come from")
    with _old_tree(revision) as tree, _third(nodes, tree) as (old, new):
        old.compose("build", timeout_s=600.0)
        old.up()
        old.settings["SWARMBRIDGE_TRUST_MEMBERS"] = new.settings["SWARMBRIDGE_TRUST_MEMBERS"] = nodes.a.peer
        peer = old.peer
        trusted = nodes.a.settings["SWARMBRIDGE_TRUST_MEMBERS"]
        nodes.a.settings["SWARMBRIDGE_TRUST_MEMBERS"] = f"{trusted},{peer}"
        try:
            nodes.a.up()
            old.up()
            trio = Nodes(nodes.a, old)
            link, digest = trio.file()
            old.finished(old.fetch(link), 60.0)
            moved = _replaced(Nodes(nodes.a, new), new)
            new.up()
            if new.peer != peer or new.sha256(link) != digest:
                raise Failed("the peer id or a file changed")
            Nodes(nodes.a, new).moved()
        finally:
            nodes.a.settings["SWARMBRIDGE_TRUST_MEMBERS"] = trusted
            nodes.a.up()
    return f"from {revision}: {moved} files moved while services of both versions were beside each other"


def _replaced(nodes: Nodes, node: Project) -> int:
    """Replace the node's services by ours, moving files all the while. Returns: how many."""
    command = " ".join(node.command)
    moved = 0
    with subprocess.Popen(
        ["ops/compose/upgrade.sh"], cwd=ROOT, env={**node.environment, "COMPOSE": command}, stderr=subprocess.PIPE
    ) as replacing:
        give_up_s = time.monotonic() + UPGRADE_S
        while replacing.poll() is None:
            if time.monotonic() > give_up_s:
                replacing.kill()
                raise Failed("the upgrade did not end")
            # The gateway itself is replaced too: what it cannot answer is asked again.
            try:
                nodes.moved()
                moved += 1
            except (Failed, OSError) as error:
                last = str(error)
                until(lambda: nodes.b.healthy("gateway"), UPGRADE_S, f"the gateway ({last[:100]})")
        if replacing.returncode:
            said = replacing.stderr.read().decode(errors="replace") if replacing.stderr else ""
            raise Failed(f"the upgrade ended with {replacing.returncode}: {said[-400:]}")
    if not moved:
        raise Failed("no file moved meanwhile")
    return moved


@contextmanager
def _old_tree(revision: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work)
        os.chmod(tree, 0o755)
        packed = tree / "tree.tar"
        run("git", "archive", "--output", str(packed), revision)
        shutil.unpack_archive(packed, tree)
        yield tree


@contextmanager
def _third(nodes: Nodes, tree: Path) -> Iterator[tuple[Project, Project]]:
    """A third node as the old tree has it, and the same as this one has it."""
    settings = {**nodes.b.settings, "SWARMBRIDGE_NODE_ID": "c", "SWARMBRIDGE_TRUST_MEMBERS": ""}
    old = Project(NAME, {**settings, "SWARMBRIDGE_TAG": TAG}, nodes.b.overlays, root=tree)
    new = replace(old, settings=settings, root=ROOT, scales={})
    try:
        yield old, new
    finally:
        new.down(volumes=True)
