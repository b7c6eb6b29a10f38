"""HTTP/1.1 on one connection: httptools parses, and what it does not limit is limited here.

A head is collected whole before the parser sees it. Deadlines are checked once a second for all connections by
`ApiServer`, without timers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from vultus.errors import MalformedRequestError
from vultus.server import heads
from vultus.server.exchange import Exchange
from vultus.server.pace import Pace
from vultus.server.refusals import (
    ADDRESS_FULL,
    HEAD_TOO_LONG,
    HEAD_TOO_SLOW,
    SERVER_FULL,
    TOO_MANY_PIPELINED,
    build_malformed,
    explain_malformed,
)
from vultus.server.websockets import CountedWebSocket, build_handshake

if TYPE_CHECKING:
    from uvicorn import Config

    from vultus.server.refusals import Refusal
    from vultus.server.registry import Closable
    from vultus.server.state import ServerState

HEAD_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 15.0
"""How long a connection may wait for its next request."""

LINGER_S = 2.0
MAX_LINGER_BYTES = 2**20
"""What follows an unread body's answer is thrown away so long and so far, then the connection ends: enough for ordinary
clients, which send before they read, to find the answer instead of a broken connection."""

MAX_PIPELINED = 64


class _Phase(Enum):
    """Where the parser is: between requests, in a head, in a body, or done with the connection."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    ENDED = 3


