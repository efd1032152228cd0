"""What each module of the project imports, read from its syntax: nothing is executed."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("shared", "services")


@dataclass(frozen=True)
class Module:
    """name: dotted. imports: dotted names of everything imported, anywhere in the file."""

    name: str
    path: Path
    imports: frozenset[str]
    tree: ast.Module


def modules() -> list[Module]:
    return [_read(path) for source in SOURCES for path in sorted((ROOT / source).rglob("*.py"))]


def _read(path: Path) -> Module:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    tree = ast.parse(path.read_text(), str(path))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return Module(name, path, frozenset(found), tree)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")
