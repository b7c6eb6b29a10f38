"""Tickets of live sessions; the sessions themselves are WebSockets (`vultus.live`)."""

from __future__ import annotations

from vultus import errors
from vultus.api.deps import PrincipalDep, ServicesDep
from vultus.api.guard import create_router, require_permission
from vultus.api.idempotency import refuse_idempotency_key
from vultus.api.problems import declare_body_problems
from vultus.domain import Permission
from vultus.schemas.live import TicketIn, TicketOut

router = create_router(tags=["live"])


@router.post(
    "/live/tickets",
    status_code=201,
    summary="Make a ticket for a live session",
    responses=declare_body_problems(errors.NotFoundError, errors.IdempotencyNotSupportedError),
    openapi_extra=require_permission(Permission.LIVE),
    dependencies=[refuse_idempotency_key("A ticket is never stored, so its answer cannot be repeated. Make another.")],
)
async def create_ticket(body: TicketIn, services: ServicesDep, principal: PrincipalDep) -> TicketOut:
    """Make a ticket that opens one session on the WebSocket `/v1/live`, once, within 30 seconds."""
    ticket, secret = await services.tickets.issue_ticket(
        principal,
        body.collection,
        scores=body.scores,
        frames_per_second=body.frames_per_second,
        session_s=body.session_s,
    )
    return TicketOut.from_domain(ticket, secret)
