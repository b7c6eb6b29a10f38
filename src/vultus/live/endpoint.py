"""The WebSocket `/v1/live`, and its description, in the application of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from vultus.live.asyncapi import show_asyncapi
from vultus.live.connection import LiveConnection
from vultus.live.handshake import check_handshake
from vultus.live.protocol import Limits
from vultus.live.sessions import SessionRegistry
from vultus.schemas.live import PATH
from vultus.server.refusals import Refusal
from vultus.utils.request_scope import RequestScope

ASYNCAPI_PATH = "/asyncapi.json"
FRAME_ROOM_BYTES = 2**16
"""Read beyond the longest frame: its header, and so much too much that the client is told which rule it broke."""

NO_WEBSOCKET = Refusal(
    404, "not_found", "Not found", f"There is no WebSocket at this path: live sessions are at {PATH}."
)

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send
    from starlette.websockets import WebSocket

    from vultus.services.wiring import Services
    from vultus.utils.request_scope import RequestLimits


def add_live(app: Starlette, services: Services, limits: RequestLimits) -> SessionRegistry:
    """Serve live sessions in an application.

    Args:
        app: Of the API.
        services: Stay open while it runs.
        limits: Those of the application's requests.

    Returns:
        The sessions; `check_sessions` runs every second, `close` at the end.
    """
    settings = services.settings
    sessions = SessionRegistry(services.tickets, services.streams, settings.live)
    bounds = Limits(settings.live.max_frame_bytes, settings.live.idle_s, settings.live.resume_s)

    async def serve_session(websocket: WebSocket) -> None:
        handshake = check_handshake(websocket, settings.server.cors_origins)
        if isinstance(handshake, Refusal):
            await websocket.send_denial_response(_build_response(handshake))
            return
        with RequestScope(limits, websocket.headers.get("x-request-id", "")) as scope:
            scope.begin_wait()  # a session waits for its client most of the time
            try:
                await websocket.accept(handshake.protocol)
                await LiveConnection(websocket, sessions, bounds).serve(handshake.offered)
            finally:
                scope.end_wait()

    app.router.default = _build_fallback(app.router.default)
    app.router.routes += [
        WebSocketRoute(PATH, serve_session),
        Route(PATH, refuse_request),
        Route(ASYNCAPI_PATH, show_asyncapi),
    ]
    return sessions


async def refuse_request(_request: Request) -> Response:
    """Refuse what is no handshake, or was one until a proxy."""
    raise HTTPException(
        426,
        f"{PATH} is a WebSocket: connect with ws:// or wss://, see docs/live.md. If you did, a proxy on the way took "
        "the header `Upgrade` away: let it pass `Upgrade` and `Connection` on.",
        {"Upgrade": "websocket", "Connection": "Upgrade"},
    )


def _build_fallback(otherwise: ASGIApp) -> ASGIApp:
    """Return what answers where no route does: to a WebSocket with problem details, too."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        fallback = _build_response(NO_WEBSOCKET) if scope["type"] == "websocket" else otherwise
        await fallback(scope, receive, send)

    return answer


def _build_response(refusal: Refusal) -> Response:
    body, headers = refusal.build_problem()
    return Response(body, refusal.status, headers, media_type="application/problem+json")
