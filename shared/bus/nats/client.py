"""nats-py, imported once and without what it would load for WebSocket URLs: the only place that names the package.

`nats.aio.transport` imports aiohttp where it is installed, for `ws://` URLs alone, which we refuse. That is two thirds
of the time and half of the modules of a service's start (0.72 s against 0.25 s of `import nats` on a busy machine).
It takes an ImportError for "not installed", so for the length of this one import it is given that: Python raises
ModuleNotFoundError for a module that `sys.modules` holds as None. aiohttp itself can be imported before and after.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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

__all__ = ["Client", "Msg", "Subscription", "TlsClient", "add_service", "errors"]


class TlsClient(Client):
    """Says nothing to a server before TLS.

    For nats-py a `tls://` URL is a wish: where the server's first line, which travels in clear, does not ask for TLS,
    it goes on without. Whoever is between could so read everything, and log in as us at the real server with our answer
    to its challenge. `connect` raises ssl.SSLError instead.
    """

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if not info.get("tls_required"):
            raise ssl.SSLError("no TLS")
        await super()._process_info(info, initial_connection)
