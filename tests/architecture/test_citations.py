"""What code cites can be read: every page and heading that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

from tests.architecture.imports import ROOT

DOCS = ROOT / "ops" / "docs"
CITATION = re.compile(r"(?<![\w/])docs/((?:machines/)?[a-z-]+\.md)(?:#([a-z0-9-]+))?")
LINK = re.compile(r"\]\(([^)\s]+)\)")
GONE = re.compile(r"\b(?:DESIGN|FACTS|TRUST|STYLE)\b(?: \d|,|\)|'s|:)")
"""Documents that no reader of the repository has."""


def _files() -> list[Path]:
    own = Path(__file__)
    found = [path for top in ("shared", "services", "tests", "ops") for path in (ROOT / top).rglob("*")]
    found += ROOT.glob("*.md")
    kept = (path for path in found if path.suffix in {".py", ".md", ".js"} and "node_modules" not in path.parts)
    return [path for path in kept if path != own]


def _headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_citation_leads_somewhere() -> None:
    dangling = [
        f"{path.relative_to(ROOT)}: docs/{page}#{heading}"
        for path in _files()
        for page, heading in CITATION.findall(path.read_text())
        if not (DOCS / page).exists() or (heading and heading not in _headings(DOCS / page))
    ]
    assert not dangling


def test_every_link_between_pages_leads_somewhere() -> None:
    dangling = []
    for path in (path for path in _files() if path.suffix == ".md"):
        for target in LINK.findall(path.read_text()):
            place, _, heading = target.partition("#")
            if "://" in target or (not place and not heading):
                continue
            page = (path.parent / place) if place else path
            if not page.exists() or (heading and page.suffix == ".md" and heading not in _headings(page)):
                dangling.append(f"{path.relative_to(ROOT)}: {target}")
    assert not dangling


def test_nothing_cites_what_readers_do_not_have() -> None:
    strays = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if GONE.search(line)
    ]
    assert not strays
