"""A route that checks key and permission before it reads the body, and limits what it reads."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from fastapi.params import Form
from fastapi.routing import APIRoute, APIRouter
from starlette.requests import Request

from vultus.api.bodies import check_content_type, read_body
from vultus.api.created import LOCATION_KEY, add_location, build_replay
from vultus.api.endpoints import Endpoint
from vultus.api.problems import build_validation_error
from vultus.api.sentences import format_unknown_name
from vultus.api.shapes import BodyShape
from vultus.domain import Permission, Principal, RepeatedRequestError
from vultus.errors import BodyTooLargeError, MalformedRequestError
from vultus.utils.request_scope import get_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from enum import Enum

    from fastapi.dependencies.models import Dependant
    from starlette.datastructures import Headers
    from starlette.responses import Response
    from starlette.types import Message, Receive, Scope, Send

    from vultus.services.wiring import Services
    from vultus.utils.request_scope import RequestScope

PERMISSION_KEY = "x-required-permission"
MAX_JSON_KEY = "x-max-json-bytes"
PHOTOS_KEY = "x-photos"
ANY_KEY = "x-any-key"
SLOW_BODY_S = 1.0
"""After a body that took longer the key is looked up again: it may have been revoked or have expired meanwhile."""


def require_permission(
    permission: Permission, *, photos: bool = False, max_json_bytes: int | None = None
) -> dict[str, Any]:
    """Declare the permission of a route, shown in the OpenAPI document and enforced by the guard.

    Args:
        permission: Of the principal.
        photos: Whether photos are in the body, of a form or JSON: it is read only once the admission queue has a slot,
            which is `request.state.reservation`, and may be as long as photos are.
        max_json_bytes: Longest JSON body, where it is not that of the settings; never longer than one with photos.
    """
    limit = {} if max_json_bytes is None else {MAX_JSON_KEY: max_json_bytes}
    return {PERMISSION_KEY: permission.value} | ({PHOTOS_KEY: True} if photos else {}) | limit


def require_key() -> dict[str, Any]:
    """Declare that a route takes every key, whatever it may do."""
    return {ANY_KEY: True}


class GuardedRoute(APIRoute):
    """Authenticates, authorizes, refuses unknown query parameters, reads the body up to its limit, and answers."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        handle = self.get_route_handler()

        async def answer_request(scope: Scope, receive: Receive, send: Send) -> None:
            response = await handle(Request(scope, receive, send))
            await response(scope, receive, send)

        # FastAPI's own keeps stacks of context managers for each request, which no endpoint here uses.
        self.app = answer_request

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        endpoint = Endpoint(self)
        extra = self.openapi_extra or {}
        declared = extra.get(PERMISSION_KEY)
        permission = None if declared is None else Permission(declared)
        known_parameters = _list_query_parameters(self.dependant)
        needs_key = permission is not None or ANY_KEY in extra
        takes_photos = PHOTOS_KEY in extra
        shape = find_body_shape(self)
        location = extra.get(LOCATION_KEY)

        async def handle_request(request: Request) -> Response:
            services: Services = request.app.state.services
            scope = get_scope()
            if takes_photos:  # first: under overload a refusal must cost no query
                client = services.access.recall_caller(_read_key(request.headers))
                services.photo_analyzer.ensure_capacity(client)
            if needs_key:
                await _authorize(request, services, scope, permission)
            _check_query(request, known_parameters)
            request.state.body_shape = shape
            content_type = check_content_type(shape, request) if shape else None
            limits = services.settings.server
            max_json_bytes = extra.get(MAX_JSON_KEY, limits.max_json_bytes)
            max_bytes = limits.max_body_bytes if takes_photos else min(max_json_bytes, limits.max_body_bytes)
            limited = Request(request.scope, _LimitedBody(request, scope, max_bytes).receive)
            reservation = services.photo_analyzer.reserve_slot(scope.principal.id) if takes_photos else None
            limited.state.reservation = reservation
            try:
                with reservation or nullcontext():
                    began_s = scope.elapsed_s
                    body = await read_body(limited, shape, content_type) if shape and content_type else None
                    if needs_key and scope.elapsed_s - began_s > SLOW_BODY_S:
                        await _authorize(request, services, scope, permission)
                    limited.state.body = body
                    response = await endpoint.call(limited, body)
            except RepeatedRequestError as repeated:
                response = build_replay(repeated.stored, self.response_model)
            finally:
                scope.release_bytes()
            if location is not None:
                add_location(response, location, request)
            return response

        return handle_request


