"""Whether there is work for background jobs: asked every second or two, so that idle ones cost one query each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, exists, func, or_, select
from sqlalchemy.dialects.postgresql import distinct_on

from vultus.db.repositories.keys import IS_LIVE
from vultus.db.repositories.sources import IS_UNWATCHED
from vultus.db.tables import KeyRow
from vultus.db.webhook_tables import WebhookDeliveryRow, WebhookRow
from vultus.domain.webhooks import DeliveryState

if TYPE_CHECKING:
    from vultus.db.driver_session import StatementSession

_HAS_KEY = exists().where(KeyRow.id == WebhookRow.key_id, IS_LIVE)
_HEADS = (
    select(WebhookDeliveryRow.due_at, WebhookDeliveryRow.leased_until)
    .ext(distinct_on(WebhookDeliveryRow.lane))
    .where(WebhookDeliveryRow.webhook_id == WebhookRow.id, WebhookDeliveryRow.state == DeliveryState.WAITING)
    .order_by(WebhookDeliveryRow.lane, WebhookDeliveryRow.number)
    .correlate(WebhookRow)
    .lateral()
)
"""The first deliveries of the lanes of a webhook; the others wait for them, due or not."""

_HAS_DUE = (
    select(_HEADS.c.due_at)
    .where(_HEADS.c.due_at <= func.now(), func.coalesce(_HEADS.c.leased_until, func.now()) <= func.now())
    .exists()
)
_HAS_DELIVERIES = select(
    exists()
    .where(
        WebhookRow.disabled_at.is_(None),
        or_(WebhookRow.position < bindparam("settled"), _HAS_DUE, WebhookRow.key_id.is_not(None) & ~_HAS_KEY),
    )
    .label("found")
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
