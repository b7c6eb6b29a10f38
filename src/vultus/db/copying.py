"""Binary COPY to and from NumPy arrays: rows of one length are one byte array, without Python code per row.

The format is that of PostgreSQL's manual, "COPY", section "Binary Format": a header; per row its field count, then each
field preceded by its length, −1 for null; after the last row a count of −1. All numbers are big-endian.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.domain import FloatArray, NumberArray

ColumnBytes = NDArray[np.uint8]
"""(n, length): the values of a column in wire format."""

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_NULL = b"\xff" * 4
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_INFINITE_TIMESTAMP = (2**63 - 1).to_bytes(8, "big")

BLOCK_BYTES = 16 << 20
COPY_TIMEOUT_S = 3600.0

MAX_ROW_BYTES = 1 << 16
"""Maximum length of a row."""


async def read_columns(session: AsyncSession, query: str, *values: Any) -> tuple[ColumnBytes, ...]:
    """Return the result of a query, one array per column; no columns if it has no rows.

    Args:
        session: The session to run it in; its transaction has no statement timeout from here on.
        query: Its columns have values of one length each, and no nulls.
        values: Arguments for `$1` and so on.

    Raises:
        ValueError: The values of a column differ in length.
    """
    received = bytearray()

    async def receive_chunk(chunk: bytes) -> None:
        received.extend(chunk)

    connection = await _get_driver_connection(session, "SET LOCAL statement_timeout = 0")
    await connection.copy_from_query(query, *values, output=receive_chunk, format="binary", timeout=COPY_TIMEOUT_S)
    return _parse_columns(np.frombuffer(received, np.uint8)[len(HEADER) : -len(TRAILER)])


async def read_column_blocks(
    session: AsyncSession, query: str, *values: Any
) -> AsyncGenerator[tuple[ColumnBytes, ...]]:
    """Yield the result of a query as `read_columns` returns it, in blocks of about `BLOCK_BYTES`.

    Args:
        session: The session to run it in; its transaction has no statement timeout from here on.
        query: Its columns have values of one length each, and no nulls.
        values: Arguments for `$1` and so on.

    Raises:
        ValueError: The values of a column differ in length.
    """
    connection = await _get_driver_connection(session, "SET LOCAL statement_timeout = 0")
    blocks: asyncio.Queue[ColumnBytes | None] = asyncio.Queue(1)
    received = bytearray()
    header_removed = False

    async def receive_chunk(chunk: bytes) -> None:
        nonlocal header_removed
        received.extend(chunk)
        if not header_removed and len(received) > len(HEADER):
            del received[: len(HEADER)]
            header_removed = True
        if len(received) > BLOCK_BYTES:
            await send_rows(len(received) - len(TRAILER))

    async def send_rows(length: int) -> None:
        whole = length - length % _compute_row_length(received)
        await blocks.put(np.frombuffer(bytes(received[:whole]), np.uint8))
        del received[:whole]

    async def run_copy() -> None:
        await connection.copy_from_query(query, *values, output=receive_chunk, format="binary", timeout=COPY_TIMEOUT_S)
        if len(received) > len(TRAILER):
            await send_rows(len(received) - len(TRAILER))
        await blocks.put(None)

    copying = asyncio.create_task(run_copy())
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
            yield _parse_columns(block)
        await copying
    finally:
        # The connection cannot be used, not even for a rollback, before the COPY has ended.
        copying.cancel()
        await asyncio.wait({copying})


async def write_rows(session: AsyncSession, table: str, columns: Iterable[str], rows: bytes) -> None:
    """Insert rows through COPY; constraints, triggers and defaults apply as for INSERT."""
    # With a custom plan per row, foreign key checks would take three quarters of the time.
    connection = await _get_driver_connection(session, "SET LOCAL plan_cache_mode = auto")
    # asyncpg treats `bytes` as a file path.
    data = memoryview(HEADER + rows + TRAILER)
    await connection.copy_to_table(table, source=data, columns=list(columns), format="binary")


def build_fixed_length_rows(columns: Iterable[ColumnBytes | bytes | None]) -> bytes:
    """Return rows from columns: one value of equal length per row, one value for all rows, or None for null.

    At least one column has one value per row.
    """
    columns = list(columns)
    parts = [_encode_integer(len(columns), 2)]
    for values in columns:
        if values is None:
            parts.append(_encode_integer(-1, 4))
        else:
            array = np.frombuffer(values, np.uint8)[None, :] if isinstance(values, bytes) else values
            parts += [_encode_integer(array.shape[1], 4), array]
    count = max(len(part) for part in parts)
    return np.concatenate([np.broadcast_to(part, (count, part.shape[1])) for part in parts], axis=1).tobytes()


def build_variable_length_rows(rows: Iterable[Sequence[bytes | None]]) -> bytes:
    """Return rows whose values differ in length; None is null."""
    parts = []
    for row in rows:
        parts.append(len(row).to_bytes(2, "big"))
        for value in row:
            parts += (_NULL,) if value is None else (len(value).to_bytes(4, "big"), value)
    return b"".join(parts)


async def _get_driver_connection(session: AsyncSession, first_statement: str = "SELECT") -> Any:
    """Return asyncpg's connection after a statement: SQLAlchemy begins a transaction with the first one."""
    await session.execute(text(first_statement))
    return (await (await session.connection()).get_raw_connection()).driver_connection


