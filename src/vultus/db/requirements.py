"""What a PostgreSQL must offer before a face is entrusted to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from vultus.errors import ExtensionMissingError, SetupError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

OLDEST_SERVER = 15
OLDEST_PGVECTOR = (0, 8, 4)  # earlier ones have overflow and vacuum bugs
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")


async def check_server(connection: AsyncConnection) -> None:
    """Check version and durability.

    Raises:
        SetupError: The server is too old, or may lose a commit that it has confirmed.
    """
    version = int((await connection.execute(text("SHOW server_version_num"))).scalar_one())
    if version < OLDEST_SERVER * 10_000:
        raise SetupError(f"PostgreSQL {version // 10_000} is too old; Vultus needs {OLDEST_SERVER} or newer.")
    rows = await connection.execute(
        text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names) AND setting = 'off' ORDER BY name"),
        {"names": list(DURABLE)},
    )
    if careless := [row.name for row in rows]:
        raise SetupError(
            f"PostgreSQL runs with {', '.join(careless)} off and may lose what it has confirmed. Turn it on, in "
            "postgresql.conf and for the role and the database, and reload."
        )


async def check_pgvector(connection: AsyncConnection, *, installed: bool = True) -> None:
    """Check pgvector.

    Args:
        connection: To the database that is to be used.
        installed: Whether the extension must have been created; else it is enough that it can be.

    Raises:
        ExtensionMissingError: It is missing or too old; the message has the commands that help.
    """
    row = (
        await connection.execute(
            text("SELECT default_version, installed_version FROM pg_available_extensions WHERE name = 'vector'")
        )
    ).one_or_none()
    newest = _numbers(row.default_version) if row else (0,)
    present = _numbers(row.installed_version) if row and row.installed_version else None
    wanted = ".".join(map(str, OLDEST_PGVECTOR))
    if present is not None and present >= OLDEST_PGVECTOR:
        return
    if newest < OLDEST_PGVECTOR:
        server = int((await connection.execute(text("SHOW server_version_num"))).scalar_one()) // 10_000
        found = f"pgvector {row.default_version} is too old" if row else "pgvector is not installed"
        raise ExtensionMissingError(
            f"{found} on the database server; Vultus needs {wanted} or newer. On Debian or Ubuntu with the repository "
            f"apt.postgresql.org: 'apt-get install postgresql-{server}-pgvector'; in a container use the image "
            f"'pgvector/pgvector:pg{server}'. Then run 'vultus db upgrade'."
        )
    if present is not None:
        raise ExtensionMissingError(
            f"The database has an older pgvector than the server offers; Vultus needs {wanted} or newer. Run as the "
            "extension's owner, in this database: ALTER EXTENSION vector UPDATE;"
        )
    if installed:
        raise ExtensionMissingError(
            "The extension pgvector is not created in this database. Run 'vultus db upgrade', or as a superuser, in "
            "this database: CREATE EXTENSION vector;"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
