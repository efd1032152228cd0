"""What a run may leave behind: nothing. Looks at /proc and at directories that only the run could write to."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

DEADLINE_S = 8.0


def environment(base: Path) -> dict[str, str]:
    """An environment in which everything temporary and every home is below `base`."""
    for name in ("tmp", "home"):
        (base / name).mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SWARMBRIDGE_", "XDG_"))}
    return {**kept, "TMPDIR": str(base / "tmp"), "HOME": str(base / "home"), "PYTHONDONTWRITEBYTECODE": "1"}


def processes_of(base: Path) -> list[int]:
    """Living processes that were started with `environment(base)`, directly or by inheritance."""
    mark = f"TMPDIR={base / 'tmp'}".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (directory / "environ").read_bytes().split(b"\0"):
                found.append(int(directory.name))
        except OSError:
            continue  # gone, or somebody else's
    return found


def files_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def assert_nothing_left(base: Path) -> None:
    """Every process is gone, at once or in the moments that the kernel needs, and so is every temporary file."""
    give_up_s = time.monotonic() + DEADLINE_S
    while processes_of(base) and time.monotonic() < give_up_s:
        time.sleep(0.05)
    left = processes_of(base)
    for pid in left:  # ours: they carry this test's own directory
        os.kill(pid, signal.SIGKILL)
    assert not left, f"{len(left)} processes were left"
    assert files_in(base / "tmp") == []
    assert files_in(base / "home") == []
