"""A torrent of zeros: its pieces are all alike, so that any size of it is made at once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from shared.wire.peerwire.bencode import BValue, encode_bencode

PIECE_BYTES = 2**20
NAME = "zeros"


def write_torrent(path: Path, size_bytes: int) -> None:
    """size_bytes: whole pieces."""
    pieces = hashlib.sha1(bytes(PIECE_BYTES), usedforsecurity=False).digest() * (size_bytes // PIECE_BYTES)
    info: dict[bytes, BValue] = {
        b"length": size_bytes,
        b"name": NAME.encode(),
        b"piece length": PIECE_BYTES,
        b"pieces": pieces,
    }
    path.write_bytes(encode_bencode({b"info": info}))


def write_zeros(folder: Path, size_bytes: int) -> None:
    """The torrent's file, sparse: it takes no room and is read from memory."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("wb") as file:
        os.truncate(file.fileno(), size_bytes)
