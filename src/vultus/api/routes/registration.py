"""Registration of people, with consent."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, File, Header, Request, Response
from fastapi.responses import JSONResponse

from vultus import errors
from vultus.api.deps import CollectionRef, PrincipalDep, ServicesDep, read_photos
from vultus.api.forms import EnrolForm, RegisterForm, build_registration_request, compute_request_digest
from vultus.api.guard import GuardedRoute, require_permission
from vultus.api.problems import declare_body_problems
from vultus.api.routes.recognition import PHOTO_PROBLEMS
from vultus.domain import Permission, Principal
from vultus.schemas.recognition import RegistrationOut
from vultus.services.enrolment.registration import (
    IdempotencyContext,
    RegistrationRequest,
    RegistrationResult,
    ReplayedResponse,
)
from vultus.services.wiring import Services

router = APIRouter(route_class=GuardedRoute, tags=["registration"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="Any word of yours, new for every new request; a repeated request gets the first one's answer.",
    ),
]
REGISTRATION_PROBLEMS = declare_body_problems(
    errors.ConsentRequiredError,
    errors.NoPhotoAcceptedError,
    errors.NotFoundError,
    errors.AlreadyExistsError,
    errors.IdempotencyInFlightError,
    errors.IdempotencyMismatchError,
    errors.EmbeddingSpaceMismatchError,
    errors.CropKeyError,
    *PHOTO_PROBLEMS,
)


def _encode_registration(outcome: RegistrationResult) -> dict[str, Any]:
    return RegistrationOut.from_domain(outcome).model_dump(mode="json")


async def _run_registration(
    services: Services, request: RegistrationRequest, principal: Principal, key: str | None, digest: bytes
) -> Response:
    if key is None:
        return JSONResponse(_encode_registration(await services.registrar.register(principal, request)), 201)
    outcome = await services.registrar.register_once(
        principal, request, IdempotencyContext(principal.id, key, digest, _encode_registration)
    )
    if isinstance(outcome, ReplayedResponse):
        return JSONResponse(outcome.body, 201, {"Idempotent-Replayed": "true"})
    return JSONResponse(_encode_registration(outcome), 201)


@router.post(
    "/register",
    status_code=201,
    summary="Register a person from photos",
    response_model=RegistrationOut,
    responses=REGISTRATION_PROBLEMS,
    openapi_extra=require_permission(Permission.ENROL),
)
async def register(
    form: Annotated[RegisterForm, File()],
    request: Request,
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Enrol the faces of one person, given their consent.

    Every photo is screened on its own: usable ones are enrolled, the others come back with reasons. The person is the
    one with `person_id`, or with `external_id`, or a new one.
    """
    photos = await read_photos(request, form.photo)
    registration_request = build_registration_request(
        form, photos, collection=form.collection, person_id=form.person_id
    )
    return await _run_registration(
        services,
        registration_request,
        principal,
        idempotency_key,
        compute_request_digest(form, photos, path=request.url.path),
    )


@router.post(
    "/collections/{collection}/persons/{person_id}/faces",
    status_code=201,
    summary="Add photos to a person",
    response_model=RegistrationOut,
    responses=REGISTRATION_PROBLEMS,
    openapi_extra=require_permission(Permission.ENROL),
)
async def add_faces(
    collection: CollectionRef,
    person_id: UUID,
    form: Annotated[EnrolForm, File()],
    request: Request,
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Enrol further faces of a person under a new or a live consent."""
    photos = await read_photos(request, form.photo)
    registration_request = build_registration_request(form, photos, collection=collection, person_id=person_id)
    return await _run_registration(
        services,
        registration_request,
        principal,
        idempotency_key,
        compute_request_digest(form, photos, path=request.url.path),
    )
