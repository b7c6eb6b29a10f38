"""Consents. One that is withdrawn or expired carries no faces that can be found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import distinct_on

from vultus.db.tables import ConsentRow
from vultus.domain import Consent
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_COLUMNS = (
    ConsentRow.id,
    ConsentRow.collection_id,
    ConsentRow.person_id,
    ConsentRow.purpose,
    ConsentRow.recorded_by,
    ConsentRow.evidence_ref,
    ConsentRow.granted_at,
    ConsentRow.expires_at,
    ConsentRow.withdrawn_at,
)
_CHANGEABLE = {"expires_at", "evidence_ref"}


class Consents:
    """What persons agreed to."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(
        self,
        collection_id: UUID,
        person_id: UUID,
        *,
        purpose: str,
        recorded_by: str,
        evidence_ref: str | None,
        granted_at: datetime,
        expires_at: datetime | None,
    ) -> Consent:
        """Record a consent.

        Raises:
            NotFoundError: The collection has no such person.
        """
        row = await self._session.execute(
            insert(ConsentRow)
            .values(
                collection_id=collection_id,
                person_id=person_id,
                purpose=purpose,
                recorded_by=recorded_by,
                evidence_ref=evidence_ref,
                granted_at=granted_at,
                expires_at=expires_at,
            )
            .returning(*_COLUMNS)
        )
        return _consent(row.one())

    async def get(self, collection_id: UUID, person_id: UUID, consent_id: UUID) -> Consent:
        """Return a consent, withdrawn and expired ones too.

        Raises:
            NotFoundError: The person has none with this id.
        """
        row = (
            await self._session.execute(
                select(*_COLUMNS).where(
                    ConsentRow.collection_id == collection_id,
                    ConsentRow.person_id == person_id,
                    ConsentRow.id == consent_id,
                )
            )
        ).one_or_none()
        return _consent(_found(row, consent_id))

    async def page(self, collection_id: UUID, person_id: UUID, after: UUID | None, limit: int) -> tuple[Consent, ...]:
        """Return a person's consents in order of recording, those after the given id."""
        query = select(*_COLUMNS).where(ConsentRow.collection_id == collection_id, ConsentRow.person_id == person_id)
        if after is not None:
            query = query.where(ConsentRow.id > after)
        return tuple(map(_consent, await self._session.execute(query.order_by(ConsentRow.id).limit(limit))))

    async def live_for(self, collection_id: UUID, person_id: UUID) -> tuple[Consent, ...]:
        """Return the person's consents that are neither withdrawn nor expired, in order of recording."""
        query = select(*_COLUMNS).where(
            ConsentRow.collection_id == collection_id,
            ConsentRow.person_id == person_id,
            ConsentRow.live,
            ConsentRow.expires_at > func.now(),
        )
        return tuple(map(_consent, await self._session.execute(query.order_by(ConsentRow.id))))

    async def change(self, collection_id: UUID, consent_id: UUID, **changes: Any) -> Consent:
        """Change `expires_at` or `evidence_ref`; the faces under the consent follow its expiry.

        Raises:
            NotFoundError: The collection has no such consent.
        """
        if unknown := changes.keys() - _CHANGEABLE:
            raise TypeError(f"cannot change {sorted(unknown)}")
        if not changes:
            changes = {"evidence_ref": ConsentRow.evidence_ref}
        return await self._update(collection_id, consent_id, changes)

    async def mark_withdrawn(self, collection_id: UUID, consent_id: UUID, at: datetime) -> Consent:
        """End a consent; one that is withdrawn already keeps its moment.

        Raises:
            NotFoundError: The collection has no such consent.
            ConflictError: Faces still rest on it.
        """
        return await self._update(
            collection_id, consent_id, {"withdrawn_at": func.coalesce(ConsentRow.withdrawn_at, at)}
        )

    async def expired(self, limit: int) -> tuple[Consent, ...]:
        """Return consents that have expired and are not marked as ended, the longest expired first.

        At most one a person: ending a consent may erase the person with the others.
        """
        oldest = (
            select(ConsentRow.id)
            .ext(distinct_on(ConsentRow.person_id))
            .where(ConsentRow.live, ConsentRow.expires_at <= func.now())
            .order_by(ConsentRow.person_id, ConsentRow.expires_at, ConsentRow.id)
        )
        query = (
            select(*_COLUMNS)
            .where(ConsentRow.id.in_(oldest))
            .order_by(ConsentRow.expires_at, ConsentRow.id)
            .limit(limit)
        )
        return tuple(map(_consent, await self._session.execute(query)))

    async def _update(self, collection_id: UUID, consent_id: UUID, values: dict[str, Any]) -> Consent:
        row = (
            await self._session.execute(
                update(ConsentRow)
                .where(ConsentRow.collection_id == collection_id, ConsentRow.id == consent_id)
                .values(**values)
                .returning(*_COLUMNS)
            )
        ).one_or_none()
        return _consent(_found(row, consent_id))


def _found(row: Any, consent_id: UUID) -> Any:
    if row is None:
        raise NotFoundError(f"There is no consent with id {consent_id}.")
    return row


def _consent(row: Any) -> Consent:
    return Consent(*row)
