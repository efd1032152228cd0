"""A line for each part: what was expected, what happened, how long it took; each part under a time limit of its own."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from tests.compose.project import Failed, Skipped


@dataclass
class Report:
    """Runs parts one after another. A part that fails is reported, and the next ones still run."""

    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)

    def part(self, name: str, expected: str, limit_s: int, work: Callable[[], str]) -> bool:
        """Run one part. work: returns what happened, raises Failed where that was not what was expected, Skipped where
        it has nothing to try here.

        Returns: whether it held, or was skipped.
        """
        started_s = time.monotonic()
        before = signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(limit_s)
        try:
            happened, held = work(), True
        except Skipped as reason:
            print(f"skip          {name}: {reason}", flush=True)
            self.skipped += 1
            return True
        except Failed as error:
            happened, held = str(error), False
        except Exception as error:  # an answer of another form than expected: what failed is this part, not the rest
            happened, held = f"{type(error).__name__}: {error}", False
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        took_s = time.monotonic() - started_s
        print(f"{'ok  ' if held else 'FAIL'} {took_s:6.1f} s  {name}: expected {expected}; {happened}", flush=True)
        if held:
            self.passed += 1
        else:
            self.failed.append(name)
        return held

    def close(self) -> int:
        """Print the counts. Returns: the exit code."""
        if self.failed:
            print(f"did not hold: {', '.join(self.failed)}", file=sys.stderr)
        print(f"{self.passed} passed, {len(self.failed)} failed, {self.skipped} skipped")
        return 1 if self.failed else 0


def _too_long(number: int, frame: FrameType | None) -> None:
    raise Failed("its time was over")
