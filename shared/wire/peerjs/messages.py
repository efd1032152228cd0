"""PeerJS signalling messages: JSON text `{type, payload, src, dst}` between a client and its PeerServer.

A client sends `{type, payload, dst}`; the server sets `src` and relays. Unknown fields are ignored, so that a
newer client still reaches us; a known field of the wrong type, an unknown `type`, or text over 64 KiB is the
peer's fault. `decode_message` is for an end of a connection and types every payload; `decode_relayed` is for
a server, which passes payloads on as they are.

Left out: `type:"media"` connections (audio and video calls): we carry data only, so they are refused as invalid.

Source: the PeerJS client and PeerServer protocol (peerjs 1.5, peer 1.0).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.undecodable import UNDECODABLE

MAX_MESSAGE_BYTES = 64 * 1024
"""docs/limits.md#peerserver: the longest signalling message either way."""
MAX_SERVER_FIELDS_BYTES = 512
"""What a server may add to a message of full length: `src`, escaped. Clients accept it."""
MAX_ID_BYTES = 64
"""docs/limits.md#peerserver: the longest peer id."""
MAX_TOKEN_BYTES = 64
"""docs/limits.md#peerserver: the longest token."""
MAX_CONNECTION_ID_BYTES = 128
"""Ours; a browser's is `dc_` and about 11 characters."""

PeerId = Annotated[str, msgspec.Meta(max_length=MAX_ID_BYTES)]
ConnectionId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CONNECTION_ID_BYTES)]


class SessionDescription(msgspec.Struct, frozen=True):
    """An RTCSessionDescription: type `offer` or `answer`, and the SDP text."""

    type: Literal["offer", "answer"]
    sdp: str


class IceCandidate(msgspec.Struct, frozen=True, rename="camel"):
    """An RTCIceCandidate as its `toJSON` writes it. candidate: `candidate:…` line, "" = end of candidates."""

    candidate: str
    sdp_mid: str | None = None
    sdp_m_line_index: int | None = None
    username_fragment: str | None = None


class OfferPayload(msgspec.Struct, frozen=True, rename="camel"):
    """How a data connection is asked for.

    connection_id: the dialer's name for it, in every later message of the connection. serialization: `binary`
    (BinaryPack), `json` or `raw`. reliable: False means unordered, still retransmitted. metadata: any JSON.
    """

    sdp: SessionDescription
    connection_id: ConnectionId
    type: Literal["data"] = "data"
    metadata: Any = None
    label: str = ""
    reliable: bool = False
    serialization: str = "binary"


class AnswerPayload(msgspec.Struct, frozen=True, rename="camel"):
    sdp: SessionDescription
    connection_id: ConnectionId
    type: Literal["data"] = "data"


class CandidatePayload(msgspec.Struct, frozen=True, rename="camel"):
    candidate: IceCandidate
    connection_id: ConnectionId
    type: Literal["data"] = "data"


class ErrorText(msgspec.Struct, frozen=True):
    """A server's words for people. Never to be published: it may quote an id or a token."""

    msg: str = ""


class Open(msgspec.Struct, frozen=True, tag_field="type", tag="OPEN"):
    """Server: the id is registered to this socket."""


class Heartbeat(msgspec.Struct, frozen=True, tag_field="type", tag="HEARTBEAT"):
    """Client: still here. Every 5 s, never answered."""


class IdTaken(msgspec.Struct, frozen=True, tag_field="type", tag="ID-TAKEN"):
    """Server: the id is registered with another token; the socket closes."""

    payload: ErrorText = ErrorText()


class InvalidKey(msgspec.Struct, frozen=True, tag_field="type", tag="INVALID-KEY"):
    """Server: it does not serve this API key; the socket closes."""

    payload: ErrorText = ErrorText()


class Error(msgspec.Struct, frozen=True, tag_field="type", tag="ERROR"):
    """Server: the socket cannot be used; it closes."""

    payload: ErrorText = ErrorText()


class Offer(msgspec.Struct, frozen=True, tag_field="type", tag="OFFER", omit_defaults=True):
    payload: OfferPayload
    src: PeerId = ""
    dst: PeerId = ""


class Answer(msgspec.Struct, frozen=True, tag_field="type", tag="ANSWER", omit_defaults=True):
    payload: AnswerPayload
    src: PeerId = ""
    dst: PeerId = ""


class Candidate(msgspec.Struct, frozen=True, tag_field="type", tag="CANDIDATE", omit_defaults=True):
    payload: CandidatePayload
    src: PeerId = ""
    dst: PeerId = ""


class Leave(msgspec.Struct, frozen=True, tag_field="type", tag="LEAVE", omit_defaults=True):
    """`src` has left; connections to it are to be closed."""

    src: PeerId = ""
    dst: PeerId = ""


class Expire(msgspec.Struct, frozen=True, tag_field="type", tag="EXPIRE", omit_defaults=True):
    """Server: nobody was registered as `src`, so what was sent there was dropped. Names no connection."""

    src: PeerId = ""
    dst: PeerId = ""


PeerMessage = Offer | Answer | Candidate | Leave | Expire
ServerMessage = Open | IdTaken | InvalidKey | Error | Heartbeat
Message = PeerMessage | ServerMessage


class Relayed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message as a server sees it: the payload is passed on byte for byte, whatever it holds."""

    type: str
    src: PeerId | UnsetType = UNSET
    dst: PeerId | UnsetType | None = UNSET
    payload: Raw | UnsetType = UNSET


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_relayed_decoder = msgspec.json.Decoder(Relayed)


def encode_message(message: Message | Relayed) -> str:
    """JSON text of a message; empty `src` and `dst` are left out.

    Raises: LocalProtocolError over MAX_MESSAGE_BYTES: any server would refuse it. Our own messages (an SDP, a
        few candidates) are a tenth of that; only metadata could make one so long.
    """
    data = _encoder.encode(message)
    if len(data) > MAX_MESSAGE_BYTES + MAX_SERVER_FIELDS_BYTES:
        raise LocalProtocolError("signalling message too long")
    return data.decode()


def decode_message(text: str | bytes) -> Message:
    """Decode one signalling message with its payload, for an end of a connection.

    Args:     text: one WebSocket text message.
    Returns:  the typed message; `src` is what the server vouches for, payload fields are the peer's word.
    Raises:   RemoteProtocolError: INVALID, or TOO_LARGE over MAX_MESSAGE_BYTES; drop the message and count it.
    """
    return cast(Message, _decode(_decoder, text, MAX_MESSAGE_BYTES + MAX_SERVER_FIELDS_BYTES))


def decode_relayed(text: str | bytes) -> Relayed:
    """Decode the envelope of a message and leave its payload as it is, for a server.

    Raises: RemoteProtocolError: INVALID or TOO_LARGE; drop the message and count it.
    """
    return cast(Relayed, _decode(_relayed_decoder, text, MAX_MESSAGE_BYTES))


def _decode(decoder: msgspec.json.Decoder[Any], text: str | bytes, max_bytes: int) -> Any:
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > max_bytes:
            raise RemoteProtocolError("signalling message too long", Cause.TOO_LARGE)
        # The decoder skips fields it does not know without looking at their UTF-8; they must not be relayed broken.
        return decoder.decode(data.decode())
    except UNDECODABLE as error:
        raise RemoteProtocolError("not a signalling message") from error
