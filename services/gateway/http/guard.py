"""The middleware in front of every request: host, origin, session or token; security headers; errors as JSON."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from services.gateway.http.answers import json_answer
from services.gateway.http.auth import (
    SESSION_LIFETIME_S,
    SESSION_NONCE_BYTES,
    BadTokens,
    HostAllowList,
    Token,
    bearer,
    same_origin,
)
from services.gateway.http.bodies import json_request
from services.gateway.http.problems import ApiProblem, problem_of, problem_of_http
from shared.clock import Clock, monotonic
from shared.errors import SwarmbridgeError
from shared.gateway_api.structs import LoginRequest

LOGIN_PATH = "/api/login"
# The page is the same for everyone and holds no data, so that it can ask for the token itself.
_PROTECTED_PREFIXES = ("/api/", "/metrics")
PAGE_HEADERS = {
    "Server": "swarmbridge",  # not which versions of what
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

log = logging.getLogger(__name__)


class Guard:
    """Decides who gets to the handlers. One for a gateway."""

    def __init__(self, token: Token, hosts: HostAllowList, clock: Clock = monotonic) -> None:
        self.on_authenticated: Callable[[web.BaseRequest], None] = lambda request: None
        """Called with each request that showed the token or a session: its connection keeps its place."""
        self._token = token
        self._hosts = hosts
        self._clock = clock
        self._bad_tokens = BadTokens()

    def routes(self) -> list[web.RouteDef]:
        return [web.post(LOGIN_PATH, self._login), web.post("/api/logout", self._logout)]

    @property
    def middleware(self) -> Middleware:
        """The outermost middleware: nothing below it answers without its headers."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            response = await self._answer(request, handler)
            if not response.prepared:
                for name, value in PAGE_HEADERS.items():
                    response.headers.setdefault(name, value)
                if not request.content.is_eof():
                    # An unread body would be taken for the next request's head.
                    response.force_close()
            return response

        return guard

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check_source(request)
            if request.path.startswith(_PROTECTED_PREFIXES) and request.path != LOGIN_PATH:
                self._check_identity(request)
            return await handler(request)
        except ApiProblem as problem:
            return problem.answer()
        except SwarmbridgeError as error:
            return problem_of(error).answer()
        except web.HTTPException as error:
            return problem_of_http(error).answer() if error.status >= 400 else error
        except ConnectionError:
            raise  # the caller went away: there is nobody to answer
        except Exception as error:
            log.error("a request ended with %s", type(error).__name__, exc_info=log.isEnabledFor(logging.DEBUG))
            return ApiProblem(500, "other", "the gateway failed", "see its log").answer()

    def _check_source(self, request: web.Request) -> None:
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise ApiProblem(415, "invalid", "compressed bodies are not taken", "send it without Content-Encoding")
        if not self._hosts.allows(request.host):
            raise ApiProblem(
                403, "forbidden", "this gateway has no such name", "use http://127.0.0.1, or set gateway.allowed_hosts"
            )
        headers = request.headers
        if request.path.startswith(_PROTECTED_PREFIXES) and not same_origin(
            headers.get("Origin"), headers.get("Sec-Fetch-Site"), request.host
        ):
            raise ApiProblem(403, "forbidden", "another site's page may not use this gateway", "open its own page")

    def _check_identity(self, request: web.Request) -> None:
        cookie = request.cookies.get(self._token.cookie_name)
        if cookie and self._token.session_valid(cookie, time.time()):
            self.on_authenticated(request)
            return
        offered = bearer(request.headers.get("Authorization", ""))
        if offered is None:
            raise ApiProblem(
                401, "unauthorized", "a token is needed", "send `Authorization: Bearer <token>` or log in on the page"
            )
        self._check_token(request, offered)

    def _check_token(self, request: web.Request, offered: str) -> None:
        if self._token.matches(offered):
            self.on_authenticated(request)
            return
        address = request.remote or ""
        now = self._clock()
        wait_s = self._bad_tokens.wait_s(address, now)
        if wait_s > 0:
            raise ApiProblem(429, "rate_limited", "too many wrong tokens", "wait a minute", retry_after_s=wait_s)
        self._bad_tokens.record(address, now)
        raise ApiProblem(
            401, "unauthorized", "the token is wrong", "it is in the file gateway.token of the node's home"
        )

    async def _login(self, request: web.Request) -> web.Response:
        """Token in, session cookie out: HttpOnly, so that no script can read it; Strict, so that no link carries it."""
        body = await json_request(request, LoginRequest)
        self._check_token(request, body.token)
        response = json_answer({"expiresIn": SESSION_LIFETIME_S})
        response.set_cookie(
            self._token.cookie_name,
            self._token.new_session(time.time(), os.urandom(SESSION_NONCE_BYTES)),
            max_age=SESSION_LIFETIME_S,
            path="/",
            httponly=True,
            samesite="Strict",
        )
        return response

    async def _logout(self, request: web.Request) -> web.Response:
        response = json_answer({})
        response.del_cookie(self._token.cookie_name, path="/", httponly=True, samesite="Strict")
        return response
