"""The open sessions of this server: who may open one, which are waiting to be resumed, and whose key has ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import LiveTicket, Principal, StreamOrigin
from vultus.errors import OverloadedError, VultusError
from vultus.live.close_codes import CloseCode
from vultus.live.messages import SessionTerms
from vultus.services.access import compute_digest
from vultus.services.live.stream import LiveStream
from vultus.utils import metrics
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from vultus.domain import Frame, FrameResult
    from vultus.services.live.service import StreamService
    from vultus.services.live.tickets import TicketService
    from vultus.settings import LiveSettings

log = logging.getLogger(__name__)

EndConnection = Callable[[CloseCode], None]
"""Closes a connection with a code, soon."""


class AdmissionError(Exception):
    """No session opens, or goes on, with this secret.

    Args:
        code: What the connection is closed with.
    """

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code.meaning)
        self.code = code


@dataclass(slots=True, eq=False)
class LiveSession:
    """A client's session, which may outlive its connection for a moment.

    Attributes:
        closes_at: By `time.monotonic`.
        end_connection: Closes its connection with a code; None while it waits to be resumed.
        resume_digest: Of the token that resumes it.
        waits_until: By `time.monotonic`, while it waits to be resumed.
    """

    id: UUID
    principal: Principal
    ticket: LiveTicket
    stream: LiveStream
    closes_at: float
    end_connection: EndConnection | None = None
    resume_digest: bytes = b""
    waits_until: float = 0.0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _is_over: bool = False

    async def process_frame(self, frame: Frame) -> FrameResult | VultusError:
        """Return what a frame shows, or the error it met.

        A frame of the connection before may still be under way: this one waits for it.
        """
        async with self._turn:
            if self._is_over:  # whoever appeared now would never leave
                return OverloadedError("The session is over.")
            try:
                return await self.stream.process_frame(frame)
            except VultusError as error:
                return error

    async def end(self) -> None:
        """End its stream, once the frame under way is done: whoever was there has left."""
        async with self._turn:
            self._is_over = True
            await self.stream.end()


class SessionRegistry:
    """Opens, resumes and ends sessions."""

    def __init__(self, tickets: TicketService, streams: StreamService, settings: LiveSettings) -> None:
        self._tickets = tickets
        self._streams = streams
        self._settings = settings
        self._sessions: dict[UUID, LiveSession] = {}
        self._resumable: dict[bytes, LiveSession] = {}
        self._opening = 0
        self._opening_by_key: Counter[UUID] = Counter()
        self._ending: set[asyncio.Task[None]] = set()

    async def open_session(self, secret: str, end_connection: EndConnection) -> tuple[LiveSession, SessionTerms]:
        """Open a session with a ticket.

        Raises:
            AdmissionError: The server, or the key, has as many as it may have.
            VultusError: The ticket is not valid, the collection is gone, or something needed is down.
        """
        if len(self._sessions) + self._opening >= self._settings.max_sessions:
            raise AdmissionError(CloseCode.SERVER_FULL)  # before the ticket is used up
        self._opening += 1
        try:
            ticket, principal = await self._tickets.take_ticket(secret)
            session = await self._begin_session(ticket, principal)
        finally:
            self._opening -= 1
        self._sessions[session.id] = session
        metrics.LIVE_SESSIONS.set(len(self._sessions))
        return session, self._attach(session, end_connection, resumed=False)

    async def _begin_session(self, ticket: LiveTicket, principal: Principal) -> LiveSession:
        open_or_opening = self._count_sessions(ticket.key_id) + self._opening_by_key[ticket.key_id]
        if open_or_opening >= self._settings.max_sessions_per_key:
            raise AdmissionError(CloseCode.KEY_FULL)
        self._opening_by_key[ticket.key_id] += 1
        session_id = new_id()
        try:
            stream = await self._streams.open_stream(
                principal,
                reference=str(ticket.collection_id),
                origin=StreamOrigin("session", session_id),
                max_pixels=self._settings.max_frame_pixels,
            )
        finally:
            self._opening_by_key -= Counter({ticket.key_id: 1})  # and forget a key without any
        return LiveSession(session_id, principal, ticket, stream, time.monotonic() + ticket.session_s)

    async def resume_session(self, secret: str, end_connection: EndConnection) -> tuple[LiveSession, SessionTerms]:
        """Go on with a session in another connection; one that is still open is closed.

        Raises:
            AdmissionError: The token is unknown, was used, came too late, or the session's key has ended.
            VultusError: Something needed is down; the token can be used again.
        """
        session = self._resumable.pop(compute_digest(secret), None)
        if session is None:
            raise AdmissionError(CloseCode.RESUME_REFUSED)
        try:
            live_secrets = await self._tickets.list_live_secrets({session.ticket.key_sha256})
        except BaseException:  # that the connection is gone, among others
            if session.id in self._sessions:
                self._resumable[session.resume_digest] = session
            raise
        if not live_secrets:
            self.end_session(session, CloseCode.KEY_ENDED)
            raise AdmissionError(CloseCode.KEY_ENDED)
        if session.id not in self._sessions:
            raise AdmissionError(CloseCode.RESUME_REFUSED)
        if session.end_connection is not None:
            session.end_connection(CloseCode.RESUMED_ELSEWHERE)
        return session, self._attach(session, end_connection, resumed=True)

    def leave_session(self, session: LiveSession, end_connection: EndConnection, *, for_good: bool) -> None:
        """Note that a connection of a session is gone; the session waits to be resumed, unless it is over."""
        if session.end_connection != end_connection:
            return  # it goes on in another one
        session.end_connection = None
        if for_good or not self._settings.resume_s:
            self.end_session(session)
        else:
            session.waits_until = time.monotonic() + self._settings.resume_s

    def end_session(self, session: LiveSession, code: CloseCode | None = None) -> None:
        """End a session, and close its connection if it has one."""
        if self._sessions.pop(session.id, None) is None:
            return
        self._resumable.pop(session.resume_digest, None)
        if session.end_connection is not None and code is not None:
            session.end_connection(code)
        metrics.LIVE_SESSIONS.set(len(self._sessions))
        task = asyncio.create_task(session.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def check_sessions(self) -> None:
        """End sessions whose key has ended, and those that nobody resumed: a background job."""
        now = time.monotonic()
        for session in list(self._sessions.values()):
            if session.end_connection is None and now > min(session.waits_until, session.closes_at):
                self.end_session(session)
        if digests := {session.ticket.key_sha256 for session in self._sessions.values()}:
            ended = digests - await self._tickets.list_live_secrets(digests)  # not of those opened meanwhile
            for session in list(self._sessions.values()):
                if session.ticket.key_sha256 in ended:
                    self.end_session(session, CloseCode.KEY_ENDED)

    async def close(self) -> None:
        """End every session: the server stops."""
        for session in list(self._sessions.values()):
            self.end_session(session, CloseCode.SERVER_STOPS)
        if self._ending:
            await asyncio.gather(*self._ending, return_exceptions=True)

    def _attach(self, session: LiveSession, end_connection: EndConnection, *, resumed: bool) -> SessionTerms:
        """Give a session its connection and another resume token."""
        token = secrets.token_urlsafe(32)
        self._resumable.pop(session.resume_digest, None)
        session.resume_digest = compute_digest(token)
        self._resumable[session.resume_digest] = session
        session.end_connection = end_connection
        return SessionTerms(
            session_id=session.id,
            collection_id=session.ticket.collection_id,
            resumed=resumed,
            resume_token=token,
            ends_at=datetime.now(UTC) + timedelta(seconds=session.closes_at - time.monotonic()),
            closes_at=session.closes_at,
            frames_per_second=session.ticket.frames_per_second,
        )

    def _count_sessions(self, key_id: UUID) -> int:
        return Counter(session.ticket.key_id for session in self._sessions.values())[key_id]
