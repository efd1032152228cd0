"""What each module of the project imports, read from its syntax: nothing is executed."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("shared", "services")
AROUND = ("ops", "tests")


@dataclass(frozen=True)
class Module:
    """name: dotted. imports: dotted names of everything imported, anywhere in the file."""

    name: str
    path: Path
    imports: frozenset[str]
    tree: ast.Module


def modules() -> list[Module]:
    return [_read(path) for source in SOURCES for path in sorted((ROOT / source).rglob("*.py"))]


def every_file() -> list[Module]:
    """`modules`, and what is built and tested around them."""
    return [_read(path) for source in (*SOURCES, *AROUND) for path in sorted((ROOT / source).rglob("*.py"))]


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


def room(name: str, names: set[str]) -> str:
    """The folder that a module stands in; a package's own `__init__` stands in itself. Files of `shared` are rooms."""
    if any(other.startswith(name + ".") for other in names):
        return name
    parent = name.rpartition(".")[0]
    return name if parent == "shared" else parent


def arrows(found: list[Module]) -> dict[str, set[str]]:
    """Room -> the rooms that it imports from."""
    names = {module.name for module in found}
    drawn: dict[str, set[str]] = {}
    for module in found:
        for name in module.imports:
            target = name if name in names else name.rpartition(".")[0]
            if target in names and room(target, names) != room(module.name, names):
                drawn.setdefault(room(module.name, names), set()).add(room(target, names))
    return drawn


def circles(drawn: dict[str, set[str]]) -> list[list[str]]:
    """Rooms that reach each other, each circle sorted; [] where every arrow points down."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            for target in drawn.get(ahead.pop(), set()) - seen:
                seen.add(target)
                ahead.append(target)
        return seen

    reach = {name: reached(name) for name in drawn}
    found = {
        tuple(sorted({name} | {other for other in reach[name] if name in reach.get(other, set())}))
        for name in drawn
        if name in reach[name]
    }
    return [list(circle) for circle in sorted(found)]
