"""Makes deliveries of events, hands each to one process at a time, and stores what became of it.

Transactions lock persons first, then webhooks, then deliveries: as an erasure does, and the deletion of a webhook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, bindparam, case, delete, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert

from vultus.db.record_tables import OutboxRow
from vultus.db.repositories.outbox import IS_FOR_WEBHOOK, OUTBOX_COLUMNS
from vultus.db.repositories.pending_work import LANE_HEADS
from vultus.db.repositories.persons import HAS_EXPIRED
from vultus.db.repositories.webhooks import COLUMNS, SEALED_COLUMNS, build_webhook, list_sealed_secrets
from vultus.db.tables import CollectionRow, PersonRow
from vultus.db.webhook_tables import WebhookDeliveryRow, WebhookPersonRow, WebhookRow
from vultus.domain import OutboxEntry
from vultus.domain.events import ConsentExpired, ConsentWithdrawn, PersonErased
from vultus.domain.sightings import ACTIONS
from vultus.domain.webhooks import ClaimedDelivery, Delivery, DeliveryState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncSession

MAX_WAITING = 10_000
"""Deliveries of a webhook that wait; further events stay in the outbox until there are fewer."""

BATCH_SIZE = 1_000
MAX_PER_WEBHOOK = 8
"""Deliveries of a webhook that are attempted together, each of another lane."""

ENDINGS = frozenset(kind.action for kind in (PersonErased, ConsentWithdrawn, ConsentExpired))
"""What is delivered of somebody who is erased."""

_MAKE_DELIVERIES = text(
    f"""
    WITH chosen AS (
        SELECT * FROM webhooks WHERE disabled_at IS NULL AND position < :settled AND NOT EXISTS (
            SELECT FROM webhook_deliveries WHERE webhook_id = webhooks.id AND state = 'waiting'
            OFFSET :max_waiting - 1
        )
        ORDER BY id FOR UPDATE SKIP LOCKED
    ), bounded AS (
        SELECT chosen.*, coalesce((
            SELECT number FROM outbox WHERE number > position AND number <= :settled
            ORDER BY number OFFSET :batch_size LIMIT 1
        ), :settled) AS until FROM chosen
    ), made AS (
        INSERT INTO webhook_deliveries (webhook_id, number, lane, due_at)
        SELECT webhooks.id, outbox.number,
            CASE WHEN outbox.action = ANY(:sightings) THEN outbox.object_id
                ELSE coalesce(outbox.collection_id, '00000000-0000-0000-0000-000000000000') END,
            CASE WHEN webhooks.id = ANY(outbox.receivers) THEN greatest(now(), busy_until) ELSE now() END
        FROM bounded AS webhooks JOIN outbox ON outbox.number > position AND outbox.number <= until
        WHERE {IS_FOR_WEBHOOK}
        FOR KEY SHARE OF outbox -- an erasure under way takes its sightings along, or leaves them
        ON CONFLICT DO NOTHING
    )
    UPDATE webhooks SET position = until FROM bounded WHERE webhooks.id = bounded.id
    """  # noqa: S608  a constant
).bindparams(bindparam("sightings", sorted(ACTIONS)))

# The first delivery of a lane that waits, unless it is being attempted or not due; of a webhook that fails only one at
# a time, so that receivers that are away leave room for the others.
_LIST_READY = text(
    f"""
    WITH RECURSIVE {LANE_HEADS}, ready AS (
        SELECT webhook_id, number, CASE WHEN failing_since IS NULL THEN :per_webhook ELSE 1 END - leased AS room,
            row_number() OVER (PARTITION BY webhook_id ORDER BY due_at, number) AS place
        FROM heads JOIN webhooks ON webhooks.id = webhook_id JOIN (
            SELECT webhook_id, count(*) FILTER (WHERE leased_until > now()) AS leased FROM heads GROUP BY webhook_id
        ) AS leases USING (webhook_id)
        WHERE due_at <= now() AND (leased_until IS NULL OR leased_until <= now())
    )
    SELECT webhook_id, number, outbox.person_id, outbox.action FROM ready JOIN outbox USING (number)
    WHERE place <= room ORDER BY place, number LIMIT :most
    """  # noqa: S608  a constant
)

_LEASE = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("lease_s"))
_IS_FREE = (
    (WebhookDeliveryRow.state == DeliveryState.WAITING)
    & (WebhookDeliveryRow.due_at <= func.now())
    & (func.coalesce(WebhookDeliveryRow.leased_until, func.now()) <= func.now())
)


class DeliveryRepository:
    """Stores deliveries."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def make_deliveries(self, settled: int) -> None:
        """Make deliveries of the events up to a settled number, for the webhooks that nobody else is busy with.

        Who has heard of a person is told of the erasure whatever it subscribes to, after what may still be under way.
        """
        values = {"settled": settled, "max_waiting": MAX_WAITING, "batch_size": BATCH_SIZE}
        await self._session.execute(_MAKE_DELIVERIES, values)

    async def claim_deliveries(self, limit: int, *, lease_s: float) -> tuple[tuple[ClaimedDelivery, ...], int]:
        """Return deliveries to attempt now, which nobody else gets for a while, and how many were dropped.

        That a webhook hears of a person is recorded first, so that it is told of their erasure. What concerns somebody
        who has been erased is not delivered any more.

        Args:
            limit: Most deliveries.
            lease_s: How long this process has for them, seconds.
        """
        values = {"most": limit, "per_webhook": MAX_PER_WEBHOOK}
        ready = (await self._session.execute(_LIST_READY, values)).all()
        if not ready:
            return (), 0
        persons = await self._lock_persons({row.person_id for row in ready if row.person_id})
        ready, dropped = await self._drop_erased(ready, persons)
        webhooks = await self._lock_webhooks({row.webhook_id for row in ready}, lease_s)
        wanted = [(row.webhook_id, row.number) for row in ready if row.webhook_id in webhooks]
        claimed = [
            self._build_claim(row, webhooks[row.webhook_id], persons) for row in await self._lease(wanted, lease_s)
        ]
        heard = {(one.webhook.id, one.entry.person_id) for one in claimed if one.entry.person_id in persons}
        if heard:
            rows = [{"webhook_id": webhook_id, "person_id": person_id} for webhook_id, person_id in heard]
            await self._session.execute(postgresql_insert(WebhookPersonRow).on_conflict_do_nothing(), rows)
        return tuple(claimed), dropped

    async def _lock_persons(self, ids: set[UUID]) -> dict[UUID, Any]:
        """Lock persons, and their collections, against erasure; those that are being erased are left out.

        Whoever has expired has no name any more, whether or not the sweep has run.
        """
        query = (
            select(
                PersonRow.id,
                case((~HAS_EXPIRED, PersonRow.external_id)).label("external_id"),
                case((~HAS_EXPIRED, PersonRow.name)).label("name"),
            )
            .join(CollectionRow, CollectionRow.id == PersonRow.collection_id)
            .where(PersonRow.id.in_(ids))
        )
        locking = query.with_for_update(read=True, key_share=True, skip_locked=True, of=[PersonRow, CollectionRow])
        return {row.id: row for row in await self._session.execute(locking)} if ids else {}

    async def _drop_erased(self, ready: Sequence[Row[Any]], persons: dict[UUID, Any]) -> tuple[list[Row[Any]], int]:
        """Return what can be attempted, without who is being erased; delete, and count, what concerns who was."""
        missing = {row.person_id for row in ready if row.person_id} - persons.keys()
        if not missing:
            return list(ready), 0
        alive = (await self._session.execute(select(PersonRow.id).where(PersonRow.id.in_(missing)))).scalars()
        erased = missing - set(alive)
        dropped = [
            (row.webhook_id, row.number) for row in ready if row.person_id in erased and row.action not in ENDINGS
        ]
        await self._session.execute(_delete_waiting(dropped))
        kept = [
            row for row in ready if row.person_id not in missing or (row.person_id in erased and row.action in ENDINGS)
        ]
        return kept, len(dropped)

    async def _lock_webhooks(self, ids: set[UUID], lease_s: float) -> dict[UUID, Any]:
        free = select(WebhookRow.id).where(WebhookRow.id.in_(ids), WebhookRow.disabled_at.is_(None))
        statement = (
            update(WebhookRow)
            .where(WebhookRow.id.in_(free.with_for_update(skip_locked=True)))
            .values(busy_until=_LEASE)
            .returning(*COLUMNS, *SEALED_COLUMNS)
        )
        return {row.id: row for row in await self._session.execute(statement, {"lease_s": lease_s})}

    async def _lease(self, wanted: list[tuple[UUID, int]], lease_s: float) -> Sequence[Row[Any]]:
        """Lease those of the deliveries that are free, and return them with their events."""
        key = tuple_(WebhookDeliveryRow.webhook_id, WebhookDeliveryRow.number)
        free = select(WebhookDeliveryRow.webhook_id, WebhookDeliveryRow.number).where(key.in_(wanted), _IS_FREE)
        statement = (
            update(WebhookDeliveryRow)
            .where(key.in_(free.with_for_update(skip_locked=True)), OutboxRow.number == WebhookDeliveryRow.number)
            .values(attempts=WebhookDeliveryRow.attempts + 1, leased_until=_LEASE, last_attempt_at=func.now())
            .returning(WebhookDeliveryRow.webhook_id, WebhookDeliveryRow.attempts, *OUTBOX_COLUMNS)
        )
        if not wanted:
            return ()
        return (await self._session.execute(statement, {"lease_s": lease_s})).all()

    def _build_claim(self, row: Row[Any], webhook: Row[Any], persons: dict[UUID, Any]) -> ClaimedDelivery:
        person = persons.get(row.person_id) if webhook.with_names else None
        return ClaimedDelivery(
            webhook=build_webhook(webhook),
            entry=OutboxEntry(*(getattr(row, column.key) for column in OUTBOX_COLUMNS)),
            attempt=row.attempts,
            sealed_secrets=list_sealed_secrets(webhook),
            person=None if person is None else (person.external_id, person.name),
        )

    async def record_delivery(self, webhook_id: UUID, number: int, status: int) -> None:
        """Record that a delivery was accepted; so the webhook fails no more."""
        await self._session.execute(
            update(WebhookRow)
            .where(WebhookRow.id == webhook_id, WebhookRow.failing_since.is_not(None))
            .values(failing_since=None)
        )
        await self._update_waiting(webhook_id, number, state=DeliveryState.DELIVERED, last_status=status)

    async def record_failure(
        self, webhook_id: UUID, number: int, status: int | None, error: str, retry_in_s: float | None
    ) -> float:
        """Record that an attempt failed; return for how long the webhook has been failing, seconds.

        Args:
            webhook_id: The webhook.
            number: Of the event.
            status: Of the receiver's answer.
            error: Why it failed.
            retry_in_s: Seconds until the next attempt; None if there is none, and the delivery is dead.
        """
        failing_since = func.coalesce(WebhookRow.failing_since, func.now())
        failing = await self._session.execute(
            update(WebhookRow)
            .where(WebhookRow.id == webhook_id)
            .values(failing_since=failing_since)
            .returning(func.extract("epoch", func.now() - WebhookRow.failing_since))
        )
        due_at = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, retry_in_s or 0.0)
        state = DeliveryState.DEAD if retry_in_s is None else DeliveryState.WAITING
        await self._update_waiting(webhook_id, number, state=state, last_status=status, last_error=error, due_at=due_at)
        return float(failing.scalar() or 0.0)

    async def release(self, webhook_id: UUID, number: int, retry_in_s: float, error: str) -> None:
        """Give back a delivery that could not be attempted here: it is no failure of the receiver."""
        await self._update_waiting(
            webhook_id,
            number,
            attempts=WebhookDeliveryRow.attempts - 1,
            last_error=error,
            due_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, retry_in_s),
        )

    async def _update_waiting(self, webhook_id: UUID, number: int, **changes: Any) -> None:
        await self._session.execute(
            update(WebhookDeliveryRow)
            .where(
                WebhookDeliveryRow.webhook_id == webhook_id,
                WebhookDeliveryRow.number == number,
                WebhookDeliveryRow.state == DeliveryState.WAITING,
            )
            .values({"leased_until": None, "last_error": None, **changes})
        )

    async def list_deliveries(
        self,
        webhook_id: UUID,
        *,
        after: int | None,
        limit: int,
        state: DeliveryState | None = None,
        newest_first: bool = False,
    ) -> tuple[Delivery, ...]:
        """Return deliveries of a webhook after a number of the outbox in its order; before it, the newest first."""
        number = WebhookDeliveryRow.number
        query = (
            select(
                OutboxRow.number,
                OutboxRow.id.label("event_id"),
                OutboxRow.action,
                WebhookDeliveryRow.state,
                WebhookDeliveryRow.attempts,
                WebhookDeliveryRow.due_at,
                WebhookDeliveryRow.last_attempt_at,
                WebhookDeliveryRow.last_status,
                WebhookDeliveryRow.last_error,
            )
            .join(OutboxRow, OutboxRow.number == WebhookDeliveryRow.number)
            .where(WebhookDeliveryRow.webhook_id == webhook_id)
            .order_by(number.desc() if newest_first else number)
            .limit(limit)
        )
        if after is not None:
            query = query.where(number < after if newest_first else number > after)
        if state is not None:
            query = query.where(WebhookDeliveryRow.state == state)
        rows = await self._session.execute(query)
        return tuple(Delivery(**{**row._mapping, "state": DeliveryState(row.state)}) for row in rows)

    async def replay_deliveries(self, webhook_id: UUID, event_ids: Sequence[UUID] | None) -> int:
        """Let dead deliveries wait again, all or those of some events; return how many."""
        wanted: list[ColumnElement[bool]] = [
            WebhookDeliveryRow.webhook_id == webhook_id,
            WebhookDeliveryRow.state == DeliveryState.DEAD,
        ]
        if event_ids is not None:
            numbers = select(OutboxRow.number).where(OutboxRow.id.in_(event_ids))
            wanted.append(WebhookDeliveryRow.number.in_(numbers))
        done = await self._session.execute(
            update(WebhookDeliveryRow)
            .where(*wanted)
            .values(state=DeliveryState.WAITING, attempts=0, due_at=func.now())
            .returning(WebhookDeliveryRow.number)
        )
        return len(done.all())

    async def count_by_state(self) -> dict[str, int]:
        """Return the numbers of deliveries that wait and that are dead, of all webhooks."""
        counts = {
            state: select(func.count()).where(WebhookDeliveryRow.state == state).scalar_subquery().label(state)
            for state in (DeliveryState.WAITING, DeliveryState.DEAD)  # each by an index of its own
        }
        row = (await self._session.execute(select(*counts.values()))).one()
        return dict(row._mapping)


def _delete_waiting(keys: list[tuple[UUID, int]]) -> Any:
    key = tuple_(WebhookDeliveryRow.webhook_id, WebhookDeliveryRow.number)
    return delete(WebhookDeliveryRow).where(key.in_(keys), WebhookDeliveryRow.state == DeliveryState.WAITING)
