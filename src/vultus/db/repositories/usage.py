"""Counts what keys do within a time, for all servers together: every count is one statement of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.driver_session import StatementSession

FIRST_WAIT_S, MAX_WAIT_S = 30, 3600
"""Wait after the last failed verification that is allowed, doubled by each further one, up to the longest."""

# All servers count in the same hours, whatever the time zone of their sessions.
_HOUR = "date_trunc('hour', now(), 'UTC')"
_ENDS_IN_S = f"CAST(extract(epoch FROM {_HOUR} + interval '1 hour' - now()) AS float8) AS ends_in_s"
_RESERVE_SEARCHES = text(
    f"INSERT INTO key_usage AS used (key_id, hour, searches)"
    f" SELECT CAST(:key AS uuid), {_HOUR}, CAST(:count AS int8) WHERE CAST(:count AS int8) <= CAST(:most AS int8)"
    f" ON CONFLICT (key_id, hour) DO UPDATE SET searches = used.searches + excluded.searches"
    f" WHERE used.searches + excluded.searches <= CAST(:most AS int8)"
    f" RETURNING searches, {_ENDS_IN_S}"
)
_COUNT_SEARCHES = text(
    f"SELECT CAST(coalesce(sum(searches), 0) AS int8) AS searches, {_ENDS_IN_S}"  # noqa: S608  constants
    f" FROM key_usage WHERE key_id = CAST(:key AS uuid) AND hour = {_HOUR}"
)

# `forgotten_at` lies as many hours ahead as failures are remembered: every hour one is forgotten.
_FORGOTTEN_AT = "greatest(now(), failed.forgotten_at) + interval '1 hour'"
_BEYOND = f"round(extract(epoch FROM {_FORGOTTEN_AT} - now()) / 3600) - CAST(:most AS int4)"
_WAIT = (
    f"make_interval(secs => CASE WHEN {_BEYOND} < 0 THEN 0"
    f" ELSE least({MAX_WAIT_S}, {FIRST_WAIT_S} * 2 ^ least({_BEYOND}, 16)) END)"
)
_RESERVE_ATTEMPT = text(
    f"INSERT INTO verification_failures AS failed (key_id, person_id, forgotten_at, blocked_until)"  # noqa: S608
    f" SELECT CAST(:key AS uuid), id, now() + interval '1 hour',"
    f" now() + make_interval(secs => CASE WHEN CAST(:most AS int4) = 1 THEN {FIRST_WAIT_S} ELSE 0 END)"
    f" FROM persons WHERE id = CAST(:person AS uuid)"
    f" ON CONFLICT (key_id, person_id) DO UPDATE SET forgotten_at = {_FORGOTTEN_AT}, blocked_until = now() + {_WAIT}"
    f" WHERE failed.blocked_until <= now() RETURNING true AS is_reserved"
)
_GET_WAIT = text(
    "SELECT CAST(extract(epoch FROM blocked_until - now()) AS float8) AS wait_s FROM verification_failures"
    " WHERE key_id = CAST(:key AS uuid) AND person_id = CAST(:person AS uuid)"
)
_RELEASE_ATTEMPT = text(
    "UPDATE verification_failures SET forgotten_at = forgotten_at - interval '1 hour', blocked_until = now()"
    " WHERE key_id = CAST(:key AS uuid) AND person_id = CAST(:person AS uuid) RETURNING key_id"
)


@dataclass(frozen=True, slots=True)
class SearchCount:
    """The searches of a key in this hour, those reserved included.

    Attributes:
        searches: By all servers.
        ends_in_s: Until the next hour begins.
    """

    searches: int
    ends_in_s: float


class UsageQueries:
    """Counts searches of keys, and failed verifications of keys and persons; none needs a transaction."""

    def __init__(self, session: StatementSession) -> None:
        self._session = session

    async def reserve_searches(self, key_id: UUID, count: int, most: int) -> SearchCount | None:
        """Add to the searches of this hour, unless they would become more than `most`: then return None."""
        row = await self._run(_RESERVE_SEARCHES, key=key_id, count=count, most=most)
        return None if row is None else SearchCount(row.searches, row.ends_in_s)

    async def count_searches(self, key_id: UUID) -> SearchCount:
        """Return the searches of this hour."""
        row = await self._run(_COUNT_SEARCHES, key=key_id)
        return SearchCount(row.searches, row.ends_in_s)

    async def reserve_attempt(self, key_id: UUID, person_id: UUID, most: int) -> float:
        """Count a verification as failed before it is made, so that parallel ones are counted; or return the wait.

        Args:
            key_id: Of the caller.
            person_id: Whom the photo should show.
            most: Failures without a wait.

        Returns:
            0, or the seconds to wait; then nothing was counted.
        """
        while await self._run(_RESERVE_ATTEMPT, key=key_id, person=person_id, most=most) is None:
            row = await self._run(_GET_WAIT, key=key_id, person=person_id)
            if row is None or row.wait_s > 0:  # no such person any more, or blocked
                return 0.0 if row is None else float(row.wait_s)
        return 0.0

    async def release_attempt(self, key_id: UUID, person_id: UUID) -> None:
        """Take back a counted failure: the verification did not fail."""
        await self._run(_RELEASE_ATTEMPT, key=key_id, person=person_id)

    async def _run(self, statement: Any, **values: object) -> Any:
        return (await self._session.execute(statement, values)).one_or_none()
