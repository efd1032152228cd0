"""Native frames of a guest: the same machine as between nodes, and what a wire that others can read holds back."""

from __future__ import annotations

import pytest

from shared.content.messages import ChunkData, ManifestData, NotFound, RequestChunk, RequestManifest
from shared.errors import Cause, RemoteProtocolError
from shared.ids import guest_token
from shared.speech.budget import MAX_LINK_BYTES, ByteBudget
from shared.speech.contract import (
    Announced,
    AnswerProgressed,
    AnswerReceived,
    PeerProved,
    RequestReceived,
    RequestRefused,
    SpeechEnded,
)
from shared.speech.swarm_space import PING_AFTER_S, SILENT_AFTER_S, SLICE_BYTES, SwarmSpace
from shared.wire.native.frames import BODY_HEADER

ID = b"0123456789abcdef"
ASK, ASK_MANIFEST = RequestChunk("chunk-x"), RequestManifest("m" * 64)
HEADER = ChunkData("chunk-x", 0, 1, 100, bytes(12), "text/plain", "a name")


def pair(*, clear: bool) -> tuple[SwarmSpace, SwarmSpace]:
    near, far = (SwarmSpace(guest, ByteBudget(MAX_LINK_BYTES), 0.0, clear=clear) for guest in ("far", "near"))
    assert near.events() == [PeerProved(guest_token("far"))]
    assert far.events() == [PeerProved(guest_token("near"))]
    return near, far


def carry(source: SwarmSpace, target: SwarmSpace, now: float = 0.0) -> list[bytes]:
    records = []
    while (record := source.next_record()) is not None:
        records.append(record)
        target.receive_record(record, now)
    return records


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("length", [100, SLICE_BYTES, SLICE_BYTES + 1, 4 * 2**20])
def test_a_chunk_is_asked_for_and_comes_in_small_frames(clear: bool, length: int) -> None:
    near, far = pair(clear=clear)
    near.ask(ID, ASK, 5000, "00-trace", 0.0)
    carry(near, far)
    assert far.events() == [RequestReceived(ID, ASK, 5000, "")], "a trace context is nobody's business"
    body = memoryview(bytes(range(251)) * (length // 251 + 1))[:length]
    far.answer(ID, HEADER, length)
    offset, events = 0, []
    while offset < length or far.has_more_to_send():
        offset += far.take_body(ID, body[offset:]) if offset < length else 0
        records = carry(far, near)
        assert all(len(record) <= SLICE_BYTES + BODY_HEADER.size for record in records)
        events += near.events()
    assert events[-1] == AnswerReceived(ID, HEADER, bytes(body))
    assert all(isinstance(event, AnswerProgressed) for event in events[:-1])


def test_on_a_clear_wire_no_manifest_is_asked_for_answered_or_announced() -> None:
    near, far = pair(clear=True)
    near.ask(ID, ASK_MANIFEST, 5000, "", 0.0)
    assert near.events() == [AnswerReceived(ID, NotFound(ASK_MANIFEST.id), b"")]
    near.announce(["m" * 64])
    assert near.next_record() is None
    assert near.asked_count == 0

    page, _ = pair(clear=False)  # whatever the other end does
    page.ask(ID, ASK_MANIFEST, 5000, "", 0.0)
    page.announce(["m" * 64])
    carry(page, far)
    assert far.events() == [RequestRefused(Cause.FORBIDDEN)], "counted, and answered here"
    assert far.open_requests() == []
    carry(far, page)
    assert page.events()[-1] == AnswerReceived(ID, NotFound(ASK_MANIFEST.id), b"")


def test_on_an_encrypted_wire_manifests_and_announcements_travel() -> None:
    near, far = pair(clear=False)
    near.ask(ID, ASK_MANIFEST, 5000, "", 0.0)
    near.announce(["m" * 64])
    carry(near, far)
    assert far.events() == [RequestReceived(ID, ASK_MANIFEST, 5000, ""), Announced(("m" * 64,))]
    far.answer(ID, ManifestData(ASK_MANIFEST.id), 2)
    far.take_body(ID, memoryview(b"{}"))
    carry(far, near)
    assert near.events()[-1] == AnswerReceived(ID, ManifestData(ASK_MANIFEST.id), b"{}")


def test_a_quiet_page_is_asked_and_a_dead_one_given_up() -> None:
    near, far = pair(clear=True)
    assert near.next_deadline() == PING_AFTER_S
    near.handle_timer(PING_AFTER_S)
    carry(near, far, PING_AFTER_S)
    carry(far, near, PING_AFTER_S)
    assert near.events() == []
    near.handle_timer(PING_AFTER_S + SILENT_AFTER_S)
    assert near.events() == [SpeechEnded(Cause.SILENT)]


def test_arbitrary_bytes_end_the_link_or_are_ignored() -> None:
    near, _ = pair(clear=True)
    with pytest.raises(RemoteProtocolError):
        near.receive_record(b"\x01 not msgpack", 0.0)
    near.receive_record(b"\xfe a kind of later", 0.0)
    near.close()
