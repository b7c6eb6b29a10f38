"""Dumps of a whole database as of one moment, by the client programs of PostgreSQL, and their restoration.

The programs that come with the embedded server read every older one, but cannot speak TLS; those of the machine are
taken where they fit the server better.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from vultus.db.connections import check_connection, open_connection
from vultus.db.embedded.account import SystemAccount
from vultus.db.embedded.programs import SERVER_MAJOR_VERSION, PostgresPrograms
from vultus.db.locks import compute_lock_number
from vultus.errors import ConflictError, EmbeddedDatabaseError, SetupError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    import asyncpg

    from vultus.db.urls import DatabaseAddress

COPY_BYTES = 2**20
BACKUP_LOCK = compute_lock_number("backup")
MIN_PORTABLE_VERSION = 17
"""Programs of 17 and newer set a parameter in what they restore that older servers do not know."""

_PROGRAM_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
_TLS_MODES = {"require", "verify-ca", "verify-full"}
_EMPTY_MEANING = {"sslnegotiation": "postgres"}
"""Values that mean the same as none, of parameters that older programs do not know."""

_FETCH_TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A moment of a database, held for those who read it.

    Attributes:
        id: Under which other connections see it.
        counts: Rows by table.
        schema: Revision of its schema; None for an empty database.
        server_version: Major version of its server.
        size_bytes: Of the database on the disk.
    """

    id: str
    counts: dict[str, int]
    schema: str | None
    server_version: int
    size_bytes: int


