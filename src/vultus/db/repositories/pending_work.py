"""Whether there is work for background jobs: asked every second or two, so that idle ones cost one query each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exists, select, text

from vultus.db.repositories.sources import IS_UNWATCHED

if TYPE_CHECKING:
    from vultus.db.driver_session import StatementSession

# PostgreSQL has no scan that skips from lane to lane: without the recursion it reads everything that waits.
LANE_HEADS = """heads AS (
    SELECT head.* FROM webhooks CROSS JOIN LATERAL (
        SELECT webhook_id, lane, number, due_at, leased_until FROM webhook_deliveries
        WHERE webhook_id = webhooks.id AND state = 'waiting' ORDER BY lane, number LIMIT 1
    ) AS head WHERE disabled_at IS NULL
    UNION ALL
    SELECT head.* FROM heads AS before CROSS JOIN LATERAL (
        SELECT webhook_id, lane, number, due_at, leased_until FROM webhook_deliveries
        WHERE webhook_id = before.webhook_id AND lane > before.lane AND state = 'waiting' ORDER BY lane, number LIMIT 1
    ) AS head
)"""
"""For `WITH RECURSIVE`: the first deliveries of the lanes of webhooks; the others wait for them, due or not."""

_HAS_DELIVERIES = text(
    f"""
    SELECT EXISTS (
        SELECT FROM webhooks WHERE disabled_at IS NULL AND (
            position < :settled
            OR key_id IS NOT NULL AND NOT EXISTS (
                SELECT FROM api_keys WHERE id = key_id
                AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
            )
        )
    ) OR EXISTS (
        WITH RECURSIVE {LANE_HEADS} SELECT FROM heads
        WHERE due_at <= now() AND (leased_until IS NULL OR leased_until <= now())
    ) AS found
    """  # noqa: S608  a constant
)
_HAS_UNWATCHED_SOURCES = select(exists().where(*IS_UNWATCHED).label("found"))


class PendingWorkQueries:
    """Looks for work, without a transaction."""

    def __init__(self, session: StatementSession) -> None:
        self._session = session

    async def has_deliveries(self, settled: int) -> bool:
        """Return whether the dispatcher of webhooks has anything to do with the events up to a settled number."""
        row = (await self._session.execute(_HAS_DELIVERIES, {"settled": settled})).one_or_none()
        return bool(row.found)

    async def has_unwatched_sources(self) -> bool:
        """Return whether there are sources to be watched that no server watches."""
        row = (await self._session.execute(_HAS_UNWATCHED_SOURCES, {})).one_or_none()
        return bool(row.found)
