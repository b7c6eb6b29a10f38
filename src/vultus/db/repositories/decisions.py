"""Stores decision records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, Uuid, bindparam, delete, select, text
from sqlalchemy.dialects.postgresql import JSONB, REAL

from vultus.db.record_tables import DecisionRow
from vultus.domain.decision_records import DecisionFilter, DecisionRecord
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Set
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_COLUMNS = (
    DecisionRow.id,
    DecisionRow.at,
    DecisionRow.kind,
    DecisionRow.actor,
    DecisionRow.request_id,
    DecisionRow.collection_id,
    DecisionRow.person_id,
    DecisionRow.consent_id,
    DecisionRow.origin_id,
    DecisionRow.track_id,
    DecisionRow.verdict,
    DecisionRow.band,
    DecisionRow.similarity,
    DecisionRow.threshold,
    DecisionRow.detail,
)
_EQUAL = ("actor", "verdict", "request_id", "collection_id", "person_id")

DELETION_SIZE = 5_000

# One statement, since an answer waits for it. What is locked, as the foreign keys do, is still there at the commit.
_ADD_DECISION = text(
    """
    WITH kept AS (SELECT id FROM collections WHERE id = :collection FOR KEY SHARE),
    person AS (SELECT id FROM persons WHERE id = :person AND collection_id = :collection FOR KEY SHARE),
    consent AS (
        SELECT id FROM consents
        WHERE id = (SELECT consent_id FROM faces WHERE collection_id = :collection AND id = :face LIMIT 1)
        AND person_id = (SELECT id FROM person) FOR KEY SHARE
    )
    INSERT INTO decisions (
        id, kind, actor, request_id, collection_id, person_id, consent_id, origin_id, track_id, verdict, band,
        similarity, threshold, detail
    )
    SELECT :id, :kind, :actor, :request_id, kept.id, person.id, consent.id, :origin_id, :track_id, :verdict, :band,
        :similarity, :threshold, :detail
    FROM kept LEFT JOIN person ON true LEFT JOIN consent ON true
    """
).bindparams(
    *(bindparam(name, type_=Uuid) for name in ("collection", "person", "face", "id", "origin_id", "track_id")),
    *(bindparam(name, type_=Text) for name in ("kind", "actor", "request_id", "verdict", "band")),
    *(bindparam(name, type_=REAL) for name in ("similarity", "threshold")),
    bindparam("detail", type_=JSONB),
)


class DecisionRepository:
    """Stores decision records."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_decision(
        self, collection_id: UUID, person_id: UUID | None, face_id: UUID | None, values: dict[str, Any]
    ) -> None:
        """Record a decision, with the consent of the face that was found.

        Whoever has been erased meanwhile is not in it, and who erases them waits for this transaction; of a collection
        that has been deleted nothing is recorded.
        """
        row = {**values, "collection": collection_id, "person": person_id, "face": face_id}
        await self._session.execute(_ADD_DECISION, row)

    async def get_decision(self, decision_id: UUID, among: Set[UUID] | None = None) -> DecisionRecord:
        """Return a decision record; if `among` is given, only one made in these collections.

        Raises:
            NotFoundError: There is none with this id.
        """
        query = select(*_COLUMNS).where(DecisionRow.id == decision_id)
        if among is not None:
            query = query.where(DecisionRow.collection_id.in_(among))
        row = (await self._session.execute(query)).one_or_none()
        if row is None:
            raise NotFoundError(
                f"There is no decision record with id {decision_id}: the collection's policy did not ask for it "
                "(record_searches), or it was deleted for its age."
            )
        return DecisionRecord(*row)

    async def list_decisions(
        self, after: UUID | None, limit: int, only: DecisionFilter, *, newest_first: bool = False
    ) -> tuple[DecisionRecord, ...]:
        """Return records that pass a filter, those after the given id in the order asked for."""
        query = select(*_COLUMNS).order_by(DecisionRow.id.desc() if newest_first else DecisionRow.id).limit(limit)
        if after is not None:
            query = query.where(DecisionRow.id < after if newest_first else DecisionRow.id > after)
        for name in _EQUAL:
            if (wanted := getattr(only, name)) is not None:
                query = query.where(getattr(DecisionRow, name) == wanted)
        if only.since is not None:
            query = query.where(DecisionRow.at >= only.since)
        if only.until is not None:
            query = query.where(DecisionRow.at < only.until)
        if only.collections is not None:
            query = query.where(DecisionRow.collection_id.in_(only.collections))
        return tuple(DecisionRecord(*row) for row in await self._session.execute(query))

    async def delete_old_decisions(self, older_than: datetime) -> bool:
        """Delete what was recorded before a time, the oldest first; return whether more is left that is so old."""
        old = select(DecisionRow.id).where(DecisionRow.at < older_than).order_by(DecisionRow.at).limit(DELETION_SIZE)
        deleted = await self._session.execute(
            delete(DecisionRow).where(DecisionRow.id.in_(old)).returning(DecisionRow.id)
        )
        return len(deleted.all()) == DELETION_SIZE
