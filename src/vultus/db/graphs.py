"""HNSW graphs: indexes of pgvector on a collection's partition, built and dropped beside its readers and writers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from vultus.db.failures import translated, watch
from vultus.db.locks import number_of
from vultus.db.repositories.collections import partition_of
from vultus.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from sqlalchemy.engine import URL

MIB = 2**20
LEAST_MEMORY_MIB, MOST_MEMORY_MIB = 64, 2048

# An erased vector stays in a graph until VACUUM cleans it, which by default passes over an index with few dead rows.
# So it must clean, and autovacuum comes as soon as one row is dead.
KEPT_CLEAN = {"vacuum_index_cleanup": "on", "autovacuum_vacuum_threshold": "0", "autovacuum_vacuum_scale_factor": "0"}


class GraphWork:
    """Builds and drops the graph of one collection; outside of any transaction, as both let others work meanwhile."""

    def __init__(self, connection: Any, collection_id: UUID) -> None:
        self._connection = connection
        self._partition = partition_of(collection_id)

    async def build(self, contract_id: str, dimension: int, m: int, ef_construction: int) -> None:
        """Build the graph of a contract's templates, in place of one that a killed process left unfinished.

        Faces can be enrolled, erased and searched for meanwhile; it waits for the transactions under way.

        Args:
            contract_id: Of the templates.
            dimension: Of their vectors.
            m: Most neighbours of a template in a layer, 2..100; twice as many in the lowest.
            ef_construction: Candidates for them, 2 m..1000.
        """
        await self.drop()
        partition, literal = self._partition, contract_id.replace("'", "''")
        rows = await self._connection.fetchval(f"SELECT count(*) FROM {partition}")  # noqa: S608
        # About what a template takes while it is built in memory: vector, neighbours of 16 bytes each, and itself.
        need = rows * (2 * dimension + 16 * 3 * m + 300) // MIB
        memory = max(LEAST_MEMORY_MIB, min(need, MOST_MEMORY_MIB))
        await self._connection.execute(f"SET maintenance_work_mem = '{memory}MB'")
        kept_clean = ", ".join(f"{name} = {value}" for name, value in KEPT_CLEAN.items())
        await self._connection.execute(f"ALTER TABLE {partition} SET ({kept_clean})")
        await self._connection.execute(
            f"CREATE INDEX CONCURRENTLY {partition}_hnsw ON {partition}"
            f" USING hnsw ((embedding::halfvec({dimension})) halfvec_cosine_ops)"
            f" WITH (m = {m}, ef_construction = {ef_construction}) WHERE contract_id = '{literal}'"
        )
        # Not knowing how many rows a contract has, the planner takes them for few and compares them all.
        await self._connection.execute(f"ANALYZE {partition}")

    async def drop(self) -> None:
        """Drop the graph, finished or not; nothing happens if there is none."""
        await self._connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {self._partition}_hnsw")
        await self._connection.execute(f"ALTER TABLE {self._partition} RESET ({', '.join(KEPT_CLEAN)})")


@asynccontextmanager
async def graph_work(url: URL, collection_id: UUID) -> AsyncIterator[GraphWork]:
    """Open a connection of its own, without a time limit, that has a collection's graph for itself.

    Raises:
        ConflictError: Another process has it.
    """
    engine = create_async_engine(url, poolclass=NullPool, hide_parameters=True)
    watch(engine)
    try:
        with translated():
            async with engine.connect() as connection:
                # The driver itself: it stays usable when its caller is cancelled in the middle of a statement.
                driver: Any = (await connection.get_raw_connection()).driver_connection
                await driver.execute("SET statement_timeout = 0; SET application_name = 'vultus'")
                number = number_of("graph", str(collection_id))
                # Held by the connection, not by a transaction: CREATE INDEX CONCURRENTLY waits for every transaction.
                if not await driver.fetchval("SELECT pg_try_advisory_lock($1)", number):
                    raise ConflictError("The collection's graph is being built or dropped; try again afterwards.")
                yield GraphWork(driver, collection_id)
    finally:
        await engine.dispose()
