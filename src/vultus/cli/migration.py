"""`vultus transition`: online model migration, with backfill, comparison, cutover and rollback."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from vultus.cli.common import (
    COMMAND_LINE,
    CollectionOption,
    JsonOption,
    load_settings,
    out,
    print_json,
    print_table,
    run_command,
)
from vultus.cli.opening import open_services
from vultus.errors import ImageTooLargeError, InvalidInputError
from vultus.schemas.migrations import ContractComparisonOut, FinishedOut, SwitchedOut, TransitionOut
from vultus.services.enrolment.folders import iterate_photos, read_photo_inside
from vultus.services.photo_analysis import Photo
from vultus.services.wiring import Services

if TYPE_CHECKING:
    from vultus.services.migration.backfill import ResubmissionOutcome

app = typer.Typer(no_args_is_help=True)
AllowUnmigrated = Annotated[
    bool, typer.Option("--leave-behind", help="Proceed although faces are lost or persons not found.")
]
Result = TypeVar("Result")


def _run_with_services(action: Callable[[Services], Awaitable[Result]]) -> Result:
    async def call_with_services() -> Result:
        async with open_services(load_settings()) as services:
            return await action(services)

    return run_command(call_with_services())


def _show_migration(state: TransitionOut, *, as_json: bool) -> None:
    if as_json:
        print_json(state.model_dump(mode="json"))
        return
    rows = [
        (
            f"{coverage.contract_id}{' (target)' if coverage.contract_id == state.target_contract_id else ''}",
            role,
            coverage.faces,
            coverage.pending,
            ", ".join(f"{reason} {count}" for reason, count in coverage.failed.items()),
            coverage.persons_missing,
        )
        for role, coverage in (("searched", state.active), ("second", state.second))
    ]
    columns = ("embedding space", "is", "faces", "pending", "not backfilled", "persons it does not find")
    print_table(f"Transition; {state.crops} crops", columns, rows)


@app.command("begin")
def start_migration(
    pack: Annotated[str, typer.Argument(help="A loaded pack: VULTUS_INFERENCE__EXTRA_PACKS.")],
    collection: CollectionOption = "default",
    shadow_share: Annotated[float, typer.Option(min=0, max=1, help="Of recognitions that both networks answer.")] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Let enrolment write a second network too; repeated, it retries faces that could not be backfilled."""
    state = _run_with_services(
        lambda services: services.migrations.start(COMMAND_LINE, collection, pack=pack, shadow_share=shadow_share)
    )
    _show_migration(TransitionOut.from_domain(state), as_json=as_json)


@app.command("status")
def show_migration(collection: CollectionOption = "default", as_json: JsonOption = False) -> None:
    """Show the progress of a collection's migration."""
    state = _run_with_services(lambda services: services.migrations.get_state(COMMAND_LINE, collection))
    _show_migration(TransitionOut.from_domain(state), as_json=as_json)


@app.command("run")
def run_backfill(collection: CollectionOption = "default", as_json: JsonOption = False) -> None:
    """Backfill the remaining faces; unnecessary while `vultus serve` runs with the pack, which then does it."""

    async def backfill_collection(services: Services) -> TransitionOut:
        before = await services.migrations.get_state(COMMAND_LINE, collection)
        await services.backfill_worker.backfill_collection(before.collection.id)
        return TransitionOut.from_domain(await services.migrations.get_state(COMMAND_LINE, collection))

    _show_migration(_run_with_services(backfill_collection), as_json=as_json)


