"""`vultus erasures` and `vultus scrub`: what was erased, how far its bytes are gone, and the rewriting of files."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from vultus.cli.common import (
    COMMAND_LINE,
    JsonOption,
    load_settings,
    open_progress_bar,
    out,
    print_json,
    print_table,
    run_command,
)
from vultus.domain.erasures import Erasure, ErasureFilter, ErasureState
from vultus.main import open_database
from vultus.schemas.erasures import ErasureOut
from vultus.services.people.erasures import ErasureService
from vultus.services.people.scrub import Scrubber, ScrubReport

if TYPE_CHECKING:
    from vultus.settings import Settings

app = typer.Typer(no_args_is_help=True)
ErasureArgument = Annotated[UUID, typer.Argument(metavar="ID", help="Of the erasure, as it was answered.")]


@app.command("list")
def list_erasures(
    state: Annotated[ErasureState | None, typer.Option(help="Only those that have reached this, and no more.")] = None,
    person: Annotated[UUID | None, typer.Option(help="Only those of this person, by id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most erasures.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List what was erased, the latest first."""
    only = ErasureFilter(state=state, person_id=person)

    async def fetch_erasures(settings: Settings) -> tuple[Erasure, ...]:
        async with open_database(settings) as database:
            service = ErasureService(database)
            return await service.list_erasures(COMMAND_LINE, after=None, limit=limit, only=only, newest_first=True)

    found = run_command(fetch_erasures(load_settings()))
    if as_json:
        print_json([ErasureOut.from_attributes(one).model_dump(mode="json") for one in found])
        return
    rows = [(one.id, one.erased_at, one.action, one.person_id, one.faces, one.state) for one in found]
    print_table("Erasures", ("id", "when", "what", "person", "faces", "state"), rows)


@app.command("show")
def show_erasure(erasure_id: ErasureArgument, as_json: JsonOption = False) -> None:
    """Show what an erasure destroyed, how far it is gone, and what the scrub found."""

    async def fetch_erasure(settings: Settings) -> Erasure:
        async with open_database(settings) as database:
            return await ErasureService(database).get_erasure(COMMAND_LINE, erasure_id)

    found = ErasureOut.from_attributes(run_command(fetch_erasure(load_settings()))).model_dump(mode="json")
    if as_json:
        print_json(found)
        return
    report = found.pop("report") or {}
    print_table("Erasure", ("what", "value"), [(name.replace("_", " "), value) for name, value in found.items()])
    if report:
        print_table("Scrub", ("what", "value"), [(name.replace("_", " "), value) for name, value in report.items()])


def scrub(
    everything: Annotated[
        bool, typer.Option("--all", help="Rewrite all tables, whether or not anything was erased.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Rewrite the files that hold bytes of what was erased.

    Searches them for fingerprints planted before.

    While the service runs or not; it waits for a table for as long as that is rewritten. A scrub that was interrupted
    goes on where it was, with --all anew.
    """

    async def run(settings: Settings) -> ScrubReport | None:
        with open_progress_bar() as bar:
            task = bar.add_task("")

            def show_progress(what: str, done: int, total: int | None) -> None:
                bar.update(task, description=what, completed=done, total=total)

            async with open_database(settings) as database:
                scrubber = Scrubber(database, settings)
                return await scrubber.scrub(COMMAND_LINE, everything=everything, progress=show_progress)

    report = run_command(run(load_settings()))
    if as_json:
        print_json(asdict(report or ScrubReport()))
        return
    if report is None:
        out.print("Nothing was erased since the last scrub, so nothing was done.")
        return
    out.print(
        f"Erasures scrubbed: {report.erasures}. Tables rewritten: {len(report.rewritten)}, each locked for"
        f" {max(report.rewritten.values(), default=0):.1f} s at most."
    )
    if report.planted:
        out.print(
            f"Fingerprints planted: {report.planted}; seen before: {report.seen_before}; found afterwards:"
            f" {report.found_after}, in {report.files} files of {report.bytes / 2**20:.0f} MiB."
        )
    for sentence in report.unproven:
        out.print(f"Not proven: {sentence}.")
    for sentence in report.remaining:
        out.print(f"Not reached: {sentence}.")
