"""Bodies of requests: strict JSON, whole forms, and the content types that say which of the two it is."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

from vultus.api.multipart import build_field_error, parse_form
from vultus.api.problems import InvalidRequestError, UnsupportedMediaTypeError
from vultus.api.strict_json import load_json
from vultus.errors import BodyTooLargeError, VultusError

if TYPE_CHECKING:
    from starlette.datastructures import FormData, Headers
    from starlette.types import Receive, Scope

    from vultus.api.shapes import BodyShape
    from vultus.schemas.base import ApiModel

MAX_JSON_VALUES = 100_000
"""Commas and brackets of a JSON body, five times what 5,000 persons need: two bytes become an object of hundreds."""

LONG_JSON_BYTES = 128 * 2**10
"""A longer body is parsed and validated in a thread, so that other requests are served meanwhile."""


class BodyReadError(HTTPException):
    """Wraps an error raised while FastAPI reads the body: FastAPI turns any other exception into 400."""

    def __init__(self, original_error: VultusError) -> None:
        super().__init__(400)
        self.original_error = original_error


def ensure_content_type(shape: BodyShape, headers: Headers, path: str) -> None:
    """Refuse a body of another kind than the route reads, with an example of the right one.

    Raises:
        UnsupportedMediaTypeError: The content type is another one, or missing.
    """
    value = headers.get("content-type", "")
    media_type, options = parse_options_header(value)
    named = f"the body has the Content-Type '{value}'" if value else "the body has no Content-Type"
    if shape.is_form and media_type != b"multipart/form-data":
        example = " ".join(f"-F {name}=@{name}.jpg" for name in shape.photos)
        raise UnsupportedMediaTypeError(
            f"A form with the bytes of photos is read here, but {named}. Send multipart/form-data, as curl does: "
            f"curl -H 'Authorization: Bearer KEY' {example} {path}"
        )
    if shape.is_form or not _has_body(headers):
        return
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    if not _is_json(media_type):
        raise UnsupportedMediaTypeError(
            f"JSON is read here, but {named}. Send it as application/json, with curl: "
            f"curl -H 'Authorization: Bearer KEY' -H 'Content-Type: application/json' -d '{{…}}' {path}"
        )
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMediaTypeError(f"The JSON is said to be in '{charset}'; JSON is sent in UTF-8.")


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_json(media_type: bytes) -> bool:
    kind, _, subtype = media_type.partition(b"/")
    return kind == b"application" and (subtype == b"json" or subtype.endswith(b"+json"))


class StrictRequest(Request):
    """A request whose JSON is strict and whose form is complete, each field of it once unless it is a list."""

    def __init__(self, scope: Scope, receive: Receive, shape: BodyShape | None) -> None:
        super().__init__(scope, receive)
        self._shape = shape

    async def _get_form(self, **limits: Any) -> FormData:
        if self._form is None and self._shape is not None:
            body = b"".join([chunk async for chunk in self.stream()])
            try:
                self._form = parse_form(body, self.headers.get("content-type", ""), self._shape)
                _ensure_given_once(self._form, self._shape.lists)
            except VultusError as error:
                raise BodyReadError(error) from None
        return await super()._get_form(**limits)

    async def json(self) -> Any:
        """Return the body as JSON without NaN, lone surrogates, double keys or nesting that exhausts the stack."""
        body = await self.body()
        try:
            if self._shape is None or len(body) <= LONG_JSON_BYTES:
                return parse_json(body)
            return await asyncio.to_thread(_parse_model, body, self._shape.model)
        except VultusError as error:
            raise BodyReadError(error) from None


def _ensure_given_once(form: FormData, lists: frozenset[str]) -> None:
    counts = Counter(name for name, _ in form.multi_items())
    for name, count in counts.items():
        if count > 1 and name not in lists:
            raise build_field_error(name, f"given {'twice' if count == 2 else f'{count} times'}; send it once", "twice")


def _parse_model(body: bytes, model: type[ApiModel]) -> Any:
    """Return a body as its model, or as it is if it is wrong: FastAPI validates whatever is no model, and says why."""
    value = parse_json(body)
    try:
        return model.model_validate(value)
    except ValidationError:
        return value


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON body.

    Raises:
        InvalidRequestError: It is not JSON; the detail says where and why.
        BodyTooLargeError: It holds too many values.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise BodyTooLargeError(f"The JSON holds more than {MAX_JSON_VALUES:,} values; it was not read.")
    try:
        return load_json(body)
    except ValueError as error:
        raise InvalidRequestError(
            f"The body {error}.", errors=[{"path": "body", "message": str(error), "code": "json_invalid"}]
        ) from None
