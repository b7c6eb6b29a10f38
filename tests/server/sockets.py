"""A server with a small application in this process, and raw connections to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from vultus.errors import VultusError
from vultus.server.registry import ConnectionRegistry
from vultus.server.serving import ApiServer, bind_socket

GET = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass
class Application:
    """Answers by path, and notes what went on.

    `/echo` returns method and body, `/refuse` 401 without reading, `/large` 8 MB, `/hold` waits until it is let go;
    a WebSocket gets its texts back.
    """

    errors: list[VultusError] = field(default_factory=list)
    running: int = 0
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    scopes: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await _echo_texts(receive, send)
            return
        self.running += 1
        try:
            status, body = await self._answer(scope, receive)
        except VultusError as error:
            self.errors.append(error)
            status, body = 408, error.code.encode()
        finally:
            self.running -= 1
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Any, receive: Any) -> tuple[int, bytes]:
        path = scope["path"]
        if path == "/refuse":
            return 401, b"no"
        if path == "/large":
            return 200, b"x" * 8_000_000
        if path == "/hold":
            await self.let_go.wait()
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return 200, scope["method"].encode() + b" " + body


async def _echo_texts(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


@dataclass
class Running:
    """A server that runs."""

    app: Application
    registry: ConnectionRegistry
    server: ApiServer
    port: int
    lines: list[Line] = field(default_factory=list)

    async def connect(self, **options: Any) -> Line:
        """Open a connection; it is closed with the server at the latest."""
        line = Line(*await asyncio.open_connection("127.0.0.1", self.port, **options))
        self.lines.append(line)
        return line

    async def exchange(self, sent: bytes, wait_s: float = 5.0) -> bytes:
        """Send on a new connection; return all that comes until it ends, or nothing more does."""
        line = await self.connect()
        line.writer.write(sent)
        return await line.read_all(wait_s)


@dataclass
class Line:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read_all(self, wait_s: float = 5.0) -> bytes:
        """Return all that comes until the connection ends; `(open)` at the end if it does not."""
        received = b""
        try:
            while part := await asyncio.wait_for(self.reader.read(2**16), wait_s):
                received += part
        except TimeoutError:
            received += b"(open)"
        except ConnectionResetError:
            received += b"(reset)"
        self.writer.close()
        return received

    async def read_response(self) -> tuple[int, bytes]:
        """Return status and body of one response with a length."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        return int(head.split()[1]), await asyncio.wait_for(self.reader.readexactly(length), 5)


@asynccontextmanager
async def running(
    app: Any = None,
    *,
    connections: int = 1000,
    per_address: int = 1000,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[Running]:
    """Run a server until the block ends."""
    app = app or Application()
    registry = ConnectionRegistry(max_connections=connections, max_per_address=per_address)
    server = ApiServer(app, registry, tls=tls, handle_signals=False, **options)
    with bind_socket("127.0.0.1", port) as listener:
        listener.listen()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await wait_until(lambda: server.started)
        started = Running(app, registry, server, listener.getsockname()[1])
        try:
            yield started
        finally:
            for line in started.lines:
                line.writer.close()
                with contextlib.suppress(OSError):
                    await line.writer.wait_closed()
            server.stop()
            await serving


def read_problem(response: bytes) -> tuple[int, str]:
    """Return status and code of a response that is a problem."""
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split()[1]), json.loads(body.removesuffix(b"(open)"))["code"]


async def wait_until(condition: Callable[[], object], wait_s: float = 5.0) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: It does not.
    """
    async with asyncio.timeout(wait_s):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
