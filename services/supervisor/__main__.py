"""`python -m services.supervisor up|demo|init|keep`."""

from __future__ import annotations

import sys

from services.supervisor.machine.interrupts import exit_quietly_when_interrupted

if __name__ == "__main__":
    exit_quietly_when_interrupted()  # before the slow imports: Ctrl-C is clean from the first moment
    from services.supervisor.arguments import parse

    options = parse()
    nursery = None
    if options.command in ("up", "demo") and not options.no_fork:
        from services.supervisor.nursery.start import start_nursery

        nursery = start_nursery()  # loads what the services share while we load what we need ourselves
    from services.supervisor.app import main

    sys.exit(main(options, nursery))
