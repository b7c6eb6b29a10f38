"""Erasures: how far what was erased is gone."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query, Response

from vultus import errors
from vultus.api.deps import PagingDep, PrincipalDep, ServicesDep, build_page
from vultus.api.guard import create_router, require_permission
from vultus.api.problems import declare_problems
from vultus.domain import Permission
from vultus.domain.erasures import ErasureFilter, ErasureState
from vultus.schemas.base import Page
from vultus.schemas.erasures import ErasureOut, ReceiptOut

router = create_router("/erasures", tags=["erasures"])


@router.get(
    "", summary="List erasures", responses=declare_problems(), openapi_extra=require_permission(Permission.ERASE)
)
async def list_erasures(
    services: ServicesDep,
    principal: PrincipalDep,
    paging: PagingDep,
    state: Annotated[ErasureState | None, Query(description="Only those that have reached this, and no more.")] = None,
    collection_id: Annotated[UUID | None, Query(description="Only those in this collection.")] = None,
    person_id: Annotated[UUID | None, Query(description="Only those of this person.")] = None,
    newest_first: Annotated[bool, Query(description="Begin with the latest erasure.")] = False,
) -> Page[ErasureOut]:
    """List what was erased, oldest first: ids and counts, and how far it is gone.

    A key that is bound to collections sees what was erased in them.
    """
    only = ErasureFilter(state=state, collection_id=collection_id, person_id=person_id)
    found = await services.erasures.list_erasures(
        principal, after=paging.after, limit=paging.depth, only=only, newest_first=newest_first
    )
    return build_page(found, paging, ErasureOut.from_attributes)


@router.get(
    "/{erasure_id}",
    summary="Read an erasure",
    responses=declare_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.ERASE),
)
async def read_erasure(erasure_id: UUID, services: ServicesDep, principal: PrincipalDep) -> ErasureOut:
    """Return what an erasure destroyed and how far it is gone."""
    return ErasureOut.from_attributes(await services.erasures.get_erasure(principal, erasure_id))


@router.get(
    "/{erasure_id}/receipt",
    summary="Get the receipt of an erasure",
    response_model=ReceiptOut,
    responses=declare_problems(errors.NotFoundError, errors.KeyRingError),
    openapi_extra=require_permission(Permission.ERASE),
)
async def get_receipt(erasure_id: UUID, services: ServicesDep, principal: PrincipalDep) -> Response:
    """Return what was erased, how far it is gone and what remains as of now, signed by the installation.

    `vultus receipts verify FILE` checks it without the server; keep it byte for byte.
    """
    receipt = await services.receipts.issue_receipt(principal, erasure_id)
    return Response(receipt, media_type="application/json")
