"""A name under which a stranger's file may be saved: one rule for the CLI, the page and the gateway."""

from __future__ import annotations

from shared.text import shows_something, without_unsafe

MAX_NAME_BYTES = 255
"""NAME_MAX of Linux's and macOS's file systems."""
MAX_SUFFIX_BYTES = 16
"""Of a name that is cut: what is longer is no suffix."""


def safe_file_name(name: str, digest: str) -> str:
    """The name that the file's owner gave it, unless that would lead elsewhere, hide it, or look like an option.

    Args:     name: whatever the manifest says, "" for private content. digest: of the manifest, in hex.
    Returns:  1 to MAX_NAME_BYTES bytes of UTF-8, without slashes, control characters and direction overrides, and
              without a dot, a dash or a space at its start; made from the digest where nothing is left.
    """
    last = without_unsafe(name.replace("\\", "/").rpartition("/")[2]).strip().lstrip(".- ")
    return _cut(last) if shows_something(last) else f"{digest[:16]}.bin"


def _cut(name: str) -> str:
    """The beginning of a name that is too long, with its suffix, so that it still opens with the right program."""
    raw = name.encode()
    if len(raw) <= MAX_NAME_BYTES:
        return name
    stem, dot, suffix = name.rpartition(".")
    tail = (dot + suffix).encode() if stem and len(suffix.encode()) <= MAX_SUFFIX_BYTES else b""
    # A cut may fall within a character, whose rest is then dropped.
    return raw[: MAX_NAME_BYTES - len(tail)].decode(errors="ignore") + tail.decode()
