"""A transfer followed to its end, over restarts of the gateway too."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from services.cli.api import failed
from services.cli.lasting import LastingGateway
from services.cli.progress import Following, Step
from shared.gateway_api import calls
from shared.gateway_api.errors import GatewayError
from shared.gateway_api.structs import Transfer

FIRST_POLL_INTERVAL_S = 0.01
POLL_INTERVAL_S = 0.15
CANCEL_WAIT_S = 2.0
"""Ctrl-C must not hang on a node that does not answer."""


def settled(gateway: LastingGateway, transfer_id: str, step: Step) -> Transfer:
    """A transfer's end, each state shown by `step`; when we are interrupted, it is cancelled at the node.

    Raises: CliFailure when it failed; GatewayError when nobody can say how it is: Refused (404) of a gateway that was
        restarted and has heard nothing of it.
    """
    try:
        return _finished(gateway, transfer_id, Following(step), step)
    except KeyboardInterrupt:
        with suppress(GatewayError):
            gateway.client.ask(calls.cancel(transfer_id), CANCEL_WAIT_S)
        raise


def _finished(gateway: LastingGateway, transfer_id: str, on_change: Callable[[Transfer], None], step: Step) -> Transfer:
    interval_s = FIRST_POLL_INTERVAL_S
    while True:
        transfer = gateway.do(lambda client: client.ask(calls.transfer(transfer_id)), step.say)
        on_change(transfer)
        if transfer.state == "done":
            return transfer
        if transfer.state == "failed":
            raise failed(transfer)
        time.sleep(interval_s)
        # A small file is done at once, a large one takes its time.
        interval_s = min(2 * interval_s, POLL_INTERVAL_S)
