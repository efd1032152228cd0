"""`python -m ops.bench fallback|start|store [--quick] [--json]`."""

from __future__ import annotations

import sys

from services.supervisor.machine.interrupts import exit_quietly_when_interrupted

if __name__ == "__main__":
    exit_quietly_when_interrupted()  # before the slow imports
    from ops.bench.app import main

    sys.exit(main())
