"""Who may open a socket: limits in all and for one address, the page's origin, a token. Pure."""

from __future__ import annotations

import hmac
from collections import Counter
from dataclasses import dataclass
from enum import Enum


class Refusal(Enum):
    """Why a socket is not opened; the value is the name under which it is counted."""

    SOCKETS = "sockets"
    SOCKETS_OF_ADDRESS = "sockets_of_address"
    ORIGIN = "origin"
    TOKEN = "token"  # noqa: S105 - a name
    DRAINING = "draining"

    @property
    def words(self) -> str:
        """For whoever asked. Never what the right value would have been."""
        return _WORDS[self]

    @property
    def status(self) -> int:
        """HTTP: 503 is worth another try, 403 is not."""
        return 403 if self in (Refusal.ORIGIN, Refusal.TOKEN) else 503


_WORDS = {
    Refusal.SOCKETS: "this server has as many sockets as it may have; try again later",
    Refusal.SOCKETS_OF_ADDRESS: "too many sockets from your address; close some, or ask for a higher limit",
    Refusal.ORIGIN: "pages of this origin are not served here",
    Refusal.TOKEN: "a token is needed, or this one is wrong",
    Refusal.DRAINING: "this server is stopping; try again or use another",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who wants a socket. address: after trusted proxies, "" = unknown. origin: "" outside a browser."""

    address: str
    origin: str = ""
    token: str = ""


class Admission:
    """Counts open sockets. Every `admit` that returned None is followed by one `release`."""

    def __init__(
        self, max_sockets: int, max_per_address: int, *, origins: frozenset[str] | None = None, token: str = ""
    ) -> None:
        """Args: origins: those that are served, None = all. token: what every caller must have, "" = none."""
        self._max_sockets, self._max_per_address = max_sockets, max_per_address
        self._origins, self._token = origins, token
        self._open: Counter[str] = Counter()
        self.socket_count = 0

    def admit(self, caller: Caller) -> Refusal | None:
        """Whether one more socket of this caller may open; None = yes, and it is counted."""
        if self._origins is not None and caller.origin not in self._origins:
            return Refusal.ORIGIN
        if self._token and not hmac.compare_digest(self._token.encode(), caller.token.encode("utf-8", "replace")):
            return Refusal.TOKEN
        if self.socket_count >= self._max_sockets:
            return Refusal.SOCKETS
        # A missing key of a Counter reads as 0 and is not stored: refused addresses leave no trace.
        if self._open[caller.address] >= self._max_per_address:
            return Refusal.SOCKETS_OF_ADDRESS
        self.socket_count += 1
        self._open[caller.address] += 1
        return None

    def release(self, caller: Caller) -> None:
        self.socket_count -= 1
        self._open[caller.address] -= 1
        if not self._open[caller.address]:
            del self._open[caller.address]
