"""Detection, recognition, comparison and verification of photos; embeddings, and search by them."""

from __future__ import annotations

from typing import Annotated

from fastapi import File, Request

from vultus import errors
from vultus.api.deps import PrincipalDep, ServicesDep, read_photos
from vultus.api.forms import CompareForm, DetectForm, EmbeddingsForm, RecognizeForm, VerifyForm
from vultus.api.guard import create_router, require_permission
from vultus.api.problems import declare_body_problems
from vultus.domain import Permission
from vultus.schemas.recognition import (
    ComparisonOut,
    DetectionOut,
    EmbeddingsOut,
    RecognitionOut,
    SearchIn,
    SearchOut,
    VerificationOut,
)

router = create_router(tags=["recognition"])

PHOTO_PROBLEMS = (
    errors.NotAnImageError,
    errors.ImageTruncatedError,
    errors.ImageTooSmallError,
    errors.ImageTooSlowError,
    errors.ImageTooLargeError,
    errors.UnsupportedImageError,
)
LIVENESS_PROBLEMS = (*PHOTO_PROBLEMS, errors.LivenessNotLoadedError)


@router.post(
    "/recognize",
    summary="Recognize the people in a photo",
    responses=declare_body_problems(
        errors.NotFoundError, errors.EmbeddingSpaceMismatchError, errors.SearchLimitError, *LIVENESS_PROBLEMS
    ),
    openapi_extra=require_permission(Permission.RECOGNIZE, photos=True),
)
async def recognize(
    form: Annotated[RecognizeForm, File()], request: Request, services: ServicesDep, principal: PrincipalDep
) -> RecognitionOut:
    """Find every face and decide about each; a match names the person.

    No face is an empty list, not an error.
    """
    (photo,) = await read_photos(request, [form.photo])
    return RecognitionOut.from_domain(
        await services.recognizer.recognize(
            principal,
            photo,
            reference=form.collection,
            limit=form.limit,
            unique_per_image=form.unique_per_image,
            liveness=form.liveness,
        )
    )


@router.post(
    "/detect",
    summary="Find the faces of a photo",
    responses=declare_body_problems(*PHOTO_PROBLEMS),
    openapi_extra=require_permission(Permission.RECOGNIZE, photos=True),
)
async def detect(
    form: Annotated[DetectForm, File()], request: Request, services: ServicesDep, principal: PrincipalDep
) -> DetectionOut:
    """Return box, landmarks, score and quality of every face; nothing is searched or stored."""
    (photo,) = await read_photos(request, [form.photo])
    return DetectionOut.from_domain(await services.recognizer.detect_faces(principal, photo))


@router.post(
    "/compare",
    summary="Compare two photos",
    responses=declare_body_problems(
        errors.NoFaceFoundError, errors.SeveralFacesError, errors.NotFoundError, *LIVENESS_PROBLEMS
    ),
    openapi_extra=require_permission(Permission.RECOGNIZE, photos=True),
)
async def compare(
    form: Annotated[CompareForm, File()], request: Request, services: ServicesDep, principal: PrincipalDep
) -> ComparisonOut:
    """Say whether two photos show the same person; nothing is stored."""
    first, second = await read_photos(request, [form.first, form.second])
    return ComparisonOut.from_domain(
        await services.verifier.compare(
            principal, first, second, reference=form.collection, largest=form.largest_face, liveness=form.liveness
        )
    )


@router.post(
    "/verify",
    summary="Check a photo against a person",
    responses=declare_body_problems(
        errors.NoFaceFoundError,
        errors.SeveralFacesError,
        errors.NotFoundError,
        errors.PersonMismatchError,
        errors.SearchLimitError,
        errors.VerificationLimitError,
        *LIVENESS_PROBLEMS,
    ),
    openapi_extra=require_permission(Permission.RECOGNIZE, photos=True),
)
async def verify(
    form: Annotated[VerifyForm, File()], request: Request, services: ServicesDep, principal: PrincipalDep
) -> VerificationOut:
    """Say whether a photo shows the person."""
    (photo,) = await read_photos(request, [form.photo])
    return VerificationOut.from_domain(
        await services.verifier.verify(
            principal,
            photo,
            reference=form.collection,
            person=form.person,
            external_id=form.external_id,
            largest=form.largest_face,
            liveness=form.liveness,
        )
    )


@router.post(
    "/embeddings",
    summary="Turn faces into vectors",
    responses=declare_body_problems(errors.NotFoundError, *PHOTO_PROBLEMS),
    openapi_extra=require_permission(Permission.READ, photos=True),
)
async def compute_embeddings(
    form: Annotated[EmbeddingsForm, File()], request: Request, services: ServicesDep, principal: PrincipalDep
) -> EmbeddingsOut:
    """Return the vector of every face; nothing is stored. A vector is biometric data: keep it as carefully."""
    (photo,) = await read_photos(request, [form.photo])
    space = await services.collections.get_space(principal, form.collection)
    return EmbeddingsOut.from_domain(await services.recognizer.embed_faces(principal, photo, space.id), space)


@router.post(
    "/search",
    summary="Search by a vector",
    responses=declare_body_problems(errors.NotFoundError, errors.EmbeddingSpaceMismatchError, errors.SearchLimitError),
    openapi_extra=require_permission(Permission.SEARCH),
)
async def search_by_vector(body: SearchIn, services: ServicesDep, principal: PrincipalDep) -> SearchOut:
    """List the people closest to a vector made by `/v1/embeddings`.

    Whoever may search with chosen vectors approaches a template faster than with photos. Candidates come with scores,
    which are a permission of their own: without it send `limit` 0.
    """
    return SearchOut.from_domain(
        await services.recognizer.search(
            principal, body.to_probe(), space_id=body.contract_id, reference=body.collection, limit=body.limit
        )
    )
