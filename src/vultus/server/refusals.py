"""What is answered before a request reaches the application: problem details, and one log line for many refusals."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from uuid import uuid4

from vultus.utils import metrics

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request or a connection is refused.

    Attributes:
        status: HTTP status.
        code: Stable, as in every problem.
        title: For people.
        detail: What was wrong, and what to do.
        retry_after_s: Seconds after which it may be tried again, if that helps.
    """

    status: int
    code: str
    title: str
    detail: str
    retry_after_s: int | None = None

    def build_problem(self) -> tuple[bytes, dict[str, str]]:
        """Return the problem details, and the headers that go with them."""
        request_id = uuid4().hex
        body = json.dumps(
            {
                "type": f"urn:vultus:problem:{self.code}",
                "title": self.title,
                "status": self.status,
                "detail": self.detail,
                "code": self.code,
                "request_id": request_id,
            }
        ).encode()
        headers = {
            "content-type": "application/problem+json",
            "content-length": str(len(body)),
            "x-request-id": request_id,
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
        }
        return body, headers | ({} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)})

    def build_response(self) -> bytes:
        """Return a whole HTTP/1.1 response that ends the connection."""
        body, headers = self.build_problem()
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            *(f"{name}: {value}" for name, value in headers.items()),
            "connection: close",
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def build_malformed(detail: str) -> Refusal:
    """Return the refusal of what is no HTTP request."""
    return Refusal(400, "malformed_request", "Malformed request", f"{detail} The connection is closed.")


_OTHER_PROTOCOLS = {
    b"\x16\x03": "TLS was sent, but this port speaks plain HTTP: use http:// in the address.",
    b"PRI * HTTP/2": "HTTP/2 is not spoken here: send HTTP/1.1.",
    b"PROXY ": "The PROXY protocol is not spoken here: let the proxy send X-Forwarded-For.",
    b"\x00\r\nQUIT\n": "The PROXY protocol is not spoken here: let the proxy send X-Forwarded-For.",
}


def explain_malformed(data: bytes, error: Exception) -> Refusal:
    """Return the refusal of what the parser does not take."""
    for beginning, detail in _OTHER_PROTOCOLS.items():
        if data.startswith(beginning):
            return build_malformed(detail)
    return build_malformed(f"This is no HTTP/1.1 request: {error}.")


HEAD_TOO_LONG = Refusal(
    431,
    "head_too_long",
    "Request head too long",
    "Request line and headers together are longer than 32 KiB; send fewer or shorter ones. The connection is closed.",
)
HEAD_TOO_SLOW = Refusal(
    408,
    "request_timeout",
    "Request timed out",
    "Request line and headers did not arrive within 10 seconds. The connection is closed.",
)
ADDRESS_FULL = Refusal(
    429,
    "too_many_connections",
    "Too many connections",
    "As many connections of your address are busy as one address may have; close some, or try again soon.",
    retry_after_s=2,
)
TOO_MANY_PIPELINED = build_malformed("More than 64 requests were sent without waiting for an answer.")
SERVER_FULL = Refusal(
    503,
    "overloaded",
    "Server overloaded",
    "As many connections are busy as this server may have; try again soon.",
    retry_after_s=2,
)


class RefusalLog:
    """Counts refusals, and writes at most one line for each kind in `LOG_INTERVAL_S`: a flood must not fill the log."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._written_at = -LOG_INTERVAL_S

    def add(self, code: str) -> None:
        """Count a refusal; the first after a quiet time is written at once."""
        self._counts[code] += 1
        metrics.get_labelled(metrics.REFUSALS, code).inc()
        self.write_counts()

    def write_counts(self) -> None:
        """Write what was counted, unless that was done a moment ago."""
        now = time.monotonic()
        if not self._counts or now - self._written_at < LOG_INTERVAL_S:
            return
        self._written_at = now
        for code, count in self._counts.items():
            log.warning("connections refused or closed: %s", code, extra={"count": count})
        self._counts.clear()
