"""`vultus keys`."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer

from vultus.cli.common import COMMAND_LINE, JsonOption, err, load_settings, out, print_json, print_table, run_command
from vultus.domain import ApiKey, Permission, Role
from vultus.main import open_database
from vultus.services.access import AccessService
from vultus.settings import Settings

app = typer.Typer(no_args_is_help=True)
KeyArgument = Annotated[UUID, typer.Argument(help="From `vultus keys list`.")]


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key, or what it is for.")],
    role: Annotated[
        Role | None,
        typer.Option(
            help="This or --permission is required. recognize: no scores; enrol: also register; manage: also erase, "
            "scores, search, live; admin: everything."
        ),
    ] = None,
    permission: Annotated[
        list[Permission] | None, typer.Option("--permission", "-p", help="Instead of --role; repeatable.")
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option("--collection", "-c", help="Only this one, by id or name; repeatable.")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers for it.")] = None,
    searches_per_hour: Annotated[int | None, typer.Option(min=1, help="Faces it may search for in an hour.")] = None,
    expires_in_days: Annotated[float | None, typer.Option(min=0.001, max=36_500, help="When it ends.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and show its secret, this once."""
    if (role is None) == (not permission):
        raise typer.BadParameter("give either --role or --permission, such as --permission live")
    expires_at = None if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)

    async def add_key(settings: Settings) -> tuple[ApiKey, str]:
        async with open_database(settings) as database:
            return await AccessService(database).create_key(
                COMMAND_LINE,
                name,
                role or frozenset(permission or ()),
                owner=owner,
                collections=collection or None,
                searches_per_hour=searches_per_hour,
                expires_at=expires_at,
            )

    key, secret = run_command(add_key(load_settings()))
    _print_secret(key, secret, as_json=as_json)


@app.command("list")
def list_keys(as_json: JsonOption = False) -> None:
    """List keys, revoked ones too."""

    async def fetch_keys(settings: Settings) -> list[ApiKey]:
        async with open_database(settings) as database:
            access, found = AccessService(database), list[ApiKey]()
            while page := await access.list_keys(COMMAND_LINE, after=found[-1].id if found else None, limit=500):
                found.extend(page)
            return found

    found = run_command(fetch_keys(load_settings()))
    if as_json:
        print_json([_describe_key(key) for key in found])
        return
    columns = ("id", "name", "owner", "may", "collections", "created", "last used", "expires", "revoked")
    rows = [
        (
            key.id,
            key.name,
            key.owner,
            key.role or ", ".join(_list_permissions(key)),
            "all" if key.collections is None else len(key.collections),
            key.created_at,
            key.last_used_at,
            key.expires_at,
            key.revoked_at,
        )
        for key in found
    ]
    print_table("API keys", columns, rows)
    names = Counter(key.name for key in found if _is_live(key))
    for name, number in names.items():
        if number > 1:
            err.print(f"{number} live keys are called {name}: only their ids tell them apart.")


@app.command("rotate")
def rotate_key(
    key_id: KeyArgument,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=720, help="How long the present secret is accepted too.")
    ] = 24,
    as_json: JsonOption = False,
) -> None:
    """Give a key another secret and show it, this once."""

    async def replace_secret(settings: Settings) -> tuple[ApiKey, str]:
        async with open_database(settings) as database:
            return await AccessService(database).rotate_key(COMMAND_LINE, key_id, overlap_s=overlap_hours * 3600)

    key, secret = run_command(replace_secret(load_settings()))
    _print_secret(key, secret, as_json=as_json)


@app.command("revoke")
def revoke_key(key_id: KeyArgument, as_json: JsonOption = False) -> None:
    """Revoke a key."""

    async def mark_revoked(settings: Settings) -> ApiKey:
        async with open_database(settings) as database:
            return await AccessService(database).revoke_key(COMMAND_LINE, key_id)

    key = run_command(mark_revoked(load_settings()))
    if as_json:
        print_json(_describe_key(key))
    else:
        out.print(f"Key {key.id} ({key.name}) is revoked.")


def _is_live(key: ApiKey) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > datetime.now(UTC))


def _print_secret(key: ApiKey, secret: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_describe_key(key) | {"secret": secret})
        return
    old = f" The secret before it ends at {key.previous_until.isoformat()}." if key.previous_until else ""
    may = key.role or ", ".join(_list_permissions(key))
    typer.echo(f"{secret}\n\nKeep it; only its digest is stored. Id: {key.id}, may: {may}.{old}")


def _list_permissions(key: ApiKey) -> list[str]:
    return [one.value for one in Permission if one in key.permissions]


def _describe_key(key: ApiKey) -> dict[str, Any]:
    """Return what the API says about a key, by the same names."""
    times = ("created_at", "expires_at", "last_used_at", "previous_until", "revoked_at")
    return {
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "role": key.role,
        "permissions": _list_permissions(key),
        "searches_per_hour": key.searches_per_hour,
        "collections": None if key.collections is None else sorted(map(str, key.collections)),
        **{name: getattr(key, name) for name in times},
    }
