"""`vultus transition`: a living gallery changes its network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from vultus.cli.common import CollectionOption, Json, load_settings, out, print_json, print_table, read_photo, run
from vultus.cli.importing import SUFFIXES
from vultus.cli.people import ACTOR
from vultus.main import open_services
from vultus.schemas.transitions import ContractComparisonOut, FinishedOut, SwitchedOut, TransitionOut
from vultus.services.wiring import Services

if TYPE_CHECKING:
    from vultus.services.migration.backfill import Supplied

app = typer.Typer(no_args_is_help=True)
LeaveBehind = Annotated[
    bool, typer.Option("--leave-behind", help="Go on although faces are lost or persons not found.")
]
Result = TypeVar("Result")


def _with_services(act: Callable[[Services], Awaitable[Result]], *, as_json: bool) -> Result:
    async def work() -> Result:
        async with open_services(load_settings()) as services:
            return await act(services)

    return run(work(), as_json=as_json)


def _show(state: TransitionOut, *, as_json: bool) -> None:
    if as_json:
        print_json(state.model_dump(mode="json"))
        return
    rows = [
        (
            f"{side.contract_id}{' (target)' if side.contract_id == state.target_contract_id else ''}",
            role,
            side.faces,
            side.pending,
            ", ".join(f"{reason} {count}" for reason, count in side.failed.items()),
            side.persons_missing,
        )
        for role, side in (("searched", state.active), ("second", state.second))
    ]
    columns = ("contract", "is", "faces", "pending", "not carried", "persons it does not find")
    print_table(f"Transition; {state.crops} crops", columns, rows)


@app.command()
def begin(
    pack: Annotated[str, typer.Argument(help="A loaded pack: VULTUS_INFERENCE__EXTRA_PACKS.")],
    collection: CollectionOption = "default",
    shadow_share: Annotated[float, typer.Option(min=0, max=1, help="Of recognitions that both networks answer.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Let enrolment write a second network too; again, try anew what could not be carried over."""
    state = _with_services(
        lambda services: services.transitions.set_out(collection, pack=pack, shadow_share=shadow_share, actor=ACTOR),
        as_json=as_json,
    )
    _show(TransitionOut.of(state), as_json=as_json)


@app.command()
def status(collection: CollectionOption = "default", as_json: Json = False) -> None:
    """Say how far a collection is."""
    state = _with_services(lambda services: services.transitions.state(collection), as_json=as_json)
    _show(TransitionOut.of(state), as_json=as_json)


@app.command("run")
def carry(collection: CollectionOption = "default", as_json: Json = False) -> None:
    """Carry over what is left; unnecessary while `vultus serve` runs with the pack, which then does it."""

    async def act(services: Services) -> TransitionOut:
        before = await services.transitions.state(collection)
        await services.carrier.carry(before.collection.id)
        return TransitionOut.of(await services.transitions.state(collection))

    _show(_with_services(act, as_json=as_json), as_json=as_json)


@app.command()
def supply(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Searched with all folders inside.")],
    collection: CollectionOption = "default",
    as_json: Json = False,
) -> None:
    """Carry faces over from the very files they were enrolled from."""

    async def act(services: Services) -> tuple[Counter[str], list[Path]]:
        outcomes: Counter[str] = Counter()
        unknown: list[Path] = []
        for paths in _parts(folder, services.settings.photos.max_photos):
            done: tuple[Supplied, ...] = await services.supplier.supply(
                collection, [read_photo(path) for path in paths]
            )
            outcomes.update(one.outcome for one in done)
            unknown += [paths[one.photo] for one in done if one.outcome == "unknown"]
        return outcomes, unknown

    outcomes, unknown = _with_services(act, as_json=as_json)
    if as_json:
        print_json({"outcomes": outcomes, "unknown": unknown})
        return
    print_table("Photos", ("outcome", "photos"), sorted(outcomes.items()))


def _parts(folder: Path, size: int) -> Iterator[list[Path]]:
    paths = iter(sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()))
    while part := list(islice(paths, size)):
        yield part


@app.command()
def left_behind(collection: CollectionOption = "default", as_json: Json = False) -> None:
    """List persons that the network a collection goes to does not find."""

    async def act(services: Services) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        after = None
        while page := await services.transitions.left_behind(collection, after=after, limit=500):
            found += [(one.id, one.external_id, one.name, one.faces, ", ".join(one.reasons)) for one in page]
            after = page[-1].id
        return found

    persons = _with_services(act, as_json=as_json)
    columns = ("id", "external_id", "name", "faces", "reasons")
    if as_json:
        print_json([dict(zip(columns, person, strict=True)) for person in persons])
        return
    print_table("Persons left behind", columns, persons)


@app.command()
def compare(
    collection: CollectionOption = "default",
    sample: Annotated[int, typer.Option(min=1, help="Most faces to search for.")] = 200,
    as_json: Json = False,
) -> None:
    """Search for enrolled faces under both networks and say where they disagree."""
    report = ContractComparisonOut.of(
        _with_services(lambda services: services.comparer.compare(collection, sample), as_json=as_json)
    )
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    out.print(
        f"{report.agreed} of {report.compared} faces agreed; wrong: {report.active_wrong} of the searched contract, "
        f"{report.second_wrong} of the second. Recognitions: {report.shadow.agreed} of {report.shadow.compared} agreed."
    )
    rows = [
        (one.face_id, one.kind, f"{one.active.similarity or 0:.4f}", f"{one.second.similarity or 0:.4f}")
        for one in report.disagreements
    ]
    print_table("Disagreements", ("id", "kind", "searched", "second"), rows)


@app.command()
def switch(collection: CollectionOption = "default", leave_behind: LeaveBehind = False, as_json: Json = False) -> None:
    """Search the second network from now on; once more is the way back."""
    done = SwitchedOut.of(
        _with_services(
            lambda services: services.transitions.switch(collection, leave_behind=leave_behind, actor=ACTOR),
            as_json=as_json,
        )
    )
    if as_json:
        print_json(done.model_dump(mode="json"))
        return
    out.print(f"{done.previous_contract_id} → {done.collection.contract_id} in {done.took_ms:.0f} ms")


@app.command()
def finish(collection: CollectionOption = "default", leave_behind: LeaveBehind = False, as_json: Json = False) -> None:
    """Remove the templates of the network that is not searched."""
    done = FinishedOut.of(
        _with_services(
            lambda services: services.transitions.finish(collection, leave_behind=leave_behind, actor=ACTOR),
            as_json=as_json,
        )
    )
    if as_json:
        print_json(done.model_dump(mode="json"))
        return
    out.print(f"{done.templates} templates of {done.removed_contract_id} removed, {done.faces_lost} faces lost")
