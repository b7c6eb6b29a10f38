"""Persons and their faces: create, read and change persons, read and delete single faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vultus.domain import Permission
from vultus.domain.events import PersonChanged, PersonCreated
from vultus.domain.metadata import require_metadata
from vultus.domain.texts import require_optional_text
from vultus.errors import InvalidInputError, PersonMismatchError
from vultus.services.people.consents import ConsentGrant, add_consent
from vultus.services.people.erasure import delete_face, release_external_id
from vultus.utils.merge_patch import merge_patch

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import Consent, Face, IdempotencyContext, Person, PersonReference, Principal


def _merge_metadata(current: dict[str, Any], patch: dict[str, Any] | None) -> dict[str, Any]:
    # The patch by itself first: its keys must be those of the current object, which are in one normal form.
    return require_metadata(merge_patch(current, require_metadata(patch) if patch else patch) or {})


def ensure_same_external_id(person: Person, external_id: str | None) -> None:
    """Return if a person has this external id, or none was given.

    Raises:
        PersonMismatchError: They have another one, or none.
    """
    if external_id is not None and person.external_id != external_id:
        raise PersonMismatchError(
            f"The person {person.id} has another external_id than '{external_id}'. Nothing was done: give only one of "
            "person_id and external_id, or set the external_id first by PATCH of the person."
        )


def build_person_change(before: Person, now: Person, fields: tuple[str, ...]) -> PersonChanged:
    """Return the event of a change of a person, with the values of the fields before and now."""
    values = {name: (getattr(before, name), getattr(now, name)) for name in fields}
    personal = {name: (old, new) for name, (old, new) in values.items() if old != new}
    return PersonChanged(collection_id=now.collection_id, person_id=now.id, fields=fields, personal=personal)


class PersonService:
    """Creates, reads and changes the persons of collections and their faces."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_person(
        self,
        principal: Principal,
        reference: str,
        *,
        external_id: str | None,
        name: str | None,
        metadata: dict[str, Any],
        consent: ConsentGrant,
        idempotency: IdempotencyContext | None = None,
    ) -> tuple[Person, Consent]:
        """Create a person with a consent and without a face.

        Raises:
            AlreadyExistsError: The external id is taken.
            InvalidInputError: A text cannot be kept.
        """
        external_id = require_optional_text("The external_id", external_id)
        name = require_optional_text("The name", name)
        metadata = require_metadata(metadata)
        async with self._database.transaction(idempotency=idempotency, writes_to=reference) as work:
            collection = await work.open(reference, principal, Permission.ENROL)
            if external_id is not None:
                await release_external_id(work, collection.id, external_id)
            person = await work.persons.add_person(collection.id, external_id=external_id, name=name, metadata=metadata)
            granted = await add_consent(work, collection, person.id, consent)
            await work.record(
                principal,
                PersonCreated(
                    collection_id=collection.id,
                    person_id=person.id,
                    object_id=granted.id,
                    proof={"consent": granted.build_proof()},
                ),
            )
            await work.store_response((person, granted), person.id)
        return person, granted

    async def get_person(self, principal: Principal, reference: str, person: PersonReference) -> Person:
        """Return a person."""
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.READ)
            return await work.persons.get_person(collection.id, person)

    async def list_persons(
        self,
        principal: Principal,
        reference: str,
        *,
        after: UUID | None,
        limit: int,
        external_id: str | None = None,
        name: str | None = None,
    ) -> tuple[Person, ...]:
        """Return persons in order of creation, after the given id.

        Args:
            principal: The caller.
            reference: Id or name of the collection.
            after: Id of the person before.
            limit: Most persons.
            external_id: Only the person who has it.
            name: Only persons whose name holds it, in upper or lower case.

        Raises:
            InvalidInputError: No person can have such an external id or name.
        """
        external_id = require_optional_text("The external_id", external_id)
        name = require_optional_text("The name", name)
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.READ)
            return await work.persons.list_persons(collection.id, after, limit, external_id, name)

    async def update_person(
        self, principal: Principal, reference: str, person: PersonReference, **patch: Any
    ) -> Person:
        """Change a person's external id, name or metadata.

        Args:
            principal: For the audit record.
            reference: Id or name of the collection.
            person: Id or external id.
            patch: Of external_id and name the new value, None to remove it; of metadata a JSON merge patch.

        Raises:
            InvalidInputError: The person would have neither a name nor an external id, or too many metadata, or a text
                cannot be kept.
        """
        patch |= {
            field: require_optional_text(f"The {field}", patch[field])
            for field in ("external_id", "name")
            if field in patch
        }
        async with self._database.transaction(writes_to=reference) as work:
            # Locked, so that of two patches the second is merged into the result of the first.
            collection = await work.open(reference, principal, Permission.ENROL)
            current = await work.persons.get_person(collection.id, person)
            changes = dict(patch)
            if "metadata" in patch:
                changes["metadata"] = _merge_metadata(current.metadata, patch["metadata"])
            changed = await work.persons.update_person(collection.id, current.id, **changes)
            if changed.name is None and changed.external_id is None:
                raise InvalidInputError("A person needs a name or an external_id.")
            await work.record(
                principal,
                build_person_change(current, changed, tuple(sorted(changes))),
            )
        return changed

    async def list_faces(
        self, principal: Principal, reference: str, person: PersonReference, *, after: UUID | None, limit: int
    ) -> tuple[Face, ...]:
        """Return a person's faces in order of enrolment, without vectors."""
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.READ)
            found = await work.persons.get_person(collection.id, person)
            return await work.faces.list_faces(collection.id, found.id, collection.space_id, after=after, limit=limit)

    async def get_face(self, principal: Principal, reference: str, person: PersonReference, face_id: UUID) -> Face:
        """Return one face of a person."""
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.READ)
            person_id = (await work.persons.get_person(collection.id, person)).id
            return await work.faces.get_face(collection.id, person_id, face_id, collection.space_id)

    async def delete_face(self, principal: Principal, reference: str, person: PersonReference, face_id: UUID) -> None:
        """Delete one face; the person and their consents stay."""
        async with self._database.transaction(writes_to=reference) as work:
            collection = await work.open(reference, principal, Permission.ERASE)
            person_id = await work.persons.resolve_person(collection.id, person)
            await delete_face(work, collection.id, person_id, face_id, principal=principal)
