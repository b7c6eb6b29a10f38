"""The FastAPI application: routes, problem details, documentation. Services are passed in."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.telemetry import TelemetryConfig
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware

from vultus import __version__
from vultus.api import problems
from vultus.api.docs_page import add_documentation, redirect_to
from vultus.api.middleware import RequestContextMiddleware
from vultus.api.openapi import SERVERS, build_openapi_schema
from vultus.api.routes import (
    collections,
    decisions,
    erasures,
    events,
    keys,
    live,
    migrations,
    persons,
    recognition,
    registration,
    sources,
    system,
    vectors,
    webhooks,
)
from vultus.server.proxies import ForwardedMiddleware
from vultus.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from vultus.services.wiring import Services
    from vultus.utils.request_scope import RequestLimits

CORS_EXPOSED_HEADERS = (
    "X-Request-ID",
    "Server-Timing",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "Idempotent-Replayed",
    "WWW-Authenticate",
)
ROUTERS = (
    recognition.router,
    registration.router,
    collections.router,
    migrations.router,
    persons.persons,
    persons.faces,
    persons.consents,
    erasures.router,
    vectors.router,
    events.router,
    webhooks.router,
    live.router,
    sources.router,
    keys.router,
    decisions.router,
    system.router,
)
"""In the order in which routes are tried."""

NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI reports requests, with their paths, to whatever OpenTelemetry exporter the environment configures."""

DESCRIPTION = """Register people with their consent, recognise them in photos, forget them completely.

Send your key as `Authorization: Bearer KEY` or `X-API-Key: KEY`. Errors are problem details (RFC 9457) with a stable
`code`. Every verdict names its threshold, the false match rate it stands for, and what that means for the gallery."""


class Application(FastAPI):
    """FastAPI without the layers that it puts around every request; what they serve is not used here."""

    build_middleware_stack = Starlette.build_middleware_stack


def create_app(services: Services, *, limits: RequestLimits, settings: ServerSettings | None = None) -> FastAPI:
    """Build the application on services that stay open while it runs.

    Args:
        services: Available to every route.
        limits: What all requests may take together.
        settings: Proxies, origins, and whether `GET /metrics` is served here; the defaults unless given.
    """
    app = Application(
        title="Vultus",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        telemetry=NO_TELEMETRY,
    )
    app.state.services = services
    settings = settings or ServerSettings()
    _add_middleware(app, settings, limits)
    problems.register_error_handlers(app)
    # Themselves, not by include_router: FastAPI looks for the route of an included router anew on every level, which
    # takes a tenth of what this process spends on a photo.
    app.router.routes += [route for router in ROUTERS for route in router.routes]
    if settings.metrics == "shared":
        app.router.routes += system.metrics.routes
    _add_unversioned_redirects(app)
    add_documentation(app)
    _add_openapi_document(app)
    return app


def _add_middleware(app: FastAPI, settings: ServerSettings, limits: RequestLimits) -> None:
    """Add what wraps every request; the last added is the outermost."""
    app.add_middleware(RequestContextMiddleware, limits=limits)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=CORS_EXPOSED_HEADERS,
        )
    if settings.trusted_proxies:
        app.add_middleware(ForwardedMiddleware, networks=settings.trusted_proxies)


def _add_unversioned_redirects(app: FastAPI) -> None:
    """Redirect the unversioned paths of the two main operations to version 1; body and method are kept."""
    for path in ("/register", "/recognize"):
        app.add_route(path, _build_redirect_endpoint(f"v1{path}"), methods=["POST"], include_in_schema=False)


def _build_redirect_endpoint(path: str) -> Callable[[Request], Coroutine[None, None, RedirectResponse]]:
    async def send_redirect(request: Request) -> RedirectResponse:
        return redirect_to(path, request, 308)

    return send_redirect


def _encode_compactly(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _add_openapi_document(app: FastAPI) -> None:
    """Serve the OpenAPI document: no key is needed, so it is made once, in a thread, and kept once for all prefixes."""
    rendered: list[bytes] = []
    rendering = asyncio.Lock()

    def get_cached_schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = build_openapi_schema(app)
        return app.openapi_schema

    def render_schema() -> bytes:
        return _encode_compactly(get_cached_schema())

    async def show_document(request: Request) -> Response:
        async with rendering:
            if not rendered:
                rendered.append(await asyncio.to_thread(render_schema))
        document = rendered[0]
        if prefix := request.scope.get("root_path", "").rstrip("/"):  # of the settings or a trusted proxy
            document = document.replace(_encode_compactly(SERVERS), _encode_compactly([{"url": prefix}]), 1)
        return Response(document, media_type="application/json")

    app.openapi = get_cached_schema  # type: ignore[method-assign]
    app.add_route("/openapi.json", show_document, include_in_schema=False)
