"""Closed and open loops over keep-alive connections, with minimal work in the client.

The client shares the cores with the server.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BOUNDARY = b"vultus-benchmark"


@dataclass(frozen=True, slots=True)
class Response:
    """One answered request.

    Attributes:
        completed_at: `time.perf_counter` when it was complete, seconds.
        ms: From the first byte sent to the last byte received.
        status: HTTP status.
        body: As received.
        retry_after_s: `Retry-After` of a refusal, else None.
    """

    completed_at: float
    ms: float
    status: int
    body: bytes
    retry_after_s: int | None = None

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.body)


def build_photo_request(path: str, key: str, photo: bytes, **fields: str) -> bytes:
    """Return a complete POST request with a photo and fields, which can be sent repeatedly."""
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    photo_head = (
        b'Content-Disposition: form-data; name="photo"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    body = b"".join(b"--" + BOUNDARY + b"\r\n" + part + b"\r\n" for part in [*parts, photo_head + photo])
    body += b"--" + BOUNDARY + b"--\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY.decode()}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """One keep-alive connection to 127.0.0.1."""

    def __init__(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._port = port
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect."""
        return cls(port, *await asyncio.open_connection("127.0.0.1", port))

    async def send_request(self, request: bytes) -> Response:
        """Send a request and read its response, which must have a `Content-Length`."""
        started = time.perf_counter()
        if self._reader.at_eof():  # the server closed it when idle
            await self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(request)
        await self._writer.drain()
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        now = time.perf_counter()
        later = head.partition(b"retry-after:")[2].partition(b"\r\n")[0].strip()
        status = int(head.split(b" ", 2)[1])
        return Response(now, (now - started) * 1e3, status, body, int(later) if later else None)

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()


async def call_until(call: Callable[[], Awaitable[Response]], until: float) -> list[Response]:
    """Call again after each response, or after its `Retry-After`; return the responses completed by `until`."""
    seen: list[Response] = []
    while time.perf_counter() < until:
        seen.append(await call())
        if seen[-1].retry_after_s:
            await asyncio.sleep(min(seen[-1].retry_after_s, max(0.0, until - time.perf_counter())))
    return [answer for answer in seen if answer.completed_at <= until]


async def run_open_loop(port: int, request: bytes, per_s: float, until: float) -> list[Response]:
    """Send `per_s` requests per second regardless of the responses, over as many connections as that requires.

    Latencies are measured from when a request was due, not from when it was sent.
    """
    free: list[Connection] = []

    async def send_when_due(due: float) -> Response:
        connection = free.pop() if free else await Connection.open(port)
        answer = await connection.send_request(request)
        free.append(connection)
        return replace(answer, ms=(answer.completed_at - due) * 1e3)

    due, calls = time.perf_counter(), list[asyncio.Task[Response]]()
    while due < until:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        calls.append(asyncio.create_task(send_when_due(due)))
        due += 1 / per_s
    answers = await asyncio.gather(*calls)
    for connection in free:
        await connection.close()
    return answers
