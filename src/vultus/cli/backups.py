"""`vultus backup` and `vultus restore`: the embedded database in one file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vultus.cli.common import load_settings, run_command
from vultus.db import migrate
from vultus.db.database import Database
from vultus.db.embedded.backups import read_backup, write_backup
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.errors import ConflictError, InvalidInputError
from vultus.main import open_postgres
from vultus.services.people.ledger import ErasureLedger

if TYPE_CHECKING:
    from vultus.settings import Settings

OWN_DATABASE_DETAIL = (
    "The database of VULTUS_DATABASE__URL is backed up and restored with the tools of its PostgreSQL, pg_dump and "
    "pg_restore: docs/operations.md has the commands. Keep the key of retained crops too: {}"
)


def write_backup_file(
    file: Annotated[Path, typer.Argument(help="To be written; must not exist.")],
    crop_key: Annotated[bool, typer.Option(help="Whether it holds the key of retained crops.")] = True,
) -> None:
    """Write the embedded database to a file.

    The key of retained crops too, while the service runs or not.
    """

    async def write(settings: Settings) -> None:
        async with open_postgres(settings) as url:
            revision = await migrate.fetch_current_revision(url)
            with EmbeddedPostgres(settings.data_dir) as server:
                key_file = settings.crop_key_file if crop_key else None
                await asyncio.to_thread(write_backup, file, server, revision=revision, key_file=key_file)

    settings = load_settings()
    _require_embedded(settings)
    run_command(write(settings))
    typer.echo(f"Wrote {file} ({file.stat().st_size / 2**20:.1f} MiB). Whoever has it has everything: guard it.")


def restore_backup_file(file: Annotated[Path, typer.Argument(help="Written by `vultus backup`.")]) -> None:
    """Restore a backup into an empty database.

    What ended since then, as the ledger of erasures says, is ended again.
    """

    async def restore(settings: Settings) -> tuple[dict[str, Any], int | None]:
        async with open_postgres(settings) as url:
            if await migrate.fetch_current_revision(url) is not None:
                raise ConflictError(
                    f"The database in {settings.data_dir} is not empty. Restore into an empty data directory "
                    "(VULTUS_DATA_DIR), or stop the service and move the folder 'postgres' in it away."
                )
            with EmbeddedPostgres(settings.data_dir) as server:
                restored = await asyncio.to_thread(
                    read_backup,
                    file,
                    server,
                    key_file=settings.crop_key_file,
                    check_revision=migrate.check_revision_known,
                )
            return restored, await _apply_ledger(url, settings)

    settings = load_settings()
    _require_embedded(settings)
    restored, ended = run_command(restore(settings))
    typer.echo(f"Restored the backup of {restored['made_at']} (schema {restored['schema']}).")
    if ended is None:
        typer.echo(
            f"There is no ledger of erasures, {settings.ledger_file}: whoever was erased and whatever key was revoked "
            "since then is back. Bring the ledger before you start the service, or erase and revoke again."
        )
    elif restored["schema"] == migrate.get_head_revision():
        typer.echo(f"Of what had ended since then, {ended} came back and was ended again.")
    else:
        typer.echo("Run 'vultus db upgrade'; the next start ends again what had ended since then.")


async def _apply_ledger(url: str, settings: Settings) -> int | None:
    """End again what a restored database has of what had ended; return how much, None without a ledger."""
    if not settings.ledger_file.exists():
        return None
    if await migrate.fetch_current_revision(url) != migrate.get_head_revision():
        return 0
    database = await Database.connect(url, settings.database)
    try:
        return await ErasureLedger(database, settings.ledger_file).synchronize()
    finally:
        await database.close()


def _require_embedded(settings: Settings) -> None:
    if settings.database.url is not None:
        raise InvalidInputError(OWN_DATABASE_DETAIL.format(settings.crop_key_file))
