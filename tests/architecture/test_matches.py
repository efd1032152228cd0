"""Every `match` over a union or an enum of ours names all its members, so that a new one cannot be forgotten.

`assert_never` in the last case makes mypy say which member is missing. A bare `case _:` would swallow the new one.
"""

from __future__ import annotations

import ast
import builtins
import types
from collections.abc import Iterator

from tests.architecture.imports import every_file

OPEN = {
    "services.cli.failures.failure_of": "any exception may end a command; the last case is the one nobody foresaw",
    "services.cli.failures._of_gateway": "a hierarchy of errors: what has no exit code of its own has FAILED",
}
"""A function -> why its match is over an open set."""

_NOT_OURS = {*dir(builtins), *dir(types)}


def test_a_match_over_our_own_union_or_enum_ends_in_assert_never() -> None:
    assert not [place for place, match in _own_matches() if place not in OPEN and not _ends_in_assert_never(match)]


def test_every_exemption_is_still_needed() -> None:
    assert OPEN.keys() <= {place for place, match in _own_matches() if not _ends_in_assert_never(match)}


def _own_matches() -> Iterator[tuple[str, ast.Match]]:
    for module in every_file():
        for function in ast.walk(module.tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Match) and any(_names_ours(case.pattern) for case in node.cases):
                        yield f"{module.name}.{function.name}", node


def _names_ours(pattern: ast.pattern) -> bool:
    """Whether a class that is no builtin, or a member of an enum (a dotted value), stands in the pattern."""
    return any(
        (isinstance(node, ast.MatchClass) and ast.unparse(node.cls) not in _NOT_OURS)
        or (isinstance(node, ast.MatchValue) and isinstance(node.value, ast.Attribute))
        for node in ast.walk(pattern)
    )


def _ends_in_assert_never(match: ast.Match) -> bool:
    last = match.cases[-1]
    is_wildcard = isinstance(last.pattern, ast.MatchAs) and last.pattern.name is None and last.guard is None
    return is_wildcard and ast.unparse(last.body[0]) == f"assert_never({ast.unparse(match.subject)})"
