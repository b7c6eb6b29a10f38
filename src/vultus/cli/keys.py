"""`vultus keys`."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from vultus.cli.common import Json, load_settings, print_json, print_table, run
from vultus.domain import Actor, ApiKey, Role
from vultus.main import open_database
from vultus.services.access import Access
from vultus.settings import Settings

app = typer.Typer(no_args_is_help=True)
ACTOR = Actor("cli")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key, or what it is for.")],
    role: Annotated[Role, typer.Option(help="recognize: ask; enrol: also change persons; admin: everything.")],
    as_json: Json = False,
) -> None:
    """Make a key and show its secret this once."""

    async def work(settings: Settings) -> tuple[ApiKey, str]:
        async with open_database(settings) as database:
            return await Access(database).create(name, role, actor=ACTOR)

    key, secret = run(work(load_settings()), as_json=as_json)
    if as_json:
        print_json({"id": key.id, "name": key.name, "role": key.role, "secret": secret})
    else:
        typer.echo(f"{secret}\n\nKeep it; only its digest is stored. Id: {key.id}, role: {key.role}.")


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List keys, revoked ones too."""

    async def work(settings: Settings) -> list[ApiKey]:
        async with open_database(settings) as database:
            access, found = Access(database), list[ApiKey]()
            while page := await access.page(after=found[-1].id if found else None, limit=500):
                found.extend(page)
            return found

    found = run(work(load_settings()), as_json=as_json)
    rows = [(key.id, key.name, key.role, key.created_at, key.revoked_at) for key in found]
    if as_json:
        print_json([dict(zip(("id", "name", "role", "created_at", "revoked_at"), row, strict=True)) for row in rows])
    else:
        print_table("API keys", ("id", "name", "role", "created", "revoked"), rows)


@app.command()
def revoke(key_id: Annotated[UUID, typer.Argument(help="From `vultus keys list`.")], as_json: Json = False) -> None:
    """Make a key useless from now on."""

    async def work(settings: Settings) -> ApiKey:
        async with open_database(settings) as database:
            return await Access(database).revoke(key_id, actor=ACTOR)

    key = run(work(load_settings()), as_json=as_json)
    if as_json:
        print_json({"id": key.id, "revoked_at": key.revoked_at})
    else:
        typer.echo(f"Key {key.id} ({key.name}) is revoked.")
