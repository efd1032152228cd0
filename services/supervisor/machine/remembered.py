"""What `up` remembers in a home from one run to the next: whom it was asked to trust, and the gateway's port."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from services.supervisor.machine.errors import CannotStart
from shared.bus.nats.users import write_private
from shared.undecodable import UNDECODABLE

FILE_NAME = "remembered.json"


class Remembered(msgspec.Struct, frozen=True, rename="camel"):
    """members: peer tokens given with --member. gateway_port: where the page was; 0 = nowhere yet."""

    members: list[str] = []
    gateway_port: int = 0

    def with_members(self, new: Sequence[str], forgotten: Sequence[str]) -> Remembered:
        """Old ones first, each once, none of those that are forgotten."""
        kept = [token for token in dict.fromkeys([*self.members, *new]) if token not in forgotten]
        return msgspec.structs.replace(self, members=kept)


def recall(home: Path) -> Remembered:
    """Raises: CannotStart where it cannot be read: whom to trust is never guessed."""
    path = home / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Remembered)
    except FileNotFoundError:
        return Remembered()
    except OSError as error:
        raise CannotStart(f"cannot read {path}: {error.strerror}") from None
    except UNDECODABLE:
        raise CannotStart(f"{path} cannot be read as what `up` wrote; correct it, or remove it to forget it") from None


def remember(home: Path, what: Remembered) -> None:
    """Raises: CannotStart."""
    path = home / FILE_NAME
    try:
        draft = home / f".{FILE_NAME}"
        write_private(draft, msgspec.json.format(msgspec.json.encode(what)) + b"\n")
        draft.replace(path)
    except OSError as error:
        raise CannotStart(f"cannot write {path}: {error.strerror}") from None
