"""The local API of the chunk service, as the gateway calls it. Puts and fetches are calls that outlive their server:
they are answered by `Taken`, then by `TransferUpdate`s on the caller's reply subject (shared.bus.calls).
"""

from __future__ import annotations

import msgspec

from shared.bus.messages.envelopes import BodyRef, Ping


class PutFile(msgspec.Struct, array_like=True, frozen=True):
    """Store a file. source: its plaintext, pulled from the gateway. content_class: shared, mesh or private.

    again: store it once more under a new link, even where this very file is stored already.
    """

    call_id: bytes
    reply_to: str
    source: BodyRef
    name: str
    mime: str
    content_class: str = "shared"
    again: bool = False


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
    """manifest "" lists files, newest first, from `offset` on.

    limit: at most so many; 0 = as many as fit.
    """

    manifest: str = ""
    offset: int = 0
    limit: int = 0


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
    """identity: this node's own peer token. total: files that the node has; ask again from `offset + len(files)`
    where the list is shorter. A page may be empty only at the end."""

    files: list[FileStatus]
    identity: str = ""
    total: int = 0


class RemoveFile(msgspec.Struct, array_like=True, frozen=True):
    """Forget a file: its manifest, and those of its chunks that no other file names. manifest: digest or fileId."""

    manifest: str


class Removed(msgspec.Struct, array_like=True, frozen=True):
    """manifest: the digest that was removed. freed_bytes: of the chunks that went with it."""

    manifest: str
    name: str
    chunks_removed: int
    freed_bytes: int


class UsageQuery(msgspec.Struct, array_like=True, frozen=True):
    """How full the store is. Answered by Usage."""


class Usage(msgspec.Struct, array_like=True, frozen=True):
    """used_bytes: everything stored. promised_bytes: what the running transfers of this instance still need."""

    used_bytes: int
    promised_bytes: int
    quota_bytes: int
    files: int


class CancelCall(msgspec.Struct, array_like=True, frozen=True, tag="cancel_call"):
    call_id: bytes


ChunkCommand = Ping | CancelCall
