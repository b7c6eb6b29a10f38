"""Webhooks: where events are delivered, and what became of the deliveries."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query

from vultus import errors
from vultus.api.created import name_location
from vultus.api.deps import PagingDep, PrincipalDep, ServicesDep, build_page
from vultus.api.guard import create_router, require_permission
from vultus.api.idempotency import refuse_idempotency_key
from vultus.api.problems import declare_body_problems, declare_problems
from vultus.api.routes.events import parse_number
from vultus.domain import Permission
from vultus.domain.webhooks import DeliveryState
from vultus.schemas.base import Page
from vultus.schemas.webhooks import (
    DeliveryOut,
    NewWebhookOut,
    ReplayIn,
    ReplayOut,
    WebhookIn,
    WebhookOut,
    WebhookPatch,
    WebhookRotationIn,
    WebhookTestOut,
)

router = create_router("/webhooks", tags=["events"])
_NO_ANSWER_KEPT = refuse_idempotency_key(
    "A webhook's secret is shown once and stored sealed, so its answer cannot be repeated. If it is lost, rotate it."
)
_HARMLESS = refuse_idempotency_key("To repeat it does no harm, so no answer is kept.")


@router.post(
    "",
    status_code=201,
    summary="Create a webhook",
    responses=declare_body_problems(
        errors.NotFoundError, errors.ConflictError, errors.KeyRingError, errors.IdempotencyNotSupportedError
    ),
    openapi_extra=require_permission(Permission.CONFIGURE) | name_location("/v1/webhooks/{id}"),
    dependencies=[_NO_ANSWER_KEPT],
)
async def create_webhook(body: WebhookIn, services: ServicesDep, principal: PrincipalDep) -> NewWebhookOut:
    """Send events from now on to an address, signed after Standard Webhooks; the secret is shown this once.

    The key needs the permission `read` as well, and `audit` for events of keys and webhooks. With the key the webhook
    ends.
    """
    webhook, secret = await services.webhooks.create_webhook(principal, body.to_grant(), collections=body.collections)
    return NewWebhookOut.from_domain(webhook, secret=secret)


@router.get(
    "", summary="List webhooks", responses=declare_problems(), openapi_extra=require_permission(Permission.CONFIGURE)
)
async def list_webhooks(services: ServicesDep, principal: PrincipalDep, paging: PagingDep) -> Page[WebhookOut]:
    """List webhooks in order of creation, without secrets; the address alone may be one."""
    found = await services.webhooks.list_webhooks(principal, after=paging.after, limit=paging.depth)
    return build_page(found, paging, WebhookOut.from_domain)


@router.get(
    "/{webhook_id}",
    summary="Read a webhook",
    responses=declare_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def read_webhook(webhook_id: UUID, services: ServicesDep, principal: PrincipalDep) -> WebhookOut:
    """Return a webhook without its secret: whether it fails, and why it was disabled."""
    return WebhookOut.from_domain(await services.webhooks.get_webhook(principal, webhook_id))


@router.patch(
    "/{webhook_id}",
    summary="Change a webhook",
    responses=declare_body_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def change_webhook(
    webhook_id: UUID, body: WebhookPatch, services: ServicesDep, principal: PrincipalDep
) -> WebhookOut:
    """Change a webhook, disable it, or enable it again; from then on this key answers for it.

    A JSON merge patch (RFC 7396): what is left out stays, null removes.
    """
    return WebhookOut.from_domain(await services.webhooks.update_webhook(principal, webhook_id, **body.to_changes()))


@router.delete(
    "/{webhook_id}",
    status_code=204,
    summary="Delete a webhook",
    responses=declare_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def delete_webhook(webhook_id: UUID, services: ServicesDep, principal: PrincipalDep) -> None:
    """Delete a webhook with its deliveries; its receiver is told nothing any more, not even of erasures."""
    await services.webhooks.delete_webhook(principal, webhook_id)


@router.post(
    "/{webhook_id}/rotate",
    summary="Give a webhook another secret",
    responses=declare_body_problems(errors.NotFoundError, errors.KeyRingError, errors.IdempotencyNotSupportedError),
    openapi_extra=require_permission(Permission.CONFIGURE),
    dependencies=[_NO_ANSWER_KEPT],
)
async def rotate_webhook(
    webhook_id: UUID, body: WebhookRotationIn, services: ServicesDep, principal: PrincipalDep
) -> NewWebhookOut:
    """Replace a webhook's secret, shown this once; for a while deliveries are signed with both."""
    webhook, secret = await services.webhooks.rotate_secret(principal, webhook_id, overlap_s=body.overlap_s)
    return NewWebhookOut.from_domain(webhook, secret=secret)


@router.post(
    "/{webhook_id}/test",
    summary="Send a test event",
    responses=declare_problems(
        errors.NotFoundError, errors.KeyRingError, errors.IdempotencyNotSupportedError, errors.OverloadedError
    ),
    openapi_extra=require_permission(Permission.CONFIGURE),
    dependencies=[_HARMLESS],
)
async def send_test_event(webhook_id: UUID, services: ServicesDep, principal: PrincipalDep) -> WebhookTestOut:
    """Send an event of type `webhook.test` now, once, and say what came of it; a disabled webhook is tested too."""
    return WebhookTestOut.from_attempt(await services.webhooks.send_test(principal, webhook_id))


@router.get(
    "/{webhook_id}/deliveries",
    summary="List deliveries",
    responses=declare_problems(errors.NotFoundError),
    openapi_extra=require_permission(Permission.CONFIGURE),
)
async def list_deliveries(
    webhook_id: UUID,
    services: ServicesDep,
    principal: PrincipalDep,
    state: Annotated[DeliveryState | None, Query(description="Only these; `dead` for dead letters.")] = None,
    cursor: Annotated[str | None, Query(description="From `next_cursor` of the page before.", max_length=64)] = None,
    newest_first: Annotated[
        bool, Query(description="From the newest to the oldest; a cursor is of one order.")
    ] = False,
    limit: Annotated[int, Query(ge=1, le=500, description="Most items on a page.")] = 50,
) -> Page[DeliveryOut]:
    """List deliveries in the order of their events, for as long as these are kept."""
    found = await services.webhooks.list_deliveries(
        principal,
        webhook_id,
        after=parse_number(cursor, "query.cursor"),
        limit=limit + 1,
        state=state,
        newest_first=newest_first,
    )
    items = found[:limit]
    return Page(
        items=[DeliveryOut.from_domain(one) for one in items],
        next_cursor=str(items[-1].number) if len(found) > limit else None,
    )


@router.post(
    "/{webhook_id}/replay",
    summary="Attempt dead deliveries again",
    responses=declare_body_problems(errors.NotFoundError, errors.IdempotencyNotSupportedError),
    openapi_extra=require_permission(Permission.CONFIGURE),
    dependencies=[_HARMLESS],
)
async def replay_deliveries(
    webhook_id: UUID, body: ReplayIn, services: ServicesDep, principal: PrincipalDep
) -> ReplayOut:
    """Attempt deliveries again whose every attempt failed, with all attempts they had at first."""
    replayed = await services.webhooks.replay_deliveries(principal, webhook_id, body.event_ids)
    return ReplayOut(replayed=replayed)
