"""Registering people, with consent."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, File, Header, Request, Response
from fastapi.responses import JSONResponse

from vultus import errors
from vultus.api.deps import App, CollectionRef, Who, read_photos
from vultus.api.forms import EnrolForm, RegisterForm, fingerprint, registration
from vultus.api.guard import GuardedRoute, needs
from vultus.api.problems import body_problems
from vultus.api.routes.recognition import PHOTO_PROBLEMS
from vultus.domain import Actor, Role
from vultus.schemas.recognition import RegistrationOut
from vultus.services.enrolment.registration import Once, Registered, RegistrationRequest, Replayed
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
RESPONSES = body_problems(
    errors.ConsentRequiredError,
    errors.NoPhotoAcceptedError,
    errors.NotFoundError,
    errors.AlreadyExistsError,
    errors.IdempotencyInFlightError,
    errors.IdempotencyMismatchError,
    errors.ContractMismatchError,
    errors.CropKeyError,
    *PHOTO_PROBLEMS,
)


def _encode(done: Registered) -> dict[str, Any]:
    return RegistrationOut.of(done).model_dump(mode="json")


async def _register(
    app: Services, request: RegistrationRequest, who: Actor, key: str | None, digest: bytes
) -> Response:
    if key is None:
        return JSONResponse(_encode(await app.registrar.register(request, actor=who)), 201)
    outcome = await app.registrar.register_once(request, Once(who.id, key, digest, _encode), actor=who)
    if isinstance(outcome, Replayed):
        return JSONResponse(outcome.body, 201, {"Idempotent-Replayed": "true"})
    return JSONResponse(_encode(outcome), 201)


@router.post(
    "/register",
    status_code=201,
    summary="Register a person from photos",
    response_model=RegistrationOut,
    responses=RESPONSES,
    openapi_extra=needs(Role.ENROL),
)
async def register(
    form: Annotated[RegisterForm, File()],
    request: Request,
    app: App,
    who: Who,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Enrol the faces of one person, given their consent.

    Every photo is judged on its own: usable ones are enrolled, the others come back with reasons. The person is the
    one with `person_id`, or with `external_id`, or a new one.
    """
    photos = await read_photos(form.photo)
    asked = registration(form, photos, collection=form.collection, person_id=form.person_id)
    return await _register(app, asked, who, idempotency_key, fingerprint(form, photos, path=request.url.path))


@router.post(
    "/collections/{collection}/persons/{person_id}/faces",
    status_code=201,
    summary="Add photos to a person",
    response_model=RegistrationOut,
    responses=RESPONSES,
    openapi_extra=needs(Role.ENROL),
)
async def add_faces(
    collection: CollectionRef,
    person_id: UUID,
    form: Annotated[EnrolForm, File()],
    request: Request,
    app: App,
    who: Who,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Enrol further faces of a person under a new or a live consent."""
    photos = await read_photos(form.photo)
    asked = registration(form, photos, collection=collection, person_id=person_id)
    return await _register(app, asked, who, idempotency_key, fingerprint(form, photos, path=request.url.path))
