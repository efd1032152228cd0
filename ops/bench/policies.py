"""What is compared: the product's manager, and two ladders with a fixed delay in its place."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """next_after_ms: when the next transport starts beside (or, `abandon`, instead of) one that has not answered.

    0 = the product's own manager.
    """

    name: str
    label: str
    next_after_ms: int = 0
    abandon: bool = False

    def command(self) -> Sequence[str]:
        """How its process is run; -P as for every service."""
        if not self.next_after_ms:
            return [sys.executable, "-P", "-m", "services.manager"]
        arguments = ["--next-after-ms", str(self.next_after_ms), *(["--abandon"] if self.abandon else [])]
        return [sys.executable, "-P", "-m", "ops.bench.ladder", *arguments]


PRODUCT = Policy("swarmbridge", "swarmbridge's manager")
LIBP2P = Policy("ladder-250ms", "next transport after 250 ms (go-libp2p's delay)", 250)
PLAIN = Policy("ladder-2s", "next transport after a timeout of 2 s", 2_000, abandon=True)
POLICIES = (PRODUCT, LIBP2P, PLAIN)
