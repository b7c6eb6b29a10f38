"""API keys: creation, listing, rotation and revocation."""

from __future__ import annotations

from uuid import UUID

from vultus import errors
from vultus.api.deps import PagingDep, PrincipalDep, ServicesDep, build_page
from vultus.api.guard import create_router, require_key, require_permission
from vultus.api.idempotency import refuse_idempotency_key
from vultus.api.problems import declare_body_problems, declare_problems
from vultus.domain import Permission
from vultus.schemas.base import Page
from vultus.schemas.keys import KeyIn, KeyOut, KeyRotationIn, NewKeyOut

router = create_router(tags=["system"])


@router.post(
    "/keys",
    status_code=201,
    summary="Create a key",
    responses=declare_body_problems(errors.NotFoundError, errors.IdempotencyNotSupportedError),
    openapi_extra=require_permission(Permission.KEYS),
    dependencies=[
        refuse_idempotency_key(
            "A key's secret is never stored, so its answer cannot be repeated. If it is lost, revoke the key and "
            "create another."
        )
    ],
)
async def create_key(body: KeyIn, services: ServicesDep, principal: PrincipalDep) -> NewKeyOut:
    """Make an API key, which may do no more than the key that makes it; its secret is shown this once."""
    key, secret = await services.access.create_key(
        principal,
        body.name,
        body.get_permissions(),
        owner=body.owner,
        collections=body.collections,
        searches_per_hour=body.searches_per_hour,
        expires_at=body.expires_at,
    )
    return NewKeyOut.from_domain(key, secret=secret)


@router.get(
    "/keys", summary="List keys", responses=declare_problems(), openapi_extra=require_permission(Permission.KEYS)
)
async def list_keys(services: ServicesDep, principal: PrincipalDep, paging: PagingDep) -> Page[KeyOut]:
    """List keys in order of creation, revoked ones too, without secrets."""
    found = await services.access.list_keys(principal, after=paging.after, limit=paging.depth)
    return build_page(found, paging, KeyOut.from_domain)


@router.get("/key", summary="Read the key of this request", responses=declare_problems(), openapi_extra=require_key())
async def read_own_key(principal: PrincipalDep) -> KeyOut:
    """Return the key that the request was made with, without its secret: what it may do, and where."""
    if principal.key is None:
        raise errors.UnauthenticatedError("Send an API key.")
    return KeyOut.from_domain(principal.key)


@router.post(
    "/keys/{key_id}/rotate",
    summary="Give a key another secret",
    responses=declare_body_problems(errors.NotFoundError, errors.ConflictError, errors.IdempotencyNotSupportedError),
    openapi_extra=require_permission(Permission.KEYS),
    dependencies=[
        refuse_idempotency_key("A key's secret is never stored, so its answer cannot be repeated. Rotate it again.")
    ],
)
async def rotate_key(key_id: UUID, body: KeyRotationIn, services: ServicesDep, principal: PrincipalDep) -> NewKeyOut:
    """Replace a key's secret, shown this once; the present one is accepted a while longer, an older one is not."""
    key, secret = await services.access.rotate_key(principal, key_id, overlap_s=body.overlap_s)
    return NewKeyOut.from_domain(key, secret=secret)


@router.delete(
    "/keys/{key_id}",
    summary="Revoke a key",
    responses=declare_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.KEYS),
)
async def revoke_key(key_id: UUID, services: ServicesDep, principal: PrincipalDep) -> KeyOut:
    """Make a key useless from now on."""
    return KeyOut.from_domain(await services.access.revoke_key(principal, key_id))
