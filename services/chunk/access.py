"""Who may have what: authorised on the worker's stamp and the content's class, nothing else."""

from __future__ import annotations

from shared.bus.messages.envelopes import ROLE_GUEST, ROLE_MEMBER
from shared.content.manifest import ContentClass
from shared.content.refs import is_digest

_OPEN_TO: dict[str, frozenset[ContentClass]] = {
    ROLE_MEMBER: frozenset(ContentClass),
    # Private content is worthless without the key in its link, and who has the link may be anyone.
    ROLE_GUEST: frozenset({ContentClass.SHARED, ContentClass.PRIVATE}),
}


def may_have(role: str, content_class: ContentClass) -> bool:
    """Whether a peer of this role may have content of this class; an unknown role may have nothing."""
    return content_class in _OPEN_TO.get(role, frozenset())


def may_name(content_class: ContentClass, manifest_id: str) -> bool:
    """Whether a manifest of this class is given for this id.

    Private content has no other name than its digest, which the link alone tells: a fileId can be guessed.
    """
    return content_class is not ContentClass.PRIVATE or is_digest(manifest_id)
