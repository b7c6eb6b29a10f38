"""Questions put to the driver itself: most requests ask two, and SQLAlchemy's layers take longer than PostgreSQL.

PostgreSQL plans a statement anew every time, on all connections: a plan for any collection would lock the partitions of
all. A statement that names its partition can keep its plan. With the execution option `PLANS` a statement says whether
its plan is kept; one that does not say is planned as the connection's last one was.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from asyncpg import InternalClientError, Record
from sqlalchemy.dialects.postgresql import asyncpg

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Executable
    from sqlalchemy.pool import PoolProxiedConnection

QUESTIONS = 2048
"""Statements kept as the driver takes them: a few, and one a collection with an index."""

PLANS = "plan_cache_mode"
ANEW, ONCE = "force_custom_plan", "force_generic_plan"

_DIALECT = asyncpg.dialect()  # type: ignore[no-untyped-call]


class Asking:
    """Stands in for a session that only reads, where every statement is a transaction by itself.

    Args:
        connection: From the pool; nothing else uses it meanwhile.
    """

    def __init__(self, connection: PoolProxiedConnection) -> None:
        self._connection = connection

    async def execute(self, statement: Executable, values: Mapping[str, Any]) -> Answer:
        """Return the rows of a statement that was built once; its columns arrive as the driver reads them."""
        text, names, plans = _as_asked(statement)
        if plans is not None:
            await have_planned(self._connection, plans)
        asked = [values[name] for name in names]
        rows: list[Any] = await _tell(self._connection, "fetch", text, *asked, record_class=_Row)
        return Answer(rows)


async def have_planned(connection: PoolProxiedConnection, plans: str) -> None:
    """Have a connection's statements planned `ANEW` every time, as they are to begin with, or `ONCE`."""
    if connection.info.get(PLANS, ANEW) != plans:
        connection.info[PLANS] = None  # if this is broken off, nobody knows
        await _tell(connection, "execute", f"SET {PLANS} = {plans}")
        connection.info[PLANS] = plans


async def _tell(connection: PoolProxiedConnection, method: str, *values: Any, **options: Any) -> Any:
    try:
        return await getattr(connection.driver_connection, method)(*values, **options)
    except (OSError, InternalClientError):
        connection.invalidate()  # whatever state it is in, nobody should get it again
        raise


class Answer:
    """Rows, their values by name."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def one_or_none(self) -> Any:
        """Return the row of a question that has one answer at most."""
        (row,) = self._rows or [None]
        return row


class _Row(Record):  # type: ignore[misc]
    def __getattr__(self, name: str) -> Any:
        return self[name]


@lru_cache(maxsize=QUESTIONS)
def _as_asked(statement: Executable) -> tuple[str, tuple[str, ...], str | None]:
    """Return a statement as PostgreSQL reads it, the names of its values, in their order, and how it is planned."""
    compiled: Any = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
    return str(compiled), tuple(compiled.positiontup), statement.get_execution_options().get(PLANS)
