"""Decision records: why a probe was answered as it was."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query

from vultus import errors
from vultus.api.deps import PagingDep, PrincipalDep, ServicesDep, build_page
from vultus.api.guard import create_router, require_permission
from vultus.api.problems import declare_problems
from vultus.domain import Permission, Verdict
from vultus.domain.decision_records import DecisionFilter
from vultus.schemas.base import Page, Reference, Timestamp
from vultus.schemas.decisions import DecisionExplanationOut, DecisionRecordOut

router = create_router("/decisions", tags=["system"])


@router.get(
    "",
    summary="List decision records",
    responses=declare_problems(),
    openapi_extra=require_permission(Permission.AUDIT),
)
async def list_decisions(
    services: ServicesDep,
    principal: PrincipalDep,
    paging: PagingDep,
    person_id: Annotated[UUID | None, Query(description="Only those that name this person.")] = None,
    collection_id: Annotated[UUID | None, Query(description="Only those in this collection.")] = None,
    actor: Annotated[Reference | None, Query(description="Only what this one asked: `key:` and a key's id.")] = None,
    verdict: Annotated[Verdict | None, Query(description="Only these.")] = None,
    request_id: Annotated[Reference | None, Query(description="Only those of one request.")] = None,
    since: Annotated[Timestamp | None, Query(description="Only from this time on.")] = None,
    until: Annotated[Timestamp | None, Query(description="Only before this time.")] = None,
    newest_first: Annotated[bool, Query(description="Begin with the latest record.")] = False,
) -> Page[DecisionRecordOut]:
    """List what was decided in collections whose policy has `record_searches`, oldest first.

    A key that is bound to collections sees those made in them.
    """
    only = DecisionFilter(
        person_id=person_id,
        collection_id=collection_id,
        actor=actor,
        verdict=verdict,
        request_id=request_id,
        since=since,
        until=until,
    )
    found = await services.audit.list_decisions(
        principal, after=paging.after, limit=paging.depth, only=only, newest_first=newest_first
    )
    return build_page(found, paging, DecisionRecordOut.from_domain)


@router.get(
    "/{decision_id}",
    summary="Explain a decision",
    responses=declare_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.AUDIT),
)
async def explain_decision(decision_id: UUID, services: ServicesDep, principal: PrincipalDep) -> DecisionExplanationOut:
    """Return why a probe was answered as it was: by the record's id, or that of the event of live video."""
    return DecisionExplanationOut.from_explanation(await services.audit.explain_decision(principal, decision_id))
