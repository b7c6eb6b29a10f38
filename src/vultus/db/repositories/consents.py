"""Stores consents. Faces under a withdrawn or expired consent cannot be found."""

from __future__ import annotations

from datetime import timedelta
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
_UPDATABLE_COLUMNS = {"expires_at", "evidence_ref"}


class ConsentRepository:
    """Stores consents."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_consent(
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
        return _build_consent(row.one())

    async def get_consent(self, collection_id: UUID, person_id: UUID, consent_id: UUID) -> Consent:
        """Return a consent, including a withdrawn or expired one.

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
        return _build_consent(_ensure_found(row, consent_id))

    async def list_consents(
        self, collection_id: UUID, person_id: UUID, after: UUID | None, limit: int
    ) -> tuple[Consent, ...]:
        """Return a person's consents in order of recording, those after the given id."""
        query = select(*_COLUMNS).where(ConsentRow.collection_id == collection_id, ConsentRow.person_id == person_id)
        if after is not None:
            query = query.where(ConsentRow.id > after)
        return tuple(map(_build_consent, await self._session.execute(query.order_by(ConsentRow.id).limit(limit))))

    async def list_live_consents(self, collection_id: UUID, person_id: UUID) -> tuple[Consent, ...]:
        """Return the person's consents that are neither withdrawn nor expired, in order of recording."""
        query = select(*_COLUMNS).where(
            ConsentRow.collection_id == collection_id,
            ConsentRow.person_id == person_id,
            ConsentRow.live,
            ConsentRow.expires_at > func.now(),
        )
        return tuple(map(_build_consent, await self._session.execute(query.order_by(ConsentRow.id))))

    async def update_consent(self, collection_id: UUID, consent_id: UUID, **changes: Any) -> Consent:
        """Change `expires_at` or `evidence_ref`; a new expiry cascades to the consent's faces.

        Raises:
            NotFoundError: The collection has no such consent.
        """
        if unknown := changes.keys() - _UPDATABLE_COLUMNS:
            raise TypeError(f"cannot change {sorted(unknown)}")
        if not changes:
            changes = {"evidence_ref": ConsentRow.evidence_ref}
        return await self._write_changes(collection_id, consent_id, changes)

    async def withdraw_consent(self, collection_id: UUID, consent_id: UUID, withdrawn_at: datetime) -> Consent:
        """Withdraw a consent; one already withdrawn keeps its original timestamp.

        Raises:
            NotFoundError: The collection has no such consent.
            ConflictError: Faces still reference it.
        """
        return await self._write_changes(
            collection_id, consent_id, {"withdrawn_at": func.coalesce(ConsentRow.withdrawn_at, withdrawn_at)}
        )

    async def count_consents_beyond(self, collection_id: UUID, days: int) -> int:
        """Return how many consents that have not ended were given more than so many days ago."""
        query = select(func.count()).where(
            ConsentRow.collection_id == collection_id,
            ConsentRow.live,
            ConsentRow.expires_at > func.now(),
            ConsentRow.granted_at + timedelta(days=days) <= func.now(),
        )
        return (await self._session.execute(query)).scalar_one()

    async def shorten_consents(self, collection_id: UUID, days: int) -> int:
        """End every consent so many days after it was given, unless it ends earlier; return how many were changed."""
        end = ConsentRow.granted_at + timedelta(days=days)
        changed = await self._session.execute(
            update(ConsentRow)
            .where(ConsentRow.collection_id == collection_id, ConsentRow.live, ConsentRow.expires_at > end)
            .values(expires_at=end)
            .returning(ConsentRow.id)
        )
        return len(changed.all())

    async def list_expired_consents(self, limit: int) -> tuple[Consent, ...]:
        """Return consents that have expired and are not withdrawn, longest expired first.

        At most one per person: ending a consent may erase the person together with the others.
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
        return tuple(map(_build_consent, await self._session.execute(query)))

    async def _write_changes(self, collection_id: UUID, consent_id: UUID, values: dict[str, Any]) -> Consent:
        row = (
            await self._session.execute(
                update(ConsentRow)
                .where(ConsentRow.collection_id == collection_id, ConsentRow.id == consent_id)
                .values(**values)
                .returning(*_COLUMNS)
            )
        ).one_or_none()
        return _build_consent(_ensure_found(row, consent_id))


def _ensure_found(row: Any, consent_id: UUID) -> Any:
    if row is None:
        raise NotFoundError(f"There is no consent with id {consent_id}.")
    return row


def _build_consent(row: Any) -> Consent:
    return Consent(*row)
