"""`vultus key-ring`: the keys that seal what is in the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli.common import COMMAND_LINE, JsonOption, err, load_settings, out, print_json, print_table, run_command
from vultus.cli.failures import EXIT_FOUND
from vultus.cli.officers import YesOption, confirm_change
from vultus.main import open_database
from vultus.sealing.custody import open_custody
from vultus.services.key_rotation import KeyCheck, KeyRingStatus, KeyRotator

if TYPE_CHECKING:
    from vultus.sealing.person_keys import KeyReference
    from vultus.settings import Settings

SHOWN = 20

app = typer.Typer(no_args_is_help=True)


@asynccontextmanager
async def _open_rotator(settings: Settings) -> AsyncIterator[KeyRotator]:
    async with open_database(settings) as database:
        yield KeyRotator(database, open_custody(settings))


@app.command("status")
def show_status(as_json: JsonOption = False) -> None:
    """Say where the key ring is, which versions there are, and how many keys each wraps."""

    async def fetch_status(settings: Settings) -> KeyRingStatus:
        async with _open_rotator(settings) as rotator:
            return await rotator.get_status(COMMAND_LINE)

    found = run_command(fetch_status(load_settings()))
    if as_json:
        print_json({**asdict(found), "is_rotating": found.is_rotating})
        return
    masters = ", ".join(f"{version} of {made_at:%Y-%m-%d %H:%M}" for version, made_at in found.master_keys.items())
    persons = found.persons
    ages = f"{persons.oldest:%Y-%m-%d} to {persons.newest:%Y-%m-%d}" if persons.oldest else "none"
    rows = [
        ("key ring", found.ring),
        ("master key", masters),
        *(
            (f"keys of persons, version {version}", found.persons.by_version.get(version, 0))
            for version in found.versions
        ),
        ("keys of persons, made", ages),
        *((f"secrets, version {version or 0.1}", count) for version, count in found.secrets.items()),
        ("keys to be destroyed", found.spent),
    ]
    print_table("Keys", ("what", "value"), rows)
    if found.is_rotating:
        out.print("A rotation is not finished: vultus key-ring rotate goes on with it.")
    if found.rekeying_since is not None:
        out.print(
            f"Persons get new keys since {found.rekeying_since:%Y-%m-%d %H:%M} UTC: run it again if nothing does."
        )


@app.command("rotate")
def rotate_keys(
    persons: Annotated[
        bool, typer.Option("--persons", help="Give persons new keys too, and seal anew what is theirs.")
    ] = False,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="With --persons: only those of one, by id or name.")
    ] = None,
) -> None:
    """Replace the keys that wrap those of persons, while serving.

    Interrupted, the next call goes on. Copy key ring and keys.json anew afterwards.
    """
    if collection is not None and not persons:
        raise typer.BadParameter("--collection goes with --persons")

    async def rotate(settings: Settings) -> tuple[int, int | None]:
        async with _open_rotator(settings) as rotator:
            wrapped = await rotator.rotate(COMMAND_LINE, _show_progress)
            changed = await rotator.rekey_persons(COMMAND_LINE, collection, _show_progress) if persons else None
            return wrapped, changed

    wrapped, changed = run_command(rotate(load_settings()))
    anew = "" if changed is None else f" {changed} persons have new keys; the old ones are destroyed."
    out.print(f"Rotated: {wrapped} keys of persons are wrapped anew.{anew} Copy the key ring and keys.json anew.")


@app.command("check")
def check_keys(as_json: JsonOption = False) -> None:
    """Open every key and secret that the database refers to; exit code 1 if one does not open."""

    async def check(settings: Settings) -> KeyCheck:
        async with _open_rotator(settings) as rotator:
            return await rotator.check(COMMAND_LINE, _show_progress)

    found = run_command(check(load_settings()))
    if as_json:
        print_json(asdict(found))
    else:
        out.print(f"{found.persons} keys of persons and {found.secrets} secrets were opened.")
        print_lost_keys(found)
        if found.unreadable:
            out.print(f"These secrets do not open; set them again: {', '.join(found.unreadable)}")
    if found.lost or found.unreadable:
        raise typer.Exit(EXIT_FOUND)


def print_lost_keys(found: KeyCheck) -> None:
    """Say how many persons have lost their key, if any, and who the first are."""
    if found.lost:
        names = ", ".join(map(str, found.lost[:SHOWN]))
        out.print(f"{len(found.lost)} persons have no key any more, and nothing of theirs can be read: {names}")


@app.command("prune")
def prune_keys(yes: YesOption = False) -> None:
    """Destroy the keys of persons whom this database does not have.

    A crash leaves such keys, and so does a restored backup: persons who were registered after it are not in it.
    """
    settings = load_settings()

    async def list_unused() -> list[KeyReference]:
        async with _open_rotator(settings) as rotator:
            return await rotator.list_unused_keys(COMMAND_LINE)

    async def destroy(keys: list[KeyReference]) -> int:
        async with _open_rotator(settings) as rotator:
            return await rotator.destroy_keys(COMMAND_LINE, keys)

    unused = run_command(list_unused())
    if not unused:
        out.print("Every key belongs to a person of this database.")
        return
    names = ", ".join(str(person_id) for _, person_id in unused[:SHOWN])
    err.print(f"Not in this database: {names}{' …' if len(unused) > SHOWN else ''}")
    confirm_change(
        f"Destroy the keys of {len(unused)} persons, who can then be read in no newer backup either?", yes=yes
    )
    out.print(f"Destroyed {run_command(destroy(unused))} keys.")


def _show_progress(done: int, total: int | None) -> None:
    if err.is_terminal:
        err.print(f"{done}{'' if total is None else f' of {total}'}", end="\r")
