"""WebSockets on a connection that began as HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uvicorn._types import ASGISendEvent

READ_BYTES = 2**14
"""Parsed at a time: between two parts it is looked whether they hold too many frames."""

MAX_FRAMES_PER_S = 2_000
"""Frames of the WebSocket, parts of messages and pings among them, from one connection: each costs some 10 µs."""

MAX_GREETING_BYTES = 2**12
"""What a caller may send before the application has said anything: until then nobody knows who it is."""

NOT_UTF8, POLICY_VIOLATION, MESSAGE_TOO_BIG, SERVER_STOPS = 1007, 1008, 1009, 1012
STOP_REASON = "The server stops: connect again soon."
STALLED_S = 10.0
"""How long a caller may take nothing of what was written."""

CLOSING_S = 5.0
"""How long what was written last may take to leave, before the connection is cut."""


STOP_S = 2.0
"""How long a caller may take to answer when the server stops."""


class CountedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, with bounds on frames, on strangers, and on callers that do not read.

    Attributes:
        on_closed: Called when its connection is gone.
        on_violation: Called with a word when it is cut for what its caller does.
    """

    on_closed: Callable[[], None]
    on_violation: Callable[[str], None]
    _frames_left = MAX_FRAMES_PER_S
    _greeting_left = MAX_GREETING_BYTES
    _has_spoken = False
    _unread_bytes = 0
    _unread_since = 0.0
    _closing_since = 0.0

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end of the connection."""
        super().connection_lost(exc)
        self.on_closed()

    def data_received(self, data: bytes) -> None:
        """Parse in parts, so that many small frames do not keep the event loop from everybody else."""
        if self.handshake_initiated and not self._has_spoken:
            self._greeting_left -= len(data)
            if self._greeting_left < 0:  # a message is held in memory until its end has come
                self.on_violation("websocket_greeting")
                self._fail(MESSAGE_TOO_BIG, f"more than {MAX_GREETING_BYTES} bytes before the first answer")
                return
        for start in range(0, len(data), READ_BYTES):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + READ_BYTES])
            if self._frames_left < 0:
                self.on_violation("websocket_frames")
                self._fail(POLICY_VIOLATION, "too many frames a second")
                return

    def handle_events(self) -> None:
        """Count the frames, then handle them."""
        self._frames_left -= len(self.conn.events)
        super().handle_events()

    def send_receive_event_to_app(self) -> None:
        """Pass a message on; a text that is not UTF-8 ends the connection without a trace in the log."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._fail(NOT_UTF8, "a text message is UTF-8")
                return
        super().send_receive_event_to_app()

    def pause_writing(self) -> None:
        """Read nothing from a caller that does not read, or the answers to its pings would fill the memory."""
        super().pause_writing()
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on, unless the application has not taken the last message yet."""
        super().resume_writing()
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    async def send(self, message: ASGISendEvent) -> None:
        """Send, or say that the connection is gone also where it is only about to be; a refusal is no fault of ours."""
        await self.writable.wait()
        if self.close_sent and self.initial_response is None:
            raise ClientDisconnected
        self._has_spoken |= message["type"] == "websocket.send"
        await super().send(message)
        self.handshake_complete |= self.close_sent  # or uvicorn logs an error for each handshake that is refused

    def shutdown(self) -> None:
        """Tell the caller that the server stops, and wait a moment for its answer: it may be sending just now."""
        if not self.handshake_complete:
            super().shutdown()
            return
        self.stop_keepalive()
        if not self.close_sent and not self.transport.is_closing():
            self.queue.put_nowait({"type": "websocket.disconnect", "code": SERVER_STOPS, "reason": STOP_REASON})
            self.conn.send_close(SERVER_STOPS, STOP_REASON)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.read_paused = False
            self.transport.resume_reading()
        if self.close_timer:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(STOP_S, self.transport.abort)

    def check_deadlines(self, now: float) -> None:
        """Cut the connection if nothing is read, or it does not end; called once a second."""
        self._frames_left = MAX_FRAMES_PER_S
        unread = self.transport.get_write_buffer_size()
        if not unread or unread < self._unread_bytes:
            self._unread_since = now
        self._unread_bytes = unread
        is_closing = self.transport.is_closing()
        if is_closing:
            self._closing_since = self._closing_since or now
        if unread and now - self._unread_since > STALLED_S:
            self.on_violation("slow_reader")
            self.transport.abort()
        elif is_closing and now - self._closing_since > CLOSING_S:
            self.transport.abort()

    def _fail(self, code: int, reason: str) -> None:
        self.conn.fail(code, reason)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()


def build_handshake(method: bytes, url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a parsed head as it was sent, for the protocol that reads it anew."""
    lines = [method + b" " + url + b" HTTP/1.1", *(name + b": " + value for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"
