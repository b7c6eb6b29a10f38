"""Advisory locks: names are hashed to 64-bit numbers, and every lock ends with its transaction."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sqlalchemy import func, select

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


def compute_lock_number(kind: str, *parts: str) -> int:
    """Return the signed 64-bit number of a lock.

    Each part is preceded by its length, so that different parts never give the same text.
    """
    encoded = "".join(f"{len(part)}:{part}" for part in (kind, *parts))
    digest = hashlib.sha256(encoded.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


async def acquire_lock(session: AsyncSession, number: int) -> None:
    """Wait for a lock and hold it until the transaction ends."""
    await session.execute(select(func.pg_advisory_xact_lock(number)))


async def try_lock(session: AsyncSession, number: int) -> bool:
    """Take a lock if it is free and hold it until the transaction ends; return whether it was free."""
    return bool((await session.execute(select(func.pg_try_advisory_xact_lock(number)))).scalar_one())


async def lock_collection(session: AsyncSession, collection_id: UUID) -> None:
    """Wait for the exclusive lock on a collection and hold it until the transaction ends.

    Every writer of faces takes it before their numbers are drawn, so that numbers ascend in commit order: a reader that
    has seen a number never sees a lower one appear later. A transaction can take it again.

    Taken first in a transaction, before any row is written, it cannot deadlock: `PARTITION_LOCK` follows it, whose
    holder waits for no collection; the key of an idempotent request is tried, never waited for.
    """
    await acquire_lock(session, compute_lock_number("collection", str(collection_id)))
