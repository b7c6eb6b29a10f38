"""`GET /metrics`: on a port of its own by default, computed off the event loop and at most once a second."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from vultus.utils.metrics import render_metrics

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

METRICS_PATH = "/metrics"
MAX_AGE_S = 1.0


class MetricsCache:
    """The rendered metrics, for as long as they are fresh."""

    def __init__(self) -> None:
        self._rendered = b"", ""
        self._rendered_at = -MAX_AGE_S
        self._lock = asyncio.Lock()

    async def render(self) -> tuple[bytes, str]:
        """Return the metrics in Prometheus' text format, and its content type."""
        async with self._lock:
            if time.monotonic() - self._rendered_at >= MAX_AGE_S:
                self._rendered = await asyncio.to_thread(render_metrics)
                self._rendered_at = time.monotonic()
            return self._rendered


class MetricsApp:
    """ASGI application that answers `/metrics` and nothing else."""

    def __init__(self) -> None:
        self._cache = MetricsCache()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, content, kind = HTTPStatus.OK, b"", "text/plain; charset=utf-8"
        if scope["path"] != METRICS_PATH:
            status, content = HTTPStatus.NOT_FOUND, b"Only /metrics is here.\n"
        elif scope["method"] not in {"GET", "HEAD"}:
            status, content = HTTPStatus.METHOD_NOT_ALLOWED, b"Only GET and HEAD are answered.\n"
        else:
            content, kind = await self._cache.render()
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(content)).encode())]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status.value, "headers": headers})
        await send({"type": "http.response.body", "body": content})
