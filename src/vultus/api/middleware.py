"""Wraps every request: request id, timings, log line, and a response even to an unhandled error."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from vultus.api import problems
from vultus.errors import OverloadedError
from vultus.utils import metrics
from vultus.utils.request_scope import RequestScope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from vultus.utils.request_scope import RequestLimits

log = logging.getLogger("vultus.access")

HEALTH_PATHS = ("/v1/health/live", "/v1/health/ready")
COUNTED_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""Methods that are counted by name: a caller must not be able to add label values to the metrics."""

METHOD_NOT_ALLOWED = 405
UNTIMED_STATUSES = {401, 404, 405}
"""Statuses that say how long nothing took; a caller without a key makes as many as it likes."""

SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}
"""Sent with every response that has none of its own by that name."""


def is_health_path(path: str) -> bool:
    """Return whether a path, with or without a proxy's prefix, asks for the server's health."""
    return path.endswith(HEALTH_PATHS)


class RequestContextMiddleware:
    """Opens the scope of every request, returns its id, and writes one log line per request.

    An incoming X-Request-ID is kept. Beyond the limit of requests in flight, requests are refused with 503 before
    anything of them is read; questions for the server's health never are, or a supervisor would end a sound server.
    HEAD is answered like GET: the server leaves the body out.

    The line contains the route's pattern, never the path, which a caller chooses.
    """

    def __init__(self, app: ASGIApp, *, limits: RequestLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            scope, send = {**scope, "method": "GET"}, _leave_out_body(send)
        request_scope = RequestScope(self._limits, Headers(scope=scope).get("x-request-id", ""))
        status = 0

        async def send_response(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _complete_headers(message.get("headers", ()), request_scope)}
            await send(message)

        with request_scope:
            try:
                if not is_health_path(scope["path"]):
                    request_scope.ensure_admitted()
                await self._app(scope, receive, send_response)
            except OverloadedError as error:  # of the admission: the app answers its own
                await problems.build_error_response(error)(scope, receive, send_response)
            except Exception as error:
                if status:
                    raise
                await problems.handle_unexpected_error(error)(scope, receive, send_response)
            finally:
                _record_request(scope, method, status, request_scope)


def _leave_out_body(send: Send) -> Send:
    """Return a function that sends the head of an answer alone, also of one that does not end."""
    is_answered = False

    async def send_head(message: Message) -> None:
        nonlocal is_answered
        if message["type"] == "http.response.start":
            await send(message)
        elif not is_answered:
            is_answered = True
            await send({"type": message["type"], "body": b""})

    return send_head


def _complete_headers(headers: Iterable[tuple[bytes, bytes]], request_scope: RequestScope) -> list[tuple[bytes, bytes]]:
    """Return a response's headers with the request's id, its timings, and what every response has."""
    completed = [*headers, (b"x-request-id", request_scope.request_id.encode())]
    own = {name for name, _ in completed}
    completed += [header for header in SECURITY_HEADERS.items() if header[0] not in own]
    if quota := request_scope.quota:  # RateLimit header fields, draft-ietf-httpapi-ratelimit-headers-10
        completed.append((b"ratelimit-policy", f'"searches";q={quota.limit};w=3600'.encode()))
        completed.append((b"ratelimit", f'"searches";r={quota.left};t={math.ceil(quota.ends_in_s)}'.encode()))
    if server_timing := request_scope.format_server_timing():
        completed.append((b"server-timing", server_timing.encode()))
    return completed


def _record_request(scope: Scope, method: str, status: int, request_scope: RequestScope) -> None:
    """Write the log line of a request, and count it."""
    route, took_s = _get_route(scope), request_scope.elapsed_s
    client = (scope.get("client") or ("-",))[0]
    level = logging.WARNING if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
    if log.isEnabledFor(level):
        # A record of its own: logging would look for the line of code it comes from, which is always this one.
        record = log.makeRecord(
            log.name,
            level,
            "",
            0,
            "request",
            (),
            None,
            extra={
                "method": method,
                "route": route,
                "status": status,
                "ms": round(took_s * 1e3, 1),
                "code": request_scope.error_code or None,
                "cause": request_scope.error_cause or None,
                "key": request_scope.principal_id.removeprefix("key:") or None,
                "client": client,
            },
        )
        log.handle(record)
    if status == METHOD_NOT_ALLOWED:  # of a path, whichever of its routes came first
        route = "-"
    counted = scope["method"] if route != "-" and scope["method"] in COUNTED_METHODS else "-"
    metrics.get_labelled(metrics.REQUESTS, route, counted, str(status)).inc()
    if status not in UNTIMED_STATUSES:
        metrics.get_labelled(metrics.REQUEST_SECONDS, route, counted).observe(took_s)


def _get_route(scope: Scope) -> str:
    """Return the pattern of the route that answered, with the prefixes of the routers around it."""
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return getattr(route, "path", "-")
