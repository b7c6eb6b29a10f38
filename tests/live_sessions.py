"""Live sessions as a client has them: a real server in this process, and a WebSocket to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import websockets

from tests.api.conftest import Api
from tests.server.sockets import running
from vultus.console.serving import add_console
from vultus.live.endpoint import add_live
from vultus.live.protocol import HEADER
from vultus.live.sessions import SessionRegistry
from vultus.server.serving import ApiServer
from vultus.utils.request_scope import RequestLimits

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection


LIMITS = RequestLimits(max_requests=100, max_bodies_bytes=2**26)
PROTOCOL = "vultus.live.v1"


def pack_frame(sequence: int, content: bytes) -> bytes:
    """Return a frame as it is sent, taken now."""
    return HEADER.pack(sequence, int(time.time() * 1000)) + content


@dataclass
class LiveServer:
    """A server with live sessions."""

    api: Api
    sessions: SessionRegistry
    server: ApiServer
    port: int

    async def make_ticket(self, status: int = 201, headers: dict[str, str] | None = None, **body: Any) -> Any:
        """Return a ticket, or the problem."""
        answer = await self.api.client.post("/v1/live/tickets", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()["ticket"] if status == 201 else answer.json()

    @asynccontextmanager
    async def connect(self, *protocols: str, path: str = "/v1/live", **options: Any) -> AsyncIterator[ClientConnection]:
        """Open a WebSocket with these sub-protocols beside the protocol's own; none at all without any."""
        asked = [PROTOCOL, *protocols] if protocols else None
        address = f"ws://127.0.0.1:{self.port}{path}"
        async with websockets.connect(address, subprotocols=asked, proxy=None, **options) as socket:  # type: ignore[arg-type]
            yield socket

    @asynccontextmanager
    async def open_session(self, **ticket: Any) -> AsyncIterator[tuple[ClientConnection, Any]]:
        """Open a session; yields its socket and its welcome."""
        async with self.connect(f"ticket.{await self.make_ticket(**ticket)}") as socket:
            yield socket, await receive(socket)


async def receive(socket: ClientConnection) -> Any:
    """Return the next message."""
    return json.loads(await asyncio.wait_for(socket.recv(), 20))


async def wait_for_close(socket: ClientConnection) -> int | None:
    """Return the code that the server closes with; what it says until then is dropped."""
    with contextlib.suppress(websockets.ConnectionClosed):
        async with asyncio.timeout(20):
            while True:
                await socket.recv()
    return socket.close_code


@asynccontextmanager
async def serving_live(api: Api, port: int = 0) -> AsyncIterator[LiveServer]:
    """Serve an API with live sessions on a socket, and look after them as the server does."""
    app = api.client._transport.app  # type: ignore[attr-defined]
    sessions = add_live(app, api.services, LIMITS)
    add_console(app)

    async def check() -> None:
        while True:
            await sessions.check_sessions()
            await asyncio.sleep(0.2)

    async with running(app, port=port) as server:
        checking = asyncio.create_task(check())
        try:
            yield LiveServer(api, sessions, server.server, server.port)
        finally:
            checking.cancel()
            await sessions.close()
