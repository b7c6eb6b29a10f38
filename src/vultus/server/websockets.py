"""WebSockets on a connection that began as HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class CountedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol; says when its connection is gone."""

    on_closed: Callable[[], None]

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end of the connection."""
        super().connection_lost(exc)
        self.on_closed()


def build_handshake(method: bytes, url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a parsed head as it was sent, for the protocol that reads it anew."""
    lines = [method + b" " + url + b" HTTP/1.1", *(name + b": " + value for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"
