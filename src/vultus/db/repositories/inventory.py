"""Counts what is stored, cheaply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import aggregate_order_by

from vultus.db.tables import CollectionRow, ConsentRow

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

MAX_COUNTED = 10_000
"""Rows up to which a table is counted; larger ones are estimated by PostgreSQL's statistics."""

_ESTIMATE = text(
    "SELECT coalesce(sum(greatest(reltuples, 0)), 0) FROM pg_class"
    " WHERE oid = to_regclass(:table) OR oid IN"
    " (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(:table))"
)

_DESCRIBE_ROLE = text(
    "SELECT CASE WHEN rolsuper THEN 'a superuser'"
    " WHEN pg_has_role(relowner, 'USAGE') THEN 'the owner of the tables' END"
    " FROM pg_roles, pg_class WHERE rolname = current_user AND pg_class.oid = 'faces'::regclass"
)


@dataclass(frozen=True, slots=True)
class StoredCounts:
    """Numbers of persons, of templates, and of consents that have ended and whose faces are not erased yet."""

    persons: int
    faces: int
    expired_consents: int


class InventoryRepository:
    """Reads over all collections, for the operator."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def list_names_by_space(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the collections searched in each embedding space, by its id."""
        names = func.array_agg(aggregate_order_by(CollectionRow.name, CollectionRow.name))
        rows = await self._session.execute(
            select(CollectionRow.contract_id, names.label("names")).group_by(CollectionRow.contract_id)
        )
        return {row.contract_id: tuple(row.names) for row in rows}

    async def describe_role(self) -> str | None:
        """Return what the role that serves is beyond need: a superuser, or the owner of the tables."""
        return (await self._session.execute(_DESCRIBE_ROLE)).scalar_one_or_none()

    async def count_stored(self) -> StoredCounts:
        """Return how much is stored: exactly if it is little, else by PostgreSQL's statistics."""
        expired = select(func.count()).where(ConsentRow.live, ConsentRow.expires_at <= func.now())
        return StoredCounts(
            persons=await self._count_rows("persons"),
            faces=await self._count_rows("faces"),
            expired_consents=(await self._session.execute(expired)).scalar_one(),
        )

    async def _count_rows(self, table: str) -> int:
        estimate = int((await self._session.execute(_ESTIMATE, {"table": table})).scalar_one())
        if estimate > MAX_COUNTED:
            return estimate
        statement = text(f"SELECT count(*) FROM (SELECT FROM {table} LIMIT {MAX_COUNTED}) AS counted")  # noqa: S608
        return max(estimate, int((await self._session.execute(statement)).scalar_one()))
