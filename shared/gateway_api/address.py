"""Where a node's gateway is, as its home says: `gateway.json` and `gateway.token`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from shared.undecodable import UNDECODABLE

ADDRESS_FILE = "gateway.json"
TOKEN_FILE = "gateway.token"  # noqa: S105 - a file's name


class Address(msgspec.Struct, frozen=True):
    """What a process that listens leaves in its home, see shared.process.address_file.

    pid: its process, 0 unknown. proof: the key with which it proves that it is the one (proof.py); "" for none.
    token_file: where the operator's token is; "" in the home, as it is where that path leads nowhere (a container's).
    """

    url: str
    pid: int = 0
    proof: str = ""
    token_file: str = ""

    def token_path(self, home: Path) -> Path:
        """Where the token is, as far as this machine's paths go."""
        elsewhere = Path(self.token_file) if self.token_file else None
        return elsewhere if elsewhere is not None and elsewhere.exists() else home / TOKEN_FILE


def read_address(home: Path, file_name: str = ADDRESS_FILE) -> Address | None:
    """None where no process has said where it is."""
    try:
        return msgspec.json.decode((home / file_name).read_bytes(), type=Address)
    except (OSError, *UNDECODABLE):
        return None


def read_token(home: Path, token_file: Path | None = None) -> str:
    """The operator's token, "" where it cannot be read."""
    try:
        return (token_file or home / TOKEN_FILE).read_text().strip()
    except (OSError, UnicodeError):
        return ""
