"""A route that checks the key and the role before it reads a byte of the body, and limits what it reads."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Any

from fastapi.params import Form
from fastapi.routing import APIRoute
from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vultus.api.problems import InvalidRequestError
from vultus.domain import ApiKey, Role
from vultus.errors import BodyTooLargeError, OverloadedError, RequestTimeoutError, VultusError
from vultus.utils import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from fastapi.dependencies.models import Dependant
    from starlette.datastructures import FormData, Headers
    from starlette.responses import Response
    from starlette.types import Message

    from vultus.services.wiring import Services

ROLE = "x-required-role"
LONG = "x-long-body"
IDLE_S = 20.0
"""Longest silence of a client that is still sending its body."""

BODY_S = 300.0
"""Longest time a body may take from its first part to its last."""


def needs(role: Role, *, long_body: bool = False) -> dict[str, Any]:
    """Declare the role of a route; it shows in the OpenAPI document and is what the guard enforces.

    Args:
        role: The least.
        long_body: Whether JSON may be as long as a form with photos.
    """
    return {ROLE: role.value} | ({LONG: True} if long_body else {})


class _BodyError(HTTPException):
    """Carries an error through FastAPI's reading of the body, which turns everything else into 400."""

    def __init__(self, meant: VultusError) -> None:
        super().__init__(400)
        self.meant = meant


class _WholeFormParser(MultiPartParser):
    """Reads a multipart form in memory, and refuses one that breaks off.

    The library takes the end of the body for the end of the form: of a form that breaks off, its last part would be
    missing without a word, be it the end of a consent.
    """

    spool_max_size = 2**31  # a photo never touches a temporary file; the body's limit bounds the memory instead

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], **limits: Any) -> None:
        super().__init__(headers, self._read_to_its_end(stream), **limits)
        self._has_ended = False

    def on_end(self) -> None:
        """Note that the closing boundary was read."""
        self._has_ended = True

    async def _read_to_its_end(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for part in stream:
            yield part
        if not self._has_ended:
            raise MultiPartException(
                "The form breaks off: the boundary that closes it is missing. Nothing was changed; send it again whole."
            )


class _StrictRequest(Request):
    """A request whose JSON is strict, and whose form is whole.

    JSON may hold no NaN, no lone surrogates and no nesting that exhausts the stack.
    """

    async def _get_form(self, **limits: Any) -> FormData:
        content_type, _ = parse_options_header(self.headers.get("Content-Type"))
        if self._form is None and content_type == b"multipart/form-data":
            try:
                async with aclosing(self.stream()) as stream:
                    self._form = await _WholeFormParser(self.headers, stream, **limits).parse()
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
        needed = (self.openapi_extra or {}).get(ROLE)
        known = _query_names(self.dependant)
        form = self.body_field is not None and isinstance(self.body_field.field_info, Form)
        long_body = form or LONG in (self.openapi_extra or {})

        async def guarded(request: Request) -> Response:
            services: Services = request.app.state.services
            if form:  # first: under overload a refusal must cost nothing, not even a question to the database
                services.images.check_room()
            if needed is not None:
                request.state.key = await authenticate(request, services)
                services.access.authorize(request.state.key, Role(needed))
            if unknown := sorted(set(request.query_params) - known):
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
            body = _Body(request, limits.max_body_bytes if long_body else limits.max_json_bytes)
            try:
                with services.images.place() if form else nullcontext():
                    return await handle(_StrictRequest(request.scope, body.receive))
            except _BodyError as error:
                raise error.meant from None
            finally:
                body.release()

        return guarded


def _query_names(dependant: Dependant) -> set[str]:
    """Return the query parameters a route and its dependencies know."""
    own = {parameter.alias for parameter in dependant.query_params}
    return own.union(*map(_query_names, dependant.dependencies))


async def authenticate(request: Request, services: Services) -> ApiKey:
    """Return the key sent as `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
    secret = request.headers.get("x-api-key")
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        secret = token.strip()
    return await services.access.authenticate(secret)


class _Body:
    """Reads one request's body: up to its limit, within the memory of all, and not from a client that fell silent."""

    def __init__(self, request: Request, limit: int) -> None:
        self._receive = request.receive
        self._announced = request.headers.get("content-length", "")
        self._limit = limit
        self._state = request.app.state
        self._held = 0
        self._until = time.monotonic() + BODY_S

    async def receive(self) -> Message:
        """Return the next part of the body."""
        if self._announced.isdigit() and int(self._announced) > self._limit:
            raise self._too_long()
        try:
            async with asyncio.timeout(min(IDLE_S, self._until - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise _BodyError(
                RequestTimeoutError(
                    f"The body stopped arriving for {IDLE_S:.0f} seconds, or took more than {BODY_S:.0f} in all."
                )
            ) from None
        self._hold(len(message.get("body", b"")))
        return message

    def release(self) -> None:
        """Give the memory back."""
        self._state.bodies_bytes -= self._held

    def _hold(self, length: int) -> None:
        self._held += length
        self._state.bodies_bytes += length
        if self._held > self._limit:
            raise self._too_long()
        if self._state.bodies_bytes > self._state.services.settings.server.max_bodies_bytes:
            metrics.of(metrics.REFUSED, "bytes").inc()
            raise _BodyError(OverloadedError("Too many bytes of requests are under way; try again soon."))

    def _too_long(self) -> _BodyError:
        return _BodyError(
            BodyTooLargeError(f"The request is longer than {self._limit:,} bytes; reading stopped there.")
        )
