"""What an index of one-bit codes is made from and kept up to date with; the templates themselves stay the truth."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import Uuid, bindparam, select, text
from sqlalchemy.dialects.postgresql import insert

from vultus.db.copying import copy_out, copy_out_in_blocks, integers, vectors
from vultus.db.repositories.collections import partition_of
from vultus.db.tables import CodingRow
from vultus.domain import CodeArray, Coded, Coding, FloatArray, NumberArray, Size

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


LARGE_BYTES = 1 << 20
MOST_ROW_BYTES = 2000
"""A row has fewer, with 512 numbers and a code: a file of a size has at least so many, erased ones included."""


class Codes:
    """The codes of the collections' templates, and what they are made with.

    What reads or writes templates raises NotFoundError if the collection is gone.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def coding(self, collection_id: UUID, contract_id: str) -> Coding | None:
        """Return how the templates of a contract are coded, if that was decided."""
        query = select(CodingRow.centre, CodingRow.bits).where(
            CodingRow.collection_id == collection_id, CodingRow.contract_id == contract_id
        )
        row = (await self._session.execute(query)).one_or_none()
        return None if row is None else Coding(collection_id, contract_id, row.centre, row.bits)

    async def add_coding(self, coding: Coding) -> Coding:
        """Decide how the templates of a contract are coded; return what holds: another may have been faster.

        Raises:
            NotFoundError: There is no such collection.
        """
        added = insert(CodingRow).values(
            collection_id=coding.collection_id,
            contract_id=coding.contract_id,
            centre=coding.centre,
            bits=coding.bits,
        )
        # An update that changes nothing: only then is the row that was there returned.
        kept = added.on_conflict_do_update(constraint="pk_codings", set_={"bits": CodingRow.bits})
        row = (await self._session.execute(kept.returning(CodingRow.centre, CodingRow.bits))).one()
        return Coding(coding.collection_id, coding.contract_id, row.centre, row.bits)

    async def sample(self, collection_id: UUID, contract_id: str, count: int) -> FloatArray:
        """Return about (count, d) float32 vectors from all over a collection, fewer if it has fewer; (0, 0) of none."""
        rows = max((await self._session.execute(_ROWS, {"collection": collection_id})).scalar_one(), 1)
        percent = min(100.0, 200.0 * count / rows)
        # Whole pages are drawn, twice as many as it takes; which of their rows is left to chance as well.
        columns = await copy_out(
            self._session,
            f"SELECT embedding FROM faces TABLESAMPLE SYSTEM ({percent:.6f}) WHERE collection_id = $1"  # noqa: S608  a number
            " AND contract_id = $2 ORDER BY random() LIMIT $3",
            collection_id,
            contract_id,
            count,
        )
        return vectors(columns[0]) if columns else np.empty((0, 0), np.float32)

    async def load(self, collection_id: UUID, contract_id: str, after: int) -> AsyncGenerator[Coded]:
        """Yield the templates that have a code and a greater number than the given one, in any order.

        One COPY: the transaction has no limit on a statement's time from here on.
        """
        partition = partition_of(collection_id)  # by its own name for the reason that `ranking.py` gives
        query = f"SELECT number, code FROM {partition} WHERE contract_id = $1 AND number > $2 AND code IS NOT NULL"  # noqa: S608
        async with aclosing(copy_out_in_blocks(self._session, query, contract_id, after)) as blocks:
            async for numbers, codes in blocks:
                yield Coded(integers(numbers), np.ascontiguousarray(codes))

    async def uncoded(
        self, collection_id: UUID, contract_id: str, after: int, limit: int
    ) -> tuple[NumberArray, FloatArray]:
        """Return (n,) numbers and (n, d) float32 vectors of templates without a code, in order of number.

        Those with a greater number than the given one; (0,) and (0, 0) of none.
        """
        query = _in_order("embedding", "code IS NULL", collection_id)
        columns = await copy_out(self._session, query, contract_id, after, limit)
        if not columns:
            return np.empty(0, np.int64), np.empty((0, 0), np.float32)
        return integers(columns[0]), vectors(columns[1])

    async def set_codes(self, collection_id: UUID, contract_id: str, numbers: NumberArray, codes: CodeArray) -> None:
        """Give templates their codes; those that are gone are left out.

        Args:
            collection_id: Of the templates.
            contract_id: Of the templates.
            numbers: (n,) which templates.
            codes: (n, width), in the same order.
        """
        await self._session.execute(
            text(_SET.format(partition=partition_of(collection_id))),
            {
                "contract": contract_id,
                "numbers": numbers.tolist(),
                "codes": codes.tobytes(),
                "width": codes.shape[1],
            },
        )

    async def numbers(self, collection_id: UUID, contract_id: str) -> NumberArray:
        """Return the (n,) numbers of all templates of a contract, in any order."""
        query = f"SELECT number FROM {partition_of(collection_id)} WHERE contract_id = $1"  # noqa: S608
        columns = await copy_out(self._session, query, contract_id)
        return integers(columns[0]) if columns else np.empty(0, np.int64)

    async def last_number(self, collection_id: UUID) -> int:
        """Return the greatest number of a template of a collection, whatever its contract; 0 if there is none.

        One that is added later gets a greater number than any there ever was. An index that has loaded a contract has
        seen, as of the same transaction, every number up to this: on the way to another network the templates of the
        other contract may be the newest, and a search should not have to pass by all of them.
        """
        query = text(f"SELECT coalesce(max(number), 0) FROM {partition_of(collection_id)}")  # noqa: S608  made of the id
        return int((await self._session.execute(query)).scalar_one())

    async def sizes(self) -> list[Size]:
        """Return the sizes of the collections an index may search, a contract each, without reading a template."""
        return [Size(*row) for row in await self._session.execute(_SIZES)]


