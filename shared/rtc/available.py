"""The one place where aiortc is imported, or found to be missing or broken.

It is an optional part: a worker without it is `degraded` with `import_failed` and serves what it can
(docs/architecture.md). Importing it costs 0.5-2 s of CPU, most of it codecs that data channels never use, so it is
done once
at start, off the event loop, with what else the first connection would wait for.
"""

from __future__ import annotations

import logging

from shared.errors import Cause, TransportError
from shared.rtc.contract import LinkFactory

log = logging.getLogger(__name__)


def load() -> LinkFactory:
    """Import aiortc and set it up for this process. Blocking: call it in a thread. Idempotent.

    Returns: what makes links.
    Raises:  TransportError(IMPORT_FAILED), whatever went wrong: a missing package, a missing shared library, or
             an aiortc whose insides are not those that our changes are made for.
    """
    try:
        from shared.rtc import consent, gathering, link, sctp_tuning

        gathering.install()
        consent.install()
        sctp_tuning.install()
        link.warm_up()
    except Exception as error:  # a broken native library raises anything at all
        log.warning("aiortc cannot be used: %s", type(error).__name__)
        raise TransportError(Cause.IMPORT_FAILED, "aiortc cannot be used") from error
    _silence()
    return link.DataChannelLink


def _silence() -> None:
    # Their loggers write candidates, addresses and SDP, aiortc's also a traceback for each malformed packet:
    # none of it may leave the process (docs/trust.md), and what matters comes to us as states and exceptions.
    for name in ("aioice", "aiortc"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
