"""Health, version, models and the audit record."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from vultus import __version__
from vultus.api.deps import PagingDep, PrincipalDep, ServicesDep, build_page
from vultus.api.guard import GuardedRoute, create_router, require_permission
from vultus.api.metrics import METRICS_PATH, MetricsCache
from vultus.api.problems import declare_problems
from vultus.domain import AuditFilter, Permission
from vultus.schemas.base import Page, Reference, Timestamp
from vultus.schemas.system import AuditOut, HealthOut, LoadOut, ModelOut, ReadinessOut, VersionOut

metrics = APIRouter(route_class=GuardedRoute)
router = create_router(tags=["system"])
METRICS = MetricsCache()
UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: declare_problems()[503]}


@router.get("/health/live", summary="Is the process alive?")
async def check_liveness() -> HealthOut:
    """Answer as long as the process can answer at all; needs no key."""
    return HealthOut()


@router.get("/health/ready", summary="Can requests be served?", responses=UNAVAILABLE)
async def check_readiness(services: ServicesDep) -> ReadinessOut:
    """Answer 200 when the database answers and a worker is left for photos, else 503; needs no key.

    A background job that is overdue makes the status `degraded`, as do collections whose vectors no loaded pack makes:
    all other requests are answered correctly all the same. Within two seconds of the database's end it is 503, and 503
    `storage_full` while the database's disk is full.
    """
    services.photo_analyzer.ensure_workers()
    await services.database.ping()
    return ReadinessOut.from_statuses(services.jobs.list_statuses(), services.spaces, services.inventory.unserved)


@metrics.get(METRICS_PATH, include_in_schema=False)
async def get_metrics() -> Response:
    """Return counters and durations for Prometheus; needs no key, names nobody, and can be turned off."""
    text, kind = await METRICS.render()
    return Response(text, media_type=kind)


@router.get(
    "/version",
    summary="What is running?",
    responses=declare_problems(),
    openapi_extra=require_permission(Permission.RECOGNIZE),
)
async def read_version() -> VersionOut:
    """Return name and version."""
    return VersionOut(version=__version__)


@router.get(
    "/models",
    summary="Which networks are in use?",
    responses=declare_problems(),
    openapi_extra=require_permission(Permission.RECOGNIZE),
)
async def list_models(services: ServicesDep) -> Page[ModelOut]:
    """Return the networks in use, their licences, their vector space and their measured thresholds."""
    return Page(items=[ModelOut.from_space(space) for space in services.spaces], next_cursor=None)


@router.get(
    "/load",
    summary="How much is done?",
    responses=declare_problems(),
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def read_load(services: ServicesDep, principal: PrincipalDep) -> LoadOut:
    """Return counts of the process that answers, from its start on; other servers count for themselves.

    A key that is bound to collections is refused: the counts are of all.
    """
    return LoadOut.from_attributes(services.load.read_load(principal))


@router.get(
    "/audit",
    summary="Read the audit record",
    responses=declare_problems(),
    openapi_extra=require_permission(Permission.AUDIT),
)
async def list_audit_entries(
    services: ServicesDep,
    principal: PrincipalDep,
    paging: PagingDep,
    person_id: Annotated[UUID | None, Query(description="Only what concerns this person.")] = None,
    collection_id: Annotated[UUID | None, Query(description="Only what happened in this collection.")] = None,
    actor: Annotated[
        Reference | None, Query(description="Only what this one did: `key:` and a key's id, or `cli`.")
    ] = None,
    action: Annotated[Reference | None, Query(description="Only this, for example `person.erased`.")] = None,
    since: Annotated[Timestamp | None, Query(description="Only from this time on.")] = None,
    until: Annotated[Timestamp | None, Query(description="Only before this time.")] = None,
    newest_first: Annotated[bool, Query(description="Begin with the latest entry.")] = False,
) -> Page[AuditOut]:
    """List what was written, oldest first: who, what and when.

    Values about persons, before and now, are for keys that may read these, and until the person is erased.

    A key that is bound to collections sees what happened in them.
    """
    only = AuditFilter(
        person_id=person_id, collection_id=collection_id, actor=actor, action=action, since=since, until=until
    )
    found = await services.audit.list_entries(
        principal, after=paging.after, limit=paging.depth, only=only, newest_first=newest_first
    )
    return build_page(found, paging, AuditOut.from_attributes)
