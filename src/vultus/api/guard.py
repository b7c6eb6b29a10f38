"""A route that checks key and permission before it reads the body, and limits what it reads."""

from __future__ import annotations

import json
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute
from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vultus.api.problems import InvalidRequestError
from vultus.domain import Permission, Principal
from vultus.errors import BodyTooLargeError, MalformedRequestError, OverloadedError, VultusError
from vultus.utils.request_scope import get_scope

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from fastapi.dependencies.models import Dependant
    from starlette.datastructures import FormData, Headers
    from starlette.responses import Response
    from starlette.types import Message

    from vultus.services.wiring import Services
    from vultus.utils.request_scope import RequestScope

PERMISSION_KEY = "x-required-permission"
LONG_BODY_KEY = "x-long-body"
PHOTOS_KEY = "x-photos"


def require_permission(permission: Permission, *, photos: bool = False, long_body: bool = False) -> dict[str, Any]:
    """Declare the permission of a route, shown in the OpenAPI document and enforced by the guard.

    Args:
        permission: Of the principal.
        photos: Whether photos are in the body, of a form or JSON: it is read only once the admission queue has a slot,
            which is `request.state.reservation`, and may be as long as photos are.
        long_body: Whether a body without photos may be as long.
    """
    declared: dict[str, Any] = {PERMISSION_KEY: permission.value}
    return declared | ({PHOTOS_KEY: True} if photos else {}) | ({LONG_BODY_KEY: True} if long_body else {})


class _BodyReadError(HTTPException):
    """Wraps an error raised while FastAPI reads the body: FastAPI turns any other exception into 400."""

    def __init__(self, original_error: VultusError) -> None:
        super().__init__(400)
        self.original_error = original_error


class _CompleteFormParser(MultiPartParser):
    """Reads a multipart form in memory, and refuses a truncated one.

    The library takes the end of the body for the end of the form: the last part of a truncated form would be silently
    missing, for example the end of a consent.
    """

    spool_max_size = 2**31  # a photo never touches a temporary file; the body's limit bounds the memory instead

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], **limits: Any) -> None:
        super().__init__(headers, self._read_until_boundary(stream), **limits)
        self._is_complete = False

    def on_end(self) -> None:
        """Record that the closing boundary was read."""
        self._is_complete = True

    async def _read_until_boundary(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for part in stream:
            yield part
        if not self._is_complete:
            raise MultiPartException(
                "The form breaks off: the boundary that closes it is missing. Nothing was changed; send it again whole."
            )


class _StrictRequest(Request):
    """A request whose JSON is strict and whose form is complete.

    JSON must not contain NaN, lone surrogates, or nesting that exhausts the stack.
    """

    async def _get_form(self, **limits: Any) -> FormData:
        content_type, _ = parse_options_header(self.headers.get("Content-Type"))
        if self._form is None and content_type == b"multipart/form-data":
            try:
                async with aclosing(self.stream()) as stream:
                    self._form = await _CompleteFormParser(self.headers, stream, **limits).parse()
            except MultiPartException as error:
                raise HTTPException(400, error.message) from None
        return await super()._get_form(**limits)

    async def json(self) -> Any:
        body = await self.body()
        try:
            return from_json(body, allow_inf_nan=False, cache_strings=False)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


class GuardedRoute(APIRoute):
    """Authenticates, authorizes, refuses unknown query parameters, then reads the body up to its limit."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()
        extra = self.openapi_extra or {}
        declared = extra.get(PERMISSION_KEY)
        permission = None if declared is None else Permission(declared)
        known_parameters = _list_query_parameters(self.dependant)
        takes_photos = PHOTOS_KEY in extra
        long_body = takes_photos or LONG_BODY_KEY in extra

        async def handle_request(request: Request) -> Response:
            services: Services = request.app.state.services
            scope = get_scope()
            if takes_photos:  # first: under overload a refusal must cost no query
                services.photo_analyzer.ensure_capacity()
            if permission is not None:
                scope.principal = await authenticate_request(request, services, scope)
                scope.principal.require(permission)
            if unknown := sorted(set(request.query_params) - known_parameters):
                raise InvalidRequestError(
                    f"Unknown query parameter: {', '.join(unknown)}.",
                    errors=[
                        {
                            "path": f"query.{name}",
                            "message": "Extra inputs are not permitted",
                            "code": "extra_forbidden",
                        }
                        for name in unknown
                    ],
                )
            limits = services.settings.server
            body = _LimitedBody(request, scope, limits.max_body_bytes if long_body else limits.max_json_bytes)
            request.state.reservation = reservation = services.photo_analyzer.reserve_slot() if takes_photos else None
            try:
                with reservation or nullcontext():
                    return await handle(_StrictRequest(request.scope, body.receive))
            except _BodyReadError as error:
                raise error.original_error from None
            finally:
                scope.release_bytes()

        return handle_request


def _list_query_parameters(dependant: Dependant) -> set[str]:
    """Return the query parameters of a route and its dependencies."""
    names = {parameter.alias for parameter in dependant.query_params}
    return names.union(*map(_list_query_parameters, dependant.dependencies))


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
        scheme, _, token = credentials.strip().partition(" ")
        if scheme.lower() == "bearer":
            keys.add(token.strip())
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

    async def receive(self) -> Message:
        """Return the next part of the body."""
        if self._content_length.isdigit() and int(self._content_length) > self._max_bytes:
            raise self._build_too_long_error()
        self._scope.begin_wait()
        try:
            message = await self._receive()
        except VultusError as error:  # the body comes too slowly, or breaks off
            raise _BodyReadError(error) from None
        finally:
            self._scope.end_wait()
        self._reserve_memory(len(message.get("body", b"")))
        return message

    def _reserve_memory(self, length: int) -> None:
        self._length += length
        if self._length > self._max_bytes:
            raise self._build_too_long_error()
        try:
            self._scope.hold_bytes(length)
        except OverloadedError as error:
            raise _BodyReadError(error) from None

    def _build_too_long_error(self) -> _BodyReadError:
        return _BodyReadError(
            BodyTooLargeError(f"The request is longer than {self._max_bytes:,} bytes; reading stopped there.")
        )
