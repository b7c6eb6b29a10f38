"""Persons, their faces and their consents."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Header, Query, Response
from fastapi.responses import HTMLResponse

from vultus import errors
from vultus.api.created import name_location
from vultus.api.deps import CollectionRef, PagingDep, PersonDep, PrincipalDep, ServicesDep, build_page
from vultus.api.guard import create_router, require_permission
from vultus.api.idempotency import IDEMPOTENCY_PROBLEMS, accept_idempotency_key
from vultus.api.problems import declare_body_problems, declare_problems
from vultus.domain import Consent, IdempotencyContext, Permission, Person
from vultus.schemas.base import Name, Page, Reference
from vultus.schemas.export_page import render_export
from vultus.schemas.exports import PersonExportOut
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
persons = create_router(PREFIX, tags=["persons"])
faces = create_router(PREFIX + "/{person}/faces", tags=["faces"])
consents = create_router(PREFIX + "/{person}/consents", tags=["consents"])

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Of the page of an export: nothing is loaded, nothing runs."""

MISSING = declare_problems(errors.NotFoundError)
MISSING_BODY = declare_body_problems(errors.NotFoundError)


def _build_created_person(created: tuple[Person, Consent]) -> PersonOut:
    return PersonOut.from_attributes(created[0])


@persons.post(
    "",
    status_code=201,
    summary="Create a person",
    responses=declare_body_problems(errors.NotFoundError, errors.AlreadyExistsError, *IDEMPOTENCY_PROBLEMS),
    openapi_extra=require_permission(Permission.ENROL) | name_location("/v1/collections/{collection_id}/persons/{id}"),
)
async def create_person(
    collection: CollectionRef,
    body: PersonIn,
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency: Annotated[IdempotencyContext | None, accept_idempotency_key(_build_created_person)],
) -> PersonOut:
    """Record a person with their consent and without a face; `/v1/register` does both in one request."""
    created = await services.persons.create_person(
        principal,
        collection,
        external_id=body.external_id,
        name=body.name,
        metadata=body.metadata,
        consent=body.consent.to_consent_grant(),
        idempotency=idempotency,
    )
    return _build_created_person(created)


@persons.get("", summary="List persons", responses=MISSING, openapi_extra=require_permission(Permission.READ))
async def list_persons(
    collection: CollectionRef,
    services: ServicesDep,
    principal: PrincipalDep,
    paging: PagingDep,
    external_id: Annotated[Reference | None, Query(description="Only the person with your id.")] = None,
    name: Annotated[Name | None, Query(description="Only persons whose name holds this, in any case.")] = None,
) -> Page[PersonOut]:
    """List persons in order of creation; how many there are is in the collection's `persons`."""
    found = await services.persons.list_persons(
        principal, collection, after=paging.after, limit=paging.depth, external_id=external_id, name=name
    )
    return build_page(found, paging, PersonOut.from_attributes)


@persons.get("/{person}", summary="Read a person", responses=MISSING, openapi_extra=require_permission(Permission.READ))
async def read_person(
    collection: CollectionRef, person: PersonDep, services: ServicesDep, principal: PrincipalDep
) -> PersonOut:
    """Return a person."""
    return PersonOut.from_attributes(await services.persons.get_person(principal, collection, person))


