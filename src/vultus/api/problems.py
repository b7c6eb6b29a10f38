"""Errors on the wire: RFC 9457 problem details, one mapping from kind to status."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from vultus import errors
from vultus.errors import ErrorKind, VultusError
from vultus.utils.logging import request_id_var

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

log = logging.getLogger(__name__)

STATUS: Mapping[ErrorKind, int] = {
    ErrorKind.MALFORMED: 400,
    ErrorKind.INVALID: 422,
    ErrorKind.UNSUPPORTED: 415,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.MISMATCH: 422,
    ErrorKind.TIMEOUT: 408,
    ErrorKind.OVERLOADED: 503,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.SETUP: 503,
    ErrorKind.INTERNAL: 500,
}
HEADERS: Mapping[ErrorKind, dict[str, str]] = {
    ErrorKind.UNAUTHENTICATED: {"WWW-Authenticate": 'Bearer realm="vultus"'},
    ErrorKind.OVERLOADED: {"Retry-After": "1"},
    ErrorKind.UNAVAILABLE: {"Retry-After": "5"},
    ErrorKind.SETUP: {"Retry-After": "60"},
}
MEDIA_TYPE = "application/problem+json"


class InvalidRequestError(errors.InvalidInputError):
    """Fields of the request are missing, unknown or wrong."""

    code, title = "invalid_request", "Invalid request"


class MalformedRequestError(VultusError):
    """The body is no multipart form, or breaks off in the middle of one."""

    kind, code, title = ErrorKind.MALFORMED, "malformed_request", "Malformed request"


class InternalError(VultusError):
    """A defect of this program; the log holds the trace under the request's id."""

    kind, code, title = ErrorKind.INTERNAL, "internal", "Internal error"


def problem(
    status: int, code: str, title: str, detail: str, *, headers: Mapping[str, str] | None = None, **facts: Any
) -> JSONResponse:
    """Build a problem answer."""
    body = {
        "type": f"urn:vultus:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id_var.get(),
        **facts,
    }
    return JSONResponse(body, status, headers, media_type=MEDIA_TYPE)


def of_error(error: VultusError) -> JSONResponse:
    """Translate one of our errors."""
    headers = HEADERS.get(error.kind)
    if wait_s := error.facts.get("retry_after_s"):
        headers = {"Retry-After": str(wait_s)}
    return problem(STATUS[error.kind], error.code, error.title, error.detail, headers=headers, **error.facts)


def body_problems(*kinds: type[VultusError]) -> dict[int | str, dict[str, Any]]:
    """Declare the errors of a route that reads a body, beside its own."""
    return problems(
        MalformedRequestError,
        errors.RequestTimeoutError,
        errors.BodyTooLargeError,
        errors.OverloadedError,
        *kinds,
    )


def problems(*kinds: type[VultusError]) -> dict[int | str, dict[str, Any]]:
    """Declare the errors of a route for the OpenAPI document, with an example each.

    Every route with a key can answer 401, 403 and 422, and 503 when something it needs is down.
    """
    always: tuple[type[VultusError], ...] = (
        errors.UnauthenticatedError,
        errors.ForbiddenError,
        InvalidRequestError,
        errors.DatabaseUnavailableError,
    )
    declared: dict[int | str, dict[str, Any]] = {}
    for kind in (*always, *kinds):
        status = STATUS[kind.kind]
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


def field_problems(wrong: Sequence[Any]) -> list[dict[str, str]]:
    """Say which fields are wrong, without repeating what was sent."""
    return [
        {
            "path": ".".join(str(part) for part in error["loc"]),
            "message": _readable(error["msg"]),
            "code": error["type"],
        }
        for error in wrong
    ]


def _readable(message: str) -> str:
    message = message.removeprefix("Value error, ")
    if message.startswith("Expected UploadFile"):
        return "must be a file, sent as multipart/form-data (with curl: -F photo=@photo.jpg)"
    return message


def install(app: FastAPI) -> None:
    """Answer every failure of the app with a problem."""

    @app.exception_handler(VultusError)
    async def known(_: Request, error: VultusError) -> JSONResponse:
        return of_error(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        wrong = field_problems(error.errors())
        detail = "; ".join(f"{field['path']}: {field['message']}" for field in wrong)
        return of_error(InvalidRequestError(detail, errors=wrong))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == STATUS[ErrorKind.MALFORMED]:
            return of_error(MalformedRequestError(str(error.detail)))
        phrase = HTTPStatus(error.status_code).phrase
        code = phrase.lower().replace(" ", "_").replace("-", "_")
        return problem(error.status_code, code, phrase, str(error.detail), headers=error.headers)


def unexpected(error: Exception) -> JSONResponse:
    """Log a defect with its trace and answer without a word about it."""
    log.error("unexpected failure", exc_info=error)
    return of_error(
        InternalError("Something went wrong here; the log holds it under this request's id. Nothing was changed.")
    )
