"""Peers that speak BitTorrent and nothing else: who they are, so that they are turned away for good. Pure.

A plain `webtorrent` takes our handshake for a success, whatever comes after it, and dials again 1.1 s after we close;
after three dials in a row without a handshake it stops. So who had no use for us is remembered, and gets none.

In plaintext its handshake comes first and tells its peer id. An encrypted start tells nothing before we have answered,
so there the address has to do: as many starts of it are refused as a webtorrent makes before it stops. Others behind
the same address lose a dial or two meanwhile, and come in by the next one, in plaintext or over a data channel.

Source: webtorrent 3, `RECONNECT_WAIT` (1, 5 and 15 s; its count starts again with every handshake).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

REMEMBERED_S = 600.0
"""As long as a useless endpoint is left alone."""
MAX_REMEMBERED = 1_024
"""Peer ids, and addresses; the oldest are forgotten first."""
REFUSALS_FIRST = 3
REFUSALS_CAP = 96
"""Encrypted starts of one address that are refused in a row; doubling while its peers go on being of no use."""

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(slots=True)
class _Address:
    seen_at: float
    times: int
    left: int


class Strangers:
    """Driven by the wires. Methods take `now` of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._ids: OrderedDict[bytes, float] = OrderedDict()
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    def useless(self, peer_id: bytes, address: str, now: float) -> None:
        """A peer had no `swarm-space`. peer_id: b"" where it is not known. address: "" where it dialled nobody."""
        if peer_id:
            _remember(self._ids, peer_id, now)
        if address:
            self.redials(address, now)

    def redials(self, address: str, now: float) -> None:
        """Somebody at this address was closed after a handshake of ours, and would dial again at once."""
        known = self._addresses.get(address)
        # Within REMEMBERED_S of the last time it is the same peer's persistence; after that it may be another's first.
        times = known.times + 1 if known is not None and now - known.seen_at < REMEMBERED_S else 0
        left = min(REFUSALS_CAP, REFUSALS_FIRST * 2**times)
        _remember(self._addresses, address, _Address(now, times, left))

    def is_useless(self, peer_id: bytes, now: float) -> bool:
        """Whether a peer with this id is turned away before it gets a handshake, or an answer to its offer."""
        seen_at = self._ids.get(peer_id)
        return seen_at is not None and now - seen_at < REMEMBERED_S

    def answers_encrypted(self, address: str, now: float) -> bool:
        """Whether an encrypted start from this address is answered; each "no" is counted."""
        known = self._addresses.get(address)
        if known is None or not known.left or now - known.seen_at >= REMEMBERED_S:
            return True
        # Counted down and not timed: a webtorrent stops after so many dials, however far apart they are.
        known.left -= 1
        return False


def _remember(kept: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > MAX_REMEMBERED:
        kept.popitem(last=False)
