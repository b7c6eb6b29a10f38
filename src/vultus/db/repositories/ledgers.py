"""How far ledgers of erasures have been applied to this database, and what it has of what they say has ended."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from vultus.db.record_tables import LedgerRow
from vultus.domain import events
from vultus.utils.chained_file import ChainPosition

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.domain.ledger import LedgerEntry

_CONSENTS = "SELECT id FROM consents WHERE id = ANY(:ids) AND withdrawn_at IS NULL"
_FIND_REVIVED = {
    events.CollectionDeleted.action: "SELECT id FROM collections WHERE id = ANY(:ids)",
    events.PersonErased.action: "SELECT id FROM persons WHERE id = ANY(:ids)",
    events.ConsentWithdrawn.action: _CONSENTS,
    events.ConsentExpired.action: _CONSENTS,
    events.FaceDeleted.action: (
        "SELECT DISTINCT faces.id FROM faces JOIN unnest(CAST(:collections AS uuid[]), CAST(:ids AS uuid[]))"
        " AS ended (collection_id, id) ON faces.collection_id = ended.collection_id AND faces.id = ended.id"
    ),
    events.KeyRevoked.action: "SELECT id FROM api_keys WHERE id = ANY(:ids) AND revoked_at IS NULL",
    # What the database does not know of, though it knows of what was before: it is of an earlier time, and so is the
    # key's secret.
    events.KeyRotated.action: (
        "SELECT api_keys.id FROM api_keys JOIN unnest(CAST(:ids AS uuid[]), CAST(:entries AS uuid[]),"
        " CAST(:times AS timestamptz[])) AS ended (id, entry, at) ON api_keys.id = ended.id"
        " WHERE revoked_at IS NULL AND EXISTS (SELECT FROM audit WHERE audit.at < ended.at)"
        " AND NOT EXISTS (SELECT FROM audit WHERE audit.id = ended.entry)"
    ),
}
"""By action: query of the ids that are there though they ended."""


@dataclass(frozen=True, slots=True)
class LedgerPosition:
    """Up to where a ledger was applied to a database.

    Attributes:
        end: Place in the file.
        compared_at: When the audit record was compared with it.
        database: The database, as `identify_database` tells it.
    """

    end: ChainPosition
    compared_at: datetime
    database: str


class LedgerRepository:
    """Keeps the positions of ledgers, and finds what a database of an earlier time has again."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def identify_database(self) -> str:
        """Return what tells this database from its copies: one restored from a dump, or a clone, has another."""
        query = (
            "SELECT system_identifier || '/' || oid FROM pg_control_system(), pg_database"
            " WHERE datname = current_database()"
        )
        return str((await self._session.execute(text(query))).scalar_one())

    async def get_position(self, ledger_id: UUID) -> LedgerPosition | None:
        """Return up to where a ledger was applied; None for one never seen."""
        columns = LedgerRow.bytes, LedgerRow.digest, LedgerRow.compared_at, LedgerRow.database
        row = (await self._session.execute(select(*columns).where(LedgerRow.id == ledger_id))).one_or_none()
        return None if row is None else LedgerPosition(ChainPosition(row[0], row[1]), row[2], row[3])

    async def set_position(self, ledger_id: UUID, position: LedgerPosition) -> None:
        """Note up to where a ledger was applied."""
        end = position.end
        values = {
            "bytes": end.offset,
            "digest": end.digest,
            "compared_at": position.compared_at,
            "database": position.database,
        }
        statement = insert(LedgerRow).values(id=ledger_id, **values)
        await self._session.execute(statement.on_conflict_do_update(index_elements=[LedgerRow.id], set_=values))

    async def find_revived(self, entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
        """Return those of some entries whose subject is in the database, as `ENDINGS` orders them."""
        by_action: dict[str, list[LedgerEntry]] = defaultdict(list)
        for entry in entries:
            by_action[entry.action].append(entry)
        return [
            entry
            for action, query in _FIND_REVIVED.items()
            if (ended := by_action[action])
            for entry in await self._find_among(query, ended)
        ]

    async def _find_among(self, query: str, ended: list[LedgerEntry]) -> list[LedgerEntry]:
        subjects = {_get_subject(entry): entry for entry in ended}
        values: dict[str, list[Any]] = {
            "ids": list(subjects),
            "collections": [entry.collection_id for entry in subjects.values()],
            "entries": [entry.id for entry in subjects.values()],
            "times": [entry.at for entry in subjects.values()],
        }
        named = {name: value for name, value in values.items() if f":{name}" in query}
        found = set((await self._session.execute(text(query), named)).scalars())
        return [entry for subject, entry in subjects.items() if subject in found]


def _get_subject(entry: LedgerEntry) -> UUID | None:
    if entry.action == events.CollectionDeleted.action:
        return entry.collection_id
    return entry.person_id if entry.action == events.PersonErased.action else entry.object_id
