"""Stored responses by idempotency key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select

from vultus.db.locks import compute_lock_number, try_lock
from vultus.db.tables import IdempotencyRow
from vultus.domain import StoredResponse

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


class IdempotencyRepository:
    """Stores responses by API key and idempotency key."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def try_lock_key(self, api_key_id: str, key: str) -> bool:
        """Lock the key until the transaction ends; return False if another transaction holds it."""
        return await try_lock(self._session, compute_lock_number("idempotency", api_key_id, key))

    async def find_response(self, api_key_id: str, key: str) -> StoredResponse | None:
        """Return the response stored under a key, if there is one."""
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
        return None if row is None else StoredResponse(*row)

    async def add_response(
        self,
        *,
        api_key_id: str,
        key: str,
        request_sha256: bytes,
        status: int,
        body: dict[str, Any],
        person_id: UUID | None,
    ) -> None:
        """Store a response; it is deleted with the person it names.

        Raises:
            AlreadyExistsError: A response is stored under the key.
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

    async def delete_old_responses(self, older_than: datetime) -> int:
        """Delete responses stored before `older_than`; return how many."""
        deleted = await self._session.execute(
            delete(IdempotencyRow).where(IdempotencyRow.created_at < older_than).returning(IdempotencyRow.key)
        )
        return len(deleted.all())
