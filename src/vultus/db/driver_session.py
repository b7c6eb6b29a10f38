"""Queries run on the driver directly: most requests run two, and SQLAlchemy's layers take longer than PostgreSQL.

PostgreSQL makes a custom plan per execution, on all connections: a generic plan for any collection would lock the
partitions of all. A statement that names its partition can have a generic plan. The execution option `PLAN_CACHE_MODE`
of a statement sets its mode; without the option the connection's last mode applies.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from asyncpg import PostgresError, Record
from sqlalchemy.dialects.postgresql import asyncpg

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Executable
    from sqlalchemy.pool import PoolProxiedConnection

STATEMENT_CACHE_SIZE = 2048
"""Compiled statements kept: a few, and one per collection with an index."""

PLAN_CACHE_MODE = "plan_cache_mode"
CUSTOM_PLAN, GENERIC_PLAN = "force_custom_plan", "force_generic_plan"

_DIALECT = asyncpg.dialect()  # type: ignore[no-untyped-call]


class StatementSession(Protocol):
    """Executes statements that were built once: the session of a transaction, or a `DriverSession`."""

    async def execute(self, statement: Executable, values: Mapping[str, Any], /) -> Any:
        """Return the rows of a statement."""
        ...


class DriverSession:
    """Executes reading statements on the driver; every statement is a transaction by itself.

    Args:
        connection: From the pool; not used by anything else meanwhile.
    """

    def __init__(self, connection: PoolProxiedConnection) -> None:
        self._connection = connection

    async def execute(self, statement: Executable, values: Mapping[str, Any]) -> DriverResult:
        """Return the rows of a statement; column values are those of the driver."""
        text, names, constants, mode = _compile_statement(statement)
        if mode is not None:
            await set_plan_cache_mode(self._connection, mode)
        arguments = [values[name] if name in values else constants[name] for name in names]
        rows: list[Any] = await _call_driver(self._connection, "fetch", text, *arguments, record_class=_NamedRecord)
        return DriverResult(rows)


async def set_plan_cache_mode(connection: PoolProxiedConnection, mode: str) -> None:
    """Set a connection's plan cache mode to `CUSTOM_PLAN`, the initial mode, or `GENERIC_PLAN`."""
    if connection.info.get(PLAN_CACHE_MODE, CUSTOM_PLAN) != mode:
        connection.info[PLAN_CACHE_MODE] = None  # if this is cancelled, the mode is unknown
        await _call_driver(connection, "execute", f"SET {PLAN_CACHE_MODE} = {mode}")
        connection.info[PLAN_CACHE_MODE] = mode


async def _call_driver(connection: PoolProxiedConnection, method: str, *values: Any, **options: Any) -> Any:
    try:
        return await getattr(connection.driver_connection, method)(*values, **options)
    except PostgresError:
        raise
    except BaseException:  # CancelledError too: the server is told to cancel, and may cancel the next statement instead
        connection.invalidate()  # its state is unknown: it must not return to the pool
        raise


class DriverResult:
    """Rows with their values by name."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def one_or_none(self) -> Any:
        """Return the row of a query that has at most one; None without one."""
        (row,) = self._rows or [None]
        return row


class _NamedRecord(Record):  # type: ignore[misc]
    def __getattr__(self, name: str) -> Any:
        return self[name]


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _compile_statement(statement: Executable) -> tuple[str, tuple[str, ...], dict[str, Any], str | None]:
    """Return a statement's SQL, the names of its arguments in order, those it has itself, and its plan cache mode."""
    compiled: Any = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    names, mode = tuple(compiled.positiontup), statement.get_execution_options().get(PLAN_CACHE_MODE)
    return str(compiled), names, constants, mode
