"""Registration of people, with consent."""

from __future__ import annotations

from typing import Annotated

from fastapi import File, Request

from vultus import errors
from vultus.api.created import name_location
from vultus.api.deps import CollectionRef, PersonDep, PrincipalDep, ServicesDep, read_photos
from vultus.api.forms import EnrolForm, RegisterForm, ScreenForm, build_registration_request
from vultus.api.guard import create_router, require_permission
from vultus.api.idempotency import IDEMPOTENCY_PROBLEMS, accept_idempotency_key
from vultus.api.problems import declare_body_problems
from vultus.api.routes.recognition import PHOTO_PROBLEMS
from vultus.domain import IdempotencyContext, Permission
from vultus.schemas.recognition import RegistrationOut, ScreeningOut

router = create_router(tags=["registration"])

RegistrationKey = Annotated[IdempotencyContext | None, accept_idempotency_key(RegistrationOut.from_domain)]
PERSON_LOCATION = name_location("/v1/collections/{collection_id}/persons/{person[id]}")
REGISTRATION_PROBLEMS = declare_body_problems(
    errors.ConsentRequiredError,
    errors.NoPhotoAcceptedError,
    errors.NotFoundError,
    errors.AlreadyExistsError,
    errors.PersonMismatchError,
    errors.EmbeddingSpaceMismatchError,
    errors.KeyRingError,
    errors.SearchLimitError,
    errors.LivenessNotLoadedError,
    *IDEMPOTENCY_PROBLEMS,
    *PHOTO_PROBLEMS,
)


@router.post(
    "/register",
    status_code=201,
    summary="Register a person from photos",
    responses=REGISTRATION_PROBLEMS,
    openapi_extra=require_permission(Permission.ENROL, photos=True) | PERSON_LOCATION,
)
async def register(
    request: Request,
    form: Annotated[RegisterForm, File()],
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency: RegistrationKey,
) -> RegistrationOut:
    """Enrol the faces of one person, given their consent.

    Every photo is screened on its own: usable ones are enrolled, the others come back with reasons. The person is the
    one with `person_id`, or with `external_id`, or a new one. Ids of two persons, and another name than the person has,
    are refused.
    """
    photos = await read_photos(request, form.photo)
    registration_request = build_registration_request(form, photos, collection=form.collection, person=form.person_id)
    return RegistrationOut.from_domain(
        await services.registrar.register(principal, registration_request, idempotency=idempotency)
    )


@router.post(
    "/screen",
    summary="Screen photos for enrolment",
    responses=declare_body_problems(
        errors.NotFoundError, errors.EmbeddingSpaceMismatchError, errors.LivenessNotLoadedError
    ),
    openapi_extra=require_permission(Permission.ENROL, photos=True),
)
async def screen_photos(
    request: Request, form: Annotated[ScreenForm, File()], services: ServicesDep, principal: PrincipalDep
) -> ScreeningOut:
    """Say which photos could be enrolled, and why the others could not; nothing is stored and nobody is searched for.

    The rules are those of registration, which also refuses a photo that the person has, and a face that is enrolled as
    another person.
    """
    photos = await read_photos(request, form.photo)
    return ScreeningOut.from_domain(
        *await services.registrar.screen_photos(
            principal, form.collection, photos, largest=form.largest_face, liveness=form.liveness
        )
    )


@router.post(
    "/collections/{collection}/persons/{person}/faces",
    status_code=201,
    summary="Add photos to a person",
    responses=REGISTRATION_PROBLEMS,
    openapi_extra=require_permission(Permission.ENROL, photos=True) | PERSON_LOCATION,
)
async def add_faces(
    request: Request,
    collection: CollectionRef,
    person: PersonDep,
    form: Annotated[EnrolForm, File()],
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency: RegistrationKey,
) -> RegistrationOut:
    """Enrol further faces of a person under a new or a live consent."""
    photos = await read_photos(request, form.photo)
    registration_request = build_registration_request(form, photos, collection=collection, person=person)
    return RegistrationOut.from_domain(
        await services.registrar.register(principal, registration_request, idempotency=idempotency)
    )
