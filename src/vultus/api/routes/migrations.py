"""Online model migration of a collection."""

from __future__ import annotations

from typing import Annotated

from fastapi import File, Query, Request

from vultus import errors
from vultus.api.deps import CollectionRef, PagingDep, PrincipalDep, ServicesDep, build_page, read_photos
from vultus.api.forms import SupplyForm
from vultus.api.guard import create_router, require_permission
from vultus.api.idempotency import IDEMPOTENCY_PROBLEMS, accept_idempotency_key, refuse_idempotency_key
from vultus.api.problems import declare_body_problems, declare_problems
from vultus.domain import IdempotencyContext, Permission
from vultus.schemas.base import Page
from vultus.schemas.migrations import (
    ContractComparisonOut,
    FinishedOut,
    LeftBehindOut,
    SuppliesOut,
    SwitchedOut,
    TransitionIn,
    TransitionOut,
)

router = create_router("/collections/{collection}/transition", tags=["transitions"])

MISSING = declare_problems(errors.NotFoundError)
INCOMPLETE_PROBLEMS = (errors.NotFoundError, errors.MigrationIncompleteError, errors.PackNotLoadedError)
AllowUnmigrated = Annotated[
    bool, Query(description="Proceed although faces are lost or persons not found; `left-behind` lists them.")
]


@router.post(
    "",
    summary="Start a migration to another network",
    responses=declare_body_problems(errors.NotFoundError, errors.ConflictError, *IDEMPOTENCY_PROBLEMS),
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def begin_transition(
    collection: CollectionRef,
    body: TransitionIn,
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency: Annotated[IdempotencyContext | None, accept_idempotency_key(TransitionOut.from_domain)],
) -> TransitionOut:
    """Let enrolment write templates of a second network too, and backfill the existing faces in the background.

    A repeated call with the same pack retries faces that could not be backfilled.
    """
    return TransitionOut.from_domain(
        await services.migrations.start(
            principal, collection, pack=body.pack, shadow_share=body.shadow_share, idempotency=idempotency
        )
    )


@router.get(
    "",
    summary="Read the progress of a migration",
    responses=MISSING,
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def read_transition(collection: CollectionRef, services: ServicesDep, principal: PrincipalDep) -> TransitionOut:
    """Return how many faces and persons each of the two networks can find."""
    return TransitionOut.from_domain(await services.migrations.get_state(principal, collection))


@router.post(
    "/switch",
    summary="Switch to the other network",
    responses=declare_problems(*INCOMPLETE_PROBLEMS, errors.InvalidInputError, *IDEMPOTENCY_PROBLEMS),
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def switch_transition(
    collection: CollectionRef,
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency: Annotated[IdempotencyContext | None, accept_idempotency_key(SwitchedOut.from_domain)],
    leave_behind: AllowUnmigrated = False,
) -> SwitchedOut:
    """Search the other network's templates from the next request on; a second switch rolls back."""
    return SwitchedOut.from_domain(
        await services.migrations.cut_over(
            principal, collection, allow_unmigrated=leave_behind, idempotency=idempotency
        )
    )


@router.delete(
    "",
    summary="Finish a migration",
    responses=declare_problems(*INCOMPLETE_PROBLEMS),
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def finish_transition(
    collection: CollectionRef, services: ServicesDep, principal: PrincipalDep, leave_behind: AllowUnmigrated = False
) -> FinishedOut:
    """Remove the templates of the network that is not searched; before the switch this cancels the migration."""
    return FinishedOut.from_domain(
        await services.migrations.finish(principal, collection, allow_unmigrated=leave_behind)
    )


@router.post(
    "/photos",
    summary="Supply photos again",
    responses=declare_body_problems(
        errors.NotFoundError, errors.InvalidInputError, errors.IdempotencyNotSupportedError
    ),
    openapi_extra=require_permission(Permission.CONFIGURE, photos=True),
    dependencies=[
        refuse_idempotency_key(
            "Every photo is stored by itself, so there is no one answer; a repeated photo is `already_carried`."
        )
    ],
)
async def supply_photos(
    collection: CollectionRef,
    form: Annotated[SupplyForm, File()],
    request: Request,
    services: ServicesDep,
    principal: PrincipalDep,
) -> SuppliesOut:
    """Backfill faces from the same files they were enrolled from; nothing but templates is stored."""
    return SuppliesOut.from_domain(
        await services.photo_resubmission.submit(principal, collection, await read_photos(request, form.photo))
    )


@router.get(
    "/left-behind",
    summary="List unmigrated persons",
    responses=MISSING,
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def list_left_behind(
    collection: CollectionRef, services: ServicesDep, principal: PrincipalDep, paging: PagingDep
) -> Page[LeftBehindOut]:
    """List persons that the target network does not find; after the end, persons without a face."""
    found = await services.migrations.list_unmigrated_persons(
        principal, collection, after=paging.after, limit=paging.depth
    )
    return build_page(found, paging, LeftBehindOut.from_domain)


@router.get(
    "/comparison",
    summary="Compare the two networks",
    responses=MISSING,
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def compare_transition(
    collection: CollectionRef,
    services: ServicesDep,
    principal: PrincipalDep,
    sample: Annotated[int, Query(ge=1, le=2000, description="Most faces to search for.")] = 200,
) -> ContractComparisonOut:
    """Search for enrolled faces among all others with both networks, and report their disagreements.

    Also report the recognitions that both answered since the start, if a `shadow_share` was set.
    """
    return ContractComparisonOut.from_domain(await services.space_comparer.compare(principal, collection, sample))
