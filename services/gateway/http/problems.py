"""Errors as the API answers them: `{"error": {"code", "message", "hint"}}` with the fitting HTTP status.

`code` is a Cause or one of a few HTTP words (`unauthorized`, `not_found`, …); `message` says what happened and
`hint` what to do. Neither ever holds `str(exception)`: it could carry an address or a token (docs/trust.md).
"""

from __future__ import annotations

from typing import NamedTuple

from aiohttp import web

from services.gateway.http.answers import json_answer
from shared.errors import BusUnavailable, Cause, NoResponders, RemoteFailure, SwarmbridgeError


class ApiProblem(Exception):
    """An answer that is no success. Raise it anywhere in a handler."""

    def __init__(self, status: int, code: str, message: str, hint: str = "", *, retry_after_s: float = 0.0) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s

    def answer(self) -> web.Response:
        headers = {"Retry-After": str(max(1, round(self.retry_after_s)))} if self.retry_after_s else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        body = {"error": {"code": self.code, "message": self.message, "hint": self.hint}}
        return json_answer(body, status=self.status, headers=headers)


class _Words(NamedTuple):
    status: int
    message: str
    hint: str


_BY_CAUSE: dict[Cause, _Words] = {
    Cause.BUSY: _Words(503, "the node has no room for this now", "try again in a moment"),
    Cause.RATE_LIMITED: _Words(429, "too many requests", "wait a minute"),
    Cause.TOO_LARGE: _Words(413, "this is larger than the node takes", "send less"),
    Cause.STORE_FULL: _Words(507, "the node's store has no room for this", "remove files, or raise chunk.quota_bytes"),
    Cause.DISK_FULL: _Words(507, "the disk under the node's store is full", "free space on it, or move chunk.store"),
    Cause.STORE_FAILED: _Words(503, "the node's store cannot be used", "see the chunk service's log"),
    Cause.INVALID: _Words(400, "the node could not make sense of the request", "check the link or the digest"),
    Cause.FORBIDDEN: _Words(403, "this content is not for you, or the key is missing or wrong", "use the whole link"),
    Cause.UNAUTHENTICATED: _Words(403, "the key does not open this content", "use the whole link, with its fragment"),
    Cause.NO_LINK: _Words(404, "the node does not hold this", "fetch it first"),
    Cause.PEER_UNKNOWN: _Words(404, "the node does not know this peer", "check the link"),
    Cause.INTEGRITY_MISMATCH: _Words(502, "the bytes are not what the manifest says", "fetch it again"),
    Cause.SOURCE_LOST: _Words(502, "the process holding the bytes went away", "try again"),
    Cause.TIMEOUT: _Words(504, "the node did not answer in time", "try again; see `swarmbridge stats`"),
    Cause.WORKER_LOST: _Words(503, "the node's processes cannot be reached", "see whether the node is still starting"),
    Cause.DRAINING: _Words(503, "the node is stopping", "try again when it is back"),
    Cause.DISABLED: _Words(409, "this is switched off", "switch it on with `swarmbridge flags`"),
}
_OTHER = _Words(502, "the node could not do this", "see `swarmbridge stats` and the node's log")


def problem_of(error: SwarmbridgeError) -> ApiProblem:
    """The answer to a failed call to another process of the node."""
    if isinstance(error, NoResponders):
        return ApiProblem(
            503, "unavailable", "the node's chunk service is not running", "wait for it to come back, then try again"
        )
    if isinstance(error, BusUnavailable):
        return ApiProblem(503, "unavailable", "the node's bus cannot be reached", "see whether the node is up")
    words = _BY_CAUSE.get(error.cause, _OTHER)
    retry_after_s = error.retry_after_s if isinstance(error, RemoteFailure) else 0.0
    return ApiProblem(words.status, error.cause.value, words.message, words.hint, retry_after_s=retry_after_s)


_HTTP_WORDS: dict[int, tuple[str, str, str]] = {
    404: ("not_found", "there is nothing here", "see the README of services/gateway for the API"),
    405: ("method_not_allowed", "this address does not take that method", ""),
    413: ("too_large", "the request is larger than the gateway takes", "send less"),
}


def problem_of_http(error: web.HTTPException) -> ApiProblem:
    """aiohttp's own refusals in the API's form."""
    code, message, hint = _HTTP_WORDS.get(error.status, ("invalid", "the request is not valid HTTP for this API", ""))
    return ApiProblem(error.status, code, message, hint)


def invalid(message: str, hint: str = "") -> ApiProblem:
    """400: the caller's mistake, in words."""
    return ApiProblem(400, Cause.INVALID.value, message, hint)


def not_found(message: str, hint: str = "") -> ApiProblem:
    return ApiProblem(404, "not_found", message, hint)
