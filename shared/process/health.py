"""`python -m shared.process.health FILE|URL`: is this container's process well? Standard library only: it runs often.

Reads the pulse file that the process writes after each answer of its own (`shared.process.pulse`), or asks the URL
that is given (`rendezvous`, which has no bus). `degraded` is healthy: the process serves what it can, and the check
says what it cannot. Exit codes: 0 healthy, 1 not, 2 wrong usage.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from pathlib import Path

PULSE_INTERVAL_S = 2.0
MAX_PULSE_AGE_S = 10.0
"""Four pulses missed: longer than the bus needs to notice a frozen server and come back to it."""
URL_TIMEOUT_S = 2.0
UNWELL = frozenset({"initializing", "error"})


def judge(path: Path, now: float) -> tuple[bool, str]:
    """Whether the pulse in a file is that of a healthy process at the time `now` (seconds), and a line for people."""
    try:
        age_s = now - path.stat().st_mtime
        pulse = json.loads(path.read_text())
        state, reason, instance = pulse["state"], pulse["reason"], pulse["instance"]
    except (OSError, ValueError, KeyError, TypeError):
        return False, "no pulse: the process has not answered itself on the bus yet"
    line = f"{instance}: {state}{f' ({reason})' if reason else ''}"
    if age_s > MAX_PULSE_AGE_S:
        return False, f"{line}, but it has not answered on the bus for {age_s:.0f} s"
    return state not in UNWELL, line


def ask(url: str) -> tuple[bool, str]:
    """Whether an HTTP server answers with 200, and a line for people."""
    try:
        with urllib.request.urlopen(url, timeout=URL_TIMEOUT_S) as response:  # noqa: S310 - the operator's own URL
            return response.status == 200, response.read(4096).decode(errors="replace").strip()
    except OSError as error:
        return False, f"no answer: {type(error).__name__}"


def main(arguments: list[str]) -> int:
    """Returns: the exit code."""
    if len(arguments) != 1:
        print("give the pulse file, or a URL", file=sys.stderr)  # noqa: T201
        return 2
    source = arguments[0]
    well, line = ask(source) if source.startswith("http") else judge(Path(source), time.time())
    print(line)  # noqa: T201 - `docker inspect` and `docker ps` show it
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
