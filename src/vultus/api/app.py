"""The FastAPI application: routes, problems, documentation. Services are given, not made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic.json_schema import models_json_schema
from starlette.staticfiles import StaticFiles

from vultus import __version__
from vultus.api import problems
from vultus.api.guard import ROLE
from vultus.api.middleware import RequestContext
from vultus.api.openapi import add_examples
from vultus.api.routes import collections, persons, recognition, registration, system, transitions, vectors
from vultus.schemas.system import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from vultus.services.wiring import Services

ASSETS = "/docs-assets"
DESCRIPTION = """Register people with their consent, recognise them in photos, forget them completely.

Send your key as `Authorization: Bearer KEY` or `X-API-Key: KEY`. Errors are problem details (RFC 9457) with a stable
`code`. Every verdict names its threshold, the false match rate it stands for, and what that means for the gallery."""


def create_app(services: Services, *, max_requests: int, metrics: bool = True) -> FastAPI:
    """Build the application on services that are open for as long as it runs.

    Args:
        services: Given to every route.
        max_requests: Requests under way before new ones are refused.
        metrics: Whether whoever reaches the server may read how busy it is.
    """
    app = FastAPI(
        title="Vultus",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.services = services
    app.state.bodies_bytes = 0  # held in memory by all requests together
    app.add_middleware(RequestContext, max_requests=max_requests)
    problems.install(app)
    v1 = APIRouter(prefix="/v1")
    for router in (
        registration.router,
        recognition.router,
        collections.router,
        transitions.router,
        persons.persons,
        persons.faces,
        persons.consents,
        vectors.router,
        system.router,
    ):
        v1.include_router(router)
    app.include_router(v1)
    if metrics:
        app.include_router(system.metrics)
    _redirect(app)
    _document(app)
    return app


def _redirect(app: FastAPI) -> None:
    """Send callers of the two main operations without the version on to version 1, body and method kept."""
    for path in ("/register", "/recognize"):
        app.add_api_route(path, _redirect_to(f"/v1{path}"), methods=["POST"], status_code=308, include_in_schema=False)


def _redirect_to(path: str) -> Callable[[], Coroutine[None, None, RedirectResponse]]:
    """Return an endpoint without parameters: whatever parameters it had, FastAPI would take them from the request."""

    async def redirect() -> RedirectResponse:
        return RedirectResponse(path, 308)

    return redirect


def _document(app: FastAPI) -> None:
    """Serve the documentation from this machine alone; no page asks another host for anything."""
    app.mount(ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]))

    @app.get("/", include_in_schema=False)
    async def start() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Vultus API",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon.png",
        )

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schema(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        license_info=app.license_info,
        routes=app.routes,
    )
    schema["components"]["schemas"] |= models_json_schema(
        [(Problem, "serialization")], ref_template="#/components/schemas/{model}"
    )[1]["$defs"]
    schema["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for methods in schema["paths"].values():
        for operation in methods.values():
            if ROLE in operation:
                operation["security"] = [{"bearer": []}, {"header": []}]
                operation["description"] += f"\n\nNeeds a key with role `{operation[ROLE]}` or higher."
            else:
                operation["responses"].pop("422", None)
            add_examples(operation["operationId"], operation)
    return schema