class HttpProtocol(asyncio.Protocol):
    """One connection, with limits for heads, paces, waiting and pipelining.

    Args:
        config: uvicorn's.
        server_state: Of all connections.
        app_state: Copied into every scope.

    Attributes:
        over_bound: Whether the connection is one too many, so that only health is answered.
        handshake: What was counted in its place until TLS was agreed on.
    """

    handshake: Closable | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.over_bound = False
        self._config, self._state, self._app_state = config, server_state, app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._phase = _Phase.IDLE
        self._head = heads.HeadBuffer()
        self._loose_bytes = 0
        self._refusal: Refusal | None = None
        self._url, self._headers = b"", list[tuple[bytes, bytes]]()
        self._parsed: Exchange | None = None
        self._answered: Exchange | None = None
        self._pipeline: deque[Exchange] = deque()
        self._written_bytes = 0
        self._write_pace: Pace | None = None
        self._drained_bytes = 0
        self._linger_bytes = MAX_LINGER_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection; one far beyond the bound ends here."""
        self._transport = transport = cast("asyncio.Transport", transport)
        self._flow = FlowControl(transport)
        self._server, self._client = get_local_addr(transport), get_remote_addr(transport)
        self._scheme = "https" if is_ssl(transport) else "http"
        self._since = self._loop.time()
        self._state.connections.add(self)
        if self.handshake:
            self._state.registry.remove(self.handshake)
        if not self._state.registry.add(self, self._client[0] if self._client else ""):
            self._state.refusals.add("connections")
            self._phase = _Phase.ENDED
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and wake whoever reads from it or writes to it."""
        self._state.connections.discard(self)
        self._state.registry.remove(self)
        self._phase = _Phase.ENDED
        for exchange in (self._answered, *self._pipeline):
            if exchange:
                exchange.disconnect()
        self._pipeline.clear()
        self._flow.resume_writing()

    def evict(self) -> None:
        """Close a connection that waits for a request, to make room for another."""
        self._state.refusals.add("evicted")
        self._transport.abort()

    def shutdown(self) -> None:
        """Close the connection after the response under way, for the server stops."""
        if self._answered is None:
            self._transport.close()
        else:
            self._answered.keep_alive = False

    def pause_writing(self) -> None:
        """Let the application wait until the caller reads."""
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        """Go on writing, or with the next pipelined request."""
        self._flow.resume_writing()
        if self._answered is None and self._pipeline:
            self._start_next()

    def eof_received(self) -> bool:
        """Answer a caller that will send no more; what it sent may be cut off.

        Returns:
            Whether the connection stays open for the answer.
        """
        if self._answered is None or self._scheme == "https":
            return False
        if self._parsed and self._parsed.more_body:
            self._parsed.fail_body(
                MalformedRequestError("The connection ended in the middle of the body. Nothing was changed.")
            )
        return self._answered.end_caller()

    def data_received(self, data: bytes) -> None:
        """Collect a head, or feed the parser."""
        if self._phase is _Phase.ENDED:
            self._linger_bytes -= len(data)
            if self._linger_bytes < 0 and self._answered is None:
                self._transport.close()
            return
        if self._phase is _Phase.IDLE and not self._head:
            data = data.lstrip(b"\r\n")  # empty lines before a request mean nothing, and keep no connection open
            if not data:
                return
            self._since = self._loop.time()
        try:
            complete = self._head.add(data) if self._phase is _Phase.IDLE else data
        except heads.HeadTooLongError:
            self._refuse(HEAD_TOO_LONG)
        else:
            if complete is not None:
                self._feed(complete)

    def _feed(self, data: bytes) -> None:
        carried, parsed = self._count_carried(), self._parsed
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError as error:
            self._refuse(self._refusal or explain_malformed(data, error))
        else:
            useful = self._phase is _Phase.IDLE or parsed is not self._parsed or self._count_carried() > carried
            self._loose_bytes = 0 if useful else self._loose_bytes + len(data)
            if self._loose_bytes > heads.MAX_HEAD_BYTES:
                self._refuse(HEAD_TOO_LONG)

    def _count_carried(self) -> int:
        return self._parsed.received_bytes if self._parsed else 0

    def on_message_begin(self) -> None:
        """Begin a request; called by the parser, as what follows."""
        self._phase = _Phase.HEAD
        self._url, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is dropped."""
        if self._phase is _Phase.HEAD:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin to answer the request, or line it up behind the one before."""
        self._phase = _Phase.BODY
        version = self._parser.get_http_version()
        upgrades = self._parser.should_upgrade() and heads.is_websocket(self._headers)
        if fault := heads.find_fault(version, self._headers, upgrades=upgrades):
            self._raise_refusal(build_malformed(fault))
        if upgrades:
            self._parsed = None
            self._check_bounds(path="")
            return
        scope = self._build_scope(version)
        self._check_bounds(scope["path"])
        self._parsed = exchange = Exchange(
            scope,
            self._transport,
            self._flow,
            keep_alive=version == "1.1" and self._parser.should_keep_alive(),
            expects_continue=version == "1.1" and heads.expects_continue(self._headers),
            default_headers=self._state.default_headers,
            on_complete=self._end_exchange,
        )
        self._pipeline.append(exchange)
        self._state.registry.mark_busy(self)
        if self._answered is None and not self._flow.write_paused:
            self._start_next()
        else:
            self._flow.pause_reading()

    def _check_bounds(self, path: str) -> None:
        if len(self._pipeline) >= MAX_PIPELINED:
            self._raise_refusal(TOO_MANY_PIPELINED)
        if self.over_bound and not self._state.is_always_answered(path):
            registry = self._state.registry
            self.over_bound = registry.is_over_bound(self)
            if self.over_bound:
                self._raise_refusal(SERVER_FULL if registry.is_full else ADDRESS_FULL)

    def _raise_refusal(self, refusal: Refusal) -> NoReturn:
        """End the parser's work; `data_received` answers."""
        self._refusal = refusal
        raise MalformedRequestError(refusal.detail)

    def _build_scope(self, version: str) -> dict[str, Any]:
        try:
            raw_path, query = heads.split_target(self._url)
        except ValueError:
            self._raise_refusal(build_malformed("The address in the request line is not valid."))
        if not raw_path.isascii():
            self._raise_refusal(build_malformed("The request's path has bytes beyond ASCII: encode them as %XX."))
        path, root = raw_path.decode("ascii"), self._config.root_path
        if "%" in path:
            path = unquote(path)
        if root and path != "*" and not path.startswith(f"{root}/"):  # the proxy took the prefix away
            path, raw_path = root + path, root.encode() + raw_path
        return {
            "type": "http",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": self._scheme,
            "method": self._parser.get_method().decode("ascii"),
            "root_path": root,
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self._headers,
            "state": self._app_state.copy(),
        }

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on."""
        if self._parsed:
            self._parsed.add_body(body)

    def on_message_complete(self) -> None:
        """Note the end of the request."""
        self._phase = _Phase.IDLE
        if self._parsed:
            self._parsed.end_body()

    def _start_next(self) -> None:
        self._answered = exchange = self._pipeline.popleft()
        task = self._loop.create_task(exchange.run(self._config.loaded_app))
        task.add_done_callback(self._state.tasks.discard)
        self._state.tasks.add(task)

    def _end_exchange(self, exchange: Exchange) -> None:
        """Go on with the next request, wait for it, or end the connection."""
        self._state.total_requests += 1
        self._written_bytes += exchange.written_bytes
        self._answered = None
        if self._transport.is_closing():
            return
        if not exchange.keep_alive:
            self._end_connection(linger=exchange.more_body)
        elif self._pipeline and not self._flow.write_paused:
            self._start_next()
        elif not self._pipeline:
            self._since = self._loop.time()
            self._state.registry.mark_idle(self)
            self._flow.resume_reading()

    def _refuse(self, refusal: Refusal) -> None:
        """Refuse what was sent; if a response is under way, it is the last, and an unread body fails."""
        self._refusal = None
        self._state.refusals.add(refusal.code)
        if self._answered is None:
            self._linger_bytes = min(self._linger_bytes, heads.MAX_HEAD_BYTES)
            self._transport.write(refusal.build_response())
            self._end_connection(linger=True)
            return
        self._phase = _Phase.ENDED
        self._answered.keep_alive = False
        if self._answered.more_body:
            self._answered.fail_body(MalformedRequestError(refusal.detail))

    def _end_connection(self, *, linger: bool) -> None:
        self._phase = _Phase.ENDED
        self._pipeline.clear()
        if not linger:
            self._transport.close()
            return
        self._since = self._loop.time()
        self._state.registry.mark_idle(self)
        self._flow.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _upgrade(self) -> None:
        """Hand the connection over to the WebSocket protocol; anything else that was begun is the last request."""
        if self._parsed is not None or not heads.is_websocket(self._headers) or self._config.ws_protocol_class is None:
            self._refuse(build_malformed("An upgrade to another protocol is not offered here."))
            return
        self._state.connections.discard(self)
        self._state.registry.mark_busy(self)
        socket = CountedWebSocket(self._config, self._state, self._app_state)
        socket.on_closed = lambda: self._state.registry.remove(self)
        socket.on_violation = self._state.refusals.add
        socket.connection_made(self._transport)
        self._transport.set_protocol(socket)
        root = self._config.root_path.encode()  # which uvicorn puts before whatever it is sent
        url = self._url.removeprefix(root) if root and self._url.startswith(root + b"/") else self._url
        socket.data_received(build_handshake(self._parser.get_method(), url, self._headers))

    def check_deadlines(self, now: float) -> None:
        """Close or refuse what takes too long; called once a second."""
        if self._is_reading_too_slowly(now):
            self._state.refusals.add("slow_reader")
            self._transport.abort()
        elif self._write_pace or self._transport.is_closing():
            return
        elif self._answered is not None:
            if self._parsed is not None:
                self._parsed.check_pace(now)
        elif self._phase is _Phase.ENDED:
            if now - self._since > LINGER_S:
                self._transport.close()
        elif self._head or self._phase is not _Phase.IDLE:
            if now - self._since > HEAD_TIMEOUT_S:
                self._refuse(HEAD_TOO_SLOW)
        elif now - self._since > (KEEP_ALIVE_S if self._written_bytes else HEAD_TIMEOUT_S):
            self._transport.close()

    def _is_reading_too_slowly(self, now: float) -> bool:
        """Return whether the caller takes too long to read what was written."""
        waiting = self._transport.get_write_buffer_size()
        if not waiting:
            self._write_pace = None
            return False
        written = self._written_bytes + (self._answered.written_bytes if self._answered else 0)
        drained = written - waiting
        if self._write_pace is None:
            self._write_pace = Pace(now)
        elif drained > self._drained_bytes:
            self._write_pace.add_bytes(drained - self._drained_bytes, now)
        self._drained_bytes = drained
        return self._write_pace.is_too_slow(now)
