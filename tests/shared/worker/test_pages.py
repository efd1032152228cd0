"""A worker that talks to a page, in each dialect; both ends are ours, so the formats are held to vectors elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from shared.bus import bodies
from shared.bus.messages.envelopes import Accepted, AnnounceManifests, NamedGuests, SendRequest
from shared.content.messages import NotFound, RequestChunk
from shared.errors import Cause, NoResponders, RemoteFailure
from shared.ids import LinkId, PeerToken, guest_token
from shared.speech.contract import MAX_ASKED_OF_A_PAGE
from shared.speech.peerjs import MANAGER, MESH
from shared.wire.peerjs.chunking import split_value
from tests.fakes.waiting import until
from tests.shared.worker.couple import BODY, Couple

REF, MISSING = f"chunk-{'a' * 64}", f"chunk-{'b' * 64}"


@pytest.fixture(params=[MANAGER, MESH])
async def couple(request: pytest.FixtureRequest) -> AsyncIterator[Couple]:
    couple = Couple(request.param)
    couple.far.bodies[REF] = BODY
    await couple.start()
    await couple.link()
    yield couple
    await couple.stop()


async def test_a_chunk_crosses_and_its_peer_is_a_guest(couple: Couple) -> None:
    accepted = await couple.send(ref=REF)
    assert (accepted.acks, accepted.confirms) == (False, True)
    await until(lambda: couple.near.answers)
    body = couple.near.answers[0].body
    assert body is not None
    assert await bodies.pull(couple.near.puller, couple.near.subjects, body, timeout_s=5.0) == BODY
    assert couple.far.asked[0].stamp.role == "guest"


async def test_what_is_missing_is_said_at_once(couple: Couple) -> None:
    await couple.send(ref=MISSING)
    await until(lambda: couple.near.answers)
    assert couple.near.answers[0].answer == NotFound(MISSING)


async def test_a_failure_is_not_found_too(couple: Couple) -> None:
    """A page acts on nothing else, and would wait for silence chunk by chunk."""
    couple.far.bodies[REF] = bytes(5 * 2**20)
    await couple.send(ref=REF)
    await until(lambda: couple.near.answers)
    assert couple.near.answers[0].answer == NotFound(REF)


async def test_announcements_cross(couple: Couple) -> None:
    await couple.near.caller.publish(couple.near.subjects.announce, AnnounceManifests(["file-1", "file-2"]))
    await until(lambda: sum(len(heard.manifests) for heard in couple.far.announced) == 2)


async def test_a_page_that_closes_is_gone(couple: Couple) -> None:
    await couple.far.stop()
    couple.far.serving = None
    await until(lambda: couple.near.status and not couple.near.status.peers)
    assert all(failure.cause is Cause.CLOSED for failure in couple.near.failures)


async def test_a_page_that_stands_still_is_asked_so_much_and_then_it_is_busy(
    couple: Couple, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[tuple[LinkId, bytes]] = []
    deliver = couple.far_transport.deliver
    monkeypatch.setattr(couple.far_transport, "deliver", lambda link, record: records.append((link, record)))
    for number in range(MAX_ASKED_OF_A_PAGE):
        await couple.send(bytes([number]) * 16, ref=MISSING)
    with pytest.raises(RemoteFailure) as busy:
        await couple.send(b"m" * 16, ref=MISSING)
    assert busy.value.cause is Cause.BUSY
    assert not couple.near.answers
    monkeypatch.undo()
    for record in records:  # it goes on
        deliver(*record)
    await until(lambda: len(couple.near.answers) == MAX_ASKED_OF_A_PAGE)


async def test_what_is_for_a_guest_elsewhere_goes_to_the_page_that_it_is(couple: Couple) -> None:
    """Both have to say so, each over its own transport; until then nobody answers there."""
    guest = guest_token("page-elsewhere")
    subject = couple.near.subjects.link("webrtc", guest)
    ask = SendRequest(b"g" * 16, "manager-1", 1, RequestChunk(REF))

    async def say_elsewhere(named: PeerToken) -> None:
        await couple.near.caller.publish(
            couple.near.subjects.named("broadcast", "webrtc"), NamedGuests([(guest, named)])
        )

    async def asked() -> bool:
        try:
            await couple.near.caller.request(subject, ask, Accepted, timeout_s=5.0)
        except NoResponders:
            return False
        return True

    [link] = couple.near_transport.links
    name = {"type": "swarmbridge-also", "payload": {"guest": "page-elsewhere"}, "guest": "page-elsewhere"}
    await say_elsewhere(couple.far.token)
    assert not await asked()
    for record in split_value(json.dumps(name) if couple.speech == MESH else name, 1):
        couple.near_transport.deliver(link, record)
    await say_elsewhere(guest_token("somebody else"))
    while not await asked():
        await asyncio.sleep(0.01)
    await until(lambda: couple.near.answers)
    # With the page's link the guest is gone too.
    await couple.near_transport.close(link, Cause.CLOSED)
    while await asked():
        await asyncio.sleep(0.01)
