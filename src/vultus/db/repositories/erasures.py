"""Stores what was erased and how far its bytes are gone, and the runs that rewrite what holds them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Uuid, bindparam, delete, exists, false, func, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from vultus.db.record_tables import ErasureRow, ScrubRow, SealingRow
from vultus.db.tables import CollectionRow, SpentKeyRow
from vultus.domain import Storage
from vultus.domain.erasures import Erasure, ErasureFilter, ErasureState
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection as AnyOf
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.domain import Principal
    from vultus.domain.erasures import DestroyedCounts
    from vultus.domain.events import Event

_COLUMNS = tuple(
    getattr(ErasureRow, name)
    for name in (
        *("id", "erased_at", "action", "actor", "collection_id", "person_id", "object_id"),
        *("persons", "faces", "consents", "crops", "unreadable_at", "scrubbed_at", "backups_expire_at"),
    )
)
_QUERY = select(*_COLUMNS, ScrubRow.report).outerjoin(ScrubRow, ScrubRow.id == ErasureRow.scrub_id)
_IS_IN_STATE: dict[ErasureState, ColumnElement[bool]] = {
    ErasureState.UNFINDABLE: ErasureRow.unreadable_at.is_(None) & ErasureRow.scrubbed_at.is_(None),
    ErasureState.UNREADABLE: ErasureRow.unreadable_at.is_not(None) & ErasureRow.scrubbed_at.is_(None),
    ErasureState.SCRUBBED: ErasureRow.scrubbed_at.is_not(None),
}


class ErasureRepository:
    """Stores erasures and scrubs."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_erasure(
        self,
        erasure_id: UUID,
        event: Event,
        principal: Principal,
        destroyed: DestroyedCounts,
    ) -> None:
        """Add an erasure in the transaction of its effect.

        In a collection that always was sealed, the destruction of the person's key makes what was erased unreadable.

        Args:
            erasure_id: Of its entry in the audit record, or in the ledger that ends it again.
            event: What was recorded.
            principal: Who erased.
            destroyed: How much.
        """
        values = asdict(destroyed) | {
            name: getattr(event, name) for name in ("action", "collection_id", "person_id", "object_id")
        }
        sealed = select(CollectionRow.policy["storage"].astext == Storage.SEALED.value).where(
            CollectionRow.id == event.collection_id
        )
        was_open = exists().where(SealingRow.collection_id == event.collection_id)
        is_sealed = func.coalesce(sealed.scalar_subquery(), false()) & ~was_open
        statement = insert(ErasureRow).values(id=erasure_id, actor=principal.id, is_sealed=is_sealed, **values)
        again = {name: None for name in ("unreadable_at", "scrub_id", "scrubbed_at", "backups_expire_at")}
        await self._session.execute(statement.on_conflict_do_update(index_elements=[ErasureRow.id], set_=again))

    async def get_erasure(self, erasure_id: UUID, among: AnyOf[UUID] | None = None) -> Erasure:
        """Return an erasure; if `among` is given, only one in one of these collections.

        Raises:
            NotFoundError: There is none with this id.
        """
        query = _QUERY.where(ErasureRow.id == erasure_id)
        if among is not None:
            query = query.where(ErasureRow.collection_id.in_(among))
        row = (await self._session.execute(query)).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no erasure with id {erasure_id}.")
        return _build_erasure(row)

    async def list_erasures(
        self, after: UUID | None, limit: int, only: ErasureFilter, *, newest_first: bool = False
    ) -> tuple[Erasure, ...]:
        """Return erasures that pass a filter, those after the given id in the order asked for."""
        query = _QUERY.order_by(ErasureRow.id.desc() if newest_first else ErasureRow.id).limit(limit)
        if after is not None:
            query = query.where(ErasureRow.id < after if newest_first else ErasureRow.id > after)
        if only.state is not None:
            query = query.where(_IS_IN_STATE[only.state])
        if only.collection_id is not None:
            query = query.where(ErasureRow.collection_id == only.collection_id)
        if only.person_id is not None:
            query = query.where(ErasureRow.person_id == only.person_id)
        if only.collections is not None:
            query = query.where(ErasureRow.collection_id.in_(only.collections))
        return tuple(map(_build_erasure, await self._session.execute(query)))

    async def find_endings(self, persons: Sequence[UUID]) -> list[tuple[str, UUID, UUID | None]]:
        """Return action, person and object of what was erased of some persons, for good, in any collection."""
        is_theirs = ErasureRow.person_id == func.any(bindparam("ids", list(persons), ARRAY(Uuid)))
        query = select(ErasureRow.action, ErasureRow.person_id, ErasureRow.object_id).where(is_theirs)
        found = await self._session.execute(query)
        return [(action, person, object_id) for action, person, object_id in found if person is not None]

    async def mark_unreadable(self, persons: AnyOf[UUID]) -> None:
        """Note that every spent key of some persons is destroyed; what was open becomes unreadable by a scrub."""
        await self._session.execute(
            update(ErasureRow)
            .where(
                ErasureRow.person_id.in_(persons),
                ErasureRow.is_sealed,
                ErasureRow.unreadable_at.is_(None),
                ~exists().where(SpentKeyRow.person_id == ErasureRow.person_id),
            )
            .values(unreadable_at=func.now())
        )

    async def find_oldest_unscrubbed(self) -> datetime | None:
        """Return since when something may be in the database's files that must not be: erased, or sealed since."""
        erased = select(func.min(ErasureRow.erased_at)).where(ErasureRow.scrubbed_at.is_(None)).scalar_subquery()
        sealed = select(func.min(SealingRow.finished_at)).scalar_subquery()
        found: datetime | None = (await self._session.execute(select(func.least(erased, sealed)))).scalar_one()
        return found

    async def delete_old_erasures(self, older_than: datetime) -> None:
        """Delete what was erased before `older_than`, scrubbed, and is in no backup any more."""
        is_over = (ErasureRow.scrubbed_at < older_than) & (ErasureRow.backups_expire_at < older_than)
        await self._session.execute(delete(ErasureRow).where(is_over))


