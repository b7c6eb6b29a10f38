"""Advisory locks: names become 64-bit numbers, and every lock goes with its transaction."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sqlalchemy import func, select

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


def number_of(kind: str, *words: str) -> int:
    """Return the signed 64-bit number of a lock.

    Each word is preceded by its length, so that no two lists of words are the same text.
    """
    told = "".join(f"{len(word)}:{word}" for word in (kind, *words))
    digest = hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


async def lock(session: AsyncSession, number: int) -> None:
    """Wait for a lock and hold it until the transaction ends."""
    await session.execute(select(func.pg_advisory_xact_lock(number)))


async def try_lock(session: AsyncSession, number: int) -> bool:
    """Take a lock if it is free, and hold it until the transaction ends."""
    return bool((await session.execute(select(func.pg_try_advisory_xact_lock(number)))).scalar_one())


async def lock_collection(session: AsyncSession, collection_id: UUID) -> None:
    """Wait until no other transaction holds the collection, and hold it until this one ends.

    Whatever writes faces holds this before their numbers are drawn, so that numbers rise in the order of commits: a
    reader that has seen a number will never see a lower one appear. It can be taken again in a transaction.

    Taken first in a transaction, before any row is written, it cannot deadlock. Only `PARTITION_LOCK` comes before it,
    and who holds that wants nothing else that a writer of faces has; the key of an idempotent request is tried, never
    waited for.
    """
    await lock(session, number_of("collection", str(collection_id)))
