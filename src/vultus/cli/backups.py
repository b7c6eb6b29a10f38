"""`vultus backup`, `restore`, `verify-backup` and `backup-identity`: the database in one encrypted file."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vultus.cli.common import COMMAND_LINE, load_settings, open_download_bar, out, run_command
from vultus.cli.key_ring import print_lost_keys
from vultus.db import migrate
from vultus.db.database import Database
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.urls import parse_database_url
from vultus.errors import AlreadyExistsError, InvalidInputError, KeyRingError
from vultus.evaluation.watch_report import count_things
from vultus.main import open_postgres
from vultus.models.weights.files import compute_file_sha256
from vultus.sealing.custody import open_custody
from vultus.services.backups.archive import (
    BackupDescription,
    describe_ledger,
    list_given_settings,
    restore_backup,
    write_backup,
)
from vultus.services.key_rotation import KeyRotator
from vultus.services.people.key_destruction import KeyDestroyer
from vultus.services.people.ledger import ErasureLedger
from vultus.utils.age_files import (
    encrypt_with_passphrase,
    is_encrypted,
    make_identity,
    read_identities,
    require_recipient,
)
from vultus.utils.files import write_secret_file

if TYPE_CHECKING:
    from vultus.db.urls import DatabaseUrls
    from vultus.services.key_rotation import KeyCheck
    from vultus.settings import Settings

MIB = 2**20

IdentityOption = Annotated[
    Path | None, typer.Option("--identity", "-i", help="File with the secret key that opens it, or a private SSH key.")
]
PassphraseOption = Annotated[
    Path | None, typer.Option(help="File with the passphrase of the identity; it is asked for otherwise.")
]
BackupArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Written by `vultus backup`.")]


def write_backup_file(
    file: Annotated[Path, typer.Argument(help="To be written; must not exist.")],
    recipient: Annotated[
        list[str] | None, typer.Option(help="Who can open it, repeatable, instead of VULTUS_BACKUPS__RECIPIENTS.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Do not encrypt it.")] = False,
) -> None:
    """Write the database to an encrypted file.

    While the service runs or not. No key is in it: mirror the custody directory by itself.
    """
    settings = load_settings()
    recipients = _choose_recipients(settings, recipient, plain=plain)

    async def write() -> BackupDescription:
        async with open_postgres(settings) as urls:
            with open_download_bar("Dumping") as progress:
                return await write_backup(
                    file, parse_database_url(urls.owner), settings, recipients, partial(progress, "the database")
                )

    written = run_command(write())
    who = "It is not encrypted: guard it." if plain else f"Encrypted to {count_things(len(recipients), 'public key')}."
    out.print(
        f"Wrote {file} ({file.stat().st_size / MIB:.1f} MiB, schema {written.schema}, SHA-256 "
        f"{compute_file_sha256(file)}). {who} It holds no key: mirror {settings.custody}, which erasures change, and "
        "keep no old copy of it."
    )


def restore_backup_file(
    file: BackupArgument, identity: IdentityOption = None, passphrase_file: PassphraseOption = None
) -> None:
    """Restore a backup into an empty database.

    What ended since then, as the ledger of erasures says, is ended again.
    """
    settings = load_settings()
    identities = open_identities(identity, passphrase_file)

    async def restore() -> tuple[BackupDescription, dict[str, str], tuple[int | None, bool, KeyCheck | None]]:
        async with open_postgres(settings) as urls:
            with open_download_bar("Restoring") as progress:
                described, given = await restore_backup(
                    file, parse_database_url(urls.owner), settings.data_dir, identities, partial(progress, str(file))
                )
            await migrate.upgrade_schema(urls.owner, serves=await migrate.fetch_role_name(urls.serving))
            return described, given, await _finish_restore(urls, settings)

    described, given, (ended, is_sealed, keys) = run_command(restore())
    schema = migrate.get_head_revision()
    upgraded = "" if described.schema == schema else f", upgraded to {schema}"
    out.print(
        f"Restored the backup of {described.made_at:%Y-%m-%d %H:%M:%S} UTC (schema {described.schema}{upgraded}, "
        f"SHA-256 {compute_file_sha256(file)})."
    )
    if caution := describe_ledger(described, settings):
        out.print(caution)
    if is_sealed and not open_custody(settings).person_keys.path.exists():
        out.print(
            f"It holds what is sealed, and the keys of persons are not in {settings.custody}: bring that folder's "
            "files and the key ring from where they are mirrored before you start the service."
        )
    if ended is not None:
        out.print(f"Of what had ended since then, {ended} came back and was ended again.")
    if keys is not None:
        print_lost_keys(keys)
    now = list_given_settings(settings)
    if different := [name for name in sorted({*given, *now}) if given.get(name) != now.get(name)]:
        out.print(f"Settings that are not what they were then: {', '.join(different)}.")


def verify_backup_file(
    file: BackupArgument, identity: IdentityOption = None, passphrase_file: PassphraseOption = None
) -> None:
    """Restore a backup into a temporary database.

    What is there is counted, compared with the backup, and thrown away.
    """
    load_settings()
    identities = open_identities(identity, passphrase_file)

    async def rehearse(folder: Path) -> BackupDescription:
        with EmbeddedPostgres(folder) as server, open_download_bar("Verifying") as progress:
            urls = await asyncio.to_thread(server.start)
            described, _ = await restore_backup(
                file, parse_database_url(urls.owner), folder, identities, partial(progress, str(file))
            )
            await migrate.upgrade_schema(urls.owner)
            return described

    with tempfile.TemporaryDirectory(prefix="vultus-verify-") as name:
        described = run_command(rehearse(Path(name)))
    held = ", ".join(
        count_things(described.counts.get(f"{noun}s", 0), noun) for noun in ("collection", "person", "consent")
    )
    faces = sum(count for name, count in described.counts.items() if name.startswith("faces_"))
    held = f"{held}, {count_things(faces, 'template')}"
    out.print(
        f"{file} is whole and can be restored: {held}, schema {described.schema}, of "
        f"{described.made_at:%Y-%m-%d %H:%M:%S} UTC, SHA-256 {compute_file_sha256(file)}."
    )


def make_backup_identity(
    file: Annotated[Path, typer.Argument(help="To be written; must not exist.")],
    passphrase_file: Annotated[Path | None, typer.Option(help="File with a passphrase that it is to need.")] = None,
) -> None:
    """Make the secret key that opens backups.

    The public key, which they are encrypted to, is printed.
    """
    if file.exists():
        raise AlreadyExistsError(f"{file} exists; nothing is overwritten. Name another file.")
    secret, recipient = make_identity()
    text = f"# public key: {recipient}\n{secret}\n"
    try:
        if passphrase_file is None:
            write_secret_file(file, text.rstrip("\n"))
        else:
            file.touch(mode=0o600, exist_ok=False)
            file.write_bytes(encrypt_with_passphrase(text.encode(), _read_passphrase(passphrase_file)))
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be written: {error.strerror}.") from None
    out.print(recipient)
    typer.echo(
        f"Set VULTUS_BACKUPS__RECIPIENTS to this. Take {file} away from this machine and keep it: without it no "
        "backup can be restored.",
        err=True,
    )


def _choose_recipients(settings: Settings, given: list[str] | None, *, plain: bool) -> tuple[str, ...]:
    try:
        chosen = tuple(map(require_recipient, given or ())) or settings.backups.recipients
    except ValueError as error:
        raise InvalidInputError(f"--recipient: {error}.") from None
    if plain and given:
        raise InvalidInputError("Give either --recipient or --plain.")
    if not plain and not chosen:
        raise InvalidInputError(
            "Nobody is named who can open the backup: set VULTUS_BACKUPS__RECIPIENTS to a public key, as 'vultus "
            "backup-identity FILE' prints it with the secret one, or say --plain to write it without encryption."
        )
    return () if plain else chosen


def open_identities(identity: Path | None, passphrase_file: Path | None) -> list[Any]:
    """Return what opens an encrypted file; nothing where no identity is named. A passphrase is asked for if needed.

    Raises:
        InvalidInputError: Identity or passphrase cannot be used.
    """
    if identity is None:
        return []
    passphrase = None if passphrase_file is None else _read_passphrase(passphrase_file)
    if passphrase is None and identity.exists() and is_encrypted(identity) and sys.stdin.isatty():
        passphrase = typer.prompt(f"Passphrase of {identity}", hide_input=True, err=True)
    return read_identities(identity, passphrase)


def _read_passphrase(file: Path) -> str:
    try:
        passphrase = file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InvalidInputError(f"The passphrase cannot be read from {file}: {reason}.") from None
    if not passphrase:
        raise InvalidInputError(f"{file} is empty; write a passphrase into it.")
    return passphrase


async def _finish_restore(urls: DatabaseUrls, settings: Settings) -> tuple[int | None, bool, KeyCheck | None]:
    """End again what a restored database has of what had ended, and look for the keys of what it has.

    Returns:
        How much that was, None without a ledger; whether the database holds what keys of persons seal; and which of
        these are lost, None where the keys cannot be used.
    """
    database = await Database.connect(urls.serving, settings.database, owner_url=urls.owner)
    try:
        custody = database.use_keys(open_custody(settings))
        destroyer = KeyDestroyer.attach(database, custody.person_keys)
        has_ledger = settings.ledger_file.exists()
        ended = await ErasureLedger(database, settings.ledger_file).synchronize() if has_ledger else None
        await destroyer.destroy_after(())
        async with database.transaction(read_only=True) as work:
            is_sealed = await work.sealed_values.has_any()
        found = None
        if is_sealed and custody.keys.exists():
            with suppress(KeyRingError):  # the service says at its start what is missing
                found = await KeyRotator(database, custody).check(COMMAND_LINE)
        return ended, is_sealed, found
    except KeyRingError as error:
        raise KeyRingError(
            f"The backup is restored, but not all that ended since then is ended again: {error.detail} Once that is "
            "done, the next start ends it."
        ) from error
    finally:
        await database.close()
