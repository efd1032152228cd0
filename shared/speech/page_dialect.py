"""What a page may say, in either of swarm-space's dialects, and what a dialect has to be able to write.

A dialect has no state: it reads one value into one of these, and writes values. Requests are page_speech's, timers and
queues those of the speech around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shared.content.manifest import is_manifest_id
from shared.content.messages import (
    MAX_ANNOUNCED,
    MAX_MANIFEST_ID_CHARS,
    PeerAnswer,
    PeerRequest,
    RequestChunk,
    RequestManifest,
)
from shared.content.refs import is_ref

MAX_CLOCK_MS = 2**53
"""The largest whole number that a page counts exactly."""

MAX_ID_CHARS = 128
"""Of a page's request id; its own are about 27 characters."""


@dataclass(frozen=True, slots=True)
class PageAsks:
    """id: the page's own. request: None for a ref or an id of a form that we cannot have: answer it as not found."""

    id: str
    name: str
    is_chunk: bool

    @property
    def request(self) -> PeerRequest | None:
        if self.is_chunk:
            return RequestChunk(self.name) if is_ref(self.name) else None
        return RequestManifest(self.name) if is_manifest_id(self.name) else None


@dataclass(frozen=True, slots=True)
class PageAnswers:
    """id: ours. content: the chunk or manifest as it came; None = the page does not have it."""

    id: str
    content: object


@dataclass(frozen=True, slots=True)
class PageHolds:
    manifests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PagePings:
    """reply: the value that answers it."""

    reply: Any


@dataclass(frozen=True, slots=True)
class PagePongs:
    """sent_ms: the wall-clock time of our ping, as the page gives it back; None where it does not."""

    sent_ms: float | None


@dataclass(frozen=True, slots=True)
class PageNamesItself:
    """guest: as whom another transport knows the page."""

    guest: str


Said = PageAsks | PageAnswers | PageHolds | PagePings | PagePongs | PageNamesItself

NAME_TYPE = "swarmbridge-also"
"""Of the one message that swarm-space does not have (docs/speech.md): a page of theirs ignores it."""


class Dialect(Protocol):
    """One way in which swarm-space's pages talk."""

    patience_ms: int
    """How long a page waits for an answer."""

    def read(self, value: object, unix_ms: int) -> Said | None:
        """One value from the page; None for what is to be ignored: unknown types, and known ones out of shape."""

    def ask(self, request_id: str, request: PeerRequest, unix_ms: int) -> Any:
        """The value that asks the page."""

    def answer(self, asked: PageAsks, answer: PeerAnswer, body: bytes, unix_ms: int) -> Any:
        """The value that answers it; NotFound for what is not here, or not for it."""

    def announce(self, manifests: Sequence[str], before: Sequence[str], unix_ms: int) -> list[Any]:
        """The values that say which manifests we hold. before: what was said on this link already."""

    def ping(self, unix_ms: int) -> Any:
        """The value that asks whether it is there."""


def short_text(value: object, max_chars: int = MAX_ID_CHARS) -> str:
    """A text of 1 to max_chars characters, else ""."""
    return value if isinstance(value, str) and len(value) <= max_chars and is_unicode(value) else ""


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON's escapes can also spell half a character, which nothing else could carry on."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def clock_ms(value: object) -> float | None:
    """A time that a page gave, or gave back; None for anything but a finite number of a sane size."""
    if not isinstance(value, int | float) or not abs(value) <= MAX_CLOCK_MS:  # written so that NaN is refused too
        return None
    return value


def manifest_ids(values: object) -> tuple[str, ...]:
    """The usable ids of a list of any kind, the first MAX_ANNOUNCED."""
    if not isinstance(values, list):
        return ()
    # Cut before they are looked at: a list of any length costs no more than a full one.
    texts = (short_text(value, MAX_MANIFEST_ID_CHARS) for value in values[:MAX_ANNOUNCED])
    return tuple(text for text in texts if is_manifest_id(text))
