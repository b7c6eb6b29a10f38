"""Bulk insertion through COPY, with the same constraints, triggers and numbers as single rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, bindparam, func, insert, select

from vultus.db.copying import (
    ColumnBytes,
    build_fixed_length_rows,
    build_variable_length_rows,
    encode_timestamp,
    write_rows,
)
from vultus.db.tables import ConsentRow, FaceRow, PersonRow
from vultus.utils.ids import new_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.db.repositories.person_keys import PersonKeyRepository
    from vultus.domain import Consent, Person


_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_INFINITE_TIMESTAMP = (2**63 - 1).to_bytes(8, "big")
_UNKNOWN_QUALITY_COLUMNS = ("size_px", "sharpness", "brightness", "yaw_deg", "pitch_deg", "roll_deg", "score")
"""Quality columns that need a photo; stored as 0 for imported vectors."""


class BulkRepository:
    """Inserts many rows of one collection. Ids are (n, 16) bytes."""

    def __init__(self, session: AsyncSession, person_keys: PersonKeyRepository) -> None:
        self._session = session
        self._person_keys = person_keys

    async def find_taken_external_ids(self, collection_id: UUID, external_ids: Sequence[str]) -> set[str]:
        """Return which of the external ids exist in a collection."""
        query = select(PersonRow.external_id).where(
            PersonRow.collection_id == collection_id,
            PersonRow.external_id == func.any(bindparam("ids", list(external_ids), ARRAY(Text))),
        )
        return {found for found in await self._session.scalars(query) if found is not None}

    async def find_persons_by_external_id(self, collection_id: UUID, external_ids: Sequence[str]) -> dict[str, UUID]:
        """Return which of the external ids exist in a collection, and whose they are."""
        query = select(PersonRow.external_id, PersonRow.id).where(
            PersonRow.collection_id == collection_id,
            PersonRow.external_id == func.any(bindparam("ids", list(external_ids), ARRAY(Text))),
        )
        return {row[0]: row[1] for row in await self._session.execute(query) if row[0] is not None}

    async def find_collections_of(self, persons: Sequence[UUID]) -> dict[UUID, UUID]:
        """Return the collection of each of some persons that exists, by person."""
        query = select(PersonRow.id, PersonRow.collection_id).where(
            PersonRow.id == func.any(bindparam("ids", list(persons), ARRAY(Uuid)))
        )
        return {row[0]: row[1] for row in await self._session.execute(query)}

    async def find_taken_consents(self, consents: Sequence[UUID]) -> set[UUID]:
        """Return which ids are those of a consent, in any collection."""
        query = select(ConsentRow.id).where(ConsentRow.id == func.any(bindparam("ids", list(consents), ARRAY(Uuid))))
        return set(await self._session.scalars(query))

    async def find_taken_faces(self, collection_id: UUID, faces: Sequence[UUID]) -> set[UUID]:
        """Return which ids are those of a face in a collection."""
        query = select(FaceRow.id).where(
            FaceRow.collection_id == collection_id, FaceRow.id == func.any(bindparam("ids", list(faces), ARRAY(Uuid)))
        )
        return set(await self._session.scalars(query))

    async def add_moved(self, persons: Sequence[Person], consents: Sequence[Consent]) -> None:
        """Add persons of one collection and their consents as they are, with ids and times of another installation.

        Raises:
            AlreadyExistsError: An id or an external id is taken.
            NotFoundError: There is no such collection.
        """
        people = [
            {
                "id": one.id,
                "collection_id": one.collection_id,
                "external_id": one.external_id,
                "name": one.name,
                "extra": one.metadata,
                "created_at": one.created_at,
            }
            for one in persons
        ]
        if people:
            await self._session.execute(insert(PersonRow), people)
        if consents:
            await self._session.execute(insert(ConsentRow), [_build_consent_values(one) for one in consents])

    async def add_persons(
        self, collection_id: UUID, people: Sequence[tuple[str, str | None]], *, with_keys: bool = False
    ) -> ColumnBytes:
        """Add a person for each external id and name; return their ids, in the same order.

        Args:
            collection_id: Their collection.
            people: External id and name of each.
            with_keys: Whether they get keys at once: in a sealed collection every row would be written again for it.

        Raises:
            KeyRingError: The keys cannot be used.
            AlreadyExistsError: An external id is taken in the collection.
            NotFoundError: There is no such collection.
        """
        ids, collection_bytes = new_ids(len(people)), collection_id.bytes
        made = await self._person_keys.create_keys([UUID(bytes=bytes(one)) for one in ids]) if with_keys else {}
        slots: list[bytes | None] = [slot.to_bytes(8, "big") for slot in made.values()]
        slots = slots or [None] * len(ids)
        rows = build_variable_length_rows(
            (person_id.tobytes(), collection_bytes, external_id.encode(), None if name is None else name.encode(), slot)
            for person_id, (external_id, name), slot in zip(ids, people, slots, strict=True)
        )
        await write_rows(self._session, "persons", ("id", "collection_id", "external_id", "name", "key_slot"), rows)
        return ids

    async def add_consents(
        self,
        collection_id: UUID,
        persons: ColumnBytes,
        *,
        purpose: str,
        recorded_by: str,
        evidence_ref: str | None,
        granted_at: datetime,
        expires_at: datetime | None,
        seen_at: datetime | None = None,
        granted_until: datetime | None = None,
    ) -> ColumnBytes:
        """Record the same consent for each person, as `add_consent`; return the consents' ids, in the same order.

        Raises:
            NotFoundError: The collection has no such person.
        """
        ids = new_ids(len(persons))
        columns: dict[str, ColumnBytes | bytes | None] = {
            "id": ids,
            "collection_id": collection_id.bytes,
            "person_id": persons,
            "purpose": purpose.encode(),
            "recorded_by": recorded_by.encode(),
            "evidence_ref": None if evidence_ref is None else evidence_ref.encode(),
            "granted_at": encode_timestamp(granted_at),
            "expires_at": encode_timestamp(expires_at),
        }
        if seen_at is not None:
            columns |= {"seen_at": encode_timestamp(seen_at), "granted_until": encode_timestamp(granted_until)}
        await write_rows(self._session, "consents", columns, build_fixed_length_rows(columns.values()))
        return ids


def _build_consent_values(consent: Consent) -> dict[str, Any]:
    return {
        "id": consent.id,
        "collection_id": consent.collection_id,
        "person_id": consent.person_id,
        "purpose": consent.purpose,
        "recorded_by": consent.recorded_by,
        "evidence_ref": consent.evidence_ref,
        "granted_at": consent.granted_at,
        "expires_at": consent.expires_at,
        **({} if consent.seen_at is None else {"seen_at": consent.seen_at, "granted_until": consent.granted_until}),
    }
