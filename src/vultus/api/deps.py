"""What routes are given: services, the actor, paging, and the parts of forms they share."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol
from uuid import UUID

from fastapi import Depends, Path, Query, Request, UploadFile

from vultus.api.problems import InvalidRequestError
from vultus.domain import Actor
from vultus.services.photo_analysis import Photo
from vultus.services.wiring import Services
from vultus.utils.logging import request_id_var


# Coroutines, because FastAPI runs functions in threads: two switches for a look at an attribute.
async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _actor(request: Request) -> Actor:
    return Actor(f"key:{request.state.key.id}", request_id_var.get())


MAX_FILENAME = 200

App = Annotated[Services, Depends(_services)]
Who = Annotated[Actor, Depends(_actor)]
CollectionRef = Annotated[str, Path(description="A collection's id or name.", examples=["default"], max_length=200)]


@dataclass(frozen=True, slots=True)
class Paging:
    """Where a page starts, and how long it is."""

    after: UUID | None
    limit: int


async def _paging(
    cursor: Annotated[str | None, Query(description="From `next_cursor` of the page before.", max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Most items on a page.")] = 50,
) -> Paging:
    if cursor is None:
        return Paging(None, limit)
    try:
        return Paging(UUID(bytes=base64.urlsafe_b64decode(cursor + "==")), limit)
    except (ValueError, binascii.Error):
        raise InvalidRequestError(
            "The cursor is not one of ours; start without one.",
            errors=[{"path": "query.cursor", "message": "not a cursor of this API", "code": "cursor_invalid"}],
        ) from None


Paged = Annotated[Paging, Depends(_paging)]


class _HasId(Protocol):
    @property
    def id(self) -> UUID: ...


async def _read(upload: UploadFile) -> Photo:
    # The name only comes back in the answer; it must not be able to break it.
    name = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in upload.filename or "")
    return Photo(await upload.read(), name[:MAX_FILENAME] or None)


async def read_photos(uploads: Sequence[UploadFile]) -> tuple[Photo, ...]:
    """Return the uploads' bytes and names."""
    return tuple([await _read(upload) for upload in uploads])


def cursor_after(items: Sequence[_HasId], limit: int) -> str | None:
    """Return the cursor of the next page, or None when a page was not full."""
    if len(items) < limit:
        return None
    return base64.urlsafe_b64encode(items[-1].id.bytes).decode().rstrip("=")
