"""Idempotency keys at the edge: read from the header, refused where no answer can be stored."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from operator import itemgetter
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from starlette.datastructures import UploadFile

from vultus import errors
from vultus.api.bodies import RequestBody
from vultus.api.deps import PrincipalDep, ServicesDep
from vultus.api.problems import build_validation_error
from vultus.domain import IdempotencyContext
from vultus.schemas.base import ApiModel

IDEMPOTENCY_PROBLEMS = (
    errors.IdempotencyInFlightError,
    errors.IdempotencyMismatchError,
    errors.IdempotencyErasedError,
)

_Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="Any word of yours, new for every new request; a repeated request gets the first one's answer.",
    ),
]
_REFUSED_KEY = Header(alias="Idempotency-Key", include_in_schema=False)


def accept_idempotency_key(build_body: Callable[[Any], ApiModel]) -> Any:
    """Return a dependency that reads the `Idempotency-Key` of a request that writes, None without one.

    A request that was answered before gets that answer again before anything is computed.

    Args:
        build_body: Builds the body of the response from the service's result.
    """

    def encode_result(result: Any) -> dict[str, Any]:
        return build_body(result).model_dump(mode="json")

    async def read_context(
        request: Request, services: ServicesDep, principal: PrincipalDep, idempotency_key: _Key = None
    ) -> IdempotencyContext | None:
        if idempotency_key is None:
            return None
        if len(request.headers.getlist("idempotency-key")) > 1:
            twice = {"path": "header.idempotency-key", "message": "given twice; send it once", "code": "twice"}
            raise build_validation_error([twice])
        context = IdempotencyContext(
            principal.id,
            idempotency_key,
            await _compute_request_digest(request),
            request.scope["route"].status_code or 200,
            encode_result,
        )
        async with services.database.transaction(read_only=True) as work:
            await work.idempotency.check_unanswered(context)
        return context

    return Depends(read_context)


def refuse_idempotency_key(reason: str) -> Any:
    """Return a dependency that refuses an `Idempotency-Key`: to ignore it would break a promise.

    Args:
        reason: Why the answer is not stored, and what to do instead.
    """

    async def refuse_key(idempotency_key: Annotated[str | None, _REFUSED_KEY] = None) -> None:
        if idempotency_key is not None:
            raise errors.IdempotencyNotSupportedError(f"{reason} Nothing was done; send it without Idempotency-Key.")

    return Depends(refuse_key)


async def _compute_request_digest(request: Request) -> bytes:
    """Return the SHA-256 of method, path, query and body; of a form, its fields in order of their names."""
    parts = [request.method.encode(), request.url.path.encode(), request.url.query.encode()]
    body: RequestBody | None = request.state.body
    if body is not None and body.shape.is_form:
        for name, value in sorted(body.fields, key=itemgetter(0)):
            parts += [name.encode(), await _read_field(value)]
    else:
        parts.append(await request.body())
    return sha256(b"".join(sha256(part).digest() for part in parts)).digest()


async def _read_field(value: UploadFile | str) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    content = await value.read()
    await value.seek(0)  # for the route, which reads it again
    return content
