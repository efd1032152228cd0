"""`<home>/<service>.json`: where a service listens, for whoever started it with port 0, and for the CLI.

Others obey it, a token is sent where it says: it is 0600 from its first byte on, whatever the umask.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path

ADDRESS_FILE = "rendezvous.json"

log = logging.getLogger(__name__)


def write_address(
    home: Path, url: str, name: str = ADDRESS_FILE, proof_key: str = "", token_file: Path | None = None
) -> None:
    """Write `{"url", "pid"}`, whole or not at all, readable by its owner alone.

    proof_key, token_file: written too where there are some, see shared.gateway_api.
    A file of that name that is none of ours (a rendezvous document, say) is left as it is.

    Raises: OSError: the home cannot be written to.
    """
    path = home / name
    home.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=f".{name}.", dir=home)  # 0600, whatever the umask
    try:
        with os.fdopen(descriptor, "w") as file:
            more = {"proof": proof_key} if proof_key else {}
            more |= {"token_file": str(token_file.absolute())} if token_file is not None else {}
            json.dump({"url": url, "pid": os.getpid(), **more}, file)
        _take(Path(draft), path)
    finally:
        Path(draft).unlink(missing_ok=True)


def _take(draft: Path, path: Path) -> None:
    """Give the draft its name, in one step: what is there may have come since anybody looked."""
    try:
        os.link(draft, path)
    except OSError:  # it is there, or the file system has no links
        if os.path.lexists(path) and _pid(path) is None:
            log.warning("%s is there and no address file; it is left as it is", path.name)
        else:
            draft.replace(path)


def remove_address(home: Path, name: str = ADDRESS_FILE) -> None:
    """Remove the file if it is still ours: another process may have written its own since."""
    path = home / name
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
