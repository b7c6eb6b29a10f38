"""Backups: everything that the database holds as of one moment, in an encrypted archive; and their restoration.

No key is in them, and nothing of the custody directory: with the keys of persons, a backup would undo an erasure.
"""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from vultus import __version__
from vultus.db.dumps import ClientPrograms, count_rows, open_snapshot, require_empty
from vultus.db.migrate import check_revision_known
from vultus.errors import EmbeddedDatabaseError, InvalidInputError, LedgerError
from vultus.utils.archives import PartedMember, create_archive, open_archive
from vultus.utils.chained_file import ChainedFile, ChainPosition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pydantic import BaseModel

    from vultus.db.urls import DatabaseAddress
    from vultus.settings import Settings

FORMAT = 2
"""Earlier ones were ZIP files, not encrypted."""

DESCRIPTION, CONFIGURATION, DUMP = "backup.json", "configuration.json", "database.dump"
MAX_HELD_BYTES = 2**20
"""Of description and configuration each."""


class BackupDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds.

    Attributes:
        format: Of the archive.
        version: Of the program that wrote it.
        made_at: The moment that it holds.
        schema: Revision of the database's schema.
        server_version: Major version of its PostgreSQL.
        counts: Rows by table.
        ledger_bytes: Length of the ledger of erasures then.
        ledger_digest: Of the ledger's last line then.
    """

    format: int
    version: str
    made_at: datetime
    schema: str
    server_version: int
    counts: dict[str, int]
    ledger_bytes: int
    ledger_digest: str

    @property
    def ledger_position(self) -> ChainPosition:
        """The end that the ledger of erasures had."""
        return ChainPosition(self.ledger_bytes, self.ledger_digest)


async def write_backup(
    file: Path,
    address: DatabaseAddress,
    settings: Settings,
    recipients: Sequence[str],
    progress: Callable[[int, int], None],
) -> BackupDescription:
    """Write a backup of a database that is in use, or not.

    Args:
        file: Must not exist.
        address: Of the database, for the role that owns what is in it.
        settings: Of the installation; the backup names those that were set, without secrets.
        recipients: Who may open it; without any it is not encrypted.
        progress: Called, in another thread, with the bytes of the dump so far and those of the database.

    Raises:
        AlreadyExistsError: The file exists.
        InvalidInputError: It cannot be written; nothing is left of it. Or the database is empty.
        EmbeddedDatabaseError: The database cannot be dumped.
        SetupError: There are no programs for a server of its version.
        DatabaseUnavailableError: The database cannot be reached.
    """
    async with open_snapshot(address) as snapshot:
        if snapshot.schema is None:
            raise InvalidInputError(f"The database at {address.place} is empty; there is nothing to back up.")
        ledger = await asyncio.to_thread(ChainedFile(settings.ledger_file).find_end)
        described = BackupDescription(
            format=FORMAT,
            version=__version__,
            made_at=datetime.now(UTC),
            schema=snapshot.schema,
            server_version=snapshot.server_version,
            counts=snapshot.counts,
            ledger_bytes=ledger.offset,
            ledger_digest=ledger.digest,
        )
        programs = await asyncio.to_thread(ClientPrograms, address, snapshot.server_version, settings.data_dir)

        def write(advance: Callable[[int], None]) -> None:
            with create_archive(file, recipients) as archive:
                archive.add_member(DESCRIPTION, msgspec.json.encode(described))
                archive.add_member(CONFIGURATION, json.dumps(list_given_settings(settings), indent=1).encode())
                dump = PartedMember(archive, DUMP)

                def write_part(part: bytes) -> None:
                    dump.write(part)
                    advance(len(part))

                programs.dump(snapshot.id, write_part)
                dump.close()
                archive.close()

        await _run_in_thread(write, lambda done: progress(done, snapshot.size_bytes))
    return described


async def restore_backup(
    file: Path,
    address: DatabaseAddress,
    data_dir: Path,
    identities: Sequence[Any],
    progress: Callable[[int, int], None],
) -> tuple[BackupDescription, dict[str, str]]:
    """Restore a backup into an empty database; return its description and the settings that were set then.

    The whole archive is read and compared with its digests before the database is touched.

    Args:
        file: Of `write_backup`.
        address: Of the database, for the role that is to own what is in it.
        data_dir: As in `ClientPrograms`.
        identities: Of those who may open it.
        progress: Called, in another thread, with the bytes of the archive read so far, of both readings, and in all.

    Raises:
        InvalidInputError: The file is no backup, or is damaged, or no identity opens it.
        SchemaNotCurrentError: A newer version of this program wrote it.
        ConflictError: The database is not empty.
        EmbeddedDatabaseError: It cannot be restored.
        SetupError: There are no programs for a server of its version.
        DatabaseUnavailableError: The database cannot be reached.
    """
    server_version = await require_empty(address)
    programs = await asyncio.to_thread(ClientPrograms, address, server_version, data_dir)

    def restore(advance: Callable[[int], None]) -> tuple[BackupDescription, dict[str, str]]:
        found, digests = _check_backup(file, identities, advance)
        check_revision_known(found[0].schema)
        with open_archive(file, identities, digests) as archive:
            members = archive.read_members()
            programs.restore(_advance_with(members, advance))
        return found

    total = 2 * await asyncio.to_thread(_measure, file)
    described, given = await _run_in_thread(restore, lambda done: progress(done, total))
    if (counts := await count_rows(address)) != described.counts:
        different = sorted(
            name for name in {*counts, *described.counts} if counts.get(name) != described.counts.get(name)
        )
        raise EmbeddedDatabaseError(
            f"The restored database differs from the backup in the number of rows of {', '.join(different)}. Do not "
            "use it: empty it, and restore with programs of the version that made the backup."
        )
    return described, given


def describe_ledger(described: BackupDescription, settings: Settings) -> str | None:
    """Return what is wrong with the ledger of erasures that a restored database meets; None if nothing is."""
    ledger = ChainedFile(settings.ledger_file)
    if not ledger.path.exists():
        return (
            f"There is no ledger of erasures, {ledger.path}: whoever was erased and whatever key was revoked since "
            "then is back. Bring the ledger before you start the service, or erase and revoke again."
        )
    try:
        ledger.read(described.ledger_position)
    except LedgerError:
        return (
            f"The ledger of erasures, {ledger.path}, does not go on from where it ended when the backup was made: it "
            "is older, or another installation's. What it does not hold is back: bring the right one before you start "
            "the service, or erase and revoke again."
        )
    return None


def list_given_settings(settings: BaseModel, prefix: str = "VULTUS_") -> dict[str, str]:
    """Return the settings that are set, by the variable that sets them; of secrets the name alone."""
    given: dict[str, str] = {}
    for name in sorted(settings.model_fields_set):
        value, variable = getattr(settings, name), f"{prefix}{name.upper()}"
        if hasattr(value, "model_fields_set"):
            given |= list_given_settings(value, f"{variable}__")
        elif hasattr(value, "get_secret_value"):
            given[variable] = ""
        elif isinstance(value, tuple):
            given[variable] = ",".join(map(str, value))
        elif value is not None:
            given[variable] = str(value)
    return given


def _check_backup(
    file: Path, identities: Sequence[Any], advance: Callable[[int], None]
) -> tuple[tuple[BackupDescription, dict[str, str]], dict[str, str]]:
    """Read a whole backup, compare it with its digests, and return its description, the settings in it, and them."""
    held: dict[str, bytes] = {}
    with open_archive(file, identities) as archive:
        for name, content in archive.read_members():
            advance(len(content))
            if name in (DESCRIPTION, CONFIGURATION) and len(content) <= MAX_HELD_BYTES:
                held[name] = content
            elif not name.startswith(f"{DUMP}."):
                raise InvalidInputError(f"{file} is no backup of Vultus: it has a member '{name}'.")
    try:
        stated = msgspec.json.decode(held[DESCRIPTION])
        if stated["format"] != FORMAT:
            raise InvalidInputError(f"{file} was written by another version of Vultus ({stated['version']}).")
        described = msgspec.convert(stated, BackupDescription)
        return (described, msgspec.json.decode(held[CONFIGURATION], type=dict[str, str])), archive.found
    except (KeyError, TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidInputError(f"{file} is no backup of Vultus.") from error


def _advance_with(members: Iterator[tuple[str, bytes]], advance: Callable[[int], None]) -> Iterator[bytes]:
    for name, content in members:
        advance(len(content))
        if name.startswith(f"{DUMP}."):
            yield content


def _measure(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


async def _run_in_thread(action: Callable[[Callable[[int], None]], Any], progress: Callable[[int], None]) -> Any:
    """Run what reads or writes in a thread, which ends soon when this task is cancelled.

    Args:
        action: Is given a function to be called with the number of bytes just done.
        progress: Called with the number of bytes done in all.
    """
    stopped, done = threading.Event(), 0

    def advance(count: int) -> None:
        nonlocal done
        if stopped.is_set():
            raise InterruptedError("it was stopped")
        done += count
        progress(done)

    running = asyncio.ensure_future(asyncio.to_thread(action, advance))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stopped.set()
        with suppress(Exception):
            await running
        raise
