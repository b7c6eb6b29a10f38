"""Records events and sightings, and lists them for those that follow what happens.

A number is drawn before its transaction commits, so a lower one may appear after a higher one was read. A number is
settled when none below it can appear any more. Whoever follows the outbox reads up to a settled number and no further.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ARRAY, DateTime, Uuid, bindparam, cast, delete, func, insert, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as postgresql_insert

from vultus.db.record_tables import AuditChangesRow, AuditRow, OutboxFloorRow, OutboxRow
from vultus.db.tables import CollectionRow, PersonRow
from vultus.domain import EventFilter, OutboxEntry
from vultus.domain.sightings import ACTIONS, Recognised
from vultus.errors import EventsExpiredError, OverloadedError
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.db.driver_session import StatementSession
    from vultus.domain import Principal
    from vultus.domain.events import Event
    from vultus.domain.sightings import Sighting

_SHARED = ("action", "collection_id", "person_id", "object_id")
OUTBOX_COLUMNS = (
    OutboxRow.number,
    OutboxRow.id,
    OutboxRow.created_at,
    OutboxRow.action,
    OutboxRow.collection_id,
    OutboxRow.person_id,
    OutboxRow.object_id,
    OutboxRow.detail,
)
MAX_WAIT_S = 1.0
"""Longest wait for transactions that have recorded something and not ended."""

CHECK_INTERVAL_S = 0.01

DELETION_SIZE = 5_000
"""Events that are deleted together for their age: fewer than take long to go, with their deliveries."""

IS_FOR_WEBHOOK = """(
    webhooks.id = ANY(outbox.receivers) OR (
        (webhooks.collections IS NULL OR outbox.collection_id = ANY(webhooks.collections))
        AND CASE WHEN webhooks.actions IS NULL THEN outbox.collection_id IS NOT NULL
            ELSE outbox.action = ANY(webhooks.actions) END
    )
)"""
"""Condition in SQL: the event `outbox` is delivered to the webhook `webhooks`."""

_FIND_NEWEST = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS number FROM outbox_number_seq")
# Of those up to a number the last that was stored for good, deleted for its age or not. A number that was drawn and
# rolled back may be drawn again after a crash: what was drawn is written to disk with the next commit only.
_FIND_LAST_KEPT = text(
    "SELECT greatest((SELECT max(number) FROM outbox WHERE number <= :newest),"
    " (SELECT least(max(number), :newest) FROM outbox_floor), 0) AS number"
)
_LIST_WRITERS = text(
    "SELECT virtualtransaction FROM pg_locks WHERE relation = 'outbox'::regclass AND mode = 'RowExclusiveLock'"
    " AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


async def add_event(session: AsyncSession, principal: Principal, event: Event, receivers: Sequence[UUID] = ()) -> UUID:
    """Add an event to the audit record and to the outbox in one statement, kept only if the transaction commits.

    Args:
        session: Of the transaction of its effect.
        principal: Who caused it.
        event: What happened.
        receivers: Webhooks that it is delivered to, whatever they subscribe to.

    Returns:
        The id of its entry in the audit record.
    """
    entry_id = new_id()
    changes = _seal_changes(event)
    entry = (
        insert(AuditRow)
        .values(
            id=entry_id,
            actor=principal.id,
            request_id=principal.request_id,
            action=event.action,
            collection_id=event.collection_id,
            person_id=event.person_id,
            object_id=event.object_id,
            detail=event.detail | dict(event.proof) | ({"changes_sha256": compute_digest(changes)} if changes else {}),
        )
        .returning(*(getattr(AuditRow, name) for name in _SHARED))
        .cte("entry")
    )
    more = cast(event.detail, JSONB), cast(list(receivers) or None, ARRAY(Uuid))
    await session.execute(insert(OutboxRow).from_select((*_SHARED, "detail", "receivers"), select(entry, *more)))
    if changes:
        row = {"entry_id": entry_id, "person_id": event.person_id, "changes": changes}
        await session.execute(insert(AuditChangesRow).values(row))
    return entry_id


def _seal_changes(event: Event) -> str:
    """Return values before and now as text, with a random word: without it their digest tells nothing about them."""
    if not event.personal:
        return ""
    values = {name: {"from": before, "to": now} for name, (before, now) in event.personal.items()}
    return json.dumps({"changes": values, "salt": secrets.token_hex(16)}, ensure_ascii=False, sort_keys=True)


def compute_digest(changes: str) -> str:
    """Return the SHA-256 of stored changes, hexadecimal."""
    return hashlib.sha256(changes.encode()).hexdigest()


async def add_sighting(session: AsyncSession, sighting: Sighting, event_id: UUID) -> None:
    """Add a sighting to the outbox alone.

    If its person has been erased meanwhile, it is added without them, and a recognition is not added at all. Whoever
    erases the person waits for this transaction, and erases the sighting too. So it is with a collection that has been
    deleted, of which nothing is added. A sighting that is there already is not added again: a writer does not know
    whether a commit during which its connection broke took place.
    """
    kept = select(CollectionRow.id).where(CollectionRow.id == sighting.collection_id)
    if (await session.execute(kept.with_for_update(read=True, key_share=True))).scalar() is None:
        return
    person_id = sighting.person_id
    if person_id is not None:
        found = select(PersonRow.id).where(PersonRow.id == person_id, PersonRow.collection_id == sighting.collection_id)
        person_id = (await session.execute(found.with_for_update(read=True, key_share=True))).scalar()
        if person_id is None and isinstance(sighting, Recognised):
            return
    await session.execute(
        postgresql_insert(OutboxRow)
        .values(
            id=event_id,
            action=sighting.action,
            collection_id=sighting.collection_id,
            person_id=person_id,
            sighted_person_id=person_id,
            object_id=sighting.origin_id,
            detail=sighting.detail,
        )
        .on_conflict_do_nothing(index_elements=[OutboxRow.id])
    )


async def delete_sightings(session: AsyncSession, collection_id: UUID) -> None:
    """Delete the sightings of a collection, also those of nobody who is enrolled."""
    await session.execute(
        delete(OutboxRow).where(OutboxRow.collection_id == collection_id, OutboxRow.action.in_(ACTIONS))
    )


_DELETE_OLD_EVENTS = text(
    f"""
    WITH old AS MATERIALIZED (
        SELECT * FROM outbox
        WHERE created_at < greatest(:older_than, :sightings_older_than)
        AND (created_at < :older_than OR action = ANY(:sightings) AND created_at < :sightings_older_than)
        AND NOT EXISTS (
            SELECT FROM webhooks WHERE webhooks.id = ANY(outbox.receivers) AND (position < outbox.number OR EXISTS (
                SELECT FROM webhook_deliveries AS delivery WHERE delivery.webhook_id = webhooks.id
                AND delivery.number = outbox.number AND state <> 'delivered'
            ))
        )
        ORDER BY created_at LIMIT :most
    ), gone AS (
        DELETE FROM outbox USING old WHERE outbox.number = old.number RETURNING outbox.number
    )
    UPDATE outbox_floor SET number = greatest(number, (SELECT max(number) FROM gone))
    RETURNING (SELECT count(*) FROM gone) AS deleted, (
        SELECT count(*) FROM webhook_deliveries JOIN old USING (number) WHERE state <> 'delivered'
    ) + (
        SELECT count(*) FROM webhooks JOIN old AS outbox ON outbox.number > position AND {IS_FOR_WEBHOOK}
    ) AS undelivered
    """  # noqa: S608  a constant
).bindparams(
    bindparam("older_than", type_=DateTime(timezone=True)),
    bindparam("sightings_older_than", type_=DateTime(timezone=True)),
    bindparam("sightings", sorted(ACTIONS)),
)


@dataclass(frozen=True, slots=True)
class DeletedEvents:
    """What was deleted for its age.

    Attributes:
        undelivered: Deliveries of it that no receiver had accepted, or that were not even made.
        is_last: Whether no more is left that is so old.
    """

    undelivered: int
    is_last: bool


class OutboxQueries:
    """Finds out how far the outbox can be read, which needs no transaction."""

    def __init__(self, session: StatementSession) -> None:
        self._session = session

    async def find_newest_number(self) -> int:
        """Return the greatest number that was drawn; 0 before the first."""
        row = (await self._session.execute(_FIND_NEWEST, {})).one_or_none()
        return int(row.number)

    async def settle(self) -> int:
        """Return the number of the last event before now, once no other up to it can appear any more.

        Whoever draws a number holds a lock on the table, from before it draws until its transaction ends. Those that
        hold one now are waited for; no writer waits for anybody.

        Raises:
            OverloadedError: One of them lasts longer than `MAX_WAIT_S`; ask later.
        """
        newest = await self.find_newest_number()
        writers = await self._list_writers()
        checks = 0
        while writers:
            if checks * CHECK_INTERVAL_S >= MAX_WAIT_S:
                raise OverloadedError("A transaction that recorded an event has not ended; ask for events again soon.")
            await asyncio.sleep(CHECK_INTERVAL_S)
            checks += 1
            writers &= await self._list_writers()
        row = (await self._session.execute(_FIND_LAST_KEPT, {"newest": newest})).one_or_none()
        return int(row.number)

    async def _list_writers(self) -> set[str]:
        return {row.virtualtransaction for row in await self._session.execute(_LIST_WRITERS, {})}


class OutboxRepository(OutboxQueries):
    """Lists recent events in commit order."""

    _session: AsyncSession

    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session)

    async def list_events(
        self, after: int, until: int, limit: int, only: EventFilter | None = None, *, newest_first: bool = False
    ) -> tuple[OutboxEntry, ...]:
        """Return events in the order of their numbers, ascending unless the newest come first.

        Args:
            after: Number of the last one read.
            until: Number of the last one to return; a settled one.
            limit: Most events.
            only: Which.
            newest_first: Whether the greatest numbers come first, and the last page ends with the oldest.

        Raises:
            EventsExpiredError: Events after `after` were deleted for their age, so that the reader would miss them.
        """
        floor = (await self._session.execute(select(func.max(OutboxFloorRow.number)))).scalar_one()
        if 0 < after < floor:
            raise EventsExpiredError(
                "Events after this position were deleted for their age, and are missed. Start again without a cursor, "
                "and without Last-Event-ID."
            )
        query = (
            select(*OUTBOX_COLUMNS)
            .where(OutboxRow.number > after, OutboxRow.number <= until, *_list_conditions(only or EventFilter()))
            .order_by(OutboxRow.number.desc() if newest_first else OutboxRow.number)
            .limit(limit)
        )
        return tuple(OutboxEntry(*row) for row in await self._session.execute(query))

    async def delete_old_events(self, older_than: datetime, sightings_older_than: datetime) -> DeletedEvents:
        """Delete what was recorded before a time, sightings before another; the audit record keeps the events.

        What a webhook must be told of whatever it subscribes to, that somebody of whom it has heard was erased, stays
        until the webhook has accepted it or is deleted. At most `DELETION_SIZE` events go together, the oldest first.
        """
        values = {"older_than": older_than, "sightings_older_than": sightings_older_than, "most": DELETION_SIZE}
        row = (await self._session.execute(_DELETE_OLD_EVENTS, values)).one()
        return DeletedEvents(row.undelivered, is_last=row.deleted < DELETION_SIZE)


def _list_conditions(only: EventFilter) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter."""
    conditions: list[ColumnElement[bool] | None] = [
        None if only.collections is None else OutboxRow.collection_id.in_(only.collections),
        None if only.outside_collections else OutboxRow.collection_id.is_not(None),
        None if only.person_id is None else OutboxRow.person_id == only.person_id,
        None if only.origin_id is None else (OutboxRow.object_id == only.origin_id) & OutboxRow.action.in_(ACTIONS),
        None if only.actions is None else OutboxRow.action.in_(only.actions),
        None if only.since is None else OutboxRow.created_at >= only.since,
        None if only.until is None else OutboxRow.created_at < only.until,
    ]
    return [condition for condition in conditions if condition is not None]
