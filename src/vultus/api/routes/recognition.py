"""Photos in, verdicts out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File

from vultus import errors
from vultus.api.deps import App, read_photos
from vultus.api.forms import CompareForm, DetectForm, EmbeddingsForm, RecognizeForm, VerifyForm
from vultus.api.guard import GuardedRoute, needs
from vultus.api.problems import body_problems
from vultus.domain import Role
from vultus.schemas.faces import CandidateOut, DecisionOut
from vultus.schemas.recognition import (
    ComparisonOut,
    DetectionOut,
    EmbeddingsOut,
    RecognitionOut,
    SearchIn,
    SearchOut,
    VerificationOut,
)

router = APIRouter(route_class=GuardedRoute, tags=["recognition"])

PHOTO_PROBLEMS = (
    errors.NotAnImageError,
    errors.ImageTruncatedError,
    errors.ImageTooSmallError,
    errors.ImageTooLargeError,
    errors.UnsupportedImageError,
)


@router.post(
    "/recognize",
    summary="Recognize the people in a photo",
    responses=body_problems(errors.NotFoundError, errors.ContractMismatchError, *PHOTO_PROBLEMS),
    openapi_extra=needs(Role.RECOGNIZE),
)
async def recognize(form: Annotated[RecognizeForm, File()], app: App) -> RecognitionOut:
    """Find every face, decide about each, and list the closest enrolled people.

    No face is an empty list, not an error.
    """
    (photo,) = await read_photos([form.photo])
    return RecognitionOut.of(
        await app.recognizer.recognize(
            photo,
            collection=form.collection,
            limit=form.limit,
            unique_per_image=form.unique_per_image,
            liveness=form.liveness,
        )
    )


@router.post(
    "/detect",
    summary="Find the faces of a photo",
    responses=body_problems(*PHOTO_PROBLEMS),
    openapi_extra=needs(Role.RECOGNIZE),
)
async def detect(form: Annotated[DetectForm, File()], app: App) -> DetectionOut:
    """Return box, landmarks, score and quality of every face; nothing is searched or stored."""
    (photo,) = await read_photos([form.photo])
    return DetectionOut.of(await app.images.analyze(photo, app.pipelines.default, embed=False))


@router.post(
    "/compare",
    summary="Compare two photos",
    responses=body_problems(errors.NoFaceFoundError, errors.SeveralFacesError, errors.NotFoundError, *PHOTO_PROBLEMS),
    openapi_extra=needs(Role.RECOGNIZE),
)
async def compare(form: Annotated[CompareForm, File()], app: App) -> ComparisonOut:
    """Say whether two photos show the same person; nothing is stored."""
    first, second = await read_photos([form.first, form.second])
    return ComparisonOut.compared(
        await app.verifier.compare(
            first, second, collection=form.collection, largest=form.largest_face, liveness=form.liveness
        )
    )


@router.post(
    "/verify",
    summary="Check a photo against a person",
    responses=body_problems(errors.NoFaceFoundError, errors.SeveralFacesError, errors.NotFoundError, *PHOTO_PROBLEMS),
    openapi_extra=needs(Role.RECOGNIZE),
)
async def verify(form: Annotated[VerifyForm, File()], app: App) -> VerificationOut:
    """Say whether a photo shows the person."""
    (photo,) = await read_photos([form.photo])
    return VerificationOut.verified(
        await app.verifier.verify(
            photo,
            collection=form.collection,
            person_id=form.person_id,
            largest=form.largest_face,
            liveness=form.liveness,
        )
    )


@router.post(
    "/embeddings",
    summary="Turn faces into vectors",
    responses=body_problems(errors.NotFoundError, *PHOTO_PROBLEMS),
    openapi_extra=needs(Role.ENROL),
)
async def embeddings(form: Annotated[EmbeddingsForm, File()], app: App) -> EmbeddingsOut:
    """Return the vector of every face; nothing is stored. A vector is biometric data: keep it as carefully."""
    (photo,) = await read_photos([form.photo])
    pipeline = await app.collections.pipeline_of(form.collection)
    return EmbeddingsOut.of(await app.images.analyze(photo, pipeline), pipeline.contract)


@router.post(
    "/search",
    summary="Search by a vector",
    responses=body_problems(errors.NotFoundError, errors.ContractMismatchError),
    openapi_extra=needs(Role.ENROL),
)
async def search(body: SearchIn, app: App) -> SearchOut:
    """List the people closest to a vector made by `/v1/embeddings`.

    Needs the role `enrol`: whoever may search with chosen vectors can reconstruct templates from the scores.
    """
    home, decision, candidates = await app.recognizer.search(
        body.probe(), contract_id=body.contract_id, collection=body.collection, limit=body.limit
    )
    return SearchOut(
        **DecisionOut.decided(decision).model_dump(),
        collection_id=home.id,
        candidates=[CandidateOut.like(candidate) for candidate in candidates],
    )
