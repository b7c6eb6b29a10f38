"""`vultus erasures`: what was erased, and how far its bytes are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from vultus.cli.common import COMMAND_LINE, JsonOption, load_settings, print_json, print_table, run_command
from vultus.domain.erasures import Erasure, ErasureFilter, ErasureState
from vultus.main import open_database
from vultus.schemas.erasures import ErasureOut
from vultus.services.people.erasures import ErasureService

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
