"""One request and its response: what the ASGI application receives and sends."""

from __future__ import annotations

import asyncio
import logging
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from vultus.errors import RequestTimeoutError, VultusError
from vultus.server.pace import GRACE_S, MIN_BYTES_PER_S, Pace

if TYPE_CHECKING:
    from asyncio import Transport
    from collections.abc import Awaitable, Callable, MutableMapping

    from uvicorn.protocols.http.flow_control import FlowControl

log = logging.getLogger(__name__)

BODY_TIMEOUT_S = 300.0
"""Longest time for a body, however steadily it comes."""

READ_AHEAD_BYTES = 2**16
"""A body is read as fast as it comes up to here, then as fast as the application takes it."""

SMALL_ANSWER_BYTES = 2**16
"""Up to here head and body of an answer are joined: one write, one packet."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_INVALID_IN_HEADER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Exchange:
    """A request whose head has arrived.

    Args:
        scope: ASGI's, of type `http`.
        transport: The connection's.
        flow: Pauses reading and waits for writing.
        keep_alive: Whether the connection outlives the response.
        expects_continue: Whether the caller waits for `100 Continue` before it sends the body.
        default_headers: Sent with every response.
        on_complete: Called when the response is complete.
    """

    def __init__(
        self,
        scope: dict[str, Any],
        transport: Transport,
        flow: FlowControl,
        *,
        keep_alive: bool,
        expects_continue: bool,
        default_headers: list[tuple[bytes, bytes]],
        on_complete: Callable[[Exchange], None],
    ) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.more_body = True
        self.received_bytes = self.written_bytes = 0
        self.response_complete = False
        self.disconnected = False
        self.is_stream = False
        self._has_caller_ended = False
        self._transport = transport
        self._flow = flow
        self._expects_continue = expects_continue
        self._default_headers = default_headers
        self._on_complete = on_complete
        self._changed = asyncio.Event()
        self._body: list[bytes] = []
        self._buffered_bytes = 0
        self._body_error: VultusError | None = None
        self._body_began_at: float | None = None
        self._pace: Pace | None = None
        self._paced_bytes = 0
        self._head: bytes | None = None
        self._response_started = False
        self._chunked = False
        self._missing_bytes = 0

    async def run(self, app: Callable[..., Awaitable[None]]) -> None:
        """Let the application answer; without an answer of its own the connection ends."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            log.exception("the application failed")
        finally:
            if not self.response_complete and not self.disconnected:
                self._transport.close()

    def add_body(self, part: bytes) -> None:
        """Take a part of the body from the parser."""
        if self.response_complete:
            return
        self._body.append(part)
        self.received_bytes += len(part)
        self._buffered_bytes += len(part)
        if self._buffered_bytes > READ_AHEAD_BYTES:
            self._flow.pause_reading()
        self._changed.set()

    def end_body(self) -> None:
        """Note that the body is complete."""
        self.more_body = False
        self._changed.set()

    def fail_body(self, error: VultusError) -> None:
        """Let the application meet an error when it reads on."""
        self._body_error = error
        self.keep_alive = False
        self._changed.set()

    def end_caller(self) -> bool:
        """Note that the caller will send no more; return whether it gets the rest of the response.

        Of server-sent events there is no rest that somebody could wait for: the caller has left.
        """
        self.keep_alive = False
        self._has_caller_ended = True
        return not self.is_stream

    def disconnect(self) -> None:
        """Note that the connection is gone."""
        self.disconnected = not self.response_complete
        self._changed.set()

    def check_pace(self, now: float) -> None:
        """Fail the body if it comes too slowly; time in which the server does not read does not count."""
        if not self.more_body or self._body_error or self._expects_continue or self._flow.read_paused:
            self._pace = None
            return
        if self._body_began_at is None:
            self._body_began_at = now
        if self._pace is None:
            self._pace = Pace(now)
        elif self.received_bytes > self._paced_bytes:
            self._pace.add_bytes(self.received_bytes - self._paced_bytes, now)
        self._paced_bytes = self.received_bytes
        if self._pace.is_too_slow(now) or now - self._body_began_at > BODY_TIMEOUT_S:
            self.fail_body(
                RequestTimeoutError(
                    f"The body arrived too slowly: nothing for {GRACE_S:.0f} seconds, less than {MIN_BYTES_PER_S:,} "
                    f"bytes a second on average, or not whole after {BODY_TIMEOUT_S:.0f} seconds. Nothing was changed; "
                    "send it again."
                )
            )

    async def receive(self) -> dict[str, Any]:
        """Return what has arrived of the body.

        Raises:
            VultusError: It arrives too slowly, or not as HTTP says.
        """
        if self._expects_continue:
            self._expects_continue = False
            if not self._transport.is_closing():
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.disconnected and not self.response_complete:
            self._flow.resume_reading()
            await self._changed.wait()
            self._changed.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        if self._body_error:
            raise self._body_error
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._buffered_bytes = 0
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Write a part of the response.

        Raises:
            RuntimeError: The application breaks ASGI's rules.
        """
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        if not self._response_started:
            headers = list(message.get("headers", ()))
            self._start_response(message["status"], headers)
            self.is_stream = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers
            )
            if self.is_stream and self._has_caller_ended:
                self._transport.close()
        elif self.response_complete or message["type"] != "http.response.body":
            raise RuntimeError(f"{message['type']} was sent after the response")
        else:
            self._write_body(message.get("body", b""), more=message.get("more_body", False))

    def _start_response(self, status: int, headers: Any) -> None:
        """Build the head; it is written with the first part of the body."""
        self._response_started = True
        self._expects_continue = False
        if self.more_body:  # the rest is not read, so nothing can follow it
            self.keep_alive = False
        has_length, lines = False, [_STATUS_LINES[status]]
        for name, value in (*self._default_headers, *headers):
            if _INVALID_IN_HEADER.search(value):
                raise RuntimeError("a header's value has control characters")
            lowered = name.lower()
            if lowered == b"content-length":
                has_length, self._missing_bytes = True, int(value)
            elif lowered == b"connection" and value.lower() == b"close":
                self.keep_alive = False
                continue
            lines += (lowered, b": ", value, b"\r\n")
        if self.scope["method"] == "HEAD" or status in (204, 304):
            self._missing_bytes = 0
        elif not has_length and self.scope["http_version"] == "1.0":
            self._missing_bytes, self.keep_alive = -1, False  # the end of the connection is the body's
        elif not has_length:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def _write_body(self, part: bytes, *, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            part = b""
        if self._chunked:
            part = (b"%x\r\n%b\r\n" % (len(part), part) if part else b"") + (b"" if more else b"0\r\n\r\n")
        elif self._missing_bytes >= 0:
            self._missing_bytes -= len(part)
            if self._missing_bytes < 0 or (self._missing_bytes and not more):
                raise RuntimeError("the body is not as long as its content-length says")
        if self._head is not None and len(part) <= SMALL_ANSWER_BYTES:
            part, self._head = self._head + part, None
        elif self._head is not None:
            self._write(self._head)
            self._head = None
        if part:
            self._write(part)
        if not more:
            self.response_complete = True
            self._changed.set()
            self._on_complete(self)

    def _write(self, data: bytes) -> None:
        self.written_bytes += len(data)
        self._transport.write(data)
