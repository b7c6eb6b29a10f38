"""`vultus keys`."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from vultus.cli.common import COMMAND_LINE, JsonOption, load_settings, print_json, print_table, run_command
from vultus.domain import ApiKey, Role
from vultus.main import open_database
from vultus.services.access import AccessService
from vultus.settings import Settings

app = typer.Typer(no_args_is_help=True)


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key, or what it is for.")],
    role: Annotated[
        Role, typer.Option(help="recognize: read and search; enrol: also change persons; admin: everything.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Create a key and show its secret, this once."""

    async def add_key(settings: Settings) -> tuple[ApiKey, str]:
        async with open_database(settings) as database:
            return await AccessService(database).create_key(COMMAND_LINE, name, role)

    key, secret = run_command(add_key(load_settings()), as_json=as_json)
    if as_json:
        print_json({"id": key.id, "name": key.name, "role": key.role, "secret": secret})
    else:
        typer.echo(f"{secret}\n\nKeep it; only its digest is stored. Id: {key.id}, role: {key.role}.")


@app.command("list")
def list_keys(as_json: JsonOption = False) -> None:
    """List keys, revoked ones too."""

    async def fetch_keys(settings: Settings) -> list[ApiKey]:
        async with open_database(settings) as database:
            access, found = AccessService(database), list[ApiKey]()
            while page := await access.list_keys(COMMAND_LINE, after=found[-1].id if found else None, limit=500):
                found.extend(page)
            return found

    found = run_command(fetch_keys(load_settings()), as_json=as_json)
    rows = [(key.id, key.name, key.role, key.created_at, key.revoked_at) for key in found]
    if as_json:
        print_json([dict(zip(("id", "name", "role", "created_at", "revoked_at"), row, strict=True)) for row in rows])
    else:
        print_table("API keys", ("id", "name", "role", "created", "revoked"), rows)


@app.command("revoke")
def revoke_key(
    key_id: Annotated[UUID, typer.Argument(help="From `vultus keys list`.")], as_json: JsonOption = False
) -> None:
    """Revoke a key."""

    async def mark_revoked(settings: Settings) -> ApiKey:
        async with open_database(settings) as database:
            return await AccessService(database).revoke_key(COMMAND_LINE, key_id)

    key = run_command(mark_revoked(load_settings()), as_json=as_json)
    if as_json:
        print_json({"id": key.id, "revoked_at": key.revoked_at})
    else:
        typer.echo(f"Key {key.id} ({key.name}) is revoked.")
