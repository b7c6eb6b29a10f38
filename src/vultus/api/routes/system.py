"""Health, version, models, keys and the audit record."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from vultus import __version__, errors
from vultus.api.deps import PagingDep, PrincipalDep, ServicesDep, build_next_cursor
from vultus.api.guard import GuardedRoute, require_permission
from vultus.api.idempotency import refuse_idempotency_key
from vultus.api.metrics import METRICS_PATH, MetricsCache
from vultus.api.problems import declare_body_problems, declare_problems
from vultus.domain import Permission
from vultus.schemas.base import Page
from vultus.schemas.galleries import KeyIn, KeyOut, NewKeyOut
from vultus.schemas.system import AuditOut, HealthOut, ModelOut, ReadinessOut, VersionOut

metrics = APIRouter(route_class=GuardedRoute)
router = APIRouter(route_class=GuardedRoute, tags=["system"])
METRICS = MetricsCache()
UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: declare_problems()[503]}


@router.get("/health/live", summary="Is the process alive?")
async def live() -> HealthOut:
    """Answer as long as the process can answer at all; needs no key."""
    return HealthOut()


@router.get("/health/ready", summary="Can requests be served?", responses=UNAVAILABLE)
async def ready(services: ServicesDep) -> ReadinessOut:
    """Answer 200 when the database answers and a worker is left for photos, else 503; needs no key.

    A background job that is overdue makes the status `degraded`: requests are answered correctly all the same.
    """
    services.photo_analyzer.ensure_workers()
    await services.database.ping()
    return ReadinessOut.from_statuses(services.jobs.list_statuses())


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
async def version() -> VersionOut:
    """Return name and version."""
    return VersionOut(version=__version__)


@router.get(
    "/models",
    summary="Which networks are in use?",
    responses=declare_problems(),
    openapi_extra=require_permission(Permission.RECOGNIZE),
)
async def models(services: ServicesDep) -> Page[ModelOut]:
    """Return the networks in use, their licences, their vector space and their measured thresholds."""
    return Page(items=[ModelOut.from_space(space) for space in services.spaces], next_cursor=None)


@router.post(
    "/keys",
    status_code=201,
    summary="Create a key",
    responses=declare_body_problems(errors.IdempotencyNotSupportedError),
    openapi_extra=require_permission(Permission.KEYS),
    dependencies=[
        refuse_idempotency_key(
            "A key's secret is never stored, so its answer cannot be repeated. If it is lost, revoke the key and "
            "create another."
        )
    ],
)
async def create_key(body: KeyIn, services: ServicesDep, principal: PrincipalDep) -> NewKeyOut:
    """Make an API key; its secret is shown this once."""
    key, secret = await services.access.create_key(principal, body.name, body.role)
    return NewKeyOut(**KeyOut.from_attributes(key).model_dump(), secret=secret)


@router.get(
    "/keys", summary="List keys", responses=declare_problems(), openapi_extra=require_permission(Permission.KEYS)
)
async def list_keys(services: ServicesDep, principal: PrincipalDep, paging: PagingDep) -> Page[KeyOut]:
    """List keys in order of creation, revoked ones too, without secrets."""
    found = await services.access.list_keys(principal, after=paging.after, limit=paging.limit)
    return Page(
        items=[KeyOut.from_attributes(one) for one in found], next_cursor=build_next_cursor(found, paging.limit)
    )


@router.delete(
    "/keys/{key_id}",
    summary="Revoke a key",
    responses=declare_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.KEYS),
)
async def revoke_key(key_id: UUID, services: ServicesDep, principal: PrincipalDep) -> KeyOut:
    """Make a key useless from now on."""
    return KeyOut.from_attributes(await services.access.revoke_key(principal, key_id))


@router.get(
    "/audit",
    summary="Read the audit record",
    responses=declare_problems(),
    openapi_extra=require_permission(Permission.AUDIT),
)
async def audit(
    services: ServicesDep,
    principal: PrincipalDep,
    paging: PagingDep,
    person_id: Annotated[UUID | None, Query(description="Only what concerns this person.")] = None,
) -> Page[AuditOut]:
    """List what was written, oldest first: who, what and when; ids and counts only."""
    found = await services.audit.list_entries(principal, after=paging.after, limit=paging.limit, person_id=person_id)
    return Page(
        items=[AuditOut.from_attributes(one) for one in found], next_cursor=build_next_cursor(found, paging.limit)
    )
