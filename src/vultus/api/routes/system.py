"""Health, version, models, keys and the audit record."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from vultus import __version__, errors
from vultus.api.deps import App, Paged, Who, cursor_after
from vultus.api.guard import GuardedRoute, needs
from vultus.api.problems import body_problems, problems
from vultus.domain import Role
from vultus.schemas.base import Page
from vultus.schemas.galleries import KeyIn, KeyOut, NewKeyOut
from vultus.schemas.system import AuditOut, HealthOut, ModelOut, VersionOut
from vultus.utils.metrics import exposed

metrics = APIRouter(route_class=GuardedRoute)
router = APIRouter(route_class=GuardedRoute, tags=["system"])
DOWN: dict[int | str, dict[str, Any]] = {503: problems()[503]}


@router.get("/health/live", summary="Is the process alive?")
async def live() -> HealthOut:
    """Answer as long as the process can answer at all; needs no key."""
    return HealthOut()


@router.get("/health/ready", summary="Can requests be served?", responses=DOWN)
async def ready(app: App) -> HealthOut:
    """Answer 200 when the database answers and a worker is left for photos, else 503; needs no key."""
    app.images.check_workers()
    await app.database.ping()
    return HealthOut()


@metrics.get("/metrics", include_in_schema=False)
async def measured() -> Response:
    """Return counters and durations for Prometheus; needs no key, names nobody, and can be turned off."""
    text, kind = exposed()
    return Response(text, media_type=kind)


@router.get("/version", summary="What is running?", responses=problems(), openapi_extra=needs(Role.RECOGNIZE))
async def version() -> VersionOut:
    """Return name and version."""
    return VersionOut(version=__version__)


@router.get("/models", summary="Which networks are in use?", responses=problems(), openapi_extra=needs(Role.RECOGNIZE))
async def models(app: App) -> Page[ModelOut]:
    """Return the networks in use, their licences, their vector space and their measured thresholds."""
    return Page(items=[ModelOut.of(one) for one in app.pipelines], next_cursor=None)


@router.post(
    "/keys", status_code=201, summary="Create a key", responses=body_problems(), openapi_extra=needs(Role.ADMIN)
)
async def create_key(body: KeyIn, app: App, who: Who) -> NewKeyOut:
    """Make an API key; its secret is shown this once."""
    key, secret = await app.access.create(body.name, body.role, actor=who)
    return NewKeyOut(**KeyOut.like(key).model_dump(), secret=secret)


@router.get("/keys", summary="List keys", responses=problems(), openapi_extra=needs(Role.ADMIN))
async def list_keys(app: App, paging: Paged) -> Page[KeyOut]:
    """List keys in order of creation, revoked ones too, without secrets."""
    found = await app.access.page(after=paging.after, limit=paging.limit)
    return Page(items=[KeyOut.like(one) for one in found], next_cursor=cursor_after(found, paging.limit))


@router.delete(
    "/keys/{key_id}",
    summary="Revoke a key",
    responses=problems(errors.NotFoundError),
    openapi_extra=needs(Role.ADMIN),
)
async def revoke_key(key_id: UUID, app: App, who: Who) -> KeyOut:
    """Make a key useless from now on."""
    return KeyOut.like(await app.access.revoke(key_id, actor=who))


@router.get("/audit", summary="Read the audit record", responses=problems(), openapi_extra=needs(Role.ADMIN))
async def audit(
    app: App,
    paging: Paged,
    person_id: Annotated[UUID | None, Query(description="Only what concerns this person.")] = None,
) -> Page[AuditOut]:
    """List what was written, oldest first: who, what and when; ids and counts only."""
    found = await app.audit.page(after=paging.after, limit=paging.limit, person_id=person_id)
    return Page(items=[AuditOut.like(one) for one in found], next_cursor=cursor_after(found, paging.limit))
