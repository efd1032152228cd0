"""Puts, fetches and downloads, from HTTP to a fake chunk service and back."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from services.gateway.transfers import limits
from shared.content.names import safe_file_name
from shared.errors import Cause
from tests.fakes.waiting import until
from tests.services.gateway.fake_chunk import CHUNK_BYTES, IDENTITY, PRIVATE_KEY
from tests.services.gateway.node import GatewayNode, gateway_node

DATA = os.urandom(2 * CHUNK_BYTES + 12345)


def _open_spools() -> int:
    """Descriptors of this process that lead into a spool, named or not."""
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return sum("/spool/" in os.readlink(link) for link in links if link.is_symlink())


async def _put(node: GatewayNode, data: bytes = DATA, **query: str) -> str:
    started = await node.post("/api/files", 202, data=data, params=query)
    return str(started["transfer"])


async def test_a_file_goes_in_and_comes_out(node: GatewayNode) -> None:
    done = await node.ended(await _put(node, name="../dir/Überblick.txt", mime="text/plain"))
    assert (done["state"], done["kind"], done["name"]) == ("done", "put", "Überblick.txt")
    assert done["link"].startswith("swarmbridge:" + done["manifest"])
    [put] = [put for put, _ in node.chunk.files.values()]
    assert (put.name, put.mime, put.content_class) == ("Überblick.txt", "text/plain", "shared")

    [listed] = await node.get("/api/files")
    assert (listed["manifest"], listed["size"], listed["chunksStored"]) == (done["manifest"], len(DATA), 3)
    async with node.session.get(f"{node.url}/api/files/{done['manifest']}/content") as response:
        assert await response.read() == DATA
        assert response.content_length == len(DATA)
        headers = response.headers
        assert headers["Content-Disposition"].startswith("attachment;")
        assert "filename*=UTF-8''%C3%9Cberblick.txt" in headers["Content-Disposition"]
        assert headers["Content-Security-Policy"] == "sandbox"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Type"] == "application/octet-stream"
    await until(lambda: node.chunk.bodies.count == 0)


async def test_an_empty_file_and_an_unsized_stream(node: GatewayNode) -> None:
    assert (await node.ended(await _put(node, b"", name="empty")))["state"] == "done"

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(DATA), 100_000):
            yield DATA[start : start + 100_000]

    started = await node.post("/api/files", 202, data=parts(), params={"name": "stream"})
    done = await node.ended(started["transfer"])
    assert node.chunk.files[done["manifest"]][1] == DATA


async def test_nothing_of_an_upload_stays_behind(node: GatewayNode) -> None:
    node.chunk.hold_calls = True
    transfer_id = await _put(node)
    await until(lambda: _open_spools() == 1)
    assert list((node.home / "spool").iterdir()) == []  # it has no name while it is in use

    cancelled = await node.ask("DELETE", f"/api/transfers/{transfer_id}")
    assert (cancelled["state"], cancelled["cause"]) == ("failed", "closed")
    assert _open_spools() == 0
    again = await node.ask("DELETE", f"/api/transfers/{transfer_id}", 409)
    assert again["error"]["code"] == "refused"
    await node.ask("DELETE", "/api/transfers/00", 404)


async def test_a_cancel_reaches_the_chunk_service(node: GatewayNode) -> None:
    node.chunk.hold_calls = True
    transfer_id = await _put(node)
    call_id = bytes.fromhex(transfer_id)
    # The first ping is what tells the gateway which instance works for it.
    await until(lambda: node.chunk.pinged)
    await node.ask("DELETE", f"/api/transfers/{transfer_id}")
    assert node.chunk.cancelled == [call_id]


async def test_a_failed_put_says_why_and_gives_its_space_back(node: GatewayNode) -> None:
    node.chunk.fail_with = Cause.TOO_LARGE
    failed = await node.ended(await _put(node))
    assert (failed["state"], failed["cause"]) == ("failed", "too_large")
    await until(lambda: _open_spools() == 0)


async def test_an_upload_that_is_too_large_or_broken_off_leaves_nothing(tmp_path: Path) -> None:
    async with gateway_node(tmp_path, max_upload_bytes=100_000) as node:
        assert (await node.post("/api/files", 413, data=b"x" * 100_001))["error"]["code"] == "too_large"

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 50_000

        with pytest.raises((aiohttp.ClientError, AssertionError)):
            await node.post("/api/files", 202, data=endless())

        async def broken() -> AsyncIterator[bytes]:
            yield b"x" * 1000
            raise RuntimeError("the caller goes away")

        with pytest.raises((aiohttp.ClientError, RuntimeError)):
            await node.post("/api/files", 202, data=broken())
        await until(lambda: _open_spools() == 0)
        assert await node.get("/api/transfers") == []


@pytest.mark.parametrize(
    "query",
    [
        {"class": "secret"},
        {"mime": "text"},
        {"mime": "a/b\r\nX: y"},
        {"name": "a\nb"},
        {"name": "x" * 256},
        {"name": "\u202ea"},
    ],
)
async def test_a_bad_description_is_refused_by_name(node: GatewayNode, query: dict[str, str]) -> None:
    error = (await node.post("/api/files", 400, data=b"x", params=query))["error"]
    assert next(iter(query)) in error["message"]


async def test_too_many_running_transfers_are_refused_as_busy(
    node: GatewayNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_RUNNING_TRANSFERS", 1)
    node.chunk.hold_calls = True
    await _put(node, b"x")
    assert (await node.post("/api/files", 503, data=b"y"))["error"]["code"] == "busy"
    link = "swarmbridge:" + "ab" * 32
    assert (await node.post("/api/fetches", 503, json={"link": link}))["error"]["code"] == "busy"


async def test_an_upload_waits_its_turn(node: GatewayNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen at once are eight at work and eight that wait, not eight that are refused."""
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await gate.wait()
        yield b"y"

    puts = [asyncio.create_task(node.post("/api/files", 202, data=slow(), params={"name": "f"})) for _ in range(16)]
    await until(lambda: _open_spools() == limits.MAX_UPLOADS)
    gate.set()
    done = [await node.ended(started["transfer"]) for started in await asyncio.gather(*puts)]
    assert {transfer["state"] for transfer in done} == {"done"}

    monkeypatch.setattr(limits, "MAX_UPLOADS", 0)
    monkeypatch.setattr(limits, "MAX_WAITING_UPLOADS", 0)
    assert (await node.post("/api/files", 503, data=b"y"))["error"]["code"] == "busy"


