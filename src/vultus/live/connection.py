"""One WebSocket: does what the state machine of `protocol` asks, and tells it what came of it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from starlette.websockets import WebSocketDisconnect, WebSocketDisconnected

from vultus.errors import OverloadedError, VultusError
from vultus.live.close_codes import CODE_BY_KIND, CloseCode
from vultus.live.messages import (
    Admit,
    Admitted,
    BytesReceived,
    Close,
    Ended,
    FrameDone,
    Process,
    Send,
    TextReceived,
    TimePassed,
)
from vultus.live.protocol import Greeting, on_message
from vultus.live.sessions import AdmissionError
from vultus.schemas.live import FrameRefusedOut, ResultOut
from vultus.utils import metrics
from vultus.utils.request_scope import find_scope

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from vultus.domain import Frame
    from vultus.live.messages import Message, Reply, SecretOffered
    from vultus.live.protocol import Limits, State
    from vultus.live.sessions import LiveSession, SessionRegistry

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 0.5
SEND_S = 10.0
"""A client that does not take an answer for so long is not reading."""

CLOSE_S = 2.0
MAX_REASON_BYTES = 123
CLOSED_BY_CLIENT = 1000
GONE = (WebSocketDisconnect, WebSocketDisconnected, OSError)
"""What sending raises once the client, or the connection, is gone."""


class _ConnectionOver(Exception):  # noqa: N818  not a failure
    """Ends the tasks of a connection."""


class LiveConnection:
    """Serves one client until its connection ends.

    Args:
        websocket: Accepted.
        sessions: Of this server.
        limits: For the state machine.
    """

    def __init__(self, websocket: WebSocket, sessions: SessionRegistry, limits: Limits) -> None:
        self._websocket = websocket
        self._sessions = sessions
        self._session: LiveSession | None = None
        self._state: State = Greeting(limits, time.monotonic())
        self._is_over_for_good = False
        self._closed_with = "client"
        self._frames = 0
        self._ended: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()

    async def serve(self, offered: SecretOffered | None) -> None:
        """Talk with the client.

        Args:
            offered: The secret that came with the handshake.
        """
        started = time.monotonic()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._receive(offered))
                self._tasks.create_task(self._watch_time())
                self._tasks.create_task(self._watch_end())
        except* _ConnectionOver:
            pass
        finally:
            if self._session is not None:
                self._sessions.leave_session(self._session, self.end, for_good=self._is_over_for_good)
            log.info(
                "live connection closed",
                extra={
                    "code": self._closed_with,
                    "ms": round((time.monotonic() - started) * 1e3, 1),
                    "count": self._frames,
                    "key": self._session.principal.id.removeprefix("key:") if self._session else None,
                    "client": self._websocket.client.host if self._websocket.client else None,
                },
            )

    def end(self, code: CloseCode) -> None:
        """Close the connection with a code, soon."""
        if not self._ended.done():
            self._ended.set_result(code)

    async def _receive(self, offered: SecretOffered | None) -> None:
        if offered is not None:
            await self._tell(offered)
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                code = received.get("code")
                self._is_over_for_good |= code == CLOSED_BY_CLIENT  # it may be this server's own code
                if code == CloseCode.SERVER_STOPS:
                    self._closed_with = CloseCode.SERVER_STOPS.name.lower()
                raise _ConnectionOver
            text, content = received.get("text"), received.get("bytes") or b""
            await self._tell(BytesReceived(content) if text is None else TextReceived(text))

    async def _watch_time(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            await self._tell(TimePassed())

    async def _watch_end(self) -> None:
        await self._tell(Ended(await self._ended))

    async def _tell(self, message: Message) -> None:
        """Tell the state machine, and do what it asks."""
        self._state, replies = on_message(self._state, message, time.monotonic())
        for reply in replies:
            await self._perform(reply)

    async def _perform(self, reply: Reply) -> None:
        if isinstance(reply, Process):
            self._tasks.create_task(self._process(reply.frame, time.perf_counter()))
        elif isinstance(reply, Send):
            await self._send(reply)
        elif isinstance(reply, Admit):
            await self._admit(reply)
        else:
            await self._close(reply)

    async def _admit(self, reply: Admit) -> None:
        admit = self._sessions.resume_session if reply.resumes else self._sessions.open_session
        try:
            self._session, terms = await admit(reply.secret, self.end)
        except AdmissionError as error:
            await self._tell(Ended(error.code))
        except VultusError as error:
            await self._tell(Ended(CODE_BY_KIND[error.kind]))
        else:
            if scope := find_scope():
                scope.principal = self._session.principal
            await self._tell(Admitted(terms))

    async def _process(self, frame: Frame, came_at: float) -> None:
        """Process a frame; one that is under way when the connection ends is finished for the session's sake."""
        if self._session is None:
            raise RuntimeError("no session")
        self._frames += 1
        try:
            outcome = await asyncio.shield(self._session.process_frame(frame))
        except Exception:
            log.exception("a live frame failed unforeseen")
            await self._tell(Ended(CloseCode.INTERNAL))
        else:
            took_s = time.perf_counter() - came_at
            if not isinstance(outcome, OverloadedError):
                metrics.LIVE_SECONDS.observe(took_s)
            await self._tell(FrameDone(frame, outcome, took_s * 1e3))

    async def _send(self, reply: Send) -> None:
        message = reply.message
        if isinstance(message, ResultOut | FrameRefusedOut):
            _count_frames(message)
        try:
            async with asyncio.timeout(SEND_S):
                await self._websocket.send_text(message.model_dump_json())
        except TimeoutError:
            await self._tell(Ended(CloseCode.STALLED))
        except GONE:
            raise _ConnectionOver from None

    async def _close(self, reply: Close) -> None:
        self._closed_with = reply.code.name.lower()
        self._is_over_for_good = reply.ends_session
        reason = reply.detail.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._websocket.close(reply.code, reason)
        except (TimeoutError, *GONE):
            pass  # the server ends the connection
        raise _ConnectionOver


def _count_frames(answer: ResultOut | FrameRefusedOut) -> None:
    """Count the frame that is answered, and those that were dropped before it."""
    if isinstance(answer, ResultOut):
        kind = "processed"
    else:
        kind = "dropped" if answer.code == OverloadedError.code else "refused"
    metrics.get_labelled(metrics.LIVE_FRAMES, kind).inc()
    metrics.get_labelled(metrics.LIVE_FRAMES, "dropped").inc(answer.dropped)
