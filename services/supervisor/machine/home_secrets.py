"""What a home keeps secret, made at the first start and never overwritten: the identity and the operator's token."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from services.supervisor.machine.errors import CannotStart
from shared.bus.nats.users import private_directory, write_private
from shared.content.keys import identity_seed, public_key
from shared.ids import PeerToken, member_token
from shared.process.root_key import load_or_create_root
from shared.settings.config import Config

TOKEN_BYTES = 32
TOKEN_FILE = "gateway.token"  # noqa: S105 - a file's name


def ensure_identity(home: Path) -> PeerToken:
    """Make the node's root key where it has none. Returns: the peer token by which others know it.

    Raises: ConfigError: the key cannot be used, made or read.
    """
    private_directory(home)
    return member_token(public_key(identity_seed(load_or_create_root(home))))


def ensure_token(config: Config, home: Path) -> Path:
    """The operator's token: the configured file, else one in the home, made where there is none.

    Raises: CannotStart: the configured file cannot be read, or holds more or less than one word.
    """
    if config.gateway.token_file:
        path = Path(config.gateway.token_file)
        read_token(path)
        return path
    path = home / TOKEN_FILE
    if not path.exists() or not os.path.getsize(path):
        private_directory(home)
        write_private(path, secrets.token_urlsafe(TOKEN_BYTES).encode())
    read_token(path)
    return path


def read_token(path: Path) -> str:
    """The operator's token, which goes into an HTTP header as it is. Raises: CannotStart naming the file."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise CannotStart(f"gateway.token_file: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise CannotStart(f"gateway.token_file: {path} must hold one word of printable ASCII, on one line")
    return token
