"""Whether the database answers, and whether its disk has space."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text

from vultus.db.failures import UNREACHABLE_DETAIL, translate_errors
from vultus.errors import DatabaseUnavailableError, StorageFullError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.db.hot_connections import HotConnections

log = logging.getLogger(__name__)

PING_TIMEOUT_S = 1.5
"""Readiness turns within two seconds."""

PROBE_OF_STORAGE = (
    "CREATE TEMPORARY TABLE probe_of_storage AS SELECT md5(number::text) FROM generate_series(1, 20000) AS number"
)
"""Takes a megabyte of the database's disk; rolled back, it gives it back."""


PROBE_OF_SCHEMA = "SELECT 1 FROM alembic_version"
"""An empty database answers, too, and serves nobody."""


class DatabaseHealth:
    """Asks a database how it is, and remembers that its disk was full until it has space again."""

    def __init__(self, connections: HotConnections) -> None:
        self._connections = connections
        self._is_storage_full = False
        self._query: asyncio.Task[None] | None = None
        self._abandoned: set[asyncio.Task[None]] = set()

    @contextmanager
    def notice_full_storage(self) -> Iterator[None]:
        """Remember that something could not be stored for want of space."""
        try:
            yield
        except StorageFullError:
            if not self._is_storage_full:
                log.error("the disk of the database is full: nothing can be stored until it has space")
            self._is_storage_full = True
            raise

    async def check(self) -> None:
        """Raise unless the database answers, has Vultus' tables, and space again after its disk was full.

        Callers share one query. A query to a server that hangs takes seconds to cancel, which nobody waits for.

        Raises:
            DatabaseUnavailableError: It does not answer within `PING_TIMEOUT_S`.
            SchemaNotCurrentError: It was replaced by another one.
            StorageFullError: Its disk is full.
        """
        query = self._query
        if query is None or query.done():
            query = self._query = asyncio.create_task(self._run_query())
            self._abandoned.add(query)
            query.add_done_callback(self._forget_query)
        await asyncio.wait({query}, timeout=PING_TIMEOUT_S)
        if not query.done() or query.cancelled():
            query.cancel()
            if self._query is query:
                self._query = None
            raise DatabaseUnavailableError(UNREACHABLE_DETAIL)
        query.result()

    async def _run_query(self) -> None:
        was_full = self._is_storage_full
        with translate_errors():
            async with self._connections.connect() as connection:
                await connection.execute(text(PROBE_OF_STORAGE if was_full else PROBE_OF_SCHEMA))
        if was_full:
            log.warning("the disk of the database has space again")
            self._is_storage_full = False

    def _forget_query(self, query: asyncio.Task[None]) -> None:
        self._abandoned.discard(query)
        if not query.cancelled():
            query.exception()  # those who asked have it, if they still wait

    def close(self) -> None:
        """Stop asking."""
        for query in self._abandoned:
            query.cancel()
