"""Bodies of requests: strict JSON, whole forms, and the content types that say which of the two it is."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile

from vultus.api.multipart import ContentType, build_field_error, parse_form
from vultus.api.problems import InvalidRequestError, UnsupportedMediaTypeError
from vultus.api.shapes import BodyShape
from vultus.api.strict_json import load_json
from vultus.errors import BodyTooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.datastructures import Headers
    from starlette.requests import Request

    from vultus.schemas.base import ApiModel

MAX_JSON_VALUES = 100_000
"""Commas and brackets of a JSON body, five times what 5,000 persons need: two bytes become an object of hundreds."""

LONG_JSON_BYTES = 128 * 2**10
"""A longer body is parsed and validated in a thread, so that other requests are served meanwhile."""

MAX_LISTED_FIELDS, MAX_COUNTED_FIELDS = 100, 20_000
"""Wrong fields that an answer lists, and up to which it lists any."""

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class RequestBody:
    """What a request brought, before its model says whether it will do.

    Attributes:
        shape: What the route reads.
        value: JSON as it was parsed or, if it is long and right, as its model; of a form, its fields by name.
        content: The bytes of JSON.
        fields: Of a form, in the order in which they were sent.
    """

    shape: BodyShape
    value: Any
    content: bytes = b""
    fields: tuple[tuple[str, str | UploadFile], ...] = ()


def check_content_type(shape: BodyShape, request: Request) -> ContentType:
    """Return the content type of a body; refuse another kind than the route reads, with an example of the right one.

    Raises:
        UnsupportedMediaTypeError: The content type is another one, or missing; or the body is compressed.
    """
    if (encoding := request.headers.get("content-encoding", "").strip().lower()) not in {"", "identity"}:
        raise UnsupportedMediaTypeError(
            f"The body has the Content-Encoding '{encoding}', and compressed bodies are not read: send it as it is."
        )
    value = request.headers.get("content-type", "")
    media_type, options = parse_options_header(value)
    named = f"the body has the Content-Type '{value}'" if value else "the body has no Content-Type"
    if shape.is_form and media_type != b"multipart/form-data":
        example = " ".join(f"-F {name}=@{name}.jpg" for name in shape.photos)
        raise UnsupportedMediaTypeError(
            f"A form with the bytes of photos is read here, but {named}. Send multipart/form-data, as curl does: "
            f"curl -H 'Authorization: Bearer KEY' {example} {request.url.path}"
        )
    content_type = ContentType(options)
    if shape.is_form or not _has_body(request.headers):
        return content_type
    if not _is_json(media_type):
        raise UnsupportedMediaTypeError(
            f"JSON is read here, but {named}. Send it as application/json, with curl: "
            f"curl -H 'Authorization: Bearer KEY' -H 'Content-Type: application/json' -d '{{…}}' {request.url.path}"
        )
    if (charset := content_type.charset.lower()) not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMediaTypeError(f"The JSON is said to be in '{charset}'; JSON is sent in UTF-8.")
    return content_type


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_json(media_type: bytes) -> bool:
    kind, _, subtype = media_type.partition(b"/")
    return kind == b"application" and (subtype == b"json" or subtype.endswith(b"+json"))


async def read_body(request: Request, shape: BodyShape, content_type: ContentType) -> RequestBody:
    """Return the body of a request: strict JSON, or a complete form with each field once unless it is a list.

    Raises:
        VultusError: It is neither, too long, or breaks off.
    """
    content = await request.body()
    if shape.is_form:
        fields = parse_form(content, content_type, shape)
        _ensure_given_once(fields, shape.lists)
        return RequestBody(shape, _collect_fields(fields, shape), fields=fields)
    if not content:
        return RequestBody(shape, _ABSENT)
    if len(content) <= LONG_JSON_BYTES:
        return RequestBody(shape, parse_json(content), content)
    return RequestBody(shape, await asyncio.to_thread(_parse_model, content, shape.model), content)


def validate_body(body: RequestBody, errors: list[Any]) -> ApiModel | None:
    """Return the model of a body; whatever is wrong with it is added to pydantic's errors."""
    model, value = body.shape.model, body.value
    if isinstance(value, model):
        return value
    if value is _ABSENT:
        errors.append({"type": "missing", "loc": ("body",), "msg": "", "input": None})
        return None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors += _list_errors(error)
        return None


def _list_errors(error: ValidationError) -> list[Any]:
    """Return pydantic's errors of a body, `MAX_LISTED_FIELDS` at most: each costs more than what was wrong."""
    count = error.error_count()
    if count > MAX_COUNTED_FIELDS:
        return [{"type": "many_fields", "loc": ("body",), "ctx": {"count": count}}]
    found = error.errors(include_url=False, include_input=False)[:MAX_LISTED_FIELDS]
    listed: list[Any] = [{**one, "loc": ("body", *one["loc"])} for one in found]
    if count > len(listed):
        listed.append({"type": "more_fields", "loc": ("body",), "ctx": {"count": count - len(listed)}})
    return listed


def _ensure_given_once(fields: Iterable[tuple[str, Any]], lists: frozenset[str]) -> None:
    counts = Counter(name for name, _ in fields)
    for name, count in counts.items():
        if count > 1 and name not in lists:
            raise build_field_error(name, f"given {'twice' if count == 2 else f'{count} times'}; send it once", "twice")


def _collect_fields(fields: Iterable[tuple[str, str | UploadFile]], shape: BodyShape) -> dict[str, Any]:
    """Return the fields of a form by name; one that is known and empty counts as not sent, as browsers send it."""
    known, values = shape.model.model_fields, dict[str, Any]()
    for name, value in fields:
        is_empty = not value if isinstance(value, str) else not (value.filename or value.size)
        if name in shape.lists:
            if isinstance(value, str) or not is_empty:
                values.setdefault(name, []).append(value)
        elif not (is_empty and name in known):
            values[name] = value
    return values


def _parse_model(body: bytes, model: type[ApiModel]) -> Any:
    """Return a body as its model, or as it is if it is wrong."""
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
