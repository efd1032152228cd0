"""Keeps a node's streams and buckets: makes them, looks again and again, and makes them again where they are lost.

A NATS server may come back without its data (a lost volume), and a stream can be removed by hand. Whoever uses one
only finds that nothing stores its writes any more; making one takes the `keeper` user, which no service has. So one
process with that user runs this for as long as the node runs: the supervisor (`up`, `demo`), or, where containers
are started by something else, `python -m services.supervisor keep`.

What was in them comes back from those who know it: a bucket's writers put back what their watches hold
(`KeyValue.watch(restore=True)`), leases are taken again, and the hops begin again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from shared.bus.messages.subjects import BUCKET_LAYOUT
from shared.bus.nats.connection import NatsConnection
from shared.bus.nats.layout import NewerSchema, ensure_layout, is_laid_out
from shared.errors import BusError

LOOK_EVERY_S = 2.0
"""How often is looked: a few small requests. A loss costs writers this long, and their own patience is far longer."""

log = logging.getLogger(__name__)


class Keeper:
    """The layout of one node.

    looked: called after each look that the server answered, with "" or with why the layout cannot be made.
    """

    def __init__(
        self, connection: NatsConnection, node: str, scope: str = "", looked: Callable[[str], None] | None = None
    ) -> None:
        self._connection = connection
        self._node = node
        self._scope = scope
        self._looked = looked

    async def run(self) -> None:
        """Look after it until cancelled. A bus that is away, or that refuses, is looked at again.

        Raises: NewerSchema: it is not ours to look after.
        """
        renewed = asyncio.Event()
        forget = self._connection.on_renewed(renewed.set)
        refused = ""
        laid_out, first = False, True  # the first look also asks of which version it is
        try:
            while True:
                renewed.clear()  # before the look: a reconnect in the middle of it is looked at again
                try:
                    laid_out = laid_out and await is_laid_out(self._connection, self._node, self._scope)
                    if not laid_out:
                        self._note(await ensure_layout(self._connection, self._node, self._scope), first)
                        first = False
                    laid_out, refused = True, ""
                except NewerSchema:
                    raise
                except BusError as error:
                    if str(error) != refused and self._connection.connected:
                        log.error("node %s: its streams cannot be made again: %s", self._node, error)
                    refused = str(error)
                if self._looked is not None and self._connection.connected:
                    self._looked(refused)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await renewed.wait()
        finally:
            forget()

    def _note(self, made: list[str], first: bool) -> None:
        if first and BUCKET_LAYOUT in made:
            # Nothing is known of this node: it is new here, or lost what nobody watched.
            log.info("node %s: its streams are made", self._node)
            return
        if made:
            log.error("node %s: NATS had lost %s; made again", self._node, ", ".join(made))
