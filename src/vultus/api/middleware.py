"""Wraps every request: request id, timings, log line, and a response even to an unhandled error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

from vultus.api import problems
from vultus.errors import OverloadedError
from vultus.utils import metrics
from vultus.utils.request_scope import RequestScope

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from vultus.utils.request_scope import RequestLimits

log = logging.getLogger("vultus.access")

COUNTED_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""Methods that are counted by name: a caller must not be able to add label values to the metrics."""


class RequestContextMiddleware:
    """Opens the scope of every request, returns its id, and writes one log line per request.

    An incoming X-Request-ID is kept. Beyond the limit of requests in flight, requests are refused with 503 before
    anything of them is read.

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
        request_scope = RequestScope(self._limits, Headers(scope=scope).get("x-request-id", ""))
        status = 0

        async def send_response(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_scope.request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
                if server_timing := request_scope.format_server_timing():
                    headers["Server-Timing"] = server_timing
            await send(message)

        with request_scope:
            try:
                request_scope.ensure_admitted()
                await self._app(scope, receive, send_response)
            except OverloadedError as error:  # of the admission: the app answers its own
                await problems.build_error_response(error)(scope, receive, send_response)
            except Exception as error:
                if status:
                    raise
                await problems.handle_unexpected_error(error)(scope, receive, send_response)
            finally:
                _record_request(scope, status, request_scope.elapsed_s)


def _record_request(scope: Scope, status: int, took_s: float) -> None:
    """Write the log line of a request, and count it."""
    route, method = getattr(scope.get("route"), "path", "-"), scope["method"]
    log.info("request", extra={"method": method, "route": route, "status": status, "ms": round(took_s * 1e3, 1)})
    method = method if method in COUNTED_METHODS else "other"
    metrics.get_labelled(metrics.REQUESTS, route, method, str(status)).inc()
    metrics.get_labelled(metrics.REQUEST_SECONDS, route, method).observe(took_s)
