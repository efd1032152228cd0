"""nats-py, imported once and without what it would load for WebSocket URLs: the only place that names the package.

`nats.aio.transport` imports aiohttp where it is installed, for `ws://` URLs alone, which we refuse. That is two thirds
of the time and half of the modules of a service's start (0.72 s against 0.25 s of `import nats` on a busy machine).
It takes an ImportError for "not installed", so for the length of this one import it is given that: Python raises
ModuleNotFoundError for a module that `sys.modules` holds as None. aiohttp itself can be imported before and after.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNUSED = "aiohttp"


@contextmanager
def _not_installed(name: str) -> Iterator[None]:
    """Within it, importing the module fails as if it were not there. A module that is loaded stays as it is."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


with _not_installed(UNUSED):
    from nats import errors
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.micro import add_service

__all__ = ["Client", "Msg", "Subscription", "add_service", "errors"]
