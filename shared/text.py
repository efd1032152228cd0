"""Text that people wrote and people will see: file names, notes, ids.

`str.isprintable` is no measure of what is safe: it refuses the narrow no-break space of every macOS screenshot,
the non-joiner that Persian needs and the joiner that holds an emoji together. What is refused here is what can
hide or rearrange the rest, or break a line: nothing else.
"""

from __future__ import annotations

import re
import unicodedata

_CONTROL = r"\x00-\x1f\x7f-\x9f"
_BREAKS_A_LINE = "\u2028\u2029"
_OVERRIDES_DIRECTION = "\u202a-\u202e\u2066-\u2069"
"""Embeddings, overrides and isolates (UAX 9): they make `exe.txt` look like `txt.exe`. Marks (U+200E, U+200F, U+061C)
only settle the place of what is neutral, and stay."""
_HALF_A_CHARACTER = "\ud800-\udfff"
"""A surrogate: in Python also a byte that was no UTF-8 (PEP 383). It cannot be written as UTF-8."""
_UNSAFE = re.compile(f"[{_CONTROL}{_BREAKS_A_LINE}{_OVERRIDES_DIRECTION}{_HALF_A_CHARACTER}]")
_HIDDEN = frozenset({"Cf", "Mn", "Me", "Zs"})
"""Categories that show nothing of their own."""


def is_safe_text(text: str) -> bool:
    """No control characters, line separators, direction overrides or halves of characters. "" is safe."""
    return _UNSAFE.search(text) is None


def without_unsafe(text: str, instead: str = "") -> str:
    """The text with each unsafe character replaced."""
    return _UNSAFE.sub(instead, text)


def shows_something(text: str) -> bool:
    """Whether a person would see anything: not "", and not only spaces and joiners."""
    return any(unicodedata.category(char) not in _HIDDEN for char in text)
