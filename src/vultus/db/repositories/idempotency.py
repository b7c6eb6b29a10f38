"""Answers to requests that must happen once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select

from vultus.db.locks import number_of, try_lock
from vultus.db.tables import IdempotencyRow
from vultus.domain import StoredAnswer

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


class Idempotency:
    """Stored answers by API key and Idempotency-Key."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def try_lock(self, api_key_id: str, key: str) -> bool:
        """Hold the key until the transaction ends; false when another transaction holds it."""
        return await try_lock(self._session, number_of("idempotency", api_key_id, key))

    async def find(self, api_key_id: str, key: str) -> StoredAnswer | None:
        """Return the answer stored under a key."""
        row = (
            await self._session.execute(
                select(
                    IdempotencyRow.request_sha256,
                    IdempotencyRow.status,
                    IdempotencyRow.body,
                    IdempotencyRow.created_at,
                ).where(IdempotencyRow.api_key_id == api_key_id, IdempotencyRow.key == key)
            )
        ).one_or_none()
        return None if row is None else StoredAnswer(*row)

    async def add(
        self,
        *,
        api_key_id: str,
        key: str,
        request_sha256: bytes,
        status: int,
        body: dict[str, Any],
        person_id: UUID | None,
    ) -> None:
        """Store an answer; it goes when the person it names goes.

        Raises:
            AlreadyExistsError: An answer is stored under the key.
        """
        await self._session.execute(
            insert(IdempotencyRow).values(
                api_key_id=api_key_id,
                key=key,
                request_sha256=request_sha256,
                status=status,
                body=body,
                person_id=person_id,
            )
        )

    async def purge(self, older_than: datetime) -> int:
        """Forget answers stored before a moment; return how many."""
        gone = await self._session.execute(
            delete(IdempotencyRow).where(IdempotencyRow.created_at < older_than).returning(IdempotencyRow.key)
        )
        return len(gone.all())
