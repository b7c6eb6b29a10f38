"""Persons and their faces: read, change, and remove single faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vultus.errors import InvalidInputError
from vultus.services.collections import find_collection
from vultus.services.people.consents import ConsentGrant, add_consent
from vultus.services.people.erasure import open_for_writing

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import Actor, Consent, Face, Person


class Persons:
    """The persons of a collection."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        collection: str,
        *,
        external_id: str | None,
        name: str | None,
        metadata: dict[str, Any],
        consent: ConsentGrant,
        actor: Actor,
    ) -> tuple[Person, Consent]:
        """Record a person with a consent and without a face.

        Raises:
            AlreadyExistsError: The external id is taken.
        """
        async with self._database.work() as work:
            home = await open_for_writing(work, collection)
            person = await work.persons.add(home.id, external_id=external_id, name=name, metadata=metadata)
            granted = await add_consent(work, home, person.id, consent)
            await work.audit.add(
                actor, "person.created", collection_id=home.id, person_id=person.id, object_id=granted.id
            )
        return person, granted

    async def get(self, collection: str, person_id: UUID) -> Person:
        """Return a person."""
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, collection)
            return await work.persons.get(home.id, person_id)

    async def page(
        self, collection: str, *, after: UUID | None, limit: int, external_id: str | None = None
    ) -> tuple[Person, ...]:
        """Return persons in order of creation; with `external_id` the one who has it."""
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, collection)
            return await work.persons.page(home.id, after=after, limit=limit, external_id=external_id)

    async def change(self, collection: str, person_id: UUID, *, actor: Actor, **changes: Any) -> Person:
        """Change external id, name or metadata."""
        async with self._database.work() as work:
            home = await open_for_writing(work, collection)
            person = await work.persons.change(home.id, person_id, **changes)
            if person.name is None and person.external_id is None:
                raise InvalidInputError("A person needs a name or an external_id.")
            await work.audit.add(
                actor,
                "person.changed",
                collection_id=home.id,
                person_id=person_id,
                detail={"fields": sorted(changes)},
            )
        return person

    async def faces(self, collection: str, person_id: UUID, *, after: UUID | None, limit: int) -> tuple[Face, ...]:
        """Return a person's faces in order of enrolment, without vectors."""
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, collection)
            await work.persons.get(home.id, person_id)
            return await work.faces.page(home.id, person_id, home.contract_id, after=after, limit=limit)

    async def face(self, collection: str, person_id: UUID, face_id: UUID) -> Face:
        """Return one face of a person."""
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, collection)
            return await work.faces.get(home.id, person_id, face_id, home.contract_id)

    async def delete_face(self, collection: str, person_id: UUID, face_id: UUID, *, actor: Actor) -> None:
        """Remove one face; the person and their consents stay."""
        async with self._database.work() as work:
            home = await open_for_writing(work, collection)
            await work.faces.delete(home.id, person_id, face_id)
            await work.audit.add(actor, "face.deleted", collection_id=home.id, person_id=person_id, object_id=face_id)
