"""Wraps every request: request id, timings, log line, and a response even to an unhandled error."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders

from vultus.api import problems
from vultus.errors import OverloadedError
from vultus.utils import metrics, timing
from vultus.utils.logging import request_id_var

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("vultus.access")

COUNTED_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""Methods that are counted by name: a caller must not be able to add label values to the metrics."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestContextMiddleware:
    """Keeps an incoming X-Request-ID or creates one, returns it, and writes one log line per request.

    Beyond `max_requests` in flight, requests are refused with 503 before anything of them is read.

    The line contains the route's pattern, never the path, which a caller chooses.
    """

    def __init__(self, app: ASGIApp, *, max_requests: int) -> None:
        self._app = app
        self._max_requests = max_requests
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        incoming_id = Headers(scope=scope).get("x-request-id", "")
        request_id = incoming_id if _REQUEST_ID.fullmatch(incoming_id) else uuid4().hex
        token = request_id_var.set(request_id)
        started = time.perf_counter()
        stages = timing.collect_stages()
        status = 0

        async def send_response(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
                if stages:
                    headers["Server-Timing"] = timing.format_server_timing(
                        stages, (time.perf_counter() - started) * 1e3
                    )
            await send(message)

        self._in_flight += 1
        try:
            if self._in_flight > self._max_requests:
                metrics.get_labelled(metrics.REFUSALS, "requests").inc()
                overload_error = OverloadedError(f"{self._max_requests} requests are under way; try again soon.")
                await problems.build_error_response(overload_error)(scope, receive, send_response)
            else:
                await self._app(scope, receive, send_response)
        except Exception as error:
            if status:
                raise
            await problems.handle_unexpected_error(error)(scope, receive, send_response)
        finally:
            self._in_flight -= 1
            _record_request(scope, status, time.perf_counter() - started)
            request_id_var.reset(token)


def _record_request(scope: Scope, status: int, took_s: float) -> None:
    """Write the log line of a request, and count it."""
    route, method = getattr(scope.get("route"), "path", "-"), scope["method"]
    log.info("request", extra={"method": method, "route": route, "status": status, "ms": round(took_s * 1e3, 1)})
    method = method if method in COUNTED_METHODS else "other"
    metrics.get_labelled(metrics.REQUESTS, route, method, str(status)).inc()
    metrics.get_labelled(metrics.REQUEST_SECONDS, route, method).observe(took_s)