def create_router(prefix: str = "", *, tags: list[str | Enum]) -> APIRouter:
    """Return a router for guarded operations under `/v1`, named like their functions."""
    return APIRouter(
        route_class=GuardedRoute,
        prefix=f"/v1{prefix}",
        tags=tags,
        generate_unique_id_function=lambda route: route.name,
    )


def find_body_shape(route: APIRoute) -> BodyShape | None:
    """Return what a route reads of a body, which is one model; None if it reads none."""
    if route.body_field is None:
        return None
    (parameter,) = route.dependant.body_params
    model: Any = parameter.field_info.annotation
    return BodyShape(model, is_form=isinstance(parameter.field_info, Form))


def _check_query(request: Request, known: set[str]) -> None:
    """Refuse query parameters that the route does not read, or reads once and were given twice."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    wrong = [
        {"path": f"query.{name}", "message": "given twice; send it once", "code": "twice"}
        if name in known
        else {
            "path": f"query.{name}",
            "message": format_unknown_name("query parameter", name, known),
            "code": "extra_forbidden",
        }
        for name, count in sorted(counts.items())
        if count > 1 or name not in known
    ]
    if wrong:
        raise build_validation_error(wrong)


def _list_query_parameters(dependant: Dependant) -> set[str]:
    """Return the query parameters of a route and its dependencies."""
    names = {parameter.alias for parameter in dependant.query_params}
    return names.union(*map(_list_query_parameters, dependant.dependencies))


async def _authorize(request: Request, services: Services, scope: RequestScope, permission: Permission | None) -> None:
    """Find the principal of a request, and require its permission, if one is needed."""
    scope.principal = await authenticate_request(request, services, scope)
    if permission is not None:
        scope.principal.require(permission)


async def authenticate_request(request: Request, services: Services, scope: RequestScope) -> Principal:
    """Return the principal of the key sent as `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
    address = request.client.host if request.client else None
    key = await services.access.authenticate(_read_key(request.headers), address)
    return Principal.from_key(key, scope.request_id)


def _read_key(headers: Headers) -> str | None:
    """Return the one key that a request has; blanks around it are no part of it.

    Raises:
        MalformedRequestError: It has several that differ.
    """
    keys = {key.strip() for key in headers.getlist("x-api-key")}
    for credentials in headers.getlist("authorization"):
        scheme, *token = credentials.split(maxsplit=1) or [""]
        if scheme.lower() == "bearer":
            keys.add(token[0].strip() if token else "")
    if len(keys) > 1:
        raise MalformedRequestError(
            "Authorization and X-API-Key, or two of either, hold different keys: send one key, once."
        )
    return next(iter(keys), None)


class _LimitedBody:
    """Reads a request's body within its own limit, the limit of all bodies together."""

    def __init__(self, request: Request, scope: RequestScope, limit: int) -> None:
        self._receive = request.receive
        self._content_length = request.headers.get("content-length", "")
        self._max_bytes = limit
        self._scope = scope
        self._length = 0
        self._is_complete = False

    async def receive(self) -> Message:
        """Return the next part of the body."""
        if self._content_length.isdigit() and int(self._content_length) > self._max_bytes:
            raise self._build_too_long_error()
        self._scope.begin_wait()
        try:
            message = await self._receive()
        finally:
            self._scope.end_wait()
        if message["type"] == "http.disconnect" and not self._is_complete:
            raise MalformedRequestError("The request breaks off: its body is incomplete. Nothing was changed.")
        self._is_complete = not message.get("more_body", False)
        self._reserve_memory(len(message.get("body", b"")))
        return message

    def _reserve_memory(self, length: int) -> None:
        self._length += length
        if self._length > self._max_bytes:
            raise self._build_too_long_error()
        self._scope.hold_bytes(length)

    def _build_too_long_error(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"The request is longer than {self._max_bytes:,} bytes; reading stopped there.")
