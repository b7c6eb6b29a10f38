"""Reads the audit record; `UnitOfWork.record` writes it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, func, insert, select

from vultus.db.locks import compute_lock_number, try_lock
from vultus.db.record_tables import AuditChangesRow, AuditLinkRow, AuditRow
from vultus.db.tables import PersonRow
from vultus.domain import AuditEntry, AuditFilter
from vultus.domain.audit_chain import AuditLink
from vultus.domain.ledger import ENDING_ACTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_COLUMNS = (
    AuditRow.id,
    AuditRow.at,
    AuditRow.actor,
    AuditRow.request_id,
    AuditRow.action,
    AuditRow.collection_id,
    AuditRow.person_id,
    AuditRow.object_id,
    AuditRow.detail,
)


_LINK_COLUMNS = (
    AuditLinkRow.number,
    AuditLinkRow.entry_id,
    AuditLinkRow.at,
    AuditLinkRow.content,
    AuditLinkRow.digest,
)
CHAIN_LOCK = compute_lock_number("audit chain")


class AuditRepository:
    """Lists audit entries, and keeps their chain."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def list_entries(
        self, after: UUID | None, limit: int, only: AuditFilter | None = None, *, newest_first: bool = False
    ) -> tuple[AuditEntry, ...]:
        """Return entries that pass a filter, those after the given id in the order asked for."""
        only = only or AuditFilter()
        query = select(*_COLUMNS).order_by(AuditRow.id.desc() if newest_first else AuditRow.id).limit(limit)
        if after is not None:
            query = query.where(AuditRow.id < after if newest_first else AuditRow.id > after)
        for column in (AuditRow.actor, AuditRow.action, AuditRow.collection_id, AuditRow.person_id):
            if (wanted := getattr(only, column.key)) is not None:
                query = query.where(column == wanted)
        if only.since is not None:
            query = query.where(AuditRow.at >= only.since)
        if only.until is not None:
            query = query.where(AuditRow.at < only.until)
        if only.collections is not None:
            query = query.where(AuditRow.collection_id.in_(only.collections))
        return tuple(AuditEntry(*row) for row in await self._session.execute(query))

    async def list_endings(self, after: UUID | None, limit: int, not_by: str) -> tuple[AuditEntry, ...]:
        """Return entries of what ended for good after the given id, but those of an actor, in order."""
        query = select(*_COLUMNS).where(AuditRow.action.in_(ENDING_ACTIONS), AuditRow.actor != not_by)
        if after is not None:
            query = query.where(AuditRow.id > after)
        found = await self._session.execute(query.order_by(AuditRow.id).limit(limit))
        return tuple(AuditEntry(*row) for row in found)

    async def try_lock_chain(self) -> bool:
        """Return whether the chain is this transaction's to extend, until it ends."""
        return await try_lock(self._session, CHAIN_LOCK)

    async def get_last_link(self) -> AuditLink | None:
        """Return the last link of the chain."""
        query = select(*_LINK_COLUMNS).order_by(AuditLinkRow.number.desc()).limit(1)
        row = (await self._session.execute(query)).one_or_none()
        return None if row is None else AuditLink(*row)

    async def list_unlinked(self, after: UUID | None, limit: int) -> tuple[AuditEntry, ...]:
        """Return entries after the given id that no link holds."""
        query = select(*_COLUMNS).where(~exists().where(AuditLinkRow.entry_id == AuditRow.id))
        if after is not None:
            query = query.where(AuditRow.id > after)
        found = await self._session.execute(query.order_by(AuditRow.id).limit(limit))
        return tuple(AuditEntry(*row) for row in found)

    async def add_links(self, links: Sequence[AuditLink]) -> None:
        """Add links to the end of the chain."""
        await self._session.execute(insert(AuditLinkRow), [asdict(link) for link in links])

    async def list_links(self, after: int, limit: int) -> list[tuple[AuditLink, AuditEntry | None]]:
        """Return links after a number, with the entries that they hold; None for one that is not there."""
        query = select(*_LINK_COLUMNS, *_COLUMNS).outerjoin(AuditRow, AuditRow.id == AuditLinkRow.entry_id)
        found = await self._session.execute(
            query.where(AuditLinkRow.number > after).order_by(AuditLinkRow.number).limit(limit)
        )
        size = len(_LINK_COLUMNS)
        return [
            (AuditLink(*row[:size]), None if row[size] is None else AuditEntry(*row[size:]))
            for row in map(tuple, found)
        ]

    async def delete_old_entries(self, older_than: datetime) -> int:
        """Delete entries written before `older_than`, for good, a time of 30 days ago or earlier; return how many.

        The role that serves may neither change nor delete an entry; a function of the database does it for this.
        """
        old = await self._session.execute(select(func.count()).where(AuditRow.at < older_than))
        if count := old.scalar_one():
            await self._session.execute(select(func.vultus_delete_old_audit(older_than)))
        return count

    async def load_changes(self, entries: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
        """Return the values about persons, before and now, that some entries changed, as far as they are kept."""
        wanted = AuditChangesRow.entry_id.in_(entries)
        found = await self._session.execute(select(AuditChangesRow.entry_id, AuditChangesRow.changes).where(wanted))
        return {row[0]: json.loads(row[1])["changes"] for row in found}

    async def list_wrong_changes(self) -> list[tuple[UUID, datetime]]:
        """Return entries whose values about a person were changed, or are gone though the person is not."""
        digest = func.encode(func.sha256(func.convert_to(AuditChangesRow.changes, "UTF8")), "hex")
        is_wrong = digest != AuditRow.detail["changes_sha256"].astext
        is_missing = AuditChangesRow.entry_id.is_(None) & exists().where(PersonRow.id == AuditRow.person_id)
        query = (
            select(AuditRow.id, AuditRow.at)
            .outerjoin(AuditChangesRow, AuditChangesRow.entry_id == AuditRow.id)
            .where(AuditRow.detail.has_key("changes_sha256"), is_wrong | is_missing)
        )
        return [(row[0], row[1]) for row in await self._session.execute(query.order_by(AuditRow.id))]
