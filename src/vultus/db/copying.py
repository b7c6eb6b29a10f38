"""Binary COPY to and from NumPy arrays: rows of one length are one array of bytes, without Python for each row.

The format is that of PostgreSQL's manual, "COPY", section "Binary Format": a header; a row is its count of fields, then
each field behind its length, −1 for null; after the last row a count of −1. All numbers are big-endian.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.domain import FloatArray, NumberArray

Bytes = NDArray[np.uint8]
"""(n, length): the values of a column as they travel."""

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"
_NULL = b"\xff" * 4

BLOCK_BYTES = 16 << 20
PATIENCE_S = 3600.0

FIRST_ROW = 1 << 16
"""Bytes that hold a whole row."""


async def copy_out(session: AsyncSession, query: str, *values: Any) -> tuple[Bytes, ...]:
    """Return the result of a query, an array a column; no columns if it has no rows.

    Args:
        session: Where to ask; its transaction has no limit on a statement's time from here on.
        query: Its columns have values of one length each, and no nulls.
        values: What `$1` and so on in the query stand for.

    Raises:
        ValueError: The values of a column differ in length.
    """
    told = bytearray()

    async def take(chunk: bytes) -> None:
        told.extend(chunk)

    connection = await _driver(session, "SET LOCAL statement_timeout = 0")
    await connection.copy_from_query(query, *values, output=take, format="binary", timeout=PATIENCE_S)
    return _columns(np.frombuffer(told, np.uint8)[len(HEADER) : -len(END)])


async def copy_out_in_blocks(session: AsyncSession, query: str, *values: Any) -> AsyncGenerator[tuple[Bytes, ...]]:
    """Yield the result of a query as `copy_out` does, some `BLOCK_BYTES` at a time, however long it takes.

    Args:
        session: Where to ask; its transaction has no limit on a statement's time from here on.
        query: Its columns have values of one length each, and no nulls.
        values: What `$1` and so on in the query stand for.

    Raises:
        ValueError: The values of a column differ in length.
    """
    connection = await _driver(session, "SET LOCAL statement_timeout = 0")
    blocks: asyncio.Queue[Bytes | None] = asyncio.Queue(1)
    told = bytearray()
    begun = False

    async def take(chunk: bytes) -> None:
        nonlocal begun
        told.extend(chunk)
        if not begun and len(told) > len(HEADER):
            del told[: len(HEADER)]
            begun = True
        if len(told) > BLOCK_BYTES:
            await give(len(told) - len(END))

    async def give(length: int) -> None:
        whole = length - length % _row_length(told)
        await blocks.put(np.frombuffer(bytes(told[:whole]), np.uint8))
        del told[:whole]

    async def copy() -> None:
        await connection.copy_from_query(query, *values, output=take, format="binary", timeout=PATIENCE_S)
        if len(told) > len(END):
            await give(len(told) - len(END))
        await blocks.put(None)

    copying = asyncio.create_task(copy())
    try:
        while True:
            waiting = asyncio.create_task(blocks.get())
            await asyncio.wait({waiting, copying}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() and copying.exception():
                waiting.cancel()
                break
            block = await waiting
            if block is None:
                break
            yield _columns(block)
        await copying
    finally:
        # The connection is of use to nobody, not even for a rollback, before the COPY has ended.
        copying.cancel()
        await asyncio.wait({copying})


async def copy_in(session: AsyncSession, table: str, columns: Iterable[str], rows: bytes) -> None:
    """Add rows to a table; its constraints, triggers and defaults hold as for any other."""
    # With a plan made anew for every row, checking the foreign keys would take three quarters of the time.
    connection = await _driver(session, "SET LOCAL plan_cache_mode = auto")
    # asyncpg would take bytes for the path of a file.
    data = memoryview(HEADER + rows + END)
    await connection.copy_to_table(table, source=data, columns=list(columns), format="binary")


def level_rows(columns: Iterable[Bytes | bytes | None]) -> bytes:
    """Return rows from columns: a value of equal length a row, or one value for all rows, or None for null.

    At least one column has a value a row.
    """
    columns = list(columns)
    parts = [_bytes(len(columns), 2)]
    for values in columns:
        if values is None:
            parts.append(_bytes(-1, 4))
        else:
            array = np.frombuffer(values, np.uint8)[None, :] if isinstance(values, bytes) else values
            parts += [_bytes(array.shape[1], 4), array]
    count = max(len(part) for part in parts)
    return np.concatenate([np.broadcast_to(part, (count, part.shape[1])) for part in parts], axis=1).tobytes()


def ragged_rows(rows: Iterable[Sequence[bytes | None]]) -> bytes:
    """Return rows whose values differ in length; None is null."""
    parts = []
    for row in rows:
        parts.append(len(row).to_bytes(2, "big"))
        for value in row:
            parts += (_NULL,) if value is None else (len(value).to_bytes(4, "big"), value)
    return b"".join(parts)


async def _driver(session: AsyncSession, first: str = "SELECT") -> Any:
    """Return asyncpg's connection after a statement: it is with the first one that SQLAlchemy begins a transaction."""
    await session.execute(text(first))
    return (await (await session.connection()).get_raw_connection()).driver_connection


def _fields(told: Bytes) -> list[slice]:
    """Return where in the first row, and so in each, the values lie."""
    fields, at = [], 2
    for _ in range(_number(told[:2])):
        length = _number(told[at : at + 4])
        fields.append(slice(at + 4, at + 4 + length))
        at += 4 + length
    return fields


def _row_length(told: bytearray) -> int:
    return int(_fields(np.frombuffer(bytes(told[:FIRST_ROW]), np.uint8))[-1].stop)


def _columns(told: Bytes) -> tuple[Bytes, ...]:
    if not len(told):
        return ()
    fields = _fields(told)
    at = fields[-1].stop
    framing = np.ones(at, bool)
    for field in fields:
        framing[field] = False
    if len(told) % at or (told.reshape(-1, at)[:, framing] != told[:at][framing]).any():
        raise ValueError("the values of a column differ in length")
    return tuple(told.reshape(-1, at)[:, field] for field in fields)


def _number(data: Bytes) -> int:
    return int.from_bytes(data.tobytes(), "big", signed=True)


def _bytes(number: int, length: int) -> Bytes:
    return np.frombuffer(number.to_bytes(length, "big", signed=True), np.uint8)[None, :]


def integers(column: Bytes) -> NumberArray:
    """Return the (n,) numbers of a `bigint` column."""
    return np.ascontiguousarray(column).view(">i8")[:, 0].astype(np.int64)


def vectors(column: Bytes) -> FloatArray:
    """Return the (n, d) float32 vectors of a `halfvec` column."""
    return np.ascontiguousarray(column[:, 4:]).view(">f2").astype(np.float32)
