"""`vultus collections`: galleries are created, listed, shown and deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from vultus.cli.common import (
    COMMAND_LINE,
    JsonOption,
    load_settings,
    out,
    print_json,
    print_table,
    run_command,
)
from vultus.cli.officers import YesOption, confirm_change
from vultus.cli.opening import open_services
from vultus.domain import Collection, SearchRecording
from vultus.errors import InvalidInputError
from vultus.schemas.galleries import CollectionOut

if TYPE_CHECKING:
    from vultus.services.wiring import Services

PAGE = 500

app = typer.Typer(no_args_is_help=True)
ReferenceArgument = Annotated[str, typer.Argument(metavar="COLLECTION", help="Id or name.")]
Result = TypeVar("Result")


@app.command("list")
def list_collections(as_json: JsonOption = False) -> None:
    """List collections, the oldest first."""

    async def fetch_collections(services: Services) -> list[Collection]:
        found: list[Collection] = []
        while page := await services.collections.list_collections(
            COMMAND_LINE, after=found[-1].id if found else None, limit=PAGE
        ):
            found += page
        return found

    found = _run_with_services(fetch_collections)
    if as_json:
        print_json([CollectionOut.from_domain(one).model_dump(mode="json") for one in found])
        return
    rows = [(one.id, one.name, one.space_id, one.retention_days, one.search, one.created_at) for one in found]
    print_table("Collections", ("id", "name", "contract", "retention days", "search", "created"), rows)


@app.command("create")
def create_collection(
    name: Annotated[str, typer.Argument(help="A word of letters, digits, '.', '_' and '-'.")],
    pack: Annotated[str | None, typer.Option(help="Of its network; default: the one in use.")] = None,
    retention_days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Longest life of a consent.")] = None,
    unseen_days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Erase who is not seen for so many days.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(min=-1, max=1, help="Fixed cosine threshold.")] = None,
    target_fpir: Annotated[
        float | None, typer.Option(min=1e-12, max=0.999, help="Share of strangers that a search may name.")
    ] = None,
    record_searches: Annotated[
        SearchRecording | None, typer.Option(help="Which decisions are recorded; none unless given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create an empty collection."""
    if threshold is not None and target_fpir is not None:
        raise InvalidInputError("Give either --threshold or --target-fpir: they decide the same.")
    given = {"threshold": threshold, "target_fpir": target_fpir, "record_searches": record_searches}
    policy: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    made = _run_with_services(
        lambda services: services.collections.create_collection(
            COMMAND_LINE, name, pack=pack, policy=policy, retention_days=retention_days, unseen_days=unseen_days
        )
    )
    if as_json:
        print_json(CollectionOut.from_domain(made).model_dump(mode="json"))
    else:
        out.print(f"Created {made.name} ({made.id}), of contract {made.space_id}.")


@app.command("show")
def show_collection(collection: ReferenceArgument, as_json: JsonOption = False) -> None:
    """Show a collection with its numbers and its policy."""
    found, persons, faces = _run_with_services(
        lambda services: services.collections.get_collection_with_counts(COMMAND_LINE, collection)
    )
    described = CollectionOut.from_domain(found, persons, faces).model_dump(mode="json")
    if as_json:
        print_json(described)
        return
    policy = described.pop("policy")
    print_table(found.name, ("what", "value"), list(described.items()))
    rules = [(f"{name}.{part}", value) for name in ("enrol", "recognize") for part, value in policy.pop(name).items()]
    print_table("Policy", ("what", "value"), [*policy.items(), *rules])


@app.command("delete")
def delete_collection(collection: ReferenceArgument, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Delete a collection with everybody in it."""
    confirm_change(f"Delete collection {collection} with all its persons and faces?", yes=yes)

    async def delete(services: Services) -> tuple[Collection, int, int]:
        found = await services.collections.get_collection_with_counts(COMMAND_LINE, collection)
        await services.collections.delete_collection(COMMAND_LINE, collection)
        return found

    found, persons, faces = _run_with_services(delete)
    if as_json:
        print_json({"collection_id": found.id, "persons": persons, "faces": faces})
    else:
        out.print(f"Deleted {found.name} ({found.id}). Persons: {persons}; faces: {faces}.")


def _run_with_services(action: Callable[[Services], Awaitable[Result]]) -> Result:
    async def call_with_services() -> Result:
        async with open_services(load_settings()) as services:
            return await action(services)

    return run_command(call_with_services())
