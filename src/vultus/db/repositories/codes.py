"""One-bit codes that candidate indexes load and follow; the templates remain authoritative."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from vultus.db.copying import convert_to_integers, read_column_blocks, read_columns
from vultus.db.record_tables import TombstoneRow
from vultus.db.repositories.collections import get_partition_name
from vultus.db.tables import CodingRow
from vultus.domain import CodeArray, CodeBlock, NumberArray, QuantizerParameters, SpaceStatistics
from vultus.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


MIN_NONEMPTY_PARTITION_BYTES = 1 << 20
MAX_ROW_BYTES = 2000
"""Upper bound of a row with 512 dimensions and a code: gives a file's minimum row count, erased rows included."""


class CodeRepository:
    """Stores the codes of templates and the quantizer parameters.

    Methods that read or write templates raise NotFoundError if the collection has been deleted.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find_quantizer(self, collection_id: UUID, space_id: str) -> QuantizerParameters | None:
        """Return the quantizer parameters of a collection's templates in an embedding space, if stored."""
        query = select(CodingRow.centre, CodingRow.bits).where(
            CodingRow.collection_id == collection_id, CodingRow.contract_id == space_id
        )
        row = (await self._session.execute(query)).one_or_none()
        return None if row is None else QuantizerParameters(collection_id, space_id, row.centre, row.bits)

    async def add_quantizer(self, parameters: QuantizerParameters) -> QuantizerParameters:
        """Store quantizer parameters and return those in effect: another transaction may have inserted some first.

        Raises:
            NotFoundError: There is no such collection.
        """
        added = insert(CodingRow).values(
            collection_id=parameters.collection_id,
            contract_id=parameters.space_id,
            centre=parameters.centre,
            bits=parameters.bits,
        )
        # An update that changes nothing, so that RETURNING includes an existing row.
        upserted = added.on_conflict_do_update(constraint="pk_codings", set_={"bits": CodingRow.bits})
        row = (await self._session.execute(upserted.returning(CodingRow.centre, CodingRow.bits))).one()
        return QuantizerParameters(parameters.collection_id, parameters.space_id, row.centre, row.bits)

    async def load_codes(self, collection_id: UUID, space_id: str, after: int) -> AsyncGenerator[CodeBlock]:
        """Yield the numbers and codes of templates that have a code and a number above `after`, in any order.

        One COPY: the transaction has no statement timeout from here on.

        Raises:
            ConflictError: The collection is sealed, whose templates lose their codes.
        """
        if (await self._session.execute(_IS_SEALED, {"collection": collection_id})).scalar_one_or_none():
            raise ConflictError("The collection has been sealed meanwhile; its index is loaded in the next run.")
        partition = get_partition_name(collection_id)  # queried directly; see `templates/ranking.py`
        query = f"SELECT number, code FROM {partition} WHERE contract_id = $1 AND number > $2 AND code IS NOT NULL"  # noqa: S608
        async with aclosing(read_column_blocks(self._session, query, space_id, after)) as blocks:
            async for numbers, codes in blocks:
                yield CodeBlock(convert_to_integers(numbers), np.ascontiguousarray(codes))

    async def update_codes(self, collection_id: UUID, space_id: str, numbers: NumberArray, codes: CodeArray) -> None:
        """Store the codes of templates; deleted ones are ignored.

        Args:
            collection_id: Collection of the templates.
            space_id: Embedding space of the templates.
            numbers: (n,) numbers of the templates.
            codes: (n, width) codes, in the same order.
        """
        await self._session.execute(
            text(_UPDATE_CODES.format(partition=get_partition_name(collection_id))),
            {
                "contract": space_id,
                "numbers": numbers.tolist(),
                "codes": codes.tobytes(),
                "width": codes.shape[1],
            },
        )

    async def list_template_numbers(self, collection_id: UUID, space_id: str) -> NumberArray:
        """Return the (n,) numbers of all templates in an embedding space, in any order."""
        query = f"SELECT number FROM {get_partition_name(collection_id)} WHERE contract_id = $1"  # noqa: S608
        columns = await read_columns(self._session, query, space_id)
        return convert_to_integers(columns[0]) if columns else np.empty(0, np.int64)

    async def list_erased_numbers(
        self, collection_id: UUID, space_id: str, after: int
    ) -> tuple[NumberArray, NumberArray]:
        """Return the templates that were erased since a tombstone.

        Args:
            collection_id: Collection of the templates.
            space_id: Embedding space of the templates.
            after: Number of the last tombstone whose templates are known.

        Returns:
            Of each template, the number of its tombstone, ascending, and its own: both (n,). If the first tombstone is
            not `after` + 1, the ones between have been deleted.
        """
        query = (
            "SELECT number, erased FROM tombstones, unnest(numbers) AS erased"
            " WHERE collection_id = $1 AND contract_id = $2 AND number > $3 ORDER BY number"
        )
        columns = await read_columns(self._session, query, collection_id, space_id, after)
        if not columns:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return convert_to_integers(columns[0]), convert_to_integers(columns[1])

    async def delete_old_tombstones(self, older_than: datetime) -> None:
        """Delete tombstones made before `older_than`, except each embedding space's last, which numbers the next."""
        later = aliased(TombstoneRow)
        await self._session.execute(
            delete(TombstoneRow).where(
                TombstoneRow.created_at < older_than,
                select(later)
                .where(
                    later.collection_id == TombstoneRow.collection_id,
                    later.contract_id == TombstoneRow.contract_id,
                    later.number > TombstoneRow.number,
                )
                .exists(),
            )
        )

    async def get_last_template_number(self, collection_id: UUID) -> int:
        """Return the greatest template number of a collection, in any embedding space; 0 if it has none.

        It needs no lock: a template that is not visible yet has, or will get, a greater number than every visible one.
        Its writer draws it under the collection's lock, which the writers before held until theirs were visible. So an
        index that loads an embedding space after this is complete up to it: during a migration the templates of the
        other space may be the newest, and a search should not compare all of them.
        """
        query = text(f"SELECT coalesce(max(number), 0) FROM {get_partition_name(collection_id)}")  # noqa: S608  made of the id
        return int((await self._session.execute(query)).scalar_one())

    async def list_space_statistics(self) -> list[SpaceStatistics]:
        """Return collection sizes per embedding space that an index may search, without reading templates."""
        return [SpaceStatistics(*row) for row in await self._session.execute(_LIST_SPACE_STATISTICS)]


