"""Who may have what: authorised on the worker's stamp and the content's class, nothing else (TRUST 1, 4, 5)."""

from __future__ import annotations

from shared.bus.messages.envelopes import ROLE_GUEST, ROLE_MEMBER
from shared.content.manifest import ContentClass

_OPEN_TO: dict[str, frozenset[ContentClass]] = {
    # Private content is worthless without the key in its link, and members carry each other's replicas.
    ROLE_MEMBER: frozenset(ContentClass),
    ROLE_GUEST: frozenset({ContentClass.SHARED}),
}


def may_have(role: str, content_class: ContentClass) -> bool:
    """Whether a peer of this role may have content of this class; an unknown role may have nothing."""
    return content_class in _OPEN_TO.get(role, frozenset())