@persons.get(
    "/{person}/export",
    summary="Export what is held about a person",
    response_model=PersonExportOut,
    responses=MISSING | {200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
    openapi_extra=require_permission(Permission.READ),
)
async def export_person(
    collection: CollectionRef,
    person: PersonDep,
    services: ServicesDep,
    principal: PrincipalDep,
    vectors: Annotated[bool, Query(description="Add the templates; needs the permission `scores` too.")] = False,
    form: Annotated[
        Literal["json", "html"] | None, Query(alias="format", description="`html`: a page for people, as for `Accept`.")
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> PersonExportOut | Response:
    """Return everything that is held about a person, for their right of access and portability.

    The audit entries about them, and decisions that name them, are in it if the key may read the audit record. With
    `format=html`, or `Accept: text/html`, it is a page for people, without a script, that can be printed.
    """
    found = await services.person_exporter.export_person(principal, collection, person, vectors=vectors)
    held = PersonExportOut.from_domain(found)
    if form == "html" or (form is None and accept.startswith("text/html")):
        return HTMLResponse(render_export(held), headers={"Content-Security-Policy": PAGE_POLICY})
    return held


@persons.patch(
    "/{person}",
    summary="Change a person",
    responses=declare_body_problems(errors.NotFoundError, errors.AlreadyExistsError),
    openapi_extra=require_permission(Permission.ENROL),
)
async def change_person(
    collection: CollectionRef, person: PersonDep, body: PersonPatch, services: ServicesDep, principal: PrincipalDep
) -> PersonOut:
    """Change external id, name or metadata.

    A JSON merge patch (RFC 7396): what is left out stays, null removes, metadata are merged.
    """
    return PersonOut.from_attributes(
        await services.persons.update_person(principal, collection, person, **body.to_patch())
    )


@persons.delete(
    "/{person}", summary="Erase a person", responses=MISSING, openapi_extra=require_permission(Permission.ERASE)
)
async def erase_person(
    collection: CollectionRef, person: PersonDep, services: ServicesDep, principal: PrincipalDep
) -> ErasedOut:
    """Remove a person with everything derived from them, whatever network made it."""
    return ErasedOut.from_domain(await services.eraser.erase(principal, collection, person))


@faces.get("", summary="List a person's faces", responses=MISSING, openapi_extra=require_permission(Permission.READ))
async def list_faces(
    collection: CollectionRef, person: PersonDep, services: ServicesDep, principal: PrincipalDep, paging: PagingDep
) -> Page[FaceOut]:
    """List enrolled templates in order of enrolment, without vectors."""
    found = await services.persons.list_faces(principal, collection, person, after=paging.after, limit=paging.depth)
    return build_page(found, paging, FaceOut.from_attributes)


@faces.get("/{face_id}", summary="Read a face", responses=MISSING, openapi_extra=require_permission(Permission.READ))
async def read_face(
    collection: CollectionRef, person: PersonDep, face_id: UUID, services: ServicesDep, principal: PrincipalDep
) -> FaceOut:
    """Return one enrolled template, without its vector. A template is never changed, only added or deleted."""
    return FaceOut.from_attributes(await services.persons.get_face(principal, collection, person, face_id))


@faces.delete(
    "/{face_id}",
    status_code=204,
    summary="Delete a face",
    responses=MISSING,
    openapi_extra=require_permission(Permission.ERASE),
)
async def delete_face(
    collection: CollectionRef, person: PersonDep, face_id: UUID, services: ServicesDep, principal: PrincipalDep
) -> None:
    """Remove one template; the person and their consents stay."""
    await services.persons.delete_face(principal, collection, person, face_id)


@consents.post(
    "",
    status_code=201,
    summary="Record a consent",
    responses=declare_body_problems(errors.NotFoundError, *IDEMPOTENCY_PROBLEMS),
    openapi_extra=require_permission(Permission.ENROL)
    | name_location("/v1/collections/{collection}/persons/{person_id}/consents/{id}"),
)
async def record_consent(
    collection: CollectionRef,
    person: PersonDep,
    body: ConsentIn,
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency: Annotated[IdempotencyContext | None, accept_idempotency_key(ConsentOut.from_attributes)],
) -> ConsentOut:
    """Record a further consent of a person."""
    return ConsentOut.from_attributes(
        await services.consents.record_consent(
            principal, collection, person, body.to_consent_grant(), idempotency=idempotency
        )
    )


@consents.get(
    "", summary="List a person's consents", responses=MISSING, openapi_extra=require_permission(Permission.READ)
)
async def list_consents(
    collection: CollectionRef, person: PersonDep, services: ServicesDep, principal: PrincipalDep, paging: PagingDep
) -> Page[ConsentOut]:
    """List consents in order of recording, withdrawn ones too."""
    found = await services.consents.list_consents(principal, collection, person, after=paging.after, limit=paging.depth)
    return build_page(found, paging, ConsentOut.from_attributes)


@consents.get(
    "/{consent_id}", summary="Read a consent", responses=MISSING, openapi_extra=require_permission(Permission.READ)
)
async def read_consent(
    collection: CollectionRef, person: PersonDep, consent_id: UUID, services: ServicesDep, principal: PrincipalDep
) -> ConsentOut:
    """Return one consent."""
    return ConsentOut.from_attributes(await services.consents.get_consent(principal, collection, person, consent_id))


@consents.patch(
    "/{consent_id}",
    summary="Change a consent",
    responses=MISSING_BODY,
    openapi_extra=require_permission(Permission.ENROL),
)
async def change_consent(
    collection: CollectionRef,
    person: PersonDep,
    consent_id: UUID,
    body: ConsentPatch,
    services: ServicesDep,
    principal: PrincipalDep,
) -> ConsentOut:
    """Change a live consent's expiry or evidence; the faces under it follow its expiry.

    A JSON merge patch (RFC 7396): what is left out stays, null removes.
    """
    return ConsentOut.from_attributes(
        await services.consents.update_consent(principal, collection, person, consent_id, **body.to_patch())
    )


@consents.delete(
    "/{consent_id}", summary="Withdraw a consent", responses=MISSING, openapi_extra=require_permission(Permission.ERASE)
)
async def withdraw_consent(
    collection: CollectionRef, person: PersonDep, consent_id: UUID, services: ServicesDep, principal: PrincipalDep
) -> ErasedOut:
    """Withdraw a consent: the faces under it are erased, and with the last live consent the whole person."""
    return ErasedOut.from_domain(await services.consents.withdraw_consent(principal, collection, person, consent_id))
