"""`<home>/rendezvous.json`: where we listen, for whoever started us with port 0."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path

ADDRESS_FILE = "rendezvous.json"

log = logging.getLogger(__name__)


def write_address(home: Path, url: str) -> None:
    """Write `{"url", "pid"}`, whole or not at all, readable by its owner alone.

    A file of that name that is none of ours (a rendezvous document, say) is left as it is.

    Raises: OSError: the home cannot be written to.
    """
    path = home / ADDRESS_FILE
    if path.exists() and _pid(path) is None:
        log.warning("%s is there and no address file; it is left as it is", ADDRESS_FILE)
        return
    home.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=f".{ADDRESS_FILE}.", dir=home)  # 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({"url": url, "pid": os.getpid()}, file)
        Path(draft).replace(path)
    except OSError:
        Path(draft).unlink(missing_ok=True)
        raise


def remove_address(home: Path) -> None:
    """Remove the file if it is still ours."""
    path = home / ADDRESS_FILE
    with suppress(OSError):
        if _pid(path) == os.getpid():
            path.unlink()


def _pid(path: Path) -> int | None:
    """The process that an address file names; None where it is none."""
    try:
        tree = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    pid = tree.get("pid") if isinstance(tree, dict) else None
    return pid if isinstance(pid, int) else None
