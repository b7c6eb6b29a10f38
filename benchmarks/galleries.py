"""A database of its own, gone when the block ends, and galleries of made-up vectors in it."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import uvloop

from vultus.db import migrate
from vultus.db.database import Database
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from vultus.db.copying import Bytes
    from vultus.domain import Collection, FloatArray

Result = TypeVar("Result")

BATCH = 5_000
GRANTED = datetime(2026, 1, 1, tzinfo=UTC)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it in an event loop like the service's."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@contextmanager
def scratch() -> Iterator[str]:
    """Start the embedded PostgreSQL as the service configures it; yield its URL."""
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as folder:
        Path(folder).chmod(0o711)  # PostgreSQL's user passes through it
        with EmbeddedPostgres(Path(folder) / "data") as server:
            yield server.start()


@asynccontextmanager
async def connected(url: str, settings: DatabaseSettings | None = None) -> AsyncIterator[Database]:
    """Bring the schema up to date and connect as the service does."""
    await migrate.upgrade(url)
    database = await Database.connect(url, settings or DatabaseSettings())
    try:
        yield database
    finally:
        await database.close()


def units(count: int, size: int, seed: int) -> FloatArray:
    """Return (count, size) float32 vectors of length 1, from all directions alike."""
    vectors = np.random.default_rng(seed).standard_normal((count, size), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def digests(count: int, seed: int) -> Bytes:
    """Return (count, 32) bytes in the place of photos' digests."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


async def enrol(database: Database, home: Collection, vectors: FloatArray, seed: int) -> None:
    """Store a person, a consent and a face a vector; the external id is the row's number."""
    for start in range(0, len(vectors), BATCH):
        mine = vectors[start : start + BATCH]
        async with database.work() as work:
            await work.lock_collection(home.id)
            people = [(str(start + row), None) for row in range(len(mine))]
            persons = await work.bulk.add_persons(home.id, people)
            consents = await work.bulk.add_consents(
                home.id,
                persons,
                purpose="Benchmark",
                recorded_by="benchmark",
                evidence_ref=None,
                granted_at=GRANTED,
                expires_at=None,
            )
            await work.bulk.add_faces(
                home.id,
                home.contract_id,
                persons=persons,
                consents=consents,
                expires_at=None,
                vectors=mine,
                sources=digests(len(mine), seed + start),
            )
