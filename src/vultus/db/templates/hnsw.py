"""HNSW indexes of pgvector on a collection's partition, built and dropped concurrently with reads and writes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import NullPool

from vultus.db.connections import create_engine
from vultus.db.failures import translate_errors
from vultus.db.locks import compute_lock_number
from vultus.db.repositories.collections import get_partition_name
from vultus.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from vultus.db.urls import DatabaseAddress

MIB = 2**20
MIN_MEMORY_MIB, MAX_MEMORY_MIB = 64, 2048

# An erased vector stays in an HNSW index until VACUUM cleans it, and by default VACUUM skips indexes with few dead
# rows. So cleanup is forced, and autovacuum runs as soon as one row is dead.
VACUUM_SETTINGS = {
    "vacuum_index_cleanup": "on",
    "autovacuum_vacuum_threshold": "0",
    "autovacuum_vacuum_scale_factor": "0",
}


class HnswMaintenance:
    """Builds and drops the HNSW index of one collection, concurrently and so outside any transaction."""

    def __init__(self, connection: Any, collection_id: UUID) -> None:
        self._connection = connection
        self._partition = get_partition_name(collection_id)

    async def build_index(self, space_id: str, dimension: int, m: int, ef_construction: int) -> None:
        """Build the index of the templates in an embedding space, replacing an unfinished one of a killed process.

        Faces can be enrolled, erased and searched for meanwhile; the build waits for the running transactions.

        Args:
            space_id: Embedding space of the templates.
            dimension: Length of their vectors.
            m: Maximum number of neighbours of a template per layer, 2..100; twice as many in the lowest.
            ef_construction: Candidates for neighbours, 2 m..1000.
        """
        await self.drop_index()
        partition, literal = self._partition, space_id.replace("'", "''")
        rows = await self._connection.fetchval(f"SELECT count(*) FROM {partition}")  # noqa: S608
        # Approximate memory per template during the build: vector, neighbours of 16 bytes each, overhead.
        needed_mib = rows * (2 * dimension + 16 * 3 * m + 300) // MIB
        memory_mib = max(MIN_MEMORY_MIB, min(needed_mib, MAX_MEMORY_MIB))
        await self._connection.execute(f"SET maintenance_work_mem = '{memory_mib}MB'")
        settings = ", ".join(f"{name} = {value}" for name, value in VACUUM_SETTINGS.items())
        await self._connection.execute(f"ALTER TABLE {partition} SET ({settings})")
        await self._connection.execute(
            f"CREATE INDEX CONCURRENTLY {partition}_hnsw ON {partition}"
            f" USING hnsw ((embedding::halfvec({dimension})) halfvec_cosine_ops)"
            f" WITH (m = {m}, ef_construction = {ef_construction}) WHERE contract_id = '{literal}'"
        )
        # Without row counts per embedding space the planner assumes few rows and compares them all.
        await self._connection.execute(f"ANALYZE {partition}")

    async def drop_index(self) -> None:
        """Drop the index, finished or not; do nothing if there is none."""
        await self._connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {self._partition}_hnsw")
        await self._connection.execute(f"ALTER TABLE {self._partition} RESET ({', '.join(VACUUM_SETTINGS)})")


@asynccontextmanager
async def open_hnsw_maintenance(address: DatabaseAddress, collection_id: UUID) -> AsyncIterator[HnswMaintenance]:
    """Open a connection without a statement timeout that holds the exclusive lock on a collection's HNSW index.

    Raises:
        ConflictError: Another process holds the lock.
    """
    engine = create_engine(address, {"statement_timeout": "0"}, command_timeout_s=None, poolclass=NullPool)
    try:
        with translate_errors():
            async with engine.connect() as connection:
                # The driver's connection: it stays usable when its caller is cancelled during a statement.
                driver: Any = (await connection.get_raw_connection()).driver_connection
                number = compute_lock_number("graph", str(collection_id))
                # A session lock, not a transaction's: CREATE INDEX CONCURRENTLY waits for every transaction.
                if not await driver.fetchval("SELECT pg_try_advisory_lock($1)", number):
                    raise ConflictError("The collection's graph is being built or dropped; try again afterwards.")
                yield HnswMaintenance(driver, collection_id)
    finally:
        await engine.dispose()
