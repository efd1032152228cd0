"""Why a request to the gateway came to nothing.

    GatewayError                 code, message, hint, all for people
      ├ Refused                  the gateway answered so; `status` is HTTP's
      ├ NotRunning               nothing accepts connections there
      ├ BrokenOff                the connection ended before the answer did
      ├ TimedOut                 nothing came for too long
      ├ NoGateway                what answers there is no gateway
      └ NotOurs                  nor does it prove that it is the one that the home tells of: no token was sent

No text here holds `str(exception)`: it could carry a path of this machine.
"""

from __future__ import annotations


class GatewayError(Exception):
    """code: a cause, or a word of the API's. hint: what to do, as an imperative; "" for nothing."""

    def __init__(self, code: str, message: str = "", hint: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.message = message or code
        self.hint = hint


class Refused(GatewayError):
    """The gateway's own words. status: of HTTP."""

    def __init__(self, status: int, code: str, message: str, hint: str) -> None:
        super().__init__(code, message, hint)
        self.status = status

    @property
    def is_about_the_token(self) -> bool:
        return self.status == 401 or self.code == "rate_limited"


class NotRunning(GatewayError):
    def __init__(self, url: str) -> None:
        super().__init__("not_running", f"no node answers at {url}", "do `swarmbridge up`")


class BrokenOff(GatewayError):
    def __init__(self) -> None:
        super().__init__("closed", "the node broke off the connection", "see whether it still runs")


class TimedOut(GatewayError):
    def __init__(self) -> None:
        super().__init__("timeout", "the node did not answer in time", "see whether it still runs")


class NoGateway(GatewayError):
    def __init__(self, url: str) -> None:
        super().__init__("invalid", f"what answers at {url} is no swarmbridge gateway", "see --url")


class NotOurs(GatewayError):
    def __init__(self, url: str) -> None:
        super().__init__(
            "unauthorized",
            f"what answers at {url} is not this home's gateway, so its token was not sent there",
            "start the node again; or name the token that is meant with --token-file",
        )
