"""Persons, their faces and their consents."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from vultus import errors
from vultus.api.deps import App, CollectionRef, Paged, Who, cursor_after
from vultus.api.guard import GuardedRoute, needs
from vultus.api.problems import body_problems, problems
from vultus.domain import Role
from vultus.schemas.base import Page
from vultus.schemas.faces import FaceOut
from vultus.schemas.galleries import (
    ConsentIn,
    ConsentOut,
    ConsentPatch,
    ErasedOut,
    PersonIn,
    PersonOut,
    PersonPatch,
)

PREFIX = "/collections/{collection}/persons"
persons = APIRouter(route_class=GuardedRoute, prefix=PREFIX, tags=["persons"])
faces = APIRouter(route_class=GuardedRoute, prefix=PREFIX + "/{person_id}/faces", tags=["faces"])
consents = APIRouter(route_class=GuardedRoute, prefix=PREFIX + "/{person_id}/consents", tags=["consents"])

MISSING = problems(errors.NotFoundError)
MISSING_BODY = body_problems(errors.NotFoundError)


@persons.post(
    "",
    status_code=201,
    summary="Create a person",
    responses=body_problems(errors.NotFoundError, errors.AlreadyExistsError),
    openapi_extra=needs(Role.ENROL),
)
async def create_person(collection: CollectionRef, body: PersonIn, app: App, who: Who) -> PersonOut:
    """Record a person with their consent and without a face; `/v1/register` does both at once."""
    person, _ = await app.persons.create(
        collection,
        external_id=body.external_id,
        name=body.name,
        metadata=body.metadata,
        consent=body.consent.grant(),
        actor=who,
    )
    return PersonOut.like(person)


@persons.get("", summary="List persons", responses=MISSING, openapi_extra=needs(Role.ENROL))
async def list_persons(
    collection: CollectionRef,
    app: App,
    paging: Paged,
    external_id: Annotated[str | None, Query(max_length=200, description="Only the person with your id.")] = None,
) -> Page[PersonOut]:
    """List persons in order of creation."""
    found = await app.persons.page(collection, after=paging.after, limit=paging.limit, external_id=external_id)
    return Page(items=[PersonOut.like(one) for one in found], next_cursor=cursor_after(found, paging.limit))


@persons.get("/{person_id}", summary="Read a person", responses=MISSING, openapi_extra=needs(Role.ENROL))
async def read_person(collection: CollectionRef, person_id: UUID, app: App) -> PersonOut:
    """Return a person."""
    return PersonOut.like(await app.persons.get(collection, person_id))


@persons.patch(
    "/{person_id}",
    summary="Change a person",
    responses=body_problems(errors.NotFoundError, errors.AlreadyExistsError),
    openapi_extra=needs(Role.ENROL),
)
async def change_person(collection: CollectionRef, person_id: UUID, body: PersonPatch, app: App, who: Who) -> PersonOut:
    """Change external id, name or metadata."""
    changes = {field: getattr(body, field) for field in body.model_fields_set}
    return PersonOut.like(await app.persons.change(collection, person_id, actor=who, **changes))


@persons.delete("/{person_id}", summary="Erase a person", responses=MISSING, openapi_extra=needs(Role.ENROL))
async def erase_person(collection: CollectionRef, person_id: UUID, app: App, who: Who) -> ErasedOut:
    """Remove a person with everything derived from them, whatever network made it."""
    return ErasedOut.like(await app.eraser.erase(collection, person_id, actor=who))


@faces.get("", summary="List a person's faces", responses=MISSING, openapi_extra=needs(Role.ENROL))
async def list_faces(collection: CollectionRef, person_id: UUID, app: App, paging: Paged) -> Page[FaceOut]:
    """List enrolled templates in order of enrolment, without vectors."""
    found = await app.persons.faces(collection, person_id, after=paging.after, limit=paging.limit)
    return Page(items=[FaceOut.like(one) for one in found], next_cursor=cursor_after(found, paging.limit))


@faces.get("/{face_id}", summary="Read a face", responses=MISSING, openapi_extra=needs(Role.ENROL))
async def read_face(collection: CollectionRef, person_id: UUID, face_id: UUID, app: App) -> FaceOut:
    """Return one enrolled template, without its vector. A template is never changed, only added or deleted."""
    return FaceOut.like(await app.persons.face(collection, person_id, face_id))


@faces.delete(
    "/{face_id}", status_code=204, summary="Delete a face", responses=MISSING, openapi_extra=needs(Role.ENROL)
)
async def delete_face(collection: CollectionRef, person_id: UUID, face_id: UUID, app: App, who: Who) -> None:
    """Remove one template; the person and their consents stay."""
    await app.persons.delete_face(collection, person_id, face_id, actor=who)


@consents.post("", status_code=201, summary="Record a consent", responses=MISSING_BODY, openapi_extra=needs(Role.ENROL))
async def record_consent(collection: CollectionRef, person_id: UUID, body: ConsentIn, app: App, who: Who) -> ConsentOut:
    """Record a further consent of a person."""
    return ConsentOut.like(await app.consents.record(collection, person_id, body.grant(), actor=who))


@consents.get("", summary="List a person's consents", responses=MISSING, openapi_extra=needs(Role.ENROL))
async def list_consents(collection: CollectionRef, person_id: UUID, app: App, paging: Paged) -> Page[ConsentOut]:
    """List consents in order of recording, withdrawn ones too."""
    found = await app.consents.page(collection, person_id, after=paging.after, limit=paging.limit)
    return Page(items=[ConsentOut.like(one) for one in found], next_cursor=cursor_after(found, paging.limit))


@consents.get("/{consent_id}", summary="Read a consent", responses=MISSING, openapi_extra=needs(Role.ENROL))
async def read_consent(collection: CollectionRef, person_id: UUID, consent_id: UUID, app: App) -> ConsentOut:
    """Return one consent."""
    return ConsentOut.like(await app.consents.get(collection, person_id, consent_id))


@consents.patch("/{consent_id}", summary="Change a consent", responses=MISSING_BODY, openapi_extra=needs(Role.ENROL))
async def change_consent(
    collection: CollectionRef, person_id: UUID, consent_id: UUID, body: ConsentPatch, app: App, who: Who
) -> ConsentOut:
    """Change a live consent's expiry or evidence; the faces under it follow its expiry."""
    changes = {field: getattr(body, field) for field in body.model_fields_set}
    return ConsentOut.like(await app.consents.change(collection, person_id, consent_id, actor=who, **changes))


@consents.delete("/{consent_id}", summary="Withdraw a consent", responses=MISSING, openapi_extra=needs(Role.ENROL))
async def withdraw_consent(
    collection: CollectionRef, person_id: UUID, consent_id: UUID, app: App, who: Who
) -> ErasedOut:
    """Withdraw a consent: the faces under it are erased, and with the last live consent the whole person."""
    return ErasedOut.like(await app.consents.withdraw(collection, person_id, consent_id, actor=who))
