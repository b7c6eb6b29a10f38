"""`vultus db`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vultus.cli.common import Json, load_settings, print_json, run
from vultus.db import migrate
from vultus.main import open_server

if TYPE_CHECKING:
    from vultus.settings import Settings

app = typer.Typer(no_args_is_help=True)


@app.command()
def upgrade() -> None:
    """Bring the schema up to date; safe to run at any time."""

    async def work(settings: Settings) -> tuple[str | None, str | None]:
        async with open_server(settings) as url:
            before = await migrate.current(url)
            await migrate.upgrade(url)
            return before, await migrate.current(url)

    before, after = run(work(load_settings()))
    typer.echo(f"The schema is current ({after})." if before == after else f"Upgraded from {before} to {after}.")


@app.command()
def status(as_json: Json = False) -> None:
    """Say which schema the database has and which one this program needs."""

    async def work(settings: Settings) -> str | None:
        async with open_server(settings) as url:
            return await migrate.current(url)

    settings = load_settings()
    found, needed = run(work(settings), as_json=as_json), migrate.head()
    kind = "external" if settings.database.url else "embedded"
    if as_json:
        print_json({"kind": kind, "schema": found, "needed": needed, "current": found == needed})
    else:
        verdict = "current" if found == needed else f"needs '{needed}': run vultus db upgrade"
        typer.echo(f"{kind} database, schema '{found}': {verdict}")
    if found != needed:
        raise typer.Exit(1)
