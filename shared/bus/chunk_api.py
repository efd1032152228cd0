"""The local API of the chunk service, as the gateway calls it. Puts and fetches are calls that outlive their server:
they are answered by `Taken`, then by `TransferUpdate`s on the asker's reply subject (shared.bus.calls).
"""

from __future__ import annotations

import msgspec

from shared.bus.messages.envelopes import BodyRef, Ping


class PutFile(msgspec.Struct, array_like=True, frozen=True):
    """Store a file. source: its plaintext, pulled from the gateway. content_class: shared, mesh or private."""

    call_id: bytes
    reply_to: str
    source: BodyRef
    name: str
    mime: str
    content_class: str = "shared"


class FetchFile(msgspec.Struct, array_like=True, frozen=True):
    """Fetch a file's manifest and chunks until all are stored. manifest: digest (64 hex) or fileId.

    holders: peer tokens to ask. The transfer's id for people is call_id's hex.
    """

    call_id: bytes
    reply_to: str
    manifest: str
    holders: list[str]


class GetChunk(msgspec.Struct, array_like=True, frozen=True):
    """Plaintext of one stored chunk. key: the file key of private content, else empty."""

    manifest: str
    seq: int
    key: bytes = b""


class GotChunk(msgspec.Struct, array_like=True, frozen=True):
    body: BodyRef


class FileQuery(msgspec.Struct, array_like=True, frozen=True):
    """manifest "" lists every file."""

    manifest: str = ""


class FileStatus(msgspec.Struct, array_like=True, frozen=True):
    manifest: str
    file_id: str
    name: str
    mime: str
    size: int
    chunks_total: int
    chunks_stored: int
    content_class: str
    stored_ms: int


class FileList(msgspec.Struct, array_like=True, frozen=True):
    files: list[FileStatus]
    identity: str = ""
    """This node's own peer token."""


class CancelCall(msgspec.Struct, array_like=True, frozen=True, tag="cancel_call"):
    call_id: bytes


ChunkCommand = Ping | CancelCall
