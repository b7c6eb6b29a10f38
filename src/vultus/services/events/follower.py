"""Follows the outbox for everything in this process that waits for events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from vultus.errors import OverloadedError

if TYPE_CHECKING:
    from vultus.db.database import Database

POLL_INTERVAL_S = 0.5
"""Longest time until an event of another process is noticed; one of this process is noticed at once."""


class OutboxFollower:
    """Knows up to which number the outbox is settled."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._settling = asyncio.Lock()
        self._asked = self._answered = 0
        self._refusal: OverloadedError | None = None
        self._followed = 0
        self._woken = asyncio.Event()
        self._advanced = asyncio.Event()
        self.settled = 0

    def wake(self) -> None:
        """Look for new events now: this process has recorded one."""
        self._woken.set()

    async def follow(self) -> None:
        """Notice new events, at most once an interval unless woken: one run of a background job.

        Raises:
            OverloadedError: A transaction that recorded an event lasts long.
        """
        try:
            async with asyncio.timeout(POLL_INTERVAL_S):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()
        async with self._database.hot_queries() as work:
            newest = await work.outbox.find_newest_number()
        if newest > self._followed:
            await self.settle()
            self._followed = newest

    async def settle(self) -> int:
        """Return the number up to which events can be listed now, all that were committed before the call included.

        Raises:
            OverloadedError: A transaction that recorded an event lasts long.
        """
        asked = self._asked
        async with self._settling:  # one question to the database at a time, whoever asks
            if self._answered <= asked:  # else one that was begun after this call: its answer holds for this one too
                await self._ask()
        if self._refusal:
            raise OverloadedError(self._refusal.detail)
        return self.settled

    async def _ask(self) -> None:
        self._asked += 1
        number, self._refusal = 0, None
        try:
            async with self._database.hot_queries() as work:
                number = await work.outbox.settle()
        except OverloadedError as error:
            self._refusal = error
        self._answered = self._asked
        if number > self.settled:
            self.settled = number
            self._advanced.set()
            self._advanced = asyncio.Event()

    async def wait_beyond(self, number: int, timeout_s: float) -> None:
        """Return when a greater number is settled, or after the timeout."""
        advanced = self._advanced
        if self.settled > number:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await advanced.wait()
        except TimeoutError:
            return
