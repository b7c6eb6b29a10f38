"""Stored responses by idempotency key."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, null, select, update

from vultus.db.locks import compute_lock_number, try_lock
from vultus.db.tables import IdempotencyRow
from vultus.domain import RepeatedRequestError, StoredResponse
from vultus.errors import IdempotencyErasedError, IdempotencyInFlightError, IdempotencyMismatchError

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.domain import IdempotencyContext


async def delete_collection_responses(session: AsyncSession, collection_id: UUID) -> None:
    """Delete the stored responses about a collection as a whole, which may name anybody in it; their keys stay."""
    about = IdempotencyRow.body["collection_id"].as_string() == str(collection_id)
    await session.execute(update(IdempotencyRow).where(IdempotencyRow.person_id.is_(None), about).values(body=null()))


class IdempotencyRepository:
    """Stores responses by API key and the SHA-256 of the idempotency key, a word that may say something of a person."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def claim_key(self, context: IdempotencyContext) -> None:
        """Reserve the key for this transaction.

        Raises:
            RepeatedRequestError: The request was answered before.
            IdempotencyMismatchError: The key was used with another request.
            IdempotencyErasedError: The response was deleted with who it was about.
            IdempotencyInFlightError: Another transaction holds the key.
        """
        if not await self.try_lock_key(context.principal_id, context.key):
            raise IdempotencyInFlightError("The first request with this Idempotency-Key is still running.")
        await self.check_unanswered(context)

    async def check_unanswered(self, context: IdempotencyContext) -> None:
        """Return if nothing is stored under the key.

        Raises:
            RepeatedRequestError: The request was answered before.
            IdempotencyMismatchError: The key was used with another request.
            IdempotencyErasedError: The response was deleted with who it was about.
        """
        stored = await self.find_response(context.principal_id, context.key)
        if stored is None:
            return
        if stored.request_sha256 != context.request_sha256:
            raise IdempotencyMismatchError(
                "This Idempotency-Key was used before with another request; use a new key for a new request."
            )
        if stored.body is None:
            raise IdempotencyErasedError(
                "The first request with this Idempotency-Key was done, and who it was about has been erased since. "
                "Nothing was stored; if a new registration is meant, send it with a new key."
            )
        raise RepeatedRequestError(stored)

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
                ).where(IdempotencyRow.api_key_id == api_key_id, IdempotencyRow.key_sha256 == _digest_key(key))
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
        """Store a response; its body is deleted with the person it names.

        Raises:
            AlreadyExistsError: A response is stored under the key.
        """
        await self._session.execute(
            insert(IdempotencyRow).values(
                api_key_id=api_key_id,
                key_sha256=_digest_key(key),
                request_sha256=request_sha256,
                status=status,
                body=body,
                person_id=person_id,
            )
        )

    async def delete_old_responses(self, older_than: datetime) -> int:
        """Delete responses stored before `older_than`; return how many."""
        deleted = await self._session.execute(
            delete(IdempotencyRow).where(IdempotencyRow.created_at < older_than).returning(IdempotencyRow.status)
        )
        return len(deleted.all())


def _digest_key(key: str) -> bytes:
    return sha256(key.encode()).digest()
