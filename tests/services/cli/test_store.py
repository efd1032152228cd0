"""`ls` and `rm`: what is asked of the gateway, and what is shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared import exit_codes
from shared.gateway_api.structs import FileView, RemovedView, UsageView
from tests.fakes.gateway import FakeGateway, then
from tests.services.cli.run_cli import run_cli

Capsys = pytest.CaptureFixture[str]
LIST, USAGE = "GET /api/files", "GET /api/usage"
FULL = UsageView(3 << 20, 1 << 20, 10 << 20, 3)


def _file(digest: str, **changes: Any) -> FileView:
    values: dict[str, Any] = {"file_id": "i", "name": "a.txt", "mime": "text/plain", "size": 1 << 20}
    values |= {"chunks_total": 1, "chunks_stored": 1, "content_class": "shared", "stored_at": 1}
    return FileView(manifest=digest, **{**values, "link": f"swarmbridge:{digest}", **changes})


A = _file("aa" * 32)
B = _file("ab" * 32, name="x\x1b" * 40)
C = _file("cd" * 32, name="", content_class="private", link="")


async def test_files_with_their_links_and_how_full_the_store_is(gateway: FakeGateway, capsys: Capsys) -> None:
    home = ("--home", str(gateway.home))
    half = msgspec.structs.replace(A, chunks_total=4, chunks_stored=1)
    gateway.answers = {LIST: then([half, B], [C], []), USAGE: FULL}
    shown = await run_cli(capsys, "ls", *home)
    assert shown.code == 0
    for words in ("aaaaaaaaaaaa", "25% of 1.0 MiB", "(private)", "3.0 MiB of 10.0 MiB used", "ls --links"):
        assert words in shown.out
    assert "\x1b" not in shown.out
    assert [query for key, query in gateway.asked if key == LIST] == [{}, {"offset": "2"}, {"offset": "3"}]
    gateway.answers[LIST] = then([A, C], [])
    assert (await run_cli(capsys, "ls", "--links", *home)).out == A.link + "\n"
    gateway.answers[LIST] = []
    assert "no file is stored" in (await run_cli(capsys, "ls", *home)).out
    assert (await run_cli(capsys, "ls", "--json", *home)).json == {"files": [], "usage": msgspec.to_builtins(FULL)}


@pytest.mark.parametrize("named", ["aa" * 32, "aaaaaa", "swarmbridge:" + "aa" * 32])
async def test_a_file_is_removed_by_link_digest_or_its_beginning(
    gateway: FakeGateway, capsys: Capsys, named: str
) -> None:
    home = ("--home", str(gateway.home))
    gone = RemovedView("aa" * 32, "a.txt", 1, 1 << 20)
    gateway.answers = {LIST: then([A, B], [], [A, B], []), f"DELETE /api/files/{'aa' * 32}": gone}
    shown = await run_cli(capsys, "rm", named, *home)
    assert (shown.code, shown.out) == (0, "")
    assert "a.txt is removed, 1.0 MiB are free" in shown.err
    gateway.answers[LIST] = then([A, B], [])
    assert (await run_cli(capsys, "rm", named, "--json", *home)).json == {"removed": [msgspec.to_builtins(gone)]}


async def test_what_names_no_file_or_several_removes_nothing(gateway: FakeGateway, capsys: Capsys) -> None:
    home = ("--home", str(gateway.home))
    for named, code in (("../x", exit_codes.USAGE), ("a" * 6, exit_codes.USAGE), ("b" * 6, exit_codes.FAILED)):
        gateway.answers = {LIST: then([A, msgspec.structs.replace(B, manifest="aa" * 31 + "ab")], [])}
        result = await run_cli(capsys, "rm", named, *home)
        assert result.code == code
        assert result.error_line()
    assert not [key for key, _ in gateway.asked if key.startswith("DELETE")]
