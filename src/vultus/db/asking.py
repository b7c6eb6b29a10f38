"""Questions put to the driver itself: most requests ask three, and SQLAlchemy's layers take longer than PostgreSQL."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from asyncpg import InternalClientError, Record
from sqlalchemy.dialects.postgresql import asyncpg

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncConnection

QUESTIONS = 2048
"""Statements kept as the driver takes them: a few, and one a collection with an index."""

_DIALECT = asyncpg.dialect()  # type: ignore[no-untyped-call]


class Asking:
    """Stands in for a session that only reads, where every statement is a transaction by itself.

    Args:
        connection: From the pool; nothing else uses it meanwhile.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def execute(self, statement: Executable, values: Mapping[str, Any]) -> Answer:
        """Return the rows of a statement that was built once; its columns arrive as the driver reads them."""
        text, names = _as_asked(statement)
        driver: Any = (await self._connection.get_raw_connection()).driver_connection
        try:
            rows = await driver.fetch(text, *(values[name] for name in names), record_class=_Row)
        except (OSError, InternalClientError):
            await self._connection.invalidate()  # whatever state it is in, nobody should get it again
            raise
        return Answer(rows)


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
def _as_asked(statement: Executable) -> tuple[str, tuple[str, ...]]:
    """Return a statement as PostgreSQL reads it and the names of its values, in their order."""
    compiled: Any = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
    return str(compiled), tuple(compiled.positiontup)
