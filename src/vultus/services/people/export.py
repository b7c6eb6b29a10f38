"""Everything that is held about a person, for the person: access and portability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from vultus.domain import (
    AuditEntry,
    AuditFilter,
    Collection,
    Consent,
    EventFilter,
    Face,
    FloatArray,
    OutboxEntry,
    Permission,
    Person,
)
from vultus.domain.decision_records import DecisionFilter, DecisionRecord
from vultus.domain.sightings import ACTIONS
from vultus.services.audit import add_changes, hide_scores

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import PersonReference, Principal

PAGE = 500

Item = TypeVar("Item", Consent, Face, AuditEntry, DecisionRecord)


@dataclass(frozen=True, slots=True)
class ExportedTemplate:
    """A vector by which a person is found; (d,) float32."""

    face_id: UUID
    space_id: str
    vector: FloatArray


@dataclass(frozen=True, slots=True)
class PersonExport:
    """What is held about a person.

    Attributes:
        crops: Faces of which an encrypted crop is kept.
        templates: The vectors, if they were asked for.
        audit: What was recorded about the person, oldest first; empty without the permission to read it.
        decisions: Decision records that name the person, oldest first; likewise.
        sightings: Where and when live video saw the person, as far as that is kept, oldest first.
        receivers: Ids and names of the webhooks that were sent something about the person.
    """

    collection: Collection
    person: Person
    consents: tuple[Consent, ...]
    faces: tuple[Face, ...]
    crops: frozenset[UUID]
    templates: tuple[ExportedTemplate, ...]
    audit: tuple[AuditEntry, ...]
    decisions: tuple[DecisionRecord, ...]
    sightings: tuple[OutboxEntry, ...]
    receivers: tuple[tuple[UUID, str], ...]


class PersonExporter:
    """Collects what is held about a person."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def export_person(
        self, principal: Principal, reference: str, person: PersonReference, *, vectors: bool = False
    ) -> PersonExport:
        """Return everything that is held about a person, as of one moment.

        Args:
            principal: The caller.
            reference: Id or name of the collection.
            person: Id or external id.
            vectors: Whether the templates are wanted too, which are biometric data.

        Raises:
            ForbiddenError: Vectors are wanted without the permission to see scores, which lead to them.
            NotFoundError: There is no such collection or person.
        """
        if vectors:
            principal.require(Permission.SCORES)
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.READ)
            found = await work.persons.get_person(collection.id, person)
            consents = await _list_all(lambda after: work.consents.list_consents(collection.id, found.id, after, PAGE))
            faces = await _list_all(
                lambda after: work.faces.list_faces(collection.id, found.id, collection.space_id, after, PAGE)
            )
            crops = [face.id for face in faces if await work.crops.find_crop(collection.id, face.id)]
            templates = await work.templates.list_person_templates(collection.id, found.id) if vectors else ()
            sightings = await _list_sightings(work, found.id)
            receivers = await work.webhooks.list_receivers_of(found.id)
            audit, decisions = await _list_records(principal, work, found.id)
        exported = tuple(ExportedTemplate(*template) for template in templates)
        return PersonExport(
            collection, found, consents, faces, frozenset(crops), exported, audit, decisions, sightings, receivers
        )


async def _list_records(
    principal: Principal, work: UnitOfWork, person_id: UUID
) -> tuple[tuple[AuditEntry, ...], tuple[DecisionRecord, ...]]:
    """Return what was recorded about a person, and the decisions that name them, if the principal may read that."""
    if Permission.AUDIT not in principal.permissions:
        return (), ()
    only = AuditFilter(person_id=person_id, collections=principal.collections)
    audit = await _list_all(lambda after: work.audit.list_entries(after, PAGE, only))
    naming = DecisionFilter(person_id=person_id, collections=principal.collections)
    decisions = await _list_all(lambda after: work.decisions.list_decisions(after, PAGE, naming))
    return await add_changes(work, audit), tuple(hide_scores(principal, one) for one in decisions)


async def _list_sightings(work: UnitOfWork, person_id: UUID) -> tuple[OutboxEntry, ...]:
    only, found = EventFilter(person_id=person_id, actions=ACTIONS), list[OutboxEntry]()
    newest = await work.outbox.find_newest_number()
    while page := await work.outbox.list_events(found[-1].number if found else 0, newest, PAGE, only):
        found += page
    return tuple(found)


async def _list_all(fetch_page: Callable[[UUID | None], Awaitable[tuple[Item, ...]]]) -> tuple[Item, ...]:
    found: list[Item] = []
    while page := await fetch_page(found[-1].id if found else None):
        found += page
    return tuple(found)
