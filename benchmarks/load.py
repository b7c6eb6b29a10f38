"""A closed loop over keep-alive connections, with as little work for the client as possible: it shares the cores."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
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
    """

    at: float
    ms: float
    status: int
    body: bytes

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

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> Answer:
        """Send a request and read its answer, which must say how long it is."""
        started = time.perf_counter()
        self._writer.write(request)
        await self._writer.drain()
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        now = time.perf_counter()
        return Answer(now, (now - started) * 1e3, int(head.split(b" ", 2)[1]), body)

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._writer.wait_closed()


async def loop_until(call: Callable[[], Awaitable[Answer]], until: float) -> list[Answer]:
    """Call again as soon as answered; return the answers that came in time."""
    seen: list[Answer] = []
    while time.perf_counter() < until:
        seen.append(await call())
    return [answer for answer in seen if answer.at <= until]
