from __future__ import annotations

import pytest

from shared.bus.messages.subjects import Subjects
from shared.telemetry.names import template

S = Subjects("n1")


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (S.deliver, "sb.{node}.route.deliver"),
        (S.link("webrtc", "kabc"), "sb.{node}.link.webrtc.{peer}"),
        (S.inbound("broadcast"), "sb.{node}.inbound.broadcast"),
        (S.dial("webtorrent"), "sb.{node}.dial.webtorrent"),
        (S.chunk_message, "sb.{node}.chunk.message"),
        (S.body("chunk-1", "webrtc"), None),
        (S.reply("chunk-1"), None),
        (S.event("status"), None),
        (S.worker("webrtc-1"), None),
        (S.chunk("get"), None),
        (S.chunk("put"), "sb.{node}.chunk.put"),
        (S.chunk("fetch"), "sb.{node}.chunk.fetch"),
        (S.health("chunk", "chunk-1"), None),
        ("_INBOX.x", None),
    ],
)
def test_templates_say_the_kind_and_nothing_of_the_peer(subject: str, expected: str | None) -> None:
    assert template(subject) == expected
