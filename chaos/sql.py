"""SQL on a server's embedded PostgreSQL, past the server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from vultus.db.embedded.cluster import DATABASE, OWNER, PORT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chaos.service import Service


@asynccontextmanager
async def connect(service: Service, role: str = OWNER) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection of a role, by default the one that owns the tables."""
    connection = await asyncpg.connect(host=find_socket_directory(service), port=PORT, user=role, database=DATABASE)
    try:
        yield connection
    finally:
        await connection.close()


def find_socket_directory(service: Service) -> str:
    """Return the directory of the running PostgreSQL's Unix socket."""
    return (service.data / "postgres" / "postmaster.pid").read_text().splitlines()[4]


async def fetch_rows(service: Service, query: str, *arguments: Any) -> list[Any]:
    """Return the rows of a query."""
    async with connect(service) as connection:
        return list(await connection.fetch(query, *arguments))
