"""Who may use the API: the operator's token, browser sessions made from it, and where requests may come from.

Pure: `now` is an argument. Three questions, asked in this order by `guard`:

1. Does the request name us? `HostAllowList` knows the names a browser may use for this gateway, so that a page
   whose name was rebound to 127.0.0.1 gets nothing (DNS rebinding, docs/trust.md); `same_origin` refuses requests
   which another site's page makes, before they can cost a try of the token.
2. Is there a live session cookie? A session is `v1.<expiry>.<nonce>.<mac>`, keyed by the token: every gateway
   of a node knows it, none has to remember it, and a new token ends all of them.
3. Is there the bearer token? Compared in constant time. The right one always gets in: behind a proxy, or on a
   machine with other users, whoever sends wrong ones has the operator's address. An address with MAX_BAD_TOKENS
   wrong ones within BAD_TOKEN_WINDOW_S is asked to wait; guessing 256 bits is hopeless at any rate.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections import OrderedDict, deque
from urllib.parse import urlsplit

from services.gateway.http import limits

SESSION_LIFETIME_S = 12 * 3600
SESSION_NONCE_BYTES = 16
_SESSION_INFO = b"swarmbridge gateway session v1"
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


class Token:
    """The operator's token, and the sessions it vouches for."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._session_key = hmac.digest(self._token, _SESSION_INFO, "sha256")
        self.cookie_name = "swarmbridge_" + hashlib.sha256(self._session_key).hexdigest()[:12]
        """Differs by node: cookies know no ports, and two nodes of one machine must not end each other's session."""

    def matches(self, offered: str) -> bool:
        """Constant time, whatever is offered."""
        # A header's bytes that are not UTF-8 come as surrogates, which do not encode: they are wrong like any other.
        tried = offered.encode(errors="backslashreplace")
        return hmac.compare_digest(hashlib.sha256(tried).digest(), hashlib.sha256(self._token).digest())

    def new_session(self, now_s: float, nonce: bytes) -> str:
        """A cookie value good for SESSION_LIFETIME_S. now_s: wall clock, seconds."""
        signed = f"v1.{int(now_s) + SESSION_LIFETIME_S}.{nonce.hex()}"
        return f"{signed}.{self._mac(signed)}"

    def session_valid(self, cookie: str, now_s: float) -> bool:
        signed, _, mac = cookie.rpartition(".")
        if not hmac.compare_digest(self._mac(signed).encode(), mac.encode(errors="backslashreplace")):
            return False
        # The MAC proves that the rest is ours, so its form is known.
        return int(signed.split(".")[1]) > now_s

    def _mac(self, signed: str) -> str:
        return hmac.new(self._session_key, signed.encode(errors="backslashreplace"), "sha256").hexdigest()


class BadTokens:
    """Wrong tokens by address; bounded, the address seen longest ago is forgotten first."""

    def __init__(self) -> None:
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str, now: float) -> float:
        """Seconds until this address may try again; 0 when it may now."""
        tries = self._by_address.get(address)
        if not tries or len(tries) < limits.MAX_BAD_TOKENS:
            return 0.0
        return max(0.0, tries[0] + limits.BAD_TOKEN_WINDOW_S - now)

    def record(self, address: str, now: float) -> None:
        tries = self._by_address.setdefault(address, deque(maxlen=limits.MAX_BAD_TOKENS))
        while tries and tries[0] + limits.BAD_TOKEN_WINDOW_S <= now:
            tries.popleft()
        tries.append(now)
        self._by_address.move_to_end(address)
        while len(self._by_address) > limits.MAX_TRACKED_ADDRESSES:
            self._by_address.popitem(last=False)


class HostAllowList:
    """Which `Host` headers name this gateway.

    The loopback names, the address it is bound to and `extra` names from the settings. Bound beyond loopback,
    any literal IP address too: a rebound page always comes with a name.
    """

    def __init__(self, bound_host: str, extra: list[str]) -> None:
        self._names = _LOOPBACK_NAMES | {name.lower() for name in extra}
        if bound_host not in _WILDCARDS:
            self._names |= {bound_host.lower()}
        self._any_address = bound_host not in _LOOPBACK_NAMES

    def allows(self, host_header: str) -> bool:
        """host_header: `name`, `name:port` or `[v6]:port`."""
        try:
            name = urlsplit("//" + host_header).hostname or ""
        except ValueError:
            return False
        return name in self._names or (self._any_address and _is_address(name))


def same_origin(origin: str | None, fetch_site: str | None, host_header: str) -> bool:
    """Whether a request comes from our own page or from no page at all (a CLI sends neither header).

    Args: origin, fetch_site: the `Origin` and `Sec-Fetch-Site` headers, which a page cannot choose.
    """
    if fetch_site is not None and fetch_site not in ("same-origin", "none"):
        return False
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host_header.lower()
    except ValueError:
        return False


def bearer(header: str) -> str | None:
    """The token in an `Authorization` header; None where it holds none."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
