"""Stores persons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, and_, delete, func, insert, select, update

from vultus.db.repositories.idempotency import delete_collection_responses
from vultus.db.repositories.webhooks import list_receivers
from vultus.db.tables import ConsentRow, FaceRow, PersonRow
from vultus.domain import DeletedCounts, Person
from vultus.domain.texts import require_text
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.domain import PersonReference

_COLUMNS = (
    PersonRow.id,
    PersonRow.collection_id,
    PersonRow.external_id,
    PersonRow.name,
    PersonRow.extra,
    PersonRow.created_at,
    PersonRow.updated_at,
)
_UPDATABLE_COLUMNS = {"external_id": "external_id", "name": "name", "metadata": "extra"}

_CONSENTS = (
    select(ConsentRow.id)
    .where(ConsentRow.collection_id == PersonRow.collection_id, ConsentRow.person_id == PersonRow.id)
    .correlate(PersonRow)
)
HAS_EXPIRED = and_(_CONSENTS.exists(), ~_CONSENTS.where(ConsentRow.live, ConsentRow.expires_at > func.now()).exists())
"""Whether a person's consents have all ended and the sweep has not erased the person yet."""


class PersonRepository:
    """Stores persons."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_person(
        self, collection_id: UUID, external_id: str | None, name: str | None, metadata: dict[str, Any]
    ) -> Person:
        """Add a person.

        Raises:
            AlreadyExistsError: The external id is taken in the collection.
            NotFoundError: There is no such collection.
        """
        row = await self._session.execute(
            insert(PersonRow)
            .values(collection_id=collection_id, external_id=external_id, name=name, extra=metadata)
            .returning(*_COLUMNS)
        )
        return _build_person(row.one())

    async def get_person(self, collection_id: UUID, person: PersonReference) -> Person:
        """Return a person; one whose consents have all ended is gone, whether or not the sweep has run.

        Raises:
            NotFoundError: The collection has none with this id or external id.
            InvalidInputError: It is no text that could be an external id.
        """
        if isinstance(person, str):
            person = require_text("external_id", person)  # as it was when it was kept
        query = _select_person(collection_id, person).where(~HAS_EXPIRED)
        return _build_person(_ensure_found((await self._session.execute(query)).one_or_none(), person))

    async def resolve_person(self, collection_id: UUID, person: PersonReference) -> UUID:
        """Return the id of a person, also of one whose consents have ended; whether an id exists is not looked up.

        Raises:
            NotFoundError: The collection has none with this external id.
        """
        if not isinstance(person, str):
            return person
        external_id = require_text("external_id", person)
        row = (await self._session.execute(_select_person(collection_id, external_id))).one_or_none()
        return _build_person(_ensure_found(row, external_id)).id

    async def find_person_by_external_id(self, collection_id: UUID, external_id: str) -> Person | None:
        """Return the person with this external id whose consents have not all ended, if the collection has one."""
        query = _select_person(collection_id, external_id).where(~HAS_EXPIRED)
        row = (await self._session.execute(query)).one_or_none()
        return None if row is None else _build_person(row)

    async def find_expired_person(self, collection_id: UUID, external_id: str) -> UUID | None:
        """Return the id of the person with this external id whom the sweep has not erased yet."""
        query = _select_person(collection_id, external_id).where(HAS_EXPIRED)
        row = (await self._session.execute(query)).one_or_none()
        return None if row is None else _build_person(row).id

    async def list_persons(
        self,
        collection_id: UUID,
        after: UUID | None,
        limit: int,
        external_id: str | None = None,
        name: str | None = None,
    ) -> tuple[Person, ...]:
        """Return persons in order of creation, after an id; only who has an external id, or a name that holds a text.

        Those whose consents have all ended are gone, whether or not the sweep has run.
        """
        query = select(*_COLUMNS).where(PersonRow.collection_id == collection_id, ~HAS_EXPIRED)
        if after is not None:
            query = query.where(PersonRow.id > after)
        if external_id is not None:
            query = query.where(PersonRow.external_id == external_id)
        if name is not None:
            query = query.where(PersonRow.name.icontains(name, autoescape=True))
        return tuple(map(_build_person, await self._session.execute(query.order_by(PersonRow.id).limit(limit))))

    async def list_metadata_labels(self, collection_id: UUID, key: str) -> dict[UUID, str]:
        """Return the metadata value of a key, as text, by person; absent without one or for a list or object."""
        value = PersonRow.extra[key]
        query = select(PersonRow.id, value.astext).where(
            PersonRow.collection_id == collection_id,
            func.jsonb_typeof(value).in_(["string", "number", "boolean"]),
            value.astext != "",
        )
        return {row[0]: row[1] for row in await self._session.execute(query)}

    async def update_person(self, collection_id: UUID, person_id: UUID, **changes: Any) -> Person:
        """Change `external_id`, `name` or `metadata`, which is replaced as a whole.

        Raises:
            NotFoundError: The collection has no such person.
            AlreadyExistsError: The external id is taken.
        """
        if unknown := changes.keys() - _UPDATABLE_COLUMNS.keys():
            raise TypeError(f"cannot change {sorted(unknown)}")
        values = {_UPDATABLE_COLUMNS[field]: value for field, value in changes.items()}
        row = (
            await self._session.execute(
                update(PersonRow)
                .where(PersonRow.collection_id == collection_id, PersonRow.id == person_id)
                .values(**values, updated_at=func.now())
                .returning(*_COLUMNS)
            )
        ).one_or_none()
        return _build_person(_ensure_found(row, person_id))

    async def delete_person(self, collection_id: UUID, person_id: UUID) -> DeletedCounts:
        """Delete a person with their faces, consents and the stored responses that name or may name them.

        Raises:
            NotFoundError: The collection has no such person.
        """
        # Locked first, so that no face added meanwhile is uncounted.
        row = (
            await self._session.execute(
                select(PersonRow.id)
                .where(PersonRow.collection_id == collection_id, PersonRow.id == person_id)
                .with_for_update()
            )
        ).one_or_none()
        _ensure_found(row, person_id)
        faces, consents = (
            await self._session.execute(
                select(
                    select(func.count(FaceRow.id.distinct()))
                    .where(FaceRow.collection_id == collection_id, FaceRow.person_id == person_id)
                    .scalar_subquery(),
                    select(func.count()).where(ConsentRow.person_id == person_id).scalar_subquery(),
                )
            )
        ).one()
        await delete_collection_responses(self._session, collection_id)
        receivers = await list_receivers(self._session, person_id=person_id)
        await self._session.execute(delete(PersonRow).where(PersonRow.id == person_id))
        return DeletedCounts(faces, consents, receivers)


def _select_person(collection_id: UUID, person: PersonReference) -> Select[*tuple[Any, ...]]:
    named = PersonRow.external_id == person if isinstance(person, str) else PersonRow.id == person
    return select(*_COLUMNS).where(PersonRow.collection_id == collection_id, named)


def _ensure_found(row: Any, person: PersonReference) -> Any:
    if row is None:
        named = f"the external_id '{person}'" if isinstance(person, str) else f"id {person}"
        raise NotFoundError(f"The collection has no person with {named}.")
    return row


def _build_person(row: Any) -> Person:
    return Person(*row)
