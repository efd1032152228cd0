"""The page's rules: one origin, no inline script or style, no HTML from data."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from tests.services.gateway.node import GatewayNode

STATIC = resources.files("services.gateway").joinpath("static")
FILES = {entry.name: entry.read_text() for entry in STATIC.iterdir()}
SVG_NAMESPACE = "http://www.w3.org/2000/svg"


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_outside_resource(name: str) -> None:
    assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", FILES[name].replace(SVG_NAMESPACE, ""))


@pytest.mark.parametrize("name", [name for name in sorted(FILES) if name.endswith(".js")])
def test_no_html_from_strings(name: str) -> None:
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
    ):
        assert word not in FILES[name]


@pytest.mark.parametrize("name", ["index.html", "try.html"])
def test_nothing_inline(name: str) -> None:
    page = FILES[name]
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=", page)


async def test_every_file_is_served_with_its_type_and_the_policy(node: GatewayNode) -> None:
    for name, text in FILES.items():
        path = {"index.html": "/", "try.html": "/try"}.get(name, f"/static/{name}")
        async with node.session.get(node.url + path) as response:
            assert (response.status, await response.text()) == (200, text)
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            tag = response.headers["ETag"]
        async with node.session.get(node.url + path, headers={"If-None-Match": tag}) as response:
            assert response.status == 304


async def test_no_path_leads_out_of_the_folder(node: GatewayNode) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/", "/app.py"):
        async with node.session.get(node.url + path) as response:
            assert response.status in (403, 404)


@pytest.mark.parametrize("name", [name for name in sorted(FILES) if name.endswith(".js")])
def test_what_a_script_needs_is_there(name: str) -> None:
    """The modules that it imports, what it imports of them, and the elements that it looks for."""
    for names, module in re.findall(r'import \{([^}]*)\} from "\./([^"]+)"', FILES[name]):
        for imported in names.replace(" ", "").split(","):
            assert re.search(rf"export (async )?(function|const|class) {imported}\b", FILES[module]), imported
    for element in re.findall(r'byId\("([^"]+)"\)', FILES[name]):
        page = "try.html" if name == "try.js" else "index.html"
        assert f'id="{element}"' in FILES[page], element
