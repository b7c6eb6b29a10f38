"""Dependencies of routes: services, the principal and paging; helpers that read photos and build cursors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar
from uuid import UUID

from fastapi import Depends, Path, Query, Request, UploadFile
from pydantic import TypeAdapter, ValidationError

from vultus.api.problems import InvalidRequestError
from vultus.api.sentences import list_invalid_fields
from vultus.domain import PersonReference, Principal
from vultus.schemas.base import Item, Name, Page, Reference
from vultus.services.photo_analysis import Photo, Reservation
from vultus.services.wiring import Services
from vultus.utils.request_scope import get_scope


# Coroutines, because FastAPI runs functions in threads: two context switches to read one attribute.
async def _get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _get_principal() -> Principal:
    principal: Principal = get_scope().principal
    return principal


MAX_FILENAME_LENGTH = 200

ServicesDep = Annotated[Services, Depends(_get_services)]
PrincipalDep = Annotated[Principal, Depends(_get_principal)]
CollectionRef = Annotated[Name, Path(description="A collection's id or name.", examples=["default"])]


EXTERNAL_ID_PREFIX = "external_id:"
_REFERENCE = TypeAdapter(Reference)


async def _parse_person(
    person: Annotated[
        str,
        Path(
            description="A person's id, or `external_id:` and your own id of them, percent-encoded.",
            examples=["019f0c2e-6a7b-7cc1-a2b3-c4d5e6f70819"],
        ),
    ],
) -> PersonReference:
    try:
        if person.startswith(EXTERNAL_ID_PREFIX):
            return _REFERENCE.validate_python(person.removeprefix(EXTERNAL_ID_PREFIX))
        return UUID(person)
    except ValidationError as error:
        message = list_invalid_fields(error.errors())[0]["message"]
    except ValueError:
        message = f"must be a person's id, or '{EXTERNAL_ID_PREFIX}' and your own id, as in {EXTERNAL_ID_PREFIX}E-1017"
    raise InvalidRequestError(
        f"path.person: {message}", errors=[{"path": "path.person", "message": message, "code": "person_reference"}]
    )


PersonDep = Annotated[PersonReference, Depends(_parse_person)]


@dataclass(frozen=True, slots=True)
class Paging:
    """Start and length of a page."""

    after: UUID | None
    limit: int

    @property
    def depth(self) -> int:
        """One item more than the page holds: whether there is a next one."""
        return self.limit + 1


async def _parse_paging(
    cursor: Annotated[str | None, Query(description="From `next_cursor` of the page before.", max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Most items on a page.")] = 50,
) -> Paging:
    if cursor is None:
        return Paging(None, limit)
    try:
        return Paging(UUID(bytes=base64.urlsafe_b64decode(cursor + "==")), limit)
    except (ValueError, binascii.Error):
        raise InvalidRequestError(
            "The cursor is not one of this API; start without one.",
            errors=[{"path": "query.cursor", "message": "not a cursor of this API", "code": "cursor_invalid"}],
        ) from None


PagingDep = Annotated[Paging, Depends(_parse_paging)]


class _HasId(Protocol):
    @property
    def id(self) -> UUID: ...


ItemWithId = TypeVar("ItemWithId", bound=_HasId)


async def _read_photo(upload: UploadFile, reservation: Reservation | None) -> Photo:
    # The name is only echoed in the response, which it must not be able to break.
    name = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in upload.filename or "")
    return Photo(await upload.read(), name[:MAX_FILENAME_LENGTH] or None, reservation)


async def read_photos(request: Request, uploads: Sequence[UploadFile]) -> tuple[Photo, ...]:
    """Return the uploads' bytes and names; the slot that the guard reserved serves the one that is analysed first."""
    return tuple([await _read_photo(upload, request.state.reservation) for upload in uploads])


def build_page(found: Sequence[ItemWithId], paging: Paging, convert: Callable[[ItemWithId], Item]) -> Page[Item]:
    """Return a page of what was found up to `paging.depth`, with a cursor if there is more."""
    items = found[: paging.limit]
    is_last = len(found) <= paging.limit
    cursor = None if is_last else base64.urlsafe_b64encode(items[-1].id.bytes).decode().rstrip("=")
    return Page(items=[convert(item) for item in items], next_cursor=cursor)
