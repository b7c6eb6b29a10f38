"""What happens around every request: its id, its timings, its log line, and an answer even to a defect."""

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

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""Methods that are counted by name: a caller must not be able to add rows to the metrics."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestContext:
    """Keeps an incoming X-Request-ID or makes one, answers with it, and writes one log line a request.

    More requests than `max_requests` at a time are refused with 503 before anything of them is read.

    The line names the route's pattern, never the path: a path may hold what a caller put there.
    """

    def __init__(self, app: ASGIApp, *, max_requests: int) -> None:
        self._app = app
        self._max_requests = max_requests
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        token = request_id_var.set(request_id)
        started = time.perf_counter()
        stages = timing.collect()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
                if stages:
                    headers["Server-Timing"] = timing.header(stages, (time.perf_counter() - started) * 1e3)
            await send(message)

        self._under_way += 1
        try:
            if self._under_way > self._max_requests:
                metrics.of(metrics.REFUSED, "requests").inc()
                full = OverloadedError(f"{self._max_requests} requests are under way; try again soon.")
                await problems.of_error(full)(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        except Exception as error:
            if status:
                raise
            await problems.unexpected(error)(scope, receive, answer)
        finally:
            self._under_way -= 1
            _note(scope, status, time.perf_counter() - started)
            request_id_var.reset(token)


def _note(scope: Scope, status: int, took_s: float) -> None:
    """Write the log line of a request, and count it."""
    route, method = getattr(scope.get("route"), "path", "-"), scope["method"]
    log.info("request", extra={"method": method, "route": route, "status": status, "ms": round(took_s * 1e3, 1)})
    method = method if method in METHODS else "other"
    metrics.of(metrics.REQUESTS, route, method, str(status)).inc()
    metrics.of(metrics.REQUEST_SECONDS, route, method).observe(took_s)
