"""`vultus db`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vultus.cli.common import JsonOption, load_settings, print_json, run_command
from vultus.db import migrate, upgrades
from vultus.errors import SchemaNotCurrentError
from vultus.main import open_postgres

if TYPE_CHECKING:
    from vultus.settings import Settings

app = typer.Typer(no_args_is_help=True)


@app.command("upgrade")
def upgrade_schema() -> None:
    """Bring the schema up to date; safe to run at any time."""

    async def apply_migrations(settings: Settings) -> tuple[str | None, str | None]:
        async with open_postgres(settings) as urls:
            before = await migrate.fetch_current_revision(urls.owner)
            if settings.database.url is None:
                await upgrades.upgrade_embedded(urls, settings.data_dir)
            else:
                await upgrades.upgrade_external(urls)
            return before, await migrate.fetch_current_revision(urls.owner)

    before, after = run_command(apply_migrations(load_settings()))
    typer.echo(
        f"The schema is current ({after})." if before == after else f"Upgraded from {before or 'nothing'} to {after}."
    )


@app.command("status")
def show_schema_status(as_json: JsonOption = False) -> None:
    """Say which schema the database has and which one this program needs."""

    async def read_revision(settings: Settings) -> str | None:
        async with open_postgres(settings) as urls:
            return await migrate.fetch_current_revision(urls.owner)

    settings = load_settings()
    found, needed = run_command(read_revision(settings)), migrate.get_head_revision()
    kind = "external" if settings.database.url else "embedded"
    if as_json:
        print_json({"kind": kind, "schema": found, "needed": needed, "current": found == needed})
    else:
        typer.echo(f"{kind} database: {_describe_schema(found)}")
    if found != needed:
        raise typer.Exit(1)


def _describe_schema(revision: str | None) -> str:
    try:
        migrate.check_revision(revision)
    except SchemaNotCurrentError as error:
        return error.detail
    return f"schema {revision} is current"
