"""What is served beside the sockets: ids, listing, document, health, base path; and a taken port."""

from __future__ import annotations

import json
import socket
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.rendezvous.app import Rendezvous
from shared.errors import TransportError
from shared.settings.config import RendezvousSettings
from tests.services.rendezvous.conftest import Sockets, receive


async def get(url: str) -> tuple[int, str, dict[str, str]]:
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status, await response.text(), {**response.headers}


async def test_rest_of_the_peer_server(sockets: Sockets) -> None:
    status, text, headers = await get(f"{sockets.url}/peerjs/id?ts=1&version=1.5.5")
    assert (status, uuid.UUID(text).version) == (200, 4)
    assert headers["Access-Control-Allow-Origin"] == "*"
    status, text, headers = await get(f"{sockets.url}/peerjs/peers")
    assert (status, text) == (401, "Unauthorized")
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert (await get(f"{sockets.url}/other/id"))[0] == 200, "peer gives an id for any key"
    async with aiohttp.ClientSession() as http, http.options(f"{sockets.url}/peerjs/id") as response:
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (204, "*")
        assert "GET" in response.headers["Access-Control-Allow-Methods"]


async def test_without_upgrade_there_is_no_socket(sockets: Sockets) -> None:
    assert (await get(f"{sockets.url}/peerjs?key=peerjs&id=a&token=t"))[0] == 426
    assert (await get(f"{sockets.url}/announce"))[0] == 426
    assert (await get(f"{sockets.url}/announce/"))[0] == 426
    about = json.loads((await get(f"{sockets.url}/"))[1])
    assert about["document"] == "/rendezvous.json"
    assert {"name", "description", "website"} <= set(about)


async def test_its_own_document_names_it_as_it_was_reached(sockets: Sockets) -> None:
    host = sockets.url.removeprefix("http://")
    status, text, headers = await get(f"{sockets.url}/rendezvous.json")
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "*")
    assert json.loads(text) == {
        "peerServers": [{"url": f"http://{host}/", "key": "peerjs"}],
        "webtorrentTrackers": [f"ws://{host}/announce"],
        "iceServers": [],
        "dhtNodes": [],
    }


async def test_a_given_document_is_served_and_reloaded(tmp_path: Path) -> None:
    file = tmp_path / "document.json"

    def write(tree: Any) -> None:
        draft = tmp_path / "draft"
        draft.write_text(json.dumps(tree))
        draft.replace(file)

    write({"dhtNodes": ["127.0.0.1:1"]})
    server = Rendezvous(RendezvousSettings(document=str(file)))
    await server.start()
    try:

        async def nodes() -> Any:
            return json.loads((await get(f"{server.url}/rendezvous.json"))[1])["dhtNodes"]

        assert await nodes() == ["127.0.0.1:1"]
        write({"dhtNodes": ["127.0.0.1:2"]})
        assert await nodes() == ["127.0.0.1:2"]
        write({"dhtNodes": "broken"})
        assert await nodes() == ["127.0.0.1:2"]
        file.unlink()
        assert await nodes() == ["127.0.0.1:2"]
    finally:
        await server.close()


async def test_a_broken_document_is_degraded_and_taken_up_when_mended(tmp_path: Path) -> None:
    file = tmp_path / "document.json"
    server = Rendezvous(RendezvousSettings(document=str(file)))
    await server.start()
    try:

        async def health() -> Any:
            return json.loads((await get(f"{server.url}/healthz"))[1])

        assert (await health())["status"] == "degraded"
        file.write_text(json.dumps({"webtorrentTrackers": ["ws://a..b/announce", "ws://127.0.0.1:1/"]}))
        found = await health()
        assert found["status"] == "ok"
        assert found["document"]["unusable"] == [
            {"list": "webtorrentTrackers", "index": 0, "reason": "its host is none"}
        ]
        served = json.loads((await get(f"{server.url}/rendezvous.json"))[1])
        assert served["webtorrentTrackers"] == ["ws://127.0.0.1:1/"]
    finally:
        await server.close()


async def test_an_ipv6_wildcard_names_an_address_that_it_serves() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    server = Rendezvous(RendezvousSettings(host="::"))
    try:
        await server.start()
    except TransportError:
        pytest.skip("no IPv6 here")
    try:
        assert (await get(f"{server.url}/healthz"))[0] == 200
    finally:
        await server.close()


async def test_base_path_and_listing() -> None:
    server = Rendezvous(RendezvousSettings(path="meet", list_peers=True))
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            clients = Sockets(http, f"{server.url}/meet")
            ws = await clients.peer("a")
            assert await receive(ws) == {"type": "OPEN"}
            assert json.loads((await get(f"{server.url}/meet/peerjs/peers"))[1]) == ["a"]
            document = json.loads((await get(f"{server.url}/meet/rendezvous.json"))[1])
            assert document["peerServers"][0]["url"] == f"{server.url}/meet/"
            await (await clients.announcer()).close()
            await (await clients.announcer("/")).close()
            assert (await get(f"{server.url}/healthz"))[0] == 200
    finally:
        await server.close()


async def test_a_taken_port_is_one_clear_line(rendezvous: Rendezvous) -> None:
    port = int(rendezvous.url.rpartition(":")[2])
    with pytest.raises(TransportError, match=f"port {port} of 127.0.0.1 is taken; set rendezvous.port"):
        await Rendezvous(RendezvousSettings(port=port)).start()