async def test_names_of_any_script_are_kept_and_again_is_passed_on(node: GatewayNode) -> None:
    for name in ("Shot 3.14\u202fPM.png", "\u0645\u06cc\u200c\u062e.pdf", "\U0001f469\u200d\U0001f4bb.png"):
        done = await node.ended(await _put(node, b"x", name=name, again="1"))
        put, _ = node.chunk.files[done["manifest"]]
        assert (put.name, put.again) == (name, True)
    assert not node.chunk.files[(await node.ended(await _put(node, b"z")))["manifest"]][0].again


@pytest.mark.parametrize("cause", [Cause.STORE_FULL, Cause.DISK_FULL, Cause.STORE_FAILED])
async def test_a_store_that_takes_nothing_says_so(node: GatewayNode, cause: Cause) -> None:
    node.chunk.fail_with = cause
    assert (await node.ended(await _put(node)))["cause"] == cause.value


async def test_private_content_opens_with_its_key_alone(node: GatewayNode) -> None:
    done = await node.ended(await _put(node, DATA, **{"name": "note", "class": "private"}))
    key = done["link"].partition("#")[2]
    assert key == base64.urlsafe_b64encode(PRIVATE_KEY).decode().rstrip("=")
    content = f"/api/files/{done['manifest']}/content"
    assert (await node.get(content, 403))["error"]["code"] == "unauthenticated"
    assert (await node.get(content, 400, headers={"X-Swarmbridge-Key": "short"}))["error"]["code"] == "invalid"
    async with node.session.get(node.url + content, headers={"X-Swarmbridge-Key": key}) as response:
        assert await response.read() == DATA


async def test_a_fetch_never_hands_on_the_key(node: GatewayNode) -> None:
    digest = node.chunk.add("a.txt", DATA)
    holder = (await node.get("/api/node"))["peer"]
    key = base64.urlsafe_b64encode(PRIVATE_KEY).decode().rstrip("=")
    started = await node.post("/api/fetches", 202, json={"link": f"swarmbridge:{digest}?h={holder}#{key}"})
    done = await node.ended(started["transfer"])
    assert (done["state"], done["byTransport"], done["bytesDone"]) == ("done", {"webrtc": len(DATA)}, len(DATA))
    [fetch] = node.chunk.fetches
    assert (fetch.manifest, fetch.holders) == (digest, [holder])
    assert key not in repr(fetch)


