"""Sources: cameras and videos that the server watches."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi.responses import Response

from vultus import errors
from vultus.api.created import name_location
from vultus.api.deps import PagingDep, PrincipalDep, ServicesDep, build_page
from vultus.api.guard import create_router, require_permission
from vultus.api.idempotency import IDEMPOTENCY_PROBLEMS, accept_idempotency_key
from vultus.api.problems import declare_body_problems, declare_problems
from vultus.domain import IdempotencyContext, Permission
from vultus.schemas.base import Page
from vultus.schemas.sources import SourceIn, SourceOut, SourcePatch

JPEG = {"type": "string", "format": "binary"}

router = create_router("/sources", tags=["live"])


@router.post(
    "",
    status_code=201,
    summary="Create a source",
    responses=declare_body_problems(
        errors.AddressNotAllowedError,
        errors.NotFoundError,
        errors.InvalidInputError,
        errors.KeyRingError,
        *IDEMPOTENCY_PROBLEMS,
    ),
    openapi_extra=require_permission(Permission.CONFIGURE) | name_location("/v1/sources/{id}"),
)
async def create_source(
    body: SourceIn,
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency: Annotated[IdempotencyContext | None, accept_idempotency_key(SourceOut.from_domain)],
) -> SourceOut:
    """Watch a camera or a video from now on, for the key that creates it, which needs the permission `live` too."""
    values = body.model_dump(exclude={"collection"})
    return SourceOut.from_domain(
        await services.sources.create_source(principal, reference=body.collection, idempotency=idempotency, **values)
    )


@router.get("", summary="List sources", responses=declare_problems(), openapi_extra=require_permission(Permission.READ))
async def list_sources(services: ServicesDep, principal: PrincipalDep, paging: PagingDep) -> Page[SourceOut]:
    """List the sources of the collections that the key reaches, in order of creation, with how they are doing."""
    found = await services.sources.list_sources(principal, after=paging.after, limit=paging.depth)
    return build_page(found, paging, SourceOut.from_domain)


@router.get(
    "/{source_id}",
    summary="Read a source",
    responses=declare_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.READ),
)
async def read_source(source_id: UUID, services: ServicesDep, principal: PrincipalDep) -> SourceOut:
    """Return a source and how it is doing."""
    return SourceOut.from_domain(await services.sources.get_source(principal, source_id))


@router.patch(
    "/{source_id}",
    summary="Change a source",
    responses=declare_body_problems(
        errors.AddressNotAllowedError, errors.NotFoundError, errors.InvalidInputError, errors.KeyRingError
    ),
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def change_source(
    source_id: UUID, body: SourcePatch, services: ServicesDep, principal: PrincipalDep
) -> SourceOut:
    """Change a source: it is opened anew within seconds, for the key that changes it, which needs `live` too.

    A JSON merge patch (RFC 7396): what is left out stays, null takes the default.
    """
    return SourceOut.from_domain(await services.sources.update_source(principal, source_id, body.to_patch()))


@router.delete(
    "/{source_id}",
    status_code=204,
    summary="Delete a source",
    responses=declare_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def delete_source(source_id: UUID, services: ServicesDep, principal: PrincipalDep) -> None:
    """Delete a source with its address; it is watched no more within seconds."""
    await services.sources.delete_source(principal, source_id)


@router.get(
    "/{source_id}/snapshot",
    summary="See what a source shows",
    response_class=Response,
    responses=declare_problems(errors.ConflictError, errors.NotFoundError, errors.KeyRingError)
    | {
        200: {
            "description": "The picture.",
            "content": {"image/jpeg": {"schema": JPEG}},
        }
    },
    openapi_extra=require_permission(Permission.LIVE),
)
async def take_snapshot(source_id: UUID, services: ServicesDep, principal: PrincipalDep) -> Response:
    """Return what a source shows now, as JPEG; it is stored nowhere."""
    picture = await services.sources.take_snapshot(principal, source_id)
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "no-store"})
