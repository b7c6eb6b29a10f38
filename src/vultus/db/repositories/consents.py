"""Stores consents. Faces under a withdrawn or expired consent cannot be found."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Uuid, bindparam, case, func, insert, literal, null, select, true, update
from sqlalchemy.dialects.postgresql import distinct_on

from vultus.db.tables import CollectionRow, ConsentRow
from vultus.domain import SEEN_INTERVAL, Consent
from vultus.errors import NotFoundError
from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import ColumnElement
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
    ConsentRow.seen_at,
    ConsentRow.granted_until,
)
_UPDATABLE_COLUMNS = {"expires_at", "granted_until", "evidence_ref"}
_IS_LIVE = ConsentRow.live.is_(true())
_NOW_LIVE = (_IS_LIVE, ConsentRow.expires_at > func.now())


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
        seen_at: datetime | None = None,
        granted_until: datetime | None = None,
    ) -> Consent:
        """Record a consent; `granted_until` counts where `seen_at` is given.

        Raises:
            NotFoundError: The collection has no such person.
        """
        unseen = {} if seen_at is None else {"seen_at": seen_at, "granted_until": granted_until}
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
                **unseen,
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
            *_NOW_LIVE,
        )
        return tuple(map(_build_consent, await self._session.execute(query.order_by(ConsentRow.id))))

    async def list_live_consents_of(self, collection_id: UUID, persons: Sequence[UUID]) -> tuple[Consent, ...]:
        """Return the consents of some persons that are neither withdrawn nor expired, in order of recording."""
        query = select(*_COLUMNS).where(
            ConsentRow.collection_id == collection_id,
            ConsentRow.person_id == func.any(bindparam("persons", list(persons), ARRAY(Uuid))),
            ConsentRow.live,
            ConsentRow.expires_at > func.now(),
        )
        return tuple(map(_build_consent, await self._session.execute(query.order_by(ConsentRow.id))))

    async def update_consent(self, collection_id: UUID, consent_id: UUID, **changes: Any) -> Consent:
        """Change `expires_at`, `granted_until` or `evidence_ref`; a new expiry cascades to the consent's faces.

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
        return await self._count_ending(collection_id, ConsentRow.granted_at + timedelta(days=days))

    async def count_consents_unseen(self, collection_id: UUID, kept: timedelta) -> int:
        """Return how many consents that have not ended are of persons who were not seen for so long."""
        return await self._count_ending(collection_id, ConsentRow.seen_at + kept)

    async def _count_ending(self, collection_id: UUID, end: ColumnElement[Any]) -> int:
        query = select(func.count()).where(ConsentRow.collection_id == collection_id, *_NOW_LIVE, end <= func.now())
        return (await self._session.execute(query)).scalar_one()

    async def shorten_consents(self, collection_id: UUID, days: int) -> int:
        """End every consent so many days after it was given, unless it ends earlier; return how many were changed."""
        end = ConsentRow.granted_at + timedelta(days=days)
        is_later = (ConsentRow.expires_at > end) | (ConsentRow.granted_until > end)
        own_end = case((ConsentRow.seen_at.is_not(None), func.least(ConsentRow.granted_until, end)))
        return await self._change_ends(
            [ConsentRow.collection_id == collection_id, _IS_LIVE, is_later],
            {"expires_at": func.least(ConsentRow.expires_at, end), "granted_until": own_end},
        )

    async def follow_unseen_rule(self, collection_id: UUID, kept: timedelta | None) -> int:
        """End every consent so long after its person was seen, or none for that; return how many were changed.

        Who was not looked out for yet counts as seen now.
        """
        where = [ConsentRow.collection_id == collection_id, *_NOW_LIVE]
        if kept is None:
            own = {"expires_at": ConsentRow.granted_until, "seen_at": None, "granted_until": null()}
            return await self._change_ends([*where, ConsentRow.seen_at.is_not(None)], own)
        seen_at = func.coalesce(ConsentRow.seen_at, func.now())
        own_end = func.coalesce(ConsentRow.granted_until, ConsentRow.expires_at)
        return await self._change_ends(
            where, {"expires_at": func.least(own_end, seen_at + kept), "seen_at": seen_at, "granted_until": own_end}
        )

    async def find_unmarked(self, persons: Collection[UUID], before: datetime) -> set[UUID]:
        """Return who of some persons was seen last before a time, of those who end if they are not seen."""
        query = select(ConsentRow.person_id).where(*_build_unmarked_filter(persons, before)).distinct()
        return set(await self._session.scalars(query))

    async def mark_seen(self, persons: Collection[UUID], seen_at: datetime) -> int:
        """Move the end of persons who end if they are not seen; return how many consents.

        The collection's lock is the caller's: faces that are enrolled meanwhile must have the consent's end. Whoever
        was seen less than `SEEN_INTERVAL` ago is left as they are.
        """
        days = select(CollectionRow.unseen_days).where(CollectionRow.id == ConsentRow.collection_id).scalar_subquery()
        end = literal(seen_at) + func.make_interval(0, 0, 0, days) + SEEN_INTERVAL
        return await self._change_ends(
            _build_unmarked_filter(persons, seen_at - SEEN_INTERVAL),
            {"seen_at": seen_at, "expires_at": func.least(ConsentRow.granted_until, end)},
        )

    async def _change_ends(self, where: Sequence[ColumnElement[bool]], values: dict[str, Any]) -> int:
        """Change consents; the faces under them follow their end."""
        changed = await self._session.execute(
            update(ConsentRow).where(*where).values(**values).returning(ConsentRow.id)
        )
        return len(changed.all())

    async def summarize_consents(self, collection_id: UUID, limit: int) -> list[dict[str, Any]]:
        """Return what the persons of a collection agreed to, the most frequent first, for JSON."""
        first, last = func.min(ConsentRow.granted_at), func.max(ConsentRow.granted_at)
        grouped = (ConsentRow.purpose, ConsentRow.recorded_by)
        query = (
            select(*grouped, func.count(), first, last)
            .where(ConsentRow.collection_id == collection_id, ConsentRow.withdrawn_at.is_(None))
            .group_by(*grouped)
            .order_by(func.count().desc(), *grouped)
            .limit(limit)
        )
        return [
            {
                "purpose": row[0],
                "recorded_by": row[1],
                "consents": row[2],
                "granted_from": format_moment(row[3]),
                "granted_to": format_moment(row[4]),
            }
            for row in await self._session.execute(query)
        ]

    async def list_expired_consents(self, limit: int, left: Collection[UUID] = ()) -> tuple[Consent, ...]:
        """Return consents that have expired and are not withdrawn, longest expired first, but for those to be left.

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
            .where(ConsentRow.id.in_(oldest), ConsentRow.id != func.all(bindparam("left", list(left), ARRAY(Uuid))))
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


def _build_unmarked_filter(persons: Collection[UUID], before: datetime) -> list[ColumnElement[bool]]:
    among = ConsentRow.person_id == func.any(bindparam("persons", list(persons), ARRAY(Uuid)))
    return [among, *_NOW_LIVE, ConsentRow.seen_at <= before]


def _ensure_found(row: Any, consent_id: UUID) -> Any:
    if row is None:
        raise NotFoundError(f"There is no consent with id {consent_id}.")
    return row


def _build_consent(row: Any) -> Consent:
    return Consent(*row)
