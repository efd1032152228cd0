"""`/try` and where pages join: what workers say, held to the form of an origin, in the page's own policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.bus.messages.records import WorkerStatus
from tests.services.gateway.node import GatewayNode, gateway_node

URL = "http://127.0.0.1:9000"


def status(url: str, worker: str = "w", *, draining: bool = False) -> WorkerStatus:
    return WorkerStatus(worker, "broadcast", "ready", None, [], True, draining, 1, pages_url=url)


async def tell(node: GatewayNode, *statuses: WorkerStatus) -> None:
    for each in statuses:
        await node.bus.publish(node.subjects.event("status"), each)


async def policy(node: GatewayNode) -> str:
    async with node.session.get(f"{node.url}/try") as response:
        assert response.status == 200
        return response.headers["Content-Security-Policy"]


async def test_the_policy_names_the_worker_and_nothing_else(node: GatewayNode) -> None:
    assert "connect-src 'self';" in await policy(node)
    await tell(node, status(URL))
    view = await node.once("/api/pages", lambda found: found["url"])
    assert view == {"url": URL, "channel": "swarm-space-webtorrent", "token": ""}
    assert f"script-src 'self' {URL}; " in await policy(node)
    assert "connect-src 'self' ws://127.0.0.1:9000; " in await policy(node)
    async with node.session.get(f"{node.url}/") as response:
        assert URL not in response.headers["Content-Security-Policy"]


async def test_a_worker_that_stays_is_named_before_one_that_drains(node: GatewayNode) -> None:
    await tell(node, status("http://127.0.0.1:9001", "a", draining=True), status(URL, "b"))
    await node.once("/api/pages", lambda found: found["url"] == URL)


@pytest.mark.parametrize("url", ["http://x; script-src *", "javascript:1", "http://a/b", "http://A"])
async def test_what_is_no_origin_gets_into_no_policy(node: GatewayNode, url: str) -> None:
    await tell(node, status(url), status(url, "second"))
    await node.once("/api/stats", lambda found: found["transports"][2]["workers"] == 2)
    assert (await node.get("/api/pages"))["url"] == ""
    assert url not in await policy(node)


async def test_the_token_of_pages_is_given_to_who_may_know_it(tmp_path: Path) -> None:
    (tmp_path / "pages.token").write_text("pages\n")
    async with gateway_node(tmp_path, pages_token=str(tmp_path / "pages.token")) as node:
        assert (await node.get("/api/pages"))["token"] == "pages"
        async with node.session.get(f"{node.url}/api/pages", headers={"Authorization": "Bearer wrong"}) as response:
            assert response.status == 401
        (tmp_path / "pages.token").unlink()
        assert (await node.get("/api/pages"))["token"] == ""
