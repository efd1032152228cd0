"""A room's beacon: its id, what is said at it, and how such a link ends."""

from __future__ import annotations

import json

import pytest

from shared.content.messages import RequestChunk
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.speech.contract import SpeechEnded
from shared.speech.page_beacon import EXCHANGE_WITHIN_S, LINGER_S, MAX_MESSAGES, PageBeacon, beacon_id
from shared.wire.binarypack.codec import decode_value, encode_value

OWN_ID = "peer-0123456789abcdef"


def test_a_rooms_id_is_that_of_its_pages() -> None:
    assert beacon_id("/brain") == beacon_id("/Brain") == "rmbeacon-a209acaa"


@pytest.mark.parametrize("serialization", ["binary", "json", "raw"])
def test_our_id_is_said_at_once_and_then_the_link_ends(serialization: str) -> None:
    speech = PageBeacon(OWN_ID, 0.0, serialization)
    record = speech.next_record()
    assert record is not None
    text = decode_value(record) if serialization == "binary" else json.loads(record)
    said = json.loads(text) if isinstance(text, str) else text
    assert said == {"type": "beacon-exchange", "realPeerId": OWN_ID}
    assert speech.next_record() is None
    assert speech.next_deadline() == EXCHANGE_WITHIN_S
    theirs = json.dumps({"type": "beacon-exchange", "realPeerId": "peer-x"})
    speech.receive_record(encode_value(theirs) if serialization == "binary" else theirs.encode(), 1.0)
    assert speech.next_deadline() == 1.0 + LINGER_S
    speech.handle_timer(1.0 + LINGER_S)
    assert speech.events() == [SpeechEnded(Cause.CLOSED)]


def test_nobody_is_asked_and_much_is_refused() -> None:
    speech = PageBeacon(OWN_ID, 0.0, "binary")
    with pytest.raises(LocalProtocolError):
        speech.ask(bytes(16), RequestChunk("chunk"), 1, "", 0.0)
    for _ in range(MAX_MESSAGES):
        speech.receive_record(encode_value("x"), 0.0)
    with pytest.raises(RemoteProtocolError) as flood:
        speech.receive_record(encode_value("x"), 0.0)
    assert flood.value.cause is Cause.RATE_LIMITED
