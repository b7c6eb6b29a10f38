"""Changing the network of a living gallery."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Query

from vultus import errors
from vultus.api.deps import App, CollectionRef, Paged, Who, cursor_after, read_photos
from vultus.api.forms import SupplyForm
from vultus.api.guard import GuardedRoute, needs
from vultus.api.problems import body_problems, problems
from vultus.domain import Role
from vultus.schemas.base import Page
from vultus.schemas.transitions import (
    ContractComparisonOut,
    FinishedOut,
    LeftBehindOut,
    SuppliesOut,
    SwitchedOut,
    TransitionIn,
    TransitionOut,
)

router = APIRouter(route_class=GuardedRoute, prefix="/collections/{collection}/transition", tags=["transitions"])

MISSING = problems(errors.NotFoundError)
INCOMPLETE = problems(errors.NotFoundError, errors.TransitionIncompleteError, errors.PackNotLoadedError)
LeaveBehind = Annotated[
    bool, Query(description="Go on although faces are lost or persons will not be found; `left-behind` says who.")
]


@router.post(
    "",
    summary="Begin to change the network",
    responses=body_problems(errors.NotFoundError, errors.ConflictError),
    openapi_extra=needs(Role.ADMIN),
)
async def begin_transition(collection: CollectionRef, body: TransitionIn, app: App, who: Who) -> TransitionOut:
    """Let enrolment write templates of a second network, and carry the faces there are over in the background.

    Asked again with the same pack, faces that could not be carried over are tried anew.
    """
    return TransitionOut.of(
        await app.transitions.set_out(collection, pack=body.pack, shadow_share=body.shadow_share, actor=who)
    )


@router.get("", summary="Read how far a change of network is", responses=MISSING, openapi_extra=needs(Role.ADMIN))
async def read_transition(collection: CollectionRef, app: App) -> TransitionOut:
    """Return how many faces and persons each of the two networks can find."""
    return TransitionOut.of(await app.transitions.state(collection))


@router.post(
    "/switch",
    summary="Switch to the other network",
    responses={**INCOMPLETE, **problems(errors.InvalidInputError)},
    openapi_extra=needs(Role.ADMIN),
)
async def switch_transition(
    collection: CollectionRef, app: App, who: Who, leave_behind: LeaveBehind = False
) -> SwitchedOut:
    """Search the other network's templates from the next request on; once more, and it is the first one's again."""
    return SwitchedOut.of(await app.transitions.switch(collection, leave_behind=leave_behind, actor=who))


@router.delete("", summary="End a change of network", responses=INCOMPLETE, openapi_extra=needs(Role.ADMIN))
async def finish_transition(
    collection: CollectionRef, app: App, who: Who, leave_behind: LeaveBehind = False
) -> FinishedOut:
    """Remove the templates of the network that is not searched: before the switch this takes the beginning back."""
    return FinishedOut.of(await app.transitions.finish(collection, leave_behind=leave_behind, actor=who))


@router.post(
    "/photos",
    summary="Supply photos again",
    responses=body_problems(errors.NotFoundError, errors.InvalidInputError),
    openapi_extra=needs(Role.ADMIN),
)
async def supply_photos(collection: CollectionRef, form: Annotated[SupplyForm, File()], app: App) -> SuppliesOut:
    """Carry faces over from the very files they were enrolled from; nothing but templates is stored."""
    return SuppliesOut.of(await app.supplier.supply(collection, await read_photos(form.photo)))


@router.get("/left-behind", summary="List persons left behind", responses=MISSING, openapi_extra=needs(Role.ADMIN))
async def list_left_behind(collection: CollectionRef, app: App, paging: Paged) -> Page[LeftBehindOut]:
    """List persons that the network the collection goes to does not find; after the end, persons without a face."""
    found = await app.transitions.left_behind(collection, after=paging.after, limit=paging.limit)
    items = [
        LeftBehindOut(
            person_id=one.id, external_id=one.external_id, name=one.name, faces=one.faces, reasons=list(one.reasons)
        )
        for one in found
    ]
    return Page(items=items, next_cursor=cursor_after(found, paging.limit))


@router.get("/comparison", summary="Compare the two networks", responses=MISSING, openapi_extra=needs(Role.ADMIN))
async def compare_transition(
    collection: CollectionRef,
    app: App,
    sample: Annotated[int, Query(ge=1, le=2000, description="Most faces to search for.")] = 200,
) -> ContractComparisonOut:
    """Search for enrolled faces among all others under both networks, and say where they disagree.

    Beside it, the recognitions that both answered since the beginning, if a `shadow_share` was asked for.
    """
    return ContractComparisonOut.of(await app.comparer.compare(collection, sample))
