"""Persons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update

from vultus.db.tables import ConsentRow, FaceRow, PersonRow
from vultus.domain import Gone, Person
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_COLUMNS = (
    PersonRow.id,
    PersonRow.collection_id,
    PersonRow.external_id,
    PersonRow.name,
    PersonRow.extra,
    PersonRow.created_at,
    PersonRow.updated_at,
)
_CHANGEABLE = {"external_id": "external_id", "name": "name", "metadata": "extra"}


class Persons:
    """The persons of the collections."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(
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
        return _person(row.one())

    async def get(self, collection_id: UUID, person_id: UUID) -> Person:
        """Return a person.

        Raises:
            NotFoundError: The collection has none with this id.
        """
        row = (
            await self._session.execute(
                select(*_COLUMNS).where(PersonRow.collection_id == collection_id, PersonRow.id == person_id)
            )
        ).one_or_none()
        return _person(_found(row, person_id))

    async def by_external_id(self, collection_id: UUID, external_id: str) -> Person | None:
        """Return the person with this external id, if the collection has one."""
        row = (
            await self._session.execute(
                select(*_COLUMNS).where(PersonRow.collection_id == collection_id, PersonRow.external_id == external_id)
            )
        ).one_or_none()
        return None if row is None else _person(row)

    async def page(
        self, collection_id: UUID, after: UUID | None, limit: int, external_id: str | None = None
    ) -> tuple[Person, ...]:
        """Return persons in order of creation, those after the given id; with `external_id` the one who has it."""
        query = select(*_COLUMNS).where(PersonRow.collection_id == collection_id)
        if after is not None:
            query = query.where(PersonRow.id > after)
        if external_id is not None:
            query = query.where(PersonRow.external_id == external_id)
        return tuple(map(_person, await self._session.execute(query.order_by(PersonRow.id).limit(limit))))

    async def labels(self, collection_id: UUID, key: str) -> dict[UUID, str]:
        """Return what metadata hold under a key, as text, by person; who has nothing, a list or an object is absent."""
        value = PersonRow.extra[key]
        query = select(PersonRow.id, value.astext).where(
            PersonRow.collection_id == collection_id,
            func.jsonb_typeof(value).in_(["string", "number", "boolean"]),
            value.astext != "",
        )
        return {row[0]: row[1] for row in await self._session.execute(query)}

    async def change(self, collection_id: UUID, person_id: UUID, **changes: Any) -> Person:
        """Change `external_id`, `name` or `metadata`, which is replaced as a whole.

        Raises:
            NotFoundError: The collection has no such person.
            AlreadyExistsError: The external id is taken.
        """
        if unknown := changes.keys() - _CHANGEABLE.keys():
            raise TypeError(f"cannot change {sorted(unknown)}")
        values = {_CHANGEABLE[field]: value for field, value in changes.items()}
        row = (
            await self._session.execute(
                update(PersonRow)
                .where(PersonRow.collection_id == collection_id, PersonRow.id == person_id)
                .values(**values, updated_at=func.now())
                .returning(*_COLUMNS)
            )
        ).one_or_none()
        return _person(_found(row, person_id))

    async def delete(self, collection_id: UUID, person_id: UUID) -> Gone:
        """Remove a person with faces, consents and the stored answers that name them.

        Raises:
            NotFoundError: The collection has no such person.
        """
        # Locked first: a face added in between would go uncounted.
        row = (
            await self._session.execute(
                select(PersonRow.id)
                .where(PersonRow.collection_id == collection_id, PersonRow.id == person_id)
                .with_for_update()
            )
        ).one_or_none()
        _found(row, person_id)
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
        await self._session.execute(delete(PersonRow).where(PersonRow.id == person_id))
        return Gone(faces, consents)


def _found(row: Any, person_id: UUID) -> Any:
    if row is None:
        raise NotFoundError(f"The collection has no person with id {person_id}.")
    return row


def _person(row: Any) -> Person:
    return Person(*row)
