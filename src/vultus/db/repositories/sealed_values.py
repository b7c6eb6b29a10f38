"""Everything that is stored sealed, and the secrets among it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Text, cast, exists, func, literal, or_, select, union_all, update

from vultus.db.locks import acquire_lock, compute_lock_number
from vultus.db.source_table import SourceRow
from vultus.db.tables import PersonRow
from vultus.db.webhook_tables import WebhookRow
from vultus.sealing.envelopes import SECRET_MAGIC

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

_KEYS_LOCK = compute_lock_number("keys")
_SECRET_COLUMNS: dict[str, tuple[Any, str]] = {
    "address": (SourceRow.sealed_address, "source"),
    "secret": (WebhookRow.sealed_secret, "webhook"),
    "previous": (WebhookRow.sealed_previous, "webhook"),
}
"""Every column of secrets, and with what the contexts of its values begin."""


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A stored secret.

    Attributes:
        column: Which column holds it.
        owner_id: Of the source or webhook.
        context: What it was sealed in.
        sealed: Ciphertext.
    """

    column: str
    owner_id: UUID
    context: str
    sealed: bytes


class SealedValueRepository:
    """Answers whether keys are needed that must not be replaced by new ones, and changes what seals secrets."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def has_any(self) -> bool:
        """Return whether the database contains anything that the installation's keys sealed."""
        is_sealed = [exists(select(PersonRow.id).where(PersonRow.key_slot.is_not(None)))]
        for column, _ in _SECRET_COLUMNS.values():
            is_sealed.append(exists(select(column).where(func.substr(column, 1, len(SECRET_MAGIC)) == SECRET_MAGIC)))
        return bool((await self._session.execute(select(or_(*is_sealed)))).scalar_one())

    async def hold_keys(self) -> None:
        """Keep `await_holders` waiting until the transaction ends."""
        await self._session.execute(select(func.pg_advisory_xact_lock_shared(_KEYS_LOCK)))

    async def await_holders(self) -> None:
        """Wait for every transaction that holds keys; call it in a transaction of its own."""
        await acquire_lock(self._session, _KEYS_LOCK)

    async def list_secrets(self) -> list[SealedSecret]:
        """Return every secret there is."""
        parts = [
            select(literal(name), column.class_.id, cast(literal(kind), Text), column).where(column.is_not(None))
            for name, (column, kind) in _SECRET_COLUMNS.items()
        ]
        rows = await self._session.execute(union_all(*parts))
        return [SealedSecret(name, owner_id, f"{kind}:{owner_id}", sealed) for name, owner_id, kind, sealed in rows]

    async def replace_secret(self, found: SealedSecret, sealed: bytes) -> None:
        """Store a secret sealed anew, unless it was changed meanwhile."""
        column, _ = _SECRET_COLUMNS[found.column]
        row = column.class_
        await self._session.execute(
            update(row).where(row.id == found.owner_id, column == found.sealed).values({column.key: sealed})
        )
