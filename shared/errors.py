"""Causes and errors: one closed vocabulary for receipts, spans, metrics, the dashboard and `why`.

    SwarmbridgeError                 carries a Cause
      ConfigError                    every bad setting at once; nothing starts
      LocalProtocolError             our own bug: a machine was driven out of turn
      RemoteProtocolError            a bad peer: close its link, count the cause
      TransportError                 a transport could not do it
      BusError
        NoResponders                 nobody serves the subject: known at once
        BusTimeout                   somebody may have it; no answer in time
        BusUnavailable               the bus is away, or what it should store is not there
        RemoteFailure                the other process answered with a cause

Third-party errors are translated into these once, where the library is called. `str(error)` never leaves
the process: what is published is the cause (docs/trust.md: URLs carry tokens).
"""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """Why something did not happen. Closed: an unknown word from a newer process decodes as OTHER."""

    NO_LINK = "no_link"
    DIAL_TIMEOUT = "dial_timeout"
    SIGNALLING_UNAVAILABLE = "signalling_unavailable"
    ID_TAKEN = "id_taken"
    ICE_FAILED = "ice_failed"
    PEER_UNKNOWN = "peer_unknown"
    NO_EXTENSION = "no_extension"
    NO_LISTENER = "no_listener"
    BUSY = "busy"
    RATE_LIMITED = "rate_limited"
    TOO_LARGE = "too_large"
    SILENT = "silent"
    TIMEOUT = "timeout"
    CLOSED = "closed"
    REFUSED = "refused"
    BLOCKED = "blocked"
    FORBIDDEN = "forbidden"
    UNAUTHENTICATED = "unauthenticated"
    CLOCK_SKEW = "clock_skew"
    DISABLED = "disabled"
    CIRCUIT_OPEN = "circuit_open"
    DRAINING = "draining"
    EXPIRED = "expired"
    WORKER_LOST = "worker_lost"
    SOURCE_LOST = "source_lost"
    STORE_FULL = "store_full"
    DISK_FULL = "disk_full"
    STORE_FAILED = "store_failed"
    IMPORT_FAILED = "import_failed"
    INTEGRITY_MISMATCH = "integrity_mismatch"
    INVALID = "invalid"
    MISCONFIGURED = "misconfigured"
    BUS_UNAVAILABLE = "bus_unavailable"
    """Our own bus was away or too slow for longer than could be waited: nobody else's fault."""
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> Cause:
        return cls.OTHER


class SwarmbridgeError(Exception):
    """Any failure of ours. `cause` may be published; the text is for the local log and the terminal only."""

    def __init__(self, cause: Cause, text: str = "") -> None:
        super().__init__(text or cause.value)
        self.cause = cause


class ConfigError(SwarmbridgeError):
    """Settings that cannot be used. `problems` names each key with what to do about it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(Cause.INVALID, "; ".join(problems))
        self.problems = problems


class LocalProtocolError(SwarmbridgeError):
    """A protocol machine was asked for something its state does not allow: a bug on our side."""

    def __init__(self, text: str) -> None:
        super().__init__(Cause.OTHER, text)


class RemoteProtocolError(SwarmbridgeError):
    """The peer broke the protocol. Close the link with `cause` and count it."""

    def __init__(self, text: str, cause: Cause = Cause.INVALID) -> None:
        super().__init__(cause, text)


class TransportError(SwarmbridgeError):
    """A transport could not dial or send."""


class BusError(SwarmbridgeError):
    """The bus could not carry a request."""


class NoResponders(BusError):
    """Nobody serves the subject (NATS 503), known within a millisecond or so."""

    def __init__(self, text: str = "") -> None:
        super().__init__(Cause.NO_LINK, text)


class BusTimeout(BusError):
    """No answer by the deadline. The request may have been handled."""

    def __init__(self, text: str = "") -> None:
        super().__init__(Cause.TIMEOUT, text)


class BusUnavailable(BusError):
    """Not connected to the bus, or not any more: what was in flight may have been handled."""

    def __init__(self, text: str = "") -> None:
        super().__init__(Cause.BUS_UNAVAILABLE, text)


class RemoteFailure(BusError):
    """The serving process answered with a cause. `retry_after_s` is set with Cause.BUSY, else 0."""

    def __init__(self, cause: Cause, retry_after_s: float = 0.0) -> None:
        super().__init__(cause)
        self.retry_after_s = retry_after_s