_IS_SEALED = text("SELECT policy ->> 'storage' = 'sealed' FROM collections WHERE id = :collection")

# One value with all codes, split by the server: saves one Python object per code.
_UPDATE_CODES = """
    UPDATE {partition} SET code = substr(CAST(:codes AS bytea), CAST(at - 1 AS int) * :width + 1, CAST(:width AS int))
    FROM unnest(CAST(:numbers AS bigint[])) WITH ORDINALITY AS given (number, at)
    WHERE contract_id = :contract AND {partition}.number = given.number
"""

# The count of live rows is lost when the server crashes, and ANALYZE may never have run, while the file size is
# always known.
ROW_COUNT_ESTIMATE = f"""
    greatest(
        pg_stat_get_live_tuples(partition.oid), partition.reltuples::bigint,
        CASE WHEN pg_stat_get_live_tuples(partition.oid) = 0
            AND pg_relation_size(partition.oid) > {MIN_NONEMPTY_PARTITION_BYTES}
        THEN pg_relation_size(partition.oid) / {MAX_ROW_BYTES} ELSE 0 END
    )
"""
PARTITIONS = """
    pg_inherits JOIN pg_class AS partition ON partition.oid = inhrelid AND inhparent = 'faces'::regclass
"""
_LIST_SPACE_STATISTICS = text(
    f"""
    SELECT collections.id, contract, {ROW_COUNT_ESTIMATE}, coalesce(
        (SELECT max(number) FROM tombstones WHERE collection_id = collections.id AND tombstones.contract_id = contract),
        0
    ), coalesce(policy ->> 'storage' = 'sealed', false)
    FROM {PARTITIONS} JOIN collections ON relname = 'faces_' || replace(collections.id::text, '-', '')
    CROSS JOIN unnest(ARRAY[contract_id, second_contract_id]) AS contract
    WHERE contract IS NOT NULL AND (search = 'auto' OR graph ->> 'contract_id' <> contract) ORDER BY collections.id
    """  # noqa: S608
)
