"""When the peer of an ICE connection counts as gone.

RFC 7675 lets consent expire after 30 s without an answer to a check; a mesh cannot wait so long for a dead peer. So a
peer that is silent altogether, data included, is gone after CONSENT_FAILURES checks in a row. One whose data comes, and
whose answers are late because both machines are busy, has what the RFC gives it: closing its link would lose what is in
flight. Nor does a check count during which our own loop stood still: its answer may lie in our socket. (What comes is
looked at before DTLS has verified it: whoever forges packets keeps a dead link for EXPIRY_S.)
"""

from __future__ import annotations

import asyncio
import random
from weakref import WeakKeyDictionary

import aioice.ice
from aioice.stun import TransactionError

CONSENT_INTERVAL_S = 1.0
CONSENT_FAILURES = 3
"""Checks in a row without an answer, and nothing else heard meanwhile (docs/data-channels.md)."""
ANSWER_WITHIN_S = 0.5
"""What aioice waits for an answer that it does not ask for again (RFC 8489, section 6.2.1: the first timeout)."""

LATE_S = 0.25
"""How late our own timer for that may be in a check that counts."""

EXPIRY_S = 30.0
"""RFC 7675, section 5.1: without any answer, whatever else is heard."""

_stock_data_received = aioice.ice.Connection.data_received
_heard_s: WeakKeyDictionary[aioice.ice.Connection, float] = WeakKeyDictionary()


def install() -> None:
    """Use it for every connection of this process. Idempotent."""
    aioice.ice.Connection.data_received = _data_received  # type: ignore[method-assign]
    aioice.ice.Connection.query_consent = _query_consent  # type: ignore[method-assign]


def _data_received(self: aioice.ice.Connection, data: bytes, component: int) -> None:
    _heard_s[self] = asyncio.get_running_loop().time()
    _stock_data_received(self, data, component)


async def _query_consent(self: aioice.ice.Connection) -> None:
    """As aioice's, apart from what a miss means."""
    assert self.remote_password is not None
    key = self.remote_password.encode()
    clock = asyncio.get_running_loop().time
    answered_s, failures = clock(), 0
    while True:
        # Spread, as RFC 7675 asks, so that the checks of many connections do not come together.
        await asyncio.sleep(CONSENT_INTERVAL_S * random.uniform(0.8, 1.2))
        for pair in list(self._nominated.values()):
            asked_s = clock()
            request = self.build_request(pair, nominate=False)
            try:
                await pair.protocol.request(request, pair.remote_addr, integrity_key=key, retransmissions=0)
                answered_s, failures = clock(), 0
            except TransactionError:
                if _heard_s.get(self, 0.0) >= asked_s:
                    failures = 0  # late, and not gone
                elif clock() - asked_s < ANSWER_WITHIN_S + LATE_S:
                    failures += 1
            if failures >= CONSENT_FAILURES or clock() - answered_s >= EXPIRY_S:
                # Its own task must not be cancelled by its own `close`.
                self._query_consent_task = None
                await self.close()
                return
