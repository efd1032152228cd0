"""Where bytes are kept: in files, in memory that is a file (memfd, /dev/shm), in files that have no name any more."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

MARKER_BYTES = 32
WINDOW_BYTES = 8 * 2**20
SHARED_MEMORY = Path("/dev/shm")
MAPPING = re.compile(
    r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) r\S+ \S+ \S+ \d+ +(?P<name>/memfd:.*|/dev/shm/.*|/SYSV.*|.* \(deleted\))"
)
"""A readable line of /proc/PID/maps whose memory is a file that no folder need have. Source: proc_pid_maps(5)."""


def forms_of(marker: bytes) -> list[bytes]:
    """How 64 bytes of a marker of 32, repeated without end, would look: as they are, or in some form of text.

    In base64 a group of three bytes begins at one of the marker's first three within 33 bytes, wherever the first does.
    """
    assert len(marker) == MARKER_BYTES
    letters = marker.decode("latin-1")
    base64s = [base64.b64encode((marker * 2)[phase : phase + MARKER_BYTES - 2]) for phase in range(3)]
    urlsafe = [text.translate(bytes.maketrans(b"+/", b"-_")) for text in base64s]
    escaped = [json.dumps(letters)[1:-1].encode(), repr(marker)[2:-1].encode(), letters.encode()]
    hexes = [marker.hex().encode(), marker.hex().upper().encode()]
    return list(dict.fromkeys([marker, *hexes, *base64s, *urlsafe, *escaped]))


def files_with(folders: Iterable[Path], needles: Sequence[bytes]) -> list[Path]:
    """Files that hold one of the needles, wherever below the folders."""
    return [path for path in _files(folders) if _file_has(path, needles)]


def memory_with(pids: Iterable[int], needles: Sequence[bytes]) -> list[str]:
    """Open files without a name, and mapped ones, that hold one of the needles: `PID what`."""
    found = []
    for pid in pids:
        links = _entries(Path(f"/proc/{pid}/fd"))
        found += [f"{pid} {_name(link)}" for link in links if _file_has(link, needles)]
        found += [f"{pid} {name}" for name in _mappings_with(pid, needles)]
    return found


def size_bytes(folders: Iterable[Path], pids: Iterable[int], without: Iterable[Path]) -> int:
    """What files below the folders have in all, with those that the processes have open and no folder has."""
    left_out = tuple(without)
    total = sum(_size(path) for path in _files(folders) if not any(path.is_relative_to(folder) for folder in left_out))
    unnamed = {}
    for pid in pids:
        for link in _entries(Path(f"/proc/{pid}/fd")):
            if _name(link).endswith(" (deleted)") and (status := _regular(link)) is not None:
                unnamed[status.st_dev, status.st_ino] = status.st_size
    return total + sum(unnamed.values())


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for root, _, names in os.walk(folder):
            yield from (path for name in names if not (path := Path(root, name)).is_symlink())


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # its process has ended


def _name(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def _regular(path: Path) -> os.stat_result | None:
    """Of a regular file, which a device, a pipe or a socket is not; None also where it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _size(path: Path) -> int:
    status = _regular(path)
    return status.st_size if status is not None else 0


def _file_has(path: Path, needles: Sequence[bytes]) -> bool:
    if _regular(path) is None:
        return False
    try:
        with path.open("rb") as file:
            return _has(file, needles)
    except (FileNotFoundError, PermissionError):
        return False  # removed meanwhile, or another user's


def _mappings_with(pid: int, needles: Sequence[bytes]) -> list[str]:
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            return [
                mapping["name"]
                for mapping in map(MAPPING.fullmatch, lines)
                if mapping and _range_has(memory.fileno(), int(mapping["start"], 16), int(mapping["end"], 16), needles)
            ]
    except FileNotFoundError:
        return []  # it has ended


def _range_has(descriptor: int, start: int, end: int, needles: Sequence[bytes]) -> bool:
    overlap = max(map(len, needles)) - 1
    while start < end:
        try:
            data = os.pread(descriptor, min(WINDOW_BYTES, end - start), start)
        except OSError:
            return False  # unmapped meanwhile, or beyond its file's end
        if not data:
            return False
        if any(needle in data for needle in needles):
            return True
        start += max(1, len(data) - overlap) if start + len(data) < end else len(data)
    return False


def _has(file: BinaryIO, needles: Sequence[bytes]) -> bool:
    overlap = max(map(len, needles)) - 1
    before = b""
    while data := file.read(WINDOW_BYTES):
        window = before + data
        if any(needle in window for needle in needles):
            return True
        before = window[-overlap:]
    return False
