"""What `swarmbridge` and its services exit with. Scripts may rely on the former; the README lists them too."""

from __future__ import annotations

OK = 0
"""Done."""

FAILED = 1
"""The operation failed: the node answered, and could not do it."""

USAGE = 2
"""Wrong usage: an argument, an option, a link or a setting that cannot be used. Nothing was done."""

CANNOT_START = 3
"""`up`, `demo` or a service could not start: a taken port, say."""

NOT_RUNNING = 4
"""No node answers: `swarmbridge up` starts one."""

CRASHED = 4
"""Of a service: a task without which it does nothing has died. Whoever started it starts it again."""

REFUSED = 5
"""The node does not take our token."""

INTERRUPTED = 130
"""Ctrl-C, or SIGTERM: 128 + SIGINT, as shells have it."""
