"""Transfers as people see them, folded from TransferUpdates. Pure.

*Driven by*: updates of calls made here and of event `transfer` (another gateway's calls); the same update may
come both ways, in either order. *Invariants*: a transfer that has ended stays as it ended; its numbers never
go back; at most limits.MAX_TRANSFERS are kept, ended ones go first, oldest first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from services.gateway.transfers import limits
from services.gateway.words.transfers import transfer_words
from shared.bus.messages.envelopes import TransferUpdate
from shared.errors import Cause
from shared.gateway_api.structs import Transfer

RUNNING = "running"
DONE = "done"
FAILED = "failed"


class TransferBoard:
    """The latest state of each transfer, by id (its call id in hex)."""

    def __init__(self, capacity: int = limits.MAX_TRANSFERS) -> None:
        self._capacity = capacity
        self._transfers: OrderedDict[str, Transfer] = OrderedDict()

    def begin(
        self, call_id: bytes, kind: str, name: str, bytes_total: int, now_ms: int, manifest: str = ""
    ) -> Transfer:
        """A transfer that was asked for here, before anyone has taken it. manifest: of what is fetched."""
        transfer = Transfer(
            id=call_id.hex(),
            kind=kind,
            state=RUNNING,
            name=name,
            bytes_total=bytes_total,
            manifest=manifest,
            started_at=now_ms,
        )
        self._keep(transfer)
        return transfer

    def apply(self, update: TransferUpdate) -> Transfer | None:
        """Returns: the transfer as it is now; None where the update said nothing new."""
        transfer_id = update.call_id.hex()
        old = self._transfers.get(transfer_id)
        new = _worded(_of_update(transfer_id, update) if old is None else _merged(old, update))
        if new == old:
            return None
        self._keep(new)
        return new

    def fail(self, transfer_id: str, cause: Cause) -> Transfer | None:
        """The call itself ended badly. Returns: as `apply`."""
        old = self._transfers.get(transfer_id)
        if old is None or old.state != RUNNING:
            return None
        new = _worded(_replace(old, state=FAILED, cause=cause.value, waiting=None))
        self._keep(new)
        return new

    def wait(self, transfer_id: str, cause: Cause) -> Transfer | None:
        """Nothing is heard of it, because of this; its next update ends that. Returns: as `apply`."""
        old = self._transfers.get(transfer_id)
        if old is None or old.state != RUNNING or old.waiting == cause.value:
            return None
        new = _worded(_replace(old, waiting=cause.value))
        self._keep(new)
        return new

    def get(self, transfer_id: str) -> Transfer | None:
        return self._transfers.get(transfer_id)

    def newest_first(self) -> list[Transfer]:
        return sorted(self._transfers.values(), key=lambda transfer: transfer.started_at, reverse=True)

    def by_instance(self) -> dict[str, int]:
        """How many of those that are kept each chunk instance worked on."""
        return dict(sorted(Counter(kept.instance for kept in self._transfers.values() if kept.instance).items()))

    def _keep(self, transfer: Transfer) -> None:
        self._transfers[transfer.id] = transfer
        if len(self._transfers) > self._capacity:
            # The oldest that has ended; where all still run, the oldest of these: a bound is a bound.
            ended = (key for key, kept in self._transfers.items() if kept.state != RUNNING)
            del self._transfers[next(ended, next(iter(self._transfers)))]


def _of_update(transfer_id: str, update: TransferUpdate) -> Transfer:
    return Transfer(
        id=transfer_id,
        kind=update.kind,
        state=update.state,
        name=update.name,
        chunks_done=update.chunks_done,
        chunks_total=update.chunks_total,
        bytes_done=update.bytes_done,
        bytes_total=update.bytes_total,
        by_transport=dict(update.by_transport),
        cause=update.cause.value if update.cause else None,
        link=update.link,
        manifest=update.manifest,
        started_at=update.started_ms,
        instance=update.instance,
        waiting=update.waiting.value if update.waiting else None,
    )


def _merged(old: Transfer, update: TransferUpdate) -> Transfer:
    """What a later (or late) update adds. An event holds less than the call's own message: no link, no digest."""
    if old.state != RUNNING:
        # Late, from before the end; or the other end of a transfer that we had failed for its silence.
        if update.state != old.state:
            return old
        return _replace(old, link=old.link or update.link, manifest=old.manifest or update.manifest)
    transports = old.by_transport.keys() | update.by_transport.keys()
    return _replace(
        old,
        state=update.state,
        name=update.name or old.name,
        chunks_done=max(old.chunks_done, update.chunks_done),
        chunks_total=max(old.chunks_total, update.chunks_total),
        bytes_done=max(old.bytes_done, update.bytes_done),
        bytes_total=max(old.bytes_total, update.bytes_total),
        by_transport={
            name: max(old.by_transport.get(name, 0), update.by_transport.get(name, 0)) for name in sorted(transports)
        },
        cause=update.cause.value if update.cause else old.cause,
        link=update.link or old.link,
        manifest=update.manifest or old.manifest,
        started_at=old.started_at or update.started_ms,
        instance=update.instance or old.instance,
        waiting=update.waiting.value if update.waiting and update.state == RUNNING else None,
    )


def _worded(transfer: Transfer) -> Transfer:
    """With the sentence for why it failed, or for what it waits for."""
    # One sentence for both, worded where the state is: no view has to know which cause counts.
    cause = transfer.cause if transfer.state == FAILED else transfer.waiting
    return _replace(transfer, reason=transfer_words(Cause(cause)) if cause else "")


def _replace(old: Transfer, **changes: object) -> Transfer:
    values = {name: getattr(old, name) for name in Transfer.__struct_fields__}
    return Transfer(**{**values, **changes})
