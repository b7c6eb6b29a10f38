"""Connections that stay out of SQLAlchemy's pool between hot queries.

Taking a connection from the pool and giving it back takes longer than most of these queries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.pool import PoolProxiedConnection, QueuePool


class HotConnections:
    """Idle connections for hot queries, the last used first; they count as the pool's, and go back if it has no other.

    Args:
        engine: Whose pool has a fixed size.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._pool = cast("QueuePool", engine.pool)
        self._idle: list[PoolProxiedConnection] = []

    def count_used(self) -> int:
        """Return the number of the pool's connections that somebody uses."""
        return self._pool.checkedout() - len(self._idle)

    def count_idle(self) -> int:
        """Return the number of open connections that nobody uses."""
        return self._pool.checkedin() + len(self._idle)

    async def acquire(self) -> PoolProxiedConnection:
        """Return a connection that is open, as far as this process knows."""
        while self._idle:
            connection = self._idle.pop()
            driver: Any = connection.driver_connection
            if not driver.is_closed():
                return connection
            connection.invalidate()
        return await self._engine.raw_connection()

    def release(self, connection: PoolProxiedConnection) -> None:
        """Keep a connection, unless it is broken or the pool has no other."""
        if connection.is_valid and not self._is_exhausted():
            self._idle.append(connection)
        else:
            connection.close()

    def connect(self) -> AsyncConnection:
        """Return a connection of the pool's to be entered at once; an idle one goes back first if there is no other."""
        if self._idle and self._is_exhausted():
            self._idle.pop(0).close()
        return self._engine.connect()

    def close(self) -> None:
        """Give every idle connection back."""
        while self._idle:
            self._idle.pop().close()

    def _is_exhausted(self) -> bool:
        return self._pool.checkedout() >= self._pool.size()
