"""Calls of endpoints: their arguments from path, query, headers and body, their results as JSON.

FastAPI derives from signatures what an endpoint takes, here as everywhere. Its own call of an endpoint supports far
more, and takes a quarter of what this process spends on a photo; here all is prepared once per route.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter
from starlette.responses import Response

from vultus.api.bodies import validate_body

if TYPE_CHECKING:
    from fastapi.dependencies.models import Dependant
    from fastapi.routing import APIRoute
    from starlette.requests import Request

    from vultus.api.bodies import RequestBody


class Endpoint:
    """The function of a route, called for a request.

    Args:
        route: Its dependencies are coroutine functions without `yield`, and its body is one model.
    """

    def __init__(self, route: APIRoute) -> None:
        self._arguments = _Arguments(route.dependant)
        self._status = route.status_code or 200
        self._model: TypeAdapter[Any] | None = None
        if route.response_model is not None:
            self._model = TypeAdapter(route.response_model)

    async def call(self, request: Request, body: RequestBody | None) -> Response:
        """Return the response.

        Args:
            request: Path, query and headers are read from it.
            body: As it was read; None if the route reads none.

        Raises:
            RequestValidationError: Arguments are wrong; it names all of them.
        """
        errors: list[Any] = []
        arguments = await self._arguments.resolve(request, body, errors)
        if errors:
            raise RequestValidationError(errors)
        result = await self._arguments.function(**arguments)
        if isinstance(result, Response):
            return result
        if self._model is None:
            return Response(status_code=self._status)
        return Response(self._model.dump_json(result, by_alias=True), self._status, media_type="application/json")


class _Arguments:
    """What a function takes: values of other functions, parameters, the body and the request."""

    def __init__(self, dependant: Dependant) -> None:
        if not iscoroutinefunction(dependant.call) or dependant.cookie_params:
            raise TypeError(f"{dependant.path}: {dependant.call} must be a coroutine function that takes no cookies")
        self.function: Any = dependant.call
        self._dependencies = [(one.name, _Arguments(one)) for one in dependant.dependencies]
        self._path, self._query, self._headers = dependant.path_params, dependant.query_params, dependant.header_params
        self._body = dependant.body_params[0].name if dependant.body_params else None
        self._request = dependant.request_param_name

    async def resolve(self, request: Request, body: RequestBody | None, errors: list[Any]) -> dict[str, Any]:
        """Return the arguments by name; whatever is wrong is added to the errors."""
        values: dict[str, Any] = {}
        for name, dependency in self._dependencies:
            before = len(errors)
            arguments = await dependency.resolve(request, body, errors)
            if len(errors) == before:
                value = await dependency.function(**arguments)
                if name is not None:
                    values[name] = value
        if self._path:
            _read_parameters(self._path, request.path_params, values, errors)
        if self._query:
            _read_parameters(self._query, request.query_params, values, errors)
        if self._headers:
            _read_parameters(self._headers, request.headers, values, errors)
        if self._body is not None and body is not None:
            values[self._body] = validate_body(body, errors)
        if self._request is not None:
            values[self._request] = request
        return values


def _read_parameters(fields: Any, received: Mapping[str, Any], values: dict[str, Any], errors: list[Any]) -> None:
    found, wrong = request_params_to_args(fields, received)
    values.update(found)
    errors += wrong
