"""What every end in Python says and hears: see `ends`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any


def say(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


async def asked_to_begin() -> None:
    """Wait for the line at which a receiver begins."""
    await asyncio.to_thread(sys.stdin.readline)


async def until_closed() -> None:
    """Wait until whoever started us is done with us."""
    await asyncio.to_thread(sys.stdin.read)


class Watch:
    """When the first and the last of so many bytes came, in seconds since it was made.

    measures: said with the result, such as over what it came.
    """

    def __init__(self, size_bytes: int, measures: Callable[[], Mapping[str, float]] = dict) -> None:
        self._left = size_bytes
        self._measures = measures
        self._began_s = time.perf_counter()
        self._first_s = -1.0
        self.done = asyncio.Event()

    def count(self, length: int) -> None:
        if self._first_s < 0 < length:
            self._first_s = time.perf_counter() - self._began_s
        self._left -= length
        if self._left <= 0 and not self.done.is_set():
            seconds = time.perf_counter() - self._began_s
            say(firstByteS=self._first_s, seconds=seconds, measures=dict(self._measures()))
            self.done.set()


def run_end(main: Coroutine[Any, Any, None]) -> None:
    """On the event loop that services run on."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
