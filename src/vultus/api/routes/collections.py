"""Isolated galleries."""

from __future__ import annotations

from fastapi import APIRouter

from vultus import errors
from vultus.api.deps import App, CollectionRef, Paged, Who, cursor_after
from vultus.api.guard import GuardedRoute, needs
from vultus.api.problems import body_problems, problems
from vultus.domain import Role
from vultus.schemas.base import Page
from vultus.schemas.calibration import CalibrationIn, CalibrationOut
from vultus.schemas.galleries import CollectionIn, CollectionOut, CollectionPatch, PolicyWire
from vultus.services.calibration.calibration import OwnGallery, Wanted

router = APIRouter(route_class=GuardedRoute, prefix="/collections", tags=["collections"])


@router.post(
    "",
    status_code=201,
    summary="Create a collection",
    responses=body_problems(errors.AlreadyExistsError, errors.NotFoundError, errors.CropKeyError),
    openapi_extra=needs(Role.ADMIN),
)
async def create_collection(body: CollectionIn, app: App, who: Who) -> CollectionOut:
    """Create an empty gallery that pins a pack's network, a decision policy and a retention rule."""
    policy = body.policy.resolve(app.collections.default_policy(body.pack))
    return CollectionOut.of(
        await app.collections.create(
            body.name, pack=body.pack, policy=policy, retention_days=body.retention_days, actor=who
        )
    )


@router.get("", summary="List collections", responses=problems(), openapi_extra=needs(Role.RECOGNIZE))
async def list_collections(app: App, paging: Paged) -> Page[CollectionOut]:
    """List collections in order of creation."""
    found = await app.collections.page(after=paging.after, limit=paging.limit)
    return Page(items=[CollectionOut.of(one) for one in found], next_cursor=cursor_after(found, paging.limit))


@router.get(
    "/{collection}",
    summary="Read a collection",
    responses=problems(errors.NotFoundError),
    openapi_extra=needs(Role.RECOGNIZE),
)
async def read_collection(collection: CollectionRef, app: App) -> CollectionOut:
    """Return a collection with its numbers of persons and faces."""
    return CollectionOut.of(*await app.collections.get(collection))


@router.patch(
    "/{collection}",
    summary="Change a collection",
    responses=body_problems(errors.NotFoundError, errors.AlreadyExistsError, errors.ConflictError, errors.CropKeyError),
    openapi_extra=needs(Role.ADMIN),
)
async def change_collection(collection: CollectionRef, body: CollectionPatch, app: App, who: Who) -> CollectionOut:
    """Change name, policy, retention or how it is searched; faces stay, and it holds from the next request on."""
    changes = {field: getattr(body, field) for field in body.model_fields_set}
    if "policy" in changes:
        default = await app.collections.default_policy_of(collection)
        wanted = body.policy or PolicyWire()
        changes |= {"policy": wanted.resolve(default), "staying": wanted.staying()}
    for field in ("name", "search"):
        if changes.get(field, ...) is None:
            del changes[field]
    return CollectionOut.of(await app.collections.change(collection, actor=who, **changes))


@router.delete(
    "/{collection}",
    status_code=204,
    summary="Delete a collection",
    responses=problems(errors.NotFoundError),
    openapi_extra=needs(Role.ADMIN),
)
async def delete_collection(collection: CollectionRef, app: App, who: Who) -> None:
    """Drop a gallery with everybody in it."""
    await app.collections.delete(collection, actor=who)


@router.post(
    "/{collection}/calibration",
    summary="Measure a collection on its own faces",
    responses=body_problems(errors.NotFoundError, errors.InvalidInputError, errors.PackNotLoadedError),
    openapi_extra=needs(Role.ADMIN),
)
async def calibrate_collection(collection: CollectionRef, body: CalibrationIn, app: App, who: Who) -> CalibrationOut:
    """Compare the enrolled faces with each other, report the error rates and propose a threshold for a wanted one.

    With `apply` the thresholds are stored and decide from the next request on. 5,000 faces take a few seconds.
    """
    job = OwnGallery(app.database, app.pipelines, app.collections)
    return CalibrationOut.like(await job.calibrate(collection, Wanted(**body.model_dump()), actor=who))


@router.delete(
    "/{collection}/calibration",
    status_code=204,
    summary="Forget a collection's own calibration",
    responses=problems(errors.NotFoundError),
    openapi_extra=needs(Role.ADMIN),
)
async def uncalibrate_collection(collection: CollectionRef, app: App, who: Who) -> None:
    """Go back to the thresholds of the pack; the policy stays as it is."""
    await app.collections.uncalibrate(collection, actor=who)