async def test_bad_links_and_unknown_files(node: GatewayNode) -> None:
    error = (await node.post("/api/fetches", 400, json={"link": "http://x"}))["error"]
    assert "not a swarmbridge link" in error["message"]
    started = await node.post("/api/fetches", 202, json={"link": "swarmbridge:" + "ab" * 32})
    failed = await node.ended(started["transfer"])
    assert (failed["state"], failed["cause"]) == ("failed", "peer_unknown")
    assert (await node.get("/api/files/" + "ab" * 32, 404))["error"]["code"] == "not_found"
    await node.get("/api/transfers/" + "ab" * 16, 404)


async def test_a_download_that_fails_midway_is_cut_not_padded(node: GatewayNode) -> None:
    digest = node.chunk.add("a.txt", DATA)
    node.chunk.lost_chunks = {2}
    with pytest.raises(aiohttp.ClientError):
        async with node.session.get(f"{node.url}/api/files/{digest}/content") as response:
            assert response.status == 200
            await response.read()
    node.chunk.lost_chunks = {0}
    assert (await node.get(f"/api/files/{digest}/content", 404))["error"]["code"] == "no_link"


async def test_without_a_chunk_service_the_answer_says_so(node: GatewayNode) -> None:
    node.hub.kill(node.chunk.bus.instance)
    assert (await node.get("/api/files", 503))["error"]["code"] == "unavailable"


async def test_files_are_listed_with_their_links_and_page_by_page(node: GatewayNode) -> None:
    node.chunk.page_size = 2
    digests = [node.chunk.add(f"f{number}", bytes([number])) for number in range(5)]
    secret = node.chunk.add("s", b"s", "private")
    listed = await node.get("/api/files")
    assert [file["manifest"] for file in listed] == [*digests, secret]
    assert listed[0]["link"] == f"swarmbridge:{digests[0]}?h={IDENTITY}"
    assert listed[-1]["link"] == "", "its key is nowhere but in the link that put printed"
    assert (await node.get(f"/api/files/{digests[1]}"))["link"] == listed[1]["link"]
    page = await node.get("/api/files", params={"offset": "1", "limit": "3"})
    assert [file["name"] for file in page] == ["f1", "f2", "f3"]
    assert await node.get("/api/files", params={"offset": "7"}) == []


@pytest.mark.parametrize("query", [{"limit": "9" * 5000}, {"limit": "0"}, {"offset": "-1"}, {"offset": "9" * 5000}])
async def test_a_number_that_is_none_is_said_to_be_so(node: GatewayNode, query: dict[str, str]) -> None:
    assert "whole number" in (await node.get("/api/files", 400, params=query))["error"]["message"]


async def test_a_file_is_removed_and_the_store_says_how_full_it_is(node: GatewayNode) -> None:
    digest = node.chunk.add("f", b"x" * 100)
    node.chunk.add("g", b"y" * 50)
    assert await node.get("/api/usage") == {"usedBytes": 150, "promisedBytes": 0, "quotaBytes": 10**9, "files": 2}
    node.chunk.hold_calls = True
    assert (await node.ask("DELETE", f"/api/files/{digest}", 409))["error"]["code"] == "busy"
    node.chunk.hold_calls = False
    gone = await node.ask("DELETE", f"/api/files/{digest}")
    assert gone == {"manifest": digest, "name": "f", "chunksRemoved": 1, "freedBytes": 100}
    assert (await node.ask("DELETE", f"/api/files/{digest}", 404))["error"]["code"] == "not_found"
    assert (await node.get("/api/usage"))["files"] == 1


async def test_an_upload_over_its_limit_names_the_setting_that_moves_it(tmp_path: Path) -> None:
    async def unknown_length() -> AsyncIterator[bytes]:
        yield b"x" * 2000

    async with gateway_node(tmp_path, max_upload_bytes=1000) as node:
        for body in (b"x" * 1001, unknown_length()):
            error = (await node.post("/api/files", 413, data=body))["error"]
            assert error["hint"] == "raise gateway.max_upload_bytes, or send less"


@pytest.mark.parametrize("name", ["-rf", ".profile", "..", "a/b"])
async def test_a_strangers_name_is_safe_where_the_content_is_saved(node: GatewayNode, name: str) -> None:
    digest = node.chunk.add(name, b"x")
    async with node.session.get(f"{node.url}/api/files/{digest}/content") as response:
        disposition = response.headers["Content-Disposition"]
    safe = safe_file_name(name, digest)
    assert disposition == f"attachment; filename=\"{safe}\"; filename*=UTF-8''{safe}"
    assert safe[0] not in ".-"
