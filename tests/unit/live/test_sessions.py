"""Who may open a session, and resume one, while the database takes its time or is away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from tests.callers import CALLER

from vultus.domain import Frame, LiveTicket, Permission, Principal
from vultus.errors import OverloadedError, UnavailableError
from vultus.live.close_codes import CloseCode
from vultus.live.sessions import AdmissionError, LiveSession, SessionRegistry
from vultus.settings import LiveSettings

TICKET = LiveTicket(
    key_id=uuid4(),
    key_sha256=b"digest",
    collection_id=uuid4(),
    permissions=frozenset({Permission.LIVE}),
    frames_per_second=10.0,
    session_s=60.0,
    expires_at=datetime.now(UTC),
)
FRAME = Frame(b"", 1, datetime.now(UTC))


class SlowServices:
    """In place of tickets and streams: every ticket is valid, and a question waits for `answers`."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.error: Exception | None = None

    async def take_ticket(self, _secret: str) -> tuple[LiveTicket, Principal]:
        return TICKET, CALLER

    async def open_stream(self, *_: Any, **__: Any) -> object:
        return await self._answer(object())

    async def list_live_secrets(self, digests: set[Any]) -> frozenset[Any]:
        return frozenset(await self._answer(digests))

    async def _answer(self, value: Any) -> Any:
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return value


class Stream:
    """In place of a stream: notes what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def process_frame(self, _frame: Frame) -> None:
        self.calls.append("frame")

    async def end(self) -> None:
        self.calls.append("end")


def build_registry(services: Any) -> SessionRegistry:
    return SessionRegistry(services, services, LiveSettings(max_sessions_per_key=1))


def ignore_end(_code: CloseCode) -> None:
    """Close no connection."""


async def test_sessions_that_are_being_opened_count_for_their_key() -> None:
    services = SlowServices()
    registry = build_registry(services)
    services.answers.clear()
    first = asyncio.create_task(registry.open_session("first", ignore_end))
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        with pytest.raises(AdmissionError) as refused:
            await registry.open_session("second", ignore_end)
        assert refused.value.code is CloseCode.KEY_FULL
        services.error = UnavailableError("no database")
        services.answers.set()
        with pytest.raises(UnavailableError):
            await first
        services.error = None
        await registry.open_session("third", ignore_end)


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["no database", "connection gone"])
async def test_a_token_can_be_used_again_if_its_session_could_not_be_looked_up(is_cancelled: bool) -> None:
    services = SlowServices()
    registry = build_registry(services)
    session, terms = await registry.open_session("ticket", ignore_end)
    services.answers.clear()
    resuming = asyncio.create_task(registry.resume_session(terms.resume_token, ignore_end))
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        with pytest.raises(AdmissionError):  # two at once have no turn each
            await registry.resume_session(terms.resume_token, ignore_end)
        services.error = UnavailableError("no database")
        if is_cancelled:
            resuming.cancel()
        services.answers.set()
        with pytest.raises(asyncio.CancelledError if is_cancelled else UnavailableError):
            await resuming
        services.error = None
        assert (await registry.resume_session(terms.resume_token, ignore_end))[0] is session


async def test_a_session_that_is_over_takes_no_frame() -> None:
    """One that was on its way would show somebody who appears and never leaves."""
    stream = Stream()
    session = LiveSession(uuid4(), CALLER, TICKET, stream, 0.0)  # type: ignore[arg-type]
    await session.process_frame(FRAME)
    await session.end()
    refused = await session.process_frame(FRAME)

    assert isinstance(refused, OverloadedError)
    assert stream.calls == ["frame", "end"]
