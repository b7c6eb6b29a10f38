"""Closed and open loops over keep-alive connections, with as little work for the client as possible.

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
class Answer:
    """One answered request.

    Attributes:
        at: When it was complete, `time.perf_counter`.
        ms: From the first byte sent to the last one received.
        status: HTTP.
        body: As received.
        retry_after_s: What a refusal asks for, else None.
    """

    at: float
    ms: float
    status: int
    body: bytes
    retry_after_s: int | None = None

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.body)


def form(path: str, key: str, photo: bytes, **fields: str) -> bytes:
    """Return a whole POST request with a photo and fields, to be sent as often as wanted."""
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

    async def ask(self, request: bytes) -> Answer:
        """Send a request and read its answer, which must say how long it is."""
        started = time.perf_counter()
        if self._reader.at_eof():  # it was idle for too long
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
        return Answer(now, (now - started) * 1e3, status, body, int(later) if later else None)

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._writer.wait_closed()


async def loop_until(call: Callable[[], Awaitable[Answer]], until: float) -> list[Answer]:
    """Call again as soon as answered, after a refusal as late as it asks; return the answers that came in time."""
    seen: list[Answer] = []
    while time.perf_counter() < until:
        seen.append(await call())
        if seen[-1].retry_after_s:
            await asyncio.sleep(min(seen[-1].retry_after_s, max(0.0, until - time.perf_counter())))
    return [answer for answer in seen if answer.at <= until]


async def open_loop(port: int, request: bytes, per_s: float, until: float) -> list[Answer]:
    """Send so many requests a second whatever becomes of them, over as many connections as that takes.

    Latencies count from when a request was due, not from when it could be sent.
    """
    free: list[Connection] = []

    async def one(due: float) -> Answer:
        connection = free.pop() if free else await Connection.open(port)
        answer = await connection.ask(request)
        free.append(connection)
        return replace(answer, ms=(answer.at - due) * 1e3)

    due, calls = time.perf_counter(), list[asyncio.Task[Answer]]()
    while due < until:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        calls.append(asyncio.create_task(one(due)))
        due += 1 / per_s
    answers = await asyncio.gather(*calls)
    for connection in free:
        await connection.close()
    return answers