class ScrubRepository:
    """Stores how far scrubs came."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def begin_scrub(self) -> tuple[UUID, dict[str, float]]:
        """Take up the scrub that did not finish, or begin one that takes on everything unscrubbed.

        Returns:
            Its id, and the tables that it has rewritten, with seconds.
        """
        query = select(ScrubRow.id, ScrubRow.rewritten).where(ScrubRow.finished_at.is_(None)).order_by(ScrubRow.id)
        if (found := (await self._session.execute(query.limit(1))).one_or_none()) is not None:
            return found[0], dict(found[1])
        scrub_id: UUID = (await self._session.execute(insert(ScrubRow).returning(ScrubRow.id))).scalar_one()
        await self._session.execute(
            update(ErasureRow).where(ErasureRow.scrubbed_at.is_(None)).values(scrub_id=scrub_id)
        )
        return scrub_id, {}

    async def list_scrubbed_collections(self, scrub_id: UUID) -> set[UUID]:
        """Return the ids of the collections whose faces a scrub rewrites; they need not exist any more.

        Its erasures happened in them, or they were open and had been sealed when it began.
        """
        erased = select(ErasureRow.collection_id).where(ErasureRow.scrub_id == scrub_id)
        sealed = select(SealingRow.collection_id).where(_was_sealed_before(scrub_id))
        return set((await self._session.execute(erased.union(sealed))).scalars())

    async def add_rewritten(self, scrub_id: UUID, table: str, seconds: float) -> None:
        """Note that a scrub has rewritten a table."""
        added = ScrubRow.rewritten.op("||", return_type=JSONB())(literal({table: seconds}, JSONB))
        await self._session.execute(update(ScrubRow).where(ScrubRow.id == scrub_id).values(rewritten=added))

    async def forget_rewritten(self, scrub_id: UUID) -> None:
        """Note that no table counts as rewritten: the scrub's next run begins anew."""
        await self._session.execute(update(ScrubRow).where(ScrubRow.id == scrub_id).values(rewritten={}))

    async def finish_scrub(self, scrub_id: UUID, report: dict[str, Any], backups_days: float | None) -> int:
        """Note a scrub's report, and that its erasures are scrubbed; return how many.

        Nothing is open any more in a collection that had been sealed when it began.
        """
        await self._session.execute(delete(SealingRow).where(_was_sealed_before(scrub_id)))
        await self._session.execute(
            update(ScrubRow).where(ScrubRow.id == scrub_id).values(finished_at=func.now(), report=report)
        )
        expiry = None if backups_days is None else datetime.now(UTC) + timedelta(days=backups_days)
        done = await self._session.execute(
            update(ErasureRow)
            .where(ErasureRow.scrub_id == scrub_id, ErasureRow.scrubbed_at.is_(None))
            .values(
                scrubbed_at=func.now(),
                unreadable_at=func.coalesce(ErasureRow.unreadable_at, func.now()),
                backups_expire_at=expiry,
            )
            .returning(ErasureRow.id)
        )
        return len(done.all())


def _was_sealed_before(scrub_id: UUID) -> ColumnElement[bool]:
    began_at = select(ScrubRow.started_at).where(ScrubRow.id == scrub_id).scalar_subquery()
    return SealingRow.finished_at < began_at


def _build_erasure(row: Any) -> Erasure:
    return Erasure(**row._asdict())
