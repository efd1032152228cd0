"""The form of what a node keeps in its home, as a number in a file: a version that does not know it touches nothing.

The number changes when an older version could no longer read, or would spoil, what a newer one wrote; a new file or
field that older ones ignore does not change it. Beside it: `shared.bus.nats.layout.LAYOUT_SCHEMA`, of what NATS holds.
"""

from __future__ import annotations

import os
from pathlib import Path

from shared.errors import ConfigError

HOME_SCHEMA = 1
"""1: root.key, store/, gateway.token, bus/ as version 0.1.0 writes them."""

SCHEMA_FILE = "schema"


def ensure_home_schema(home: Path) -> None:
    """Say this version's number in a home that has none; several processes may do so at once.

    Raises: ConfigError: the home is of a newer version, or its number cannot be read or written.
    """
    path = home / SCHEMA_FILE
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            text = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            draft = home / f".{SCHEMA_FILE}.{os.getpid()}"
            draft.touch(mode=0o600)
            draft.write_text(f"{HOME_SCHEMA}\n", encoding="ascii")
            draft.replace(path)
            return
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no number"
        raise ConfigError([f"{path}: {reason}"]) from error
    if not text.isdigit():
        raise ConfigError([f"{path}: holds no number; restore it from a backup"])
    if int(text) > HOME_SCHEMA:
        raise ConfigError(
            [
                f"{home} was written by a newer version: its schema is {text}, this one knows {HOME_SCHEMA}; "
                "run that version, or restore a backup made by this one"
            ]
        )
