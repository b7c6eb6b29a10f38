"""Collections: isolated galleries."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from vultus import errors
from vultus.api.created import name_location
from vultus.api.deps import CollectionRef, PagingDep, PrincipalDep, ServicesDep, build_page
from vultus.api.guard import create_router, require_permission
from vultus.api.idempotency import IDEMPOTENCY_PROBLEMS, accept_idempotency_key
from vultus.api.problems import declare_body_problems, declare_problems
from vultus.domain import IdempotencyContext, Permission
from vultus.schemas.base import Page
from vultus.schemas.calibration import CalibrationIn, CalibrationOut, CalibrationStateOut
from vultus.schemas.galleries import CollectionIn, CollectionOut, CollectionPatch
from vultus.services.calibration.calibration import CalibrationRequest, CollectionCalibrator

router = create_router("/collections", tags=["collections"])


@router.post(
    "",
    status_code=201,
    summary="Create a collection",
    responses=declare_body_problems(
        errors.AlreadyExistsError,
        errors.NotFoundError,
        errors.KeyRingError,
        errors.LivenessNotLoadedError,
        *IDEMPOTENCY_PROBLEMS,
    ),
    openapi_extra=require_permission(Permission.CONFIGURE) | name_location("/v1/collections/{id}"),
)
async def create_collection(
    body: CollectionIn,
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency: Annotated[IdempotencyContext | None, accept_idempotency_key(CollectionOut.from_domain)],
) -> CollectionOut:
    """Create an empty gallery that pins a pack's network, a decision policy and a retention rule."""
    return CollectionOut.from_domain(
        await services.collections.create_collection(
            principal,
            body.name,
            pack=body.pack,
            policy=body.policy.model_dump(exclude_none=True),
            retention_days=body.retention_days,
            unseen_days=body.unseen_days,
            idempotency=idempotency,
        )
    )


@router.get(
    "", summary="List collections", responses=declare_problems(), openapi_extra=require_permission(Permission.RECOGNIZE)
)
async def list_collections(services: ServicesDep, principal: PrincipalDep, paging: PagingDep) -> Page[CollectionOut]:
    """List collections in order of creation."""
    found = await services.collections.list_collections(principal, after=paging.after, limit=paging.depth)
    return build_page(found, paging, CollectionOut.from_domain)


@router.get(
    "/{collection}",
    summary="Read a collection",
    responses=declare_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.RECOGNIZE),
)
async def read_collection(collection: CollectionRef, services: ServicesDep, principal: PrincipalDep) -> CollectionOut:
    """Return a collection with its numbers of persons and faces."""
    return CollectionOut.from_domain(*await services.collections.get_collection_with_counts(principal, collection))


@router.patch(
    "/{collection}",
    summary="Change a collection",
    responses=declare_body_problems(
        errors.NotFoundError,
        errors.AlreadyExistsError,
        errors.ConflictError,
        errors.KeyRingError,
        errors.PackNotLoadedError,
        errors.LivenessNotLoadedError,
    ),
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def change_collection(
    collection: CollectionRef,
    body: CollectionPatch,
    services: ServicesDep,
    principal: PrincipalDep,
    end_older: Annotated[
        bool,
        Query(description="End at once the consents that a new retention ends by now, with their faces."),
    ] = False,
) -> CollectionOut:
    """Change name, policy, retention or how it is searched; faces stay, and it holds from the next request on.

    A retention holds for earlier consents too; where some would end at once it is refused, unless `end_older` is set.

    A JSON merge patch (RFC 7396): what is left out stays, null removes or takes the default, a policy is merged.
    """
    return CollectionOut.from_domain(
        await services.collections.update_collection(principal, collection, end_older=end_older, **body.to_patch())
    )


@router.delete(
    "/{collection}",
    status_code=204,
    summary="Delete a collection",
    responses=declare_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def delete_collection(collection: CollectionRef, services: ServicesDep, principal: PrincipalDep) -> None:
    """Drop a gallery with everybody in it."""
    await services.collections.delete_collection(principal, collection)


@router.get(
    "/{collection}/calibration",
    summary="Read what decides in a collection",
    responses=declare_problems(errors.NotFoundError, errors.PackNotLoadedError),
    openapi_extra=require_permission(Permission.CALIBRATE),
)
async def read_calibration(
    collection: CollectionRef, services: ServicesDep, principal: PrincipalDep
) -> CalibrationStateOut:
    """Return the threshold of a search and what others would mean, by the calibration in effect; compare nothing."""
    job = CollectionCalibrator(services.database, services.spaces, services.collections)
    return CalibrationStateOut.from_domain(await job.get_state(principal, collection))


@router.post(
    "/{collection}/calibration",
    summary="Measure a collection on its own faces",
    responses=declare_body_problems(
        errors.NotFoundError, errors.InvalidInputError, errors.PackNotLoadedError, *IDEMPOTENCY_PROBLEMS
    ),
    openapi_extra=require_permission(Permission.CALIBRATE),
)
async def calibrate_collection(
    collection: CollectionRef,
    body: CalibrationIn,
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency: Annotated[IdempotencyContext | None, accept_idempotency_key(CalibrationOut.from_attributes)],
) -> CalibrationOut:
    """Compare the enrolled faces with each other, report the error rates and propose a threshold for a target rate.

    With `apply` the thresholds are stored and decide from the next request on. 5,000 faces take a few seconds.
    """
    job = CollectionCalibrator(services.database, services.spaces, services.collections)
    return CalibrationOut.from_attributes(
        await job.calibrate(principal, collection, CalibrationRequest(**body.model_dump()), idempotency=idempotency)
    )


@router.delete(
    "/{collection}/calibration",
    status_code=204,
    summary="Forget a collection's own calibration",
    responses=declare_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.CALIBRATE),
)
async def uncalibrate_collection(collection: CollectionRef, services: ServicesDep, principal: PrincipalDep) -> None:
    """Go back to the thresholds of the pack; the policy stays as it is."""
    await services.collections.remove_calibration(principal, collection)