def _find_fields(data: ColumnBytes) -> list[slice]:
    """Return the slices of the values in the first row, and so in each."""
    fields, offset = [], 2
    for _ in range(_parse_integer(data[:2])):
        length = _parse_integer(data[offset : offset + 4])
        fields.append(slice(offset + 4, offset + 4 + length))
        offset += 4 + length
    return fields


def _compute_row_length(data: bytearray) -> int:
    return int(_find_fields(np.frombuffer(bytes(data[:MAX_ROW_BYTES]), np.uint8))[-1].stop)


def _parse_columns(data: ColumnBytes) -> tuple[ColumnBytes, ...]:
    if not len(data):
        return ()
    fields = _find_fields(data)
    row_bytes = fields[-1].stop
    framing = np.ones(row_bytes, bool)
    for field in fields:
        framing[field] = False
    if len(data) % row_bytes or (data.reshape(-1, row_bytes)[:, framing] != data[:row_bytes][framing]).any():
        raise ValueError("the values of a column differ in length")
    return tuple(data.reshape(-1, row_bytes)[:, field] for field in fields)


def _parse_integer(data: ColumnBytes) -> int:
    return int.from_bytes(data.tobytes(), "big", signed=True)


def _encode_integer(number: int, length: int) -> ColumnBytes:
    return np.frombuffer(number.to_bytes(length, "big", signed=True), np.uint8)[None, :]


def convert_to_integers(column: ColumnBytes) -> NumberArray:
    """Return the (n,) numbers of a `bigint` column."""
    return np.ascontiguousarray(column).view(">i8")[:, 0].astype(np.int64)


def convert_to_vectors(column: ColumnBytes) -> FloatArray:
    """Return the (n, d) float32 vectors of a `halfvec` column."""
    return np.ascontiguousarray(column[:, 4:]).view(">f2").astype(np.float32)


def encode_vectors(vectors: FloatArray) -> ColumnBytes:
    """Return the (n, 4 + 2d) column of (n, d) vectors as `halfvec`, rounded to float16."""
    head = np.frombuffer(vectors.shape[1].to_bytes(2, "big") + bytes(2), np.uint8)
    halves = np.ascontiguousarray(vectors, dtype=">f2").view(np.uint8)
    return np.concatenate([np.broadcast_to(head, (len(vectors), 4)), halves], axis=1)


def encode_timestamp(timestamp: datetime | None) -> bytes:
    """Return a `timestamptz` in wire format: microseconds since 2000, the greatest number for no end."""
    if timestamp is None:
        return _INFINITE_TIMESTAMP
    passed = timestamp - _EPOCH
    return ((passed.days * 86_400 + passed.seconds) * 10**6 + passed.microseconds).to_bytes(8, "big", signed=True)
