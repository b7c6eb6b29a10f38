"""Requirements on a PostgreSQL server: version, durability and pgvector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from vultus.errors import ExtensionMissingError, SetupError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

MIN_SERVER_VERSION = 15
MIN_PGVECTOR_VERSION = (0, 8, 4)  # earlier ones have overflow and vacuum bugs
DURABILITY_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit")


async def check_server(connection: AsyncConnection) -> None:
    """Raise unless version and durability settings meet the requirements.

    Raises:
        SetupError: The server is too old, or may lose a commit that it has confirmed.
    """
    version = int((await connection.execute(text("SHOW server_version_num"))).scalar_one())
    if version < MIN_SERVER_VERSION * 10_000:
        raise SetupError(f"PostgreSQL {version // 10_000} is too old; Vultus needs {MIN_SERVER_VERSION} or newer.")
    rows = await connection.execute(
        text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names) AND setting = 'off' ORDER BY name"),
        {"names": list(DURABILITY_SETTINGS)},
    )
    if disabled := [row.name for row in rows]:
        raise SetupError(
            f"PostgreSQL runs with {', '.join(disabled)} off and may lose what it has confirmed. Turn it on, in "
            "postgresql.conf and for the role and the database, and reload."
        )


async def check_pgvector(connection: AsyncConnection, *, installed: bool = True) -> None:
    """Raise unless pgvector is available in a sufficient version.

    Args:
        connection: To the database to check.
        installed: Whether the extension must have been created; otherwise it must only be possible to create it.

    Raises:
        ExtensionMissingError: It is missing or too old; the message contains the commands that remedy it.
    """
    row = (
        await connection.execute(
            text("SELECT default_version, installed_version FROM pg_available_extensions WHERE name = 'vector'")
        )
    ).one_or_none()
    newest = _parse_version(row.default_version) if row else (0,)
    present = _parse_version(row.installed_version) if row and row.installed_version else None
    required = ".".join(map(str, MIN_PGVECTOR_VERSION))
    if present is not None and present >= MIN_PGVECTOR_VERSION:
        return
    if newest < MIN_PGVECTOR_VERSION:
        server = int((await connection.execute(text("SHOW server_version_num"))).scalar_one()) // 10_000
        found = f"pgvector {row.default_version} is too old" if row else "pgvector is not installed"
        raise ExtensionMissingError(
            f"{found} on the database server; Vultus needs {required} or newer. On Debian or Ubuntu with the "
            f"repository apt.postgresql.org: 'apt-get install postgresql-{server}-pgvector'; in a container use the "
            f"image 'pgvector/pgvector:pg{server}'. Then run 'vultus db upgrade'."
        )
    if present is not None:
        raise ExtensionMissingError(
            f"The database has an older pgvector than the server offers; Vultus needs {required} or newer. Run as the "
            "extension's owner, in this database: ALTER EXTENSION vector UPDATE;"
        )
    if installed:
        raise ExtensionMissingError(
            "The extension pgvector is not created in this database. Run 'vultus db upgrade', or as a superuser, in "
            "this database: CREATE EXTENSION vector;"
        )


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
