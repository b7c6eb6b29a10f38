"""A scratch database, deleted when the block ends, and galleries of synthetic vectors in it."""

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
from vultus.domain import Principal
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from vultus.db.copying import ColumnBytes
    from vultus.domain import Collection, FloatArray

Result = TypeVar("Result")

CALLER = Principal.from_process("benchmark")
BATCH = 5_000
GRANTED = datetime(2026, 1, 1, tzinfo=UTC)


def run_in_event_loop(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in an event loop like the service's."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@contextmanager
def start_scratch_database() -> Iterator[str]:
    """Start the embedded PostgreSQL as the service configures it; yield its URL."""
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as folder:
        Path(folder).chmod(0o711)  # PostgreSQL's user passes through it
        with EmbeddedPostgres(Path(folder) / "data") as server:
            server.start()
            yield server.superuser_url  # a gallery is filled without checks


@asynccontextmanager
async def connect_migrated_database(url: str, settings: DatabaseSettings | None = None) -> AsyncIterator[Database]:
    """Bring the schema up to date and connect as the service does."""
    await migrate.upgrade_schema(url)
    database = await Database.connect(url, settings or DatabaseSettings())
    try:
        yield database
    finally:
        await database.close()


def draw_unit_vectors(count: int, size: int, seed: int) -> FloatArray:
    """Return (count, size) float32 vectors of length 1, uniformly distributed in direction."""
    vectors = np.random.default_rng(seed).standard_normal((count, size), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def draw_digests(count: int, seed: int) -> ColumnBytes:
    """Return (count, 32) random uint8 in place of photos' digests."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


async def enrol_vectors(
    database: Database, collection: Collection, vectors: FloatArray, seed: int, first: int = 0
) -> None:
    """Store a person, a consent and a face per vector; the external id is the row's number, from `first` on."""
    for start in range(0, len(vectors), BATCH):
        batch = vectors[start : start + BATCH]
        async with database.transaction() as work:
            await work.lock_collection(collection.id)
            people = [(str(first + start + row), None) for row in range(len(batch))]
            persons = await work.bulk.add_persons(collection.id, people)
            consents = await work.bulk.add_consents(
                collection.id,
                persons,
                purpose="Benchmark",
                recorded_by="benchmark",
                evidence_ref=None,
                granted_at=GRANTED,
                expires_at=None,
            )
            await work.templates.import_templates(
                collection.id,
                collection.space_id,
                persons=persons,
                consents=consents,
                expires_at=None,
                vectors=batch,
                sources=draw_digests(len(batch), seed + start),
            )
