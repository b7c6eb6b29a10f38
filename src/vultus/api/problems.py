"""Errors on the wire: RFC 9457 problem details, one mapping from kind to status."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import iter_route_contexts
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException

from vultus import errors
from vultus.api.sentences import list_invalid_fields
from vultus.errors import ErrorKind, VultusError
from vultus.utils import metrics
from vultus.utils.request_scope import find_scope, get_request_id

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

    from vultus.api.shapes import BodyShape

log = logging.getLogger(__name__)

STATUS_BY_KIND: Mapping[ErrorKind, int] = {
    ErrorKind.MALFORMED: 400,
    ErrorKind.INVALID: 422,
    ErrorKind.UNSUPPORTED: 415,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.LIMITED: 429,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.GONE: 410,
    ErrorKind.CONFLICT: 409,
    ErrorKind.MISMATCH: 422,
    ErrorKind.TIMEOUT: 408,
    ErrorKind.OVERLOADED: 503,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.SETUP: 503,
    ErrorKind.INTERNAL: 500,
}
HEADERS_BY_KIND: Mapping[ErrorKind, dict[str, str]] = {
    ErrorKind.UNAUTHENTICATED: {"WWW-Authenticate": 'Bearer realm="vultus"'},
    ErrorKind.OVERLOADED: {"Retry-After": "1"},
    ErrorKind.UNAVAILABLE: {"Retry-After": "5"},
    ErrorKind.SETUP: {"Retry-After": "60"},
}
MEDIA_TYPE = "application/problem+json"


class InvalidRequestError(errors.InvalidInputError):
    """Fields of the request are missing, unknown or wrong."""

    code, title = "invalid_request", "Invalid request"


class UnsupportedMediaTypeError(VultusError):
    """The body is of another kind than this operation reads; the detail shows how to send it."""

    kind, code, title = ErrorKind.UNSUPPORTED, "unsupported_media_type", "Unsupported media type"


class InternalError(VultusError):
    """A defect of this program; the log contains the traceback under the request's id."""

    kind, code, title = ErrorKind.INTERNAL, "internal", "Internal error"


def build_problem_response(
    status: int, code: str, title: str, detail: str, *, headers: Mapping[str, str] | None = None, **facts: Any
) -> JSONResponse:
    """Build a response of problem details, which the request's log line names."""
    if scope := find_scope():
        scope.error_code = code
        scope.error_cause = detail if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ""
    metrics.get_labelled(metrics.ERRORS, code, str(status)).inc()
    body = {
        "type": f"urn:vultus:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": get_request_id(),
        **facts,
    }
    return JSONResponse(body, status, headers, media_type=MEDIA_TYPE)


def build_error_response(error: VultusError) -> JSONResponse:
    """Build the response to an error, with the status and headers of its kind."""
    headers = HEADERS_BY_KIND.get(error.kind)
    if wait_s := error.facts.get("retry_after_s"):
        headers = {"Retry-After": str(wait_s)}
    return build_problem_response(
        STATUS_BY_KIND[error.kind], error.code, error.title, error.detail, headers=headers, **error.facts
    )


def declare_body_problems(*kinds: type[VultusError]) -> dict[int | str, dict[str, Any]]:
    """Declare the errors of every route that reads a body, and `kinds`."""
    return declare_problems(
        errors.MalformedRequestError,
        UnsupportedMediaTypeError,
        errors.RequestTimeoutError,
        errors.BodyTooLargeError,
        errors.OverloadedError,
        *kinds,
    )


def declare_problems(*kinds: type[VultusError]) -> dict[int | str, dict[str, Any]]:
    """Declare the errors of a route for the OpenAPI document, with one example per error.

    Every route with a key can return 400, 401, 403, 422 and 429, and 503 when a dependency is down.
    """
    always: tuple[type[VultusError], ...] = (
        errors.MalformedRequestError,
        errors.UnauthenticatedError,
        errors.ForbiddenError,
        errors.KeyFailureLimitError,
        InvalidRequestError,
        errors.DatabaseUnavailableError,
    )
    declared: dict[int | str, dict[str, Any]] = {}
    for kind in (*always, *kinds):
        status = STATUS_BY_KIND[kind.kind]
        entry = declared.setdefault(
            status,
            {
                "description": HTTPStatus(status).phrase,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        entry["content"][MEDIA_TYPE]["examples"][kind.code] = {
            "summary": (kind.__doc__ or kind.title).strip().splitlines()[0],
            "value": {
                "type": f"urn:vultus:problem:{kind.code}",
                "title": kind.title,
                "status": status,
                "detail": (kind.__doc__ or "").strip().splitlines()[0],
                "code": kind.code,
                "request_id": "019f0c2e6a7b7cc1a2b3c4d5e6f70819",
            },
        }
    return declared


def build_validation_error(wrong: list[dict[str, str]]) -> InvalidRequestError:
    """Return the error of wrong fields, each with path, message and code; what was sent is not repeated."""
    sentences = [
        field["message"] if field["path"] == "body" else f"{field['path'].removeprefix('body.')}: {field['message']}"
        for field in wrong
    ]
    return InvalidRequestError("; ".join(sentences), errors=wrong)


def register_error_handlers(app: FastAPI) -> None:
    """Return problem details for every error the app raises."""

    @app.exception_handler(VultusError)
    async def handle_vultus_error(_: Request, error: VultusError) -> JSONResponse:
        return build_error_response(error)

    @app.exception_handler(RequestValidationError)
    async def handle_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        shape: BodyShape | None = getattr(request.state, "body_shape", None)
        return build_error_response(build_validation_error(list_invalid_fields(error.errors(), shape)))

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == STATUS_BY_KIND[ErrorKind.MALFORMED]:
            return build_error_response(errors.MalformedRequestError(str(error.detail)))
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            return _answer_other_method(app, request)
        if error.status_code == HTTPStatus.NOT_FOUND:  # of the router: services say what they did not find
            return build_error_response(
                errors.NotFoundError("There is no operation at this path; /docs lists them. None ends with a slash.")
            )
        phrase = HTTPStatus(error.status_code).phrase
        code = phrase.lower().replace(" ", "_").replace("-", "_")
        return build_problem_response(error.status_code, code, phrase, str(error.detail), headers=error.headers)


def _answer_other_method(app: FastAPI, request: Request) -> Response:
    """Answer OPTIONS, and refuse what no route of the path does, with all methods that the path's routes have."""
    path = get_route_path(request.scope)
    methods = {"OPTIONS"}
    for route in iter_route_contexts(app.routes):
        if route.methods and route.path_regex.match(path):
            methods |= route.methods
    if "GET" in methods:
        methods.add("HEAD")
    allowed = {"Allow": ", ".join(sorted(methods))}
    if request.method == "OPTIONS":
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=allowed)
    return build_problem_response(
        405,
        "method_not_allowed",
        "Method not allowed",
        f"This path takes {allowed['Allow']} only.",
        headers=allowed,
    )


def handle_unexpected_error(error: Exception) -> JSONResponse:
    """Log an unhandled error with its traceback; build a response without details of it."""
    log.error("unexpected failure", exc_info=error)
    return build_error_response(
        InternalError("Something went wrong here; the log holds it under this request's id. Nothing was changed.")
    )