@asynccontextmanager
async def open_snapshot(address: DatabaseAddress) -> AsyncIterator[Snapshot]:
    """Hold a moment of a database for the length of the block; nobody waits for it.

    Raises:
        DatabaseUnavailableError: The database cannot be reached.
        SetupError: It cannot be reached with this URL.
    """
    await check_connection(address)
    connection = await open_connection(address, {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"})
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        counts = await _count_rows(connection)
        yield Snapshot(
            id=await connection.fetchval("SELECT pg_export_snapshot()"),
            counts=counts,
            schema=await connection.fetchval("SELECT version_num FROM alembic_version") if counts else None,
            server_version=connection.get_server_version().major,
            size_bytes=await connection.fetchval("SELECT pg_database_size(current_database())"),
        )
    finally:
        await connection.close()


@asynccontextmanager
async def hold_backup_lock(address: DatabaseAddress) -> AsyncIterator[bool]:
    """Yield whether no other server backs up the database; none does for the length of the block.

    Raises:
        DatabaseUnavailableError: The database cannot be reached.
        SetupError: It cannot be reached with this URL.
    """
    await check_connection(address)
    connection = await open_connection(address, {})
    try:
        yield bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", BACKUP_LOCK))
    finally:
        await connection.close()


async def count_rows(address: DatabaseAddress) -> dict[str, int]:
    """Return the number of rows of every table of a database."""
    connection = await open_connection(address, {"statement_timeout": "0"})
    try:
        return await _count_rows(connection)
    finally:
        await connection.close()


async def _count_rows(connection: asyncpg.Connection) -> dict[str, int]:
    tables = [row[0] for row in await connection.fetch(_FETCH_TABLES)]
    return {name: await connection.fetchval(f'SELECT count(*) FROM public."{name}"') for name in tables}  # noqa: S608


class ClientPrograms:
    """`pg_dump` and `pg_restore` for a database.

    Args:
        address: Of the database.
        server_version: Major version of its server.
        data_dir: Where the programs that come with Vultus are copied to if they cannot be reached.
    """

    def __init__(self, address: DatabaseAddress, server_version: int, data_dir: Path) -> None:
        self._address = address
        self._server_version = server_version
        self._dsn, self._environment = _build_program_options(address)
        self._programs = _find_programs(address, server_version, data_dir)

    def dump(self, snapshot_id: str | None, write: Callable[[bytes], object]) -> None:
        """Write the database as of a moment, in the custom format of `pg_dump`.

        Args:
            snapshot_id: Of an open `Snapshot`; None for now.
            write: Called with the parts; what it raises ends the dump.

        Raises:
            EmbeddedDatabaseError: The database cannot be read.
        """
        moment = (f"--snapshot={snapshot_id}",) if snapshot_id else ()
        with self._run(
            "pg_dump", ("-Fc", "--no-owner", "--no-privileges", *moment), "The database cannot be dumped"
        ) as (_, output):
            while part := output.read(COPY_BYTES):
                write(part)

    def restore(self, parts: Iterable[bytes]) -> None:
        """Restore what `dump` wrote into a database that is empty, all of it or nothing.

        Args:
            parts: In order; if they end with an exception, nothing is restored.

        Raises:
            EmbeddedDatabaseError: They are no dump, or cannot be restored.
        """
        version, program_version = self._server_version, _read_version(self._programs)
        if version < MIN_PORTABLE_VERSION <= program_version:
            raise SetupError(
                f"A PostgreSQL {version} is restored with programs of its own version, and {self._programs} holds "
                f"those of {program_version}. Install the client programs of PostgreSQL {version} on this machine."
            )
        options = ("--no-owner", "--no-privileges", "--no-comments", "--exit-on-error", "--single-transaction")
        with (
            self._run("pg_restore", options, "The database cannot be restored") as (source, _),
            contextlib.suppress(BrokenPipeError),  # it ended early, and says why
        ):
            for part in parts:
                source.write(part)
            source.close()

    @contextlib.contextmanager
    def _run(self, program: str, options: tuple[str, ...], failure: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Run a program and yield its standard input and output; an exception in the block kills it."""
        command = [str(self._programs / program), "-w", *options, "-d", self._dsn]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(  # noqa: S603  fixed programs, no shell
                command,
                env=self._environment,
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            source, output = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
            try:
                yield source, output
                process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
            finally:
                output.close()
                with contextlib.suppress(BrokenPipeError):
                    source.close()
            if process.returncode:
                errors.seek(0)
                lines = errors.read().decode(errors="replace").strip().splitlines()
                raise EmbeddedDatabaseError(f"{failure}; {program} says: {' '.join(lines[-4:])}")


async def require_empty(address: DatabaseAddress) -> int:
    """Raise unless a database is empty; return the major version of its server.

    Raises:
        ConflictError: It has tables.
        DatabaseUnavailableError: It cannot be reached.
        SetupError: It cannot be reached with this URL.
    """
    await check_connection(address)
    connection = await open_connection(address, {})
    try:
        if tables := await connection.fetch(_FETCH_TABLES):
            raise ConflictError(
                f"The database at {address.place} is not empty: it has {len(tables)} tables. Restore into an empty "
                "one: an empty data directory (VULTUS_DATA_DIR), one whose folder 'postgres' was moved away while the "
                "service was stopped, or a new database (VULTUS_DATABASE__URL)."
            )
        return int(connection.get_server_version().major)
    finally:
        await connection.close()


def _build_program_options(address: DatabaseAddress) -> tuple[str, dict[str, str]]:
    """Return a URL and an environment: what others may see of a process holds no secret.

    Raises:
        SetupError: A secret is given that cannot be told to the programs otherwise.
    """
    parts = urlsplit(address.dsn)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "sslpassword" in given:
        raise SetupError("pg_dump cannot be given sslpassword in secret: use a TLS key without a password.")
    password = given.pop("password", None) or parts.password
    kept = {name: value for name, value in given.items() if _EMPTY_MEANING.get(name) != value}
    userinfo, at, hosts = parts.netloc.rpartition("@")
    netloc = f"{userinfo.partition(':')[0]}{at}{hosts}"
    environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
    if "/" not in given.get("host", ""):  # a server of the operator's, whose variables and files count
        environment |= {name: value for name, value in os.environ.items() if name == "HOME" or name[:2] == "PG"}
    if password is not None:
        environment["PGPASSWORD"] = password
    return f"postgresql://{netloc}{parts.path}?{urlencode(kept, quote_via=quote)}", environment


def _find_programs(address: DatabaseAddress, server_version: int, data_dir: Path) -> Path:
    """Return the folder of the programs whose version is the server's, or the next newer one.

    Raises:
        SetupError: There are none.
    """
    modes = dict(parse_qsl(urlsplit(address.dsn).query)).get("sslmode")
    folders = [Path(found) for pattern in _PROGRAM_FOLDERS for found in Path("/").glob(pattern.lstrip("/"))]
    if (command := shutil.which("pg_dump")) and (folder := Path(command).resolve().parent) not in folders:
        folders.append(folder)
    if modes not in _TLS_MODES:
        own = SystemAccount("", os.geteuid(), os.getegid())
        folders.insert(0, PostgresPrograms(data_dir, own).directory)
    versions = {one: _read_version(one) for one in folders}
    fitting = sorted((version, folders.index(one)) for one, version in versions.items() if version >= server_version)
    if not fitting:
        why = "which speak no TLS" if modes in _TLS_MODES else "which are older"
        raise SetupError(
            f"PostgreSQL at {address.place} has version {server_version}. Vultus brings client programs of "
            f"{SERVER_MAJOR_VERSION}, {why}: install those of PostgreSQL {server_version} on this machine (pg_dump and "
            "pg_restore)."
        )
    return folders[fitting[0][1]]


def _read_version(folder: Path) -> int:
    """Return the major version of the programs in a folder; 0 if they do not run."""
    try:
        done = subprocess.run(  # noqa: S603  fixed program and arguments
            [folder / "pg_dump", "--version"], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
        )
    except OSError:
        return 0
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(found[1]) if found else 0
