"""What a key may do within a time: searches an hour, and failed verifications of a person.

PostgreSQL counts for all servers together. A server reserves searches in blocks and spends them by itself, so that a
search costs no query; what it has reserved and not spent when the hour ends is lost.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vultus.errors import SearchLimitError, VerificationLimitError
from vultus.utils.request_scope import Quota, find_scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import ApiKey, Principal
    from vultus.settings import LimitSettings

BLOCK_SHARE, MAX_BLOCK = 0.01, 1000
"""Share of a key's searches an hour that a server reserves at once, and the most."""


@dataclass(slots=True)
class _Account:
    """A key's searches in this hour, as far as this server knows.

    Attributes:
        ends_at: End of the hour, by `time.monotonic`.
        used: Reserved by all servers, as of this one's last query; what follows only adds to it.
        reserved: Of them, not yet spent by this server.
        lock: Held while more are reserved.
    """

    ends_at: float = 0.0
    used: int = 0
    reserved: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def count_left(self, most: int) -> int:
        """Return how many searches are left at most; all of them once the hour is over."""
        return most if time.monotonic() >= self.ends_at else self.reserved + max(0, most - self.used)


class UsageLimiter:
    """Refuses what a key has done often enough; commands and jobs are not limited."""

    def __init__(self, database: Database, settings: LimitSettings) -> None:
        self._database = database
        self._settings = settings
        self._accounts: dict[UUID, _Account] = {}

    def ensure_searches_left(self, principal: Principal) -> None:
        """Return unless it is known here that a principal's key has no search left, before anything is computed.

        Raises:
            SearchLimitError: It has not.
        """
        if principal.key is not None:
            account = self._accounts.setdefault(principal.key.id, _Account())
            if account.count_left(self._get_limit(principal.key)) < 1:
                raise self._build_error(principal.key, account, 1)

    async def charge_searches(self, principal: Principal, count: int) -> None:
        """Count searches of a principal's key before they are made.

        Args:
            principal: The caller.
            count: Faces searched for.

        Raises:
            SearchLimitError: The key has not so many left in this hour; none is counted.
        """
        if (key := principal.key) is None:
            return
        account = self._accounts.setdefault(key.id, _Account())
        if not _spend(account, count):
            async with account.lock:  # others wait, and mostly find that there is enough then
                while not _spend(account, count):
                    await self._reserve(key, account, count)
        self._show_quota(key, account)

    @asynccontextmanager
    async def attempt_verification(self, principal: Principal, person_id: UUID) -> AsyncIterator[VerificationAttempt]:
        """Count a verification of a person as failed, until the block ends without having found it so.

        Raises:
            VerificationLimitError: Too many have failed; it may be tried again after `retry_after_s`.
        """
        attempt = VerificationAttempt()
        if (key := principal.key) is None:
            yield attempt
            return
        async with self._database.hot_queries() as work:
            wait_s = await work.usage.reserve_attempt(key.id, person_id, self._settings.verification_failures)
        if wait_s:
            raise VerificationLimitError(
                f"Too many verifications of this person with this key have failed; try again in {math.ceil(wait_s)} s.",
                retry_after_s=math.ceil(wait_s),
            )
        try:
            yield attempt
        finally:
            if not attempt.has_failed:
                async with self._database.hot_queries() as work:
                    await work.usage.release_attempt(key.id, person_id)

    def _get_limit(self, key: ApiKey) -> int:
        return key.searches_per_hour or self._settings.searches_per_hour

    async def _reserve(self, key: ApiKey, account: _Account, count: int) -> None:
        """Reserve what is missing, and a block if there is one left."""
        most = self._get_limit(key)
        if account.count_left(most) < count:
            raise self._build_error(key, account, count)
        if time.monotonic() >= account.ends_at:
            account.reserved = 0
        missing = count - account.reserved
        block = max(missing, min(int(most * BLOCK_SHARE), MAX_BLOCK))
        async with self._database.hot_queries() as work:
            for amount in (block, missing):
                if counted := await work.usage.reserve_searches(key.id, amount, most):
                    account.reserved += amount
                    break
            else:
                counted = await work.usage.count_searches(key.id)
        account.used, account.ends_at = counted.searches, time.monotonic() + counted.ends_in_s

    def _build_error(self, key: ApiKey, account: _Account, count: int) -> SearchLimitError:
        self._show_quota(key, account)
        wait_s = max(1, math.ceil(account.ends_at - time.monotonic()))
        limit = self._get_limit(key)
        made = "1 search" if count == 1 else f"{count:,} searches"
        return SearchLimitError(
            f"This would be {made}, one for each face; the key may make {limit:,} an hour, and has "
            f"{account.count_left(limit):,} left. Send it again in {wait_s} s, or use a key with a higher limit.",
            limit=limit,
            retry_after_s=wait_s,
        )

    def _show_quota(self, key: ApiKey, account: _Account) -> None:
        if scope := find_scope():
            most = self._get_limit(key)
            scope.quota = Quota(most, account.count_left(most), account.ends_at - time.monotonic())


def _spend(account: _Account, count: int) -> bool:
    """Take searches from those that are reserved, and return whether there were so many."""
    if account.reserved < count or time.monotonic() >= account.ends_at:
        return False
    account.reserved -= count
    return True


@dataclass(slots=True)
class VerificationAttempt:
    """A verification under way.

    Attributes:
        has_failed: Whether the photo was found not to show the person.
    """

    has_failed: bool = False