@app.command("supply")
def resubmit_photos(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Searched with all folders inside.")],
    collection: CollectionOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Backfill faces from the same files they were enrolled from."""

    async def submit_photos(services: Services) -> tuple[Counter[str], list[str]]:
        outcomes: Counter[str] = Counter()
        unknown: list[str] = []
        await services.migrations.get_state(COMMAND_LINE, collection)
        limits = services.settings.photos
        for photos in _split_photos(folder, limits.max_photos, limits.max_bytes, outcomes):
            done: tuple[ResubmissionOutcome, ...] = await services.photo_resubmission.submit(
                COMMAND_LINE, collection, photos
            )
            outcomes.update(photo.outcome for photo in done)
            unknown += [str(photos[photo.photo].filename) for photo in done if photo.outcome == "unknown"]
        if not outcomes:
            raise InvalidInputError(f"No photo is in {folder} or a folder inside.")
        return outcomes, unknown

    outcomes, unknown = _run_with_services(submit_photos)
    if as_json:
        print_json({"outcomes": outcomes, "unknown": unknown})
        return
    print_table("Photos", ("outcome", "photos"), sorted(outcomes.items()))


def _split_photos(folder: Path, size: int, max_bytes: int, outcomes: Counter[str]) -> Iterator[list[Photo]]:
    """Yield the photos of a folder, as many as are sent together; those that cannot be read are counted."""
    photos = _read_photos(folder, max_bytes, outcomes)
    while part := list(islice(photos, size)):
        yield part


def _read_photos(folder: Path, max_bytes: int, outcomes: Counter[str]) -> Iterator[Photo]:
    for path in iterate_photos(folder):
        try:
            yield Photo(read_photo_inside(folder, path, max_bytes=max_bytes), path)
        except OSError:
            outcomes["unreadable"] += 1
        except ImageTooLargeError as error:
            outcomes[error.code] += 1


@app.command("left-behind")
def list_unmigrated_persons(collection: CollectionOption = "default", as_json: JsonOption = False) -> None:
    """List persons that the target network does not find."""

    async def fetch_persons(services: Services) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        after = None
        while page := await services.migrations.list_unmigrated_persons(
            COMMAND_LINE, collection, after=after, limit=500
        ):
            found += [
                (person.id, person.external_id, person.name, person.faces, ", ".join(person.reasons)) for person in page
            ]
            after = page[-1].id
        return found

    persons = _run_with_services(fetch_persons)
    columns = ("id", "external_id", "name", "faces", "reasons")
    if as_json:
        print_json([dict(zip(columns, person, strict=True)) for person in persons])
        return
    print_table("Unmigrated persons", columns, persons)


@app.command("compare")
def compare_spaces(
    collection: CollectionOption = "default",
    sample: Annotated[int, typer.Option(min=1, help="Most faces to search for.")] = 200,
    as_json: JsonOption = False,
) -> None:
    """Search for enrolled faces with both networks and report their disagreements."""
    report = ContractComparisonOut.from_domain(
        _run_with_services(lambda services: services.space_comparer.compare(COMMAND_LINE, collection, sample))
    )
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    out.print(
        f"{report.agreed} of {report.compared} faces agreed; wrong: {report.active_wrong} in the searched space, "
        f"{report.second_wrong} in the second. Recognitions: {report.shadow.agreed} of {report.shadow.compared} agreed."
    )
    rows = [
        (face.face_id, face.kind, f"{face.active.similarity or 0:.4f}", f"{face.second.similarity or 0:.4f}")
        for face in report.disagreements
    ]
    print_table("Disagreements", ("id", "kind", "searched", "second"), rows)


@app.command("switch")
def cut_over_migration(
    collection: CollectionOption = "default", leave_behind: AllowUnmigrated = False, as_json: JsonOption = False
) -> None:
    """Search the second network from now on; a second switch rolls back."""
    done = SwitchedOut.from_domain(
        _run_with_services(
            lambda services: services.migrations.cut_over(COMMAND_LINE, collection, allow_unmigrated=leave_behind)
        )
    )
    if as_json:
        print_json(done.model_dump(mode="json"))
        return
    out.print(f"{done.previous_contract_id} → {done.collection.contract_id} in {done.took_ms:.0f} ms")


@app.command("finish")
def finish_migration(
    collection: CollectionOption = "default", leave_behind: AllowUnmigrated = False, as_json: JsonOption = False
) -> None:
    """Remove the templates of the network that is not searched."""
    done = FinishedOut.from_domain(
        _run_with_services(
            lambda services: services.migrations.finish(COMMAND_LINE, collection, allow_unmigrated=leave_behind)
        )
    )
    if as_json:
        print_json(done.model_dump(mode="json"))
        return
    out.print(f"{done.templates} templates of {done.removed_contract_id} removed, {done.faces_lost} faces lost")
