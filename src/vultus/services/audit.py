"""Reading of the audit record, whose entries are written in the transactions they describe, and of decision records."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import AuditFilter, Permission
from vultus.domain.decision_records import DecisionExplanation, DecisionFilter, DecisionRecord
from vultus.domain.events import list_actions
from vultus.errors import InvalidInputError

if TYPE_CHECKING:
    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import AuditEntry, Principal


class AuditService:
    """Lists the entries of the audit record, and lists and explains decision records."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_entries(
        self,
        principal: Principal,
        *,
        after: UUID | None,
        limit: int,
        only: AuditFilter | None = None,
        newest_first: bool = False,
    ) -> tuple[AuditEntry, ...]:
        """Return entries after the given id, the oldest first unless asked otherwise.

        A principal that is bound to collections sees what happened in them, and nothing about keys and other ones. One
        that may read persons sees the values about them that changed, as long as they are not erased.

        Raises:
            InvalidInputError: Only entries of an action that there is not were asked for.
        """
        principal.require(Permission.AUDIT)
        if only and only.action:
            _require_known_action(only.action)
        only = replace(only or AuditFilter(), collections=principal.collections)
        async with self._database.transaction(read_only=True) as work:
            found = await work.audit.list_entries(after, limit, only, newest_first=newest_first)
            return await add_changes(work, found) if Permission.READ in principal.permissions else found

    async def list_decisions(
        self,
        principal: Principal,
        *,
        after: UUID | None,
        limit: int,
        only: DecisionFilter | None = None,
        newest_first: bool = False,
    ) -> tuple[DecisionRecord, ...]:
        """Return records after the given id, of collections within the principal's reach; cosines if it may see them.

        Raises:
            ForbiddenError: It may not read the audit record.
        """
        principal.require(Permission.AUDIT)
        only = replace(only or DecisionFilter(), collections=principal.collections)
        async with self._database.transaction(read_only=True) as work:
            found = await work.decisions.list_decisions(after, limit, only, newest_first=newest_first)
        return tuple(hide_scores(principal, record) for record in found)

    async def explain_decision(self, principal: Principal, decision_id: UUID) -> DecisionExplanation:
        """Return a record with the consent, the key and the change of the collection that it rests on.

        The consent is for who may read persons, too.

        Raises:
            ForbiddenError: The principal may not read the audit record.
            NotFoundError: There is no such record, or it does not exist for the principal.
        """
        principal.require(Permission.AUDIT)
        async with self._database.transaction(read_only=True) as work:
            record = await work.decisions.get_decision(decision_id, principal.collections)
            consent = key = None
            if record.person_id and record.consent_id and Permission.READ in principal.permissions:
                consent = await work.consents.get_consent(record.collection_id, record.person_id, record.consent_id)
            kind, _, key_id = record.actor.partition(":")
            if kind == "key":
                key = await work.keys.find_key(UUID(key_id))
            since = datetime.fromisoformat(record.detail["rules_since"])
            changed = AuditFilter(
                collection_id=record.collection_id, since=since, until=since + timedelta(microseconds=1)
            )
            rules = await work.audit.list_entries(None, 1, changed)
        return DecisionExplanation(
            hide_scores(principal, record), consent, key.name if key else None, next(iter(rules), None)
        )


async def add_changes(work: UnitOfWork, entries: tuple[AuditEntry, ...]) -> tuple[AuditEntry, ...]:
    """Return entries with the values about persons that they changed, as far as they are kept."""
    changed = [entry.id for entry in entries if "changes_sha256" in entry.detail]
    values = await work.audit.load_changes(changed) if changed else {}
    return tuple(
        replace(entry, detail=entry.detail | {"changes": values[entry.id]}) if entry.id in values else entry
        for entry in entries
    )


def hide_scores(principal: Principal, record: DecisionRecord) -> DecisionRecord:
    """Return a record without the cosine, unless the principal may see scores."""
    return record if principal.may_see_scores else replace(record, similarity=None)


def _require_known_action(action: str) -> None:
    """Refuse an action that there is not: an empty list would say that it never happened."""
    known = list_actions()
    if action not in known:
        nearest = get_close_matches(action, known, n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"there are {', '.join(known)}."
        raise InvalidInputError(f"There is no action '{action}'; {hint}")
