"""Reads templates that may be sealed, and opens them."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import TextClause, text

from vultus.db.driver_session import GENERIC_PLAN, PLAN_CACHE_MODE
from vultus.db.repositories.collections import get_partition_name
from vultus.db.repositories.person_keys import build_lost_key_error
from vultus.db.templates.ranking import NEWER_THAN_INDEX, PARTITION_TEMPLATES
from vultus.db.templates.seal import OpenedTemplates, TemplateRow
from vultus.utils import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from vultus.db.driver_session import StatementSession
    from vultus.db.templates.seal import TemplateSeal

log = logging.getLogger(__name__)

BLOCK_ROWS = 5_000
"""Templates opened at a time where all of a collection are compared."""

_IS_SEALED = text("SELECT policy ->> 'storage' = 'sealed' AS sealed FROM collections WHERE id = CAST(:id AS uuid)")
_BLOCK = f"{NEWER_THAN_INDEX} ORDER BY number LIMIT :count"
_PROPOSED = f"(number = ANY (CAST(:numbers AS bigint[])) OR {NEWER_THAN_INDEX})"
_NUMBERED = "number = ANY (CAST(:numbers AS bigint[]))"
_OF_PERSONS = "collection_id = CAST(:collection AS uuid) AND person_id = ANY (CAST(:persons AS uuid[]))"


@lru_cache(maxsize=4096)
def _build_statement(partition: str, condition: str) -> TextClause:
    templates = PARTITION_TEMPLATES.replace("{partition}", partition)
    statement = text(f"SELECT number, person_id, id, embedding, sealed FROM {templates} AND {condition}")  # noqa: S608
    return statement.execution_options(**{PLAN_CACHE_MODE: GENERIC_PLAN})


class SealedRows:
    """Reads live templates of either kind. In every call, the collection's partition is read.

    Args:
        session: Runs the statements.
        seal: Opens what is sealed.
        is_snapshot: Whether the session does not see what is committed from now on.
    """

    def __init__(self, session: StatementSession, seal: TemplateSeal, *, is_snapshot: bool) -> None:
        self._session = session
        self._seal = seal
        self._is_snapshot = is_snapshot

    async def is_sealed(self, collection_id: UUID) -> bool:
        """Return whether a collection's new templates are sealed; older ones may not be yet."""
        if collection_id not in self._seal.known:
            row = (await self._session.execute(_IS_SEALED, {"id": collection_id})).one_or_none()
            if row is None or not row.sealed:
                return False
            self._seal.known.add(collection_id)
        return True

    async def read_proposed(
        self, collection_id: UUID, space_id: str, numbers: Sequence[int], after: int
    ) -> OpenedTemplates:
        """Return the templates with some numbers, and all with a number above `after`."""
        return await self._read(collection_id, space_id, _PROPOSED, numbers=numbers, after=after)

    async def read_numbered(self, collection_id: UUID, space_id: str, numbers: Sequence[int]) -> OpenedTemplates:
        """Return the templates with some numbers."""
        return await self._read(collection_id, space_id, _NUMBERED, numbers=numbers)

    async def read_of_persons(self, collection_id: UUID, space_id: str, persons: Sequence[UUID]) -> OpenedTemplates:
        """Return the templates of some persons."""
        return await self._read(collection_id, space_id, _OF_PERSONS, collection=collection_id, persons=persons)

    async def read_blocks(self, collection_id: UUID, space_id: str) -> AsyncIterator[OpenedTemplates]:
        """Yield all templates, in blocks."""
        after = 0
        while True:
            values = {"after": after, "count": BLOCK_ROWS}
            rows = await self._execute(collection_id, space_id, _BLOCK, values)
            if rows:
                yield await self.open(collection_id, space_id, rows)
                after = rows[-1].number
            if len(rows) < BLOCK_ROWS:
                return

    async def open(self, collection_id: UUID, space_id: str, rows: Sequence[TemplateRow]) -> OpenedTemplates:
        """Open templates that were read.

        One that does not open is read again: its person was erased, or has another key. If neither, it is lost, which
        is reported. A snapshot cannot tell.
        """
        found = await self._seal.open(collection_id, space_id, rows)
        if not found.unreadable or self._is_snapshot:
            return found
        values = {"numbers": [row.number for row in found.unreadable]}
        before = {row.number: row.sealed for row in found.unreadable}
        now = await self._execute(collection_id, space_id, _NUMBERED, values)
        for row in now:
            if row.sealed == before[row.number]:
                metrics.TEMPLATES_LOST.inc()
                log.error(
                    "face %s of person %s cannot be opened: its key is lost, or it was changed",
                    row.face_id,
                    row.person_id,
                    extra={"collection": str(collection_id)},
                )
        changed = [row for row in now if row.sealed != before[row.number]]
        again = await self._seal.open(collection_id, space_id, changed)
        still = [row for row in now if row.sealed == before[row.number]]
        vectors = [each.vectors for each in (found, again) if len(each.rows)]
        return OpenedTemplates(
            [*found.rows, *again.rows],
            np.concatenate(vectors) if vectors else found.vectors,
            [*still, *again.unreadable],
        )

    async def _read(self, collection_id: UUID, space_id: str, condition: str, **values: Any) -> OpenedTemplates:
        return await self.open(collection_id, space_id, await self._execute(collection_id, space_id, condition, values))

    async def _execute(
        self, collection_id: UUID, space_id: str, condition: str, values: dict[str, Any]
    ) -> list[TemplateRow]:
        statement = _build_statement(get_partition_name(collection_id), condition)
        rows = await self._session.execute(statement, {"contract": space_id, **values})
        return [TemplateRow(*row) for row in rows]


def require_readable(found: OpenedTemplates) -> OpenedTemplates:
    """Return templates that all opened.

    Raises:
        KeyRingError: One did not.
    """
    if found.unreadable:
        raise build_lost_key_error(found.unreadable[0].person_id)
    return found