def _in_order(column: str, condition: str, collection_id: UUID) -> str:
    # The partition by its own name for the reason that `ranking.py` gives.
    return (
        f"SELECT number, {column} FROM {partition_of(collection_id)} WHERE contract_id = $1"  # noqa: S608
        f" AND number > $2 AND {condition} ORDER BY number LIMIT $3"
    )


# One value with all codes, cut by the server: it is not worth an object a code here.
_SET = """
    UPDATE {partition} SET code = substr(CAST(:codes AS bytea), CAST(at - 1 AS int) * :width + 1, CAST(:width AS int))
    FROM unnest(CAST(:numbers AS bigint[])) WITH ORDINALITY AS given (number, at)
    WHERE contract_id = :contract AND {partition}.number = given.number
"""

# The count of live rows is lost when the server crashes, and ANALYZE may never have been by; a large file is there.
COUNTED = f"""
    greatest(
        pg_stat_get_live_tuples(partition.oid), partition.reltuples::bigint,
        CASE WHEN pg_stat_get_live_tuples(partition.oid) = 0 AND pg_relation_size(partition.oid) > {LARGE_BYTES}
        THEN pg_relation_size(partition.oid) / {MOST_ROW_BYTES} ELSE 0 END
    )
"""
_PARTITIONS = """
    pg_inherits JOIN pg_class AS partition ON partition.oid = inhrelid AND inhparent = 'faces'::regclass
"""
_ROWS = text(
    f"SELECT {COUNTED} FROM {_PARTITIONS}"  # noqa: S608
    " WHERE relname = 'faces_' || replace(CAST(:collection AS uuid)::text, '-', '')"
).bindparams(bindparam("collection", type_=Uuid))
_SIZES = text(
    f"""
    SELECT collections.id, contract, {COUNTED}, pg_stat_get_tuples_deleted(partition.oid)
    FROM {_PARTITIONS} JOIN collections ON relname = 'faces_' || replace(collections.id::text, '-', '')
    CROSS JOIN unnest(ARRAY[contract_id, second_contract_id]) AS contract
    WHERE contract IS NOT NULL AND (search = 'auto' OR graph ->> 'contract_id' <> contract) ORDER BY collections.id
    """  # noqa: S608
)
