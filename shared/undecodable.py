"""What msgspec raises for bytes that are not what was expected, in one tuple for `except`."""

from __future__ import annotations

import msgspec

UNDECODABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""DecodeError alone is not enough: a string that is not UTF-8 and a nesting too deep have Python's own errors."""
