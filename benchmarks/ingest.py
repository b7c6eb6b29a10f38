"""How many faces a second become durable, and what do the guarantees cost?

`python -m benchmarks.ingest --faces 200000`: the embedded PostgreSQL as the service configures it (fsync and
synchronous commit on), vectors of 128 numbers. Persons with consent and face through the service that
`vultus import-vectors` uses; further faces of known persons through the repository; one registration's rows at a time
as `/v1/register` writes them; and as the ceiling a binary COPY of numbers and vectors into a table without any
constraint or index. Making the vectors is not counted; making them ready for the database is. The ceiling is measured
first and last.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import numpy as np

from benchmarks import record
from benchmarks.galleries import BATCH, GRANTED, connected, digests, run, scratch, units
from benchmarks.record import Line, table
from vultus.db.copying import END, HEADER, level_rows
from vultus.domain import Actor, NewFace, Quality
from vultus.models.pipelines import Pipelines
from vultus.models.weights.store import WeightsStore
from vultus.services.collections import Collections
from vultus.services.crop_vault import CropVault
from vultus.services.enrolment.bulk import BulkRegistrar, VectorBatch
from vultus.services.people.consents import ConsentGrant
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray

FACES = 200_000
ONE_BY_ONE = 1_000
BAR = 20_000
WRITERS = 2  # as the command line has
SIZE = 128
CONSENT = ConsentGrant("Benchmark", "benchmark")


def measure(faces: int) -> list[Line]:
    """Return a line for every way in."""
    with scratch() as url:
        return run(_measure(url, faces))


async def _measure(url: str, faces: int) -> list[Line]:
    faces = max(faces // BATCH, 1) * BATCH
    vectors = units(faces, SIZE, seed=0)
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as cache:
        pipelines = Pipelines.load(InferenceSettings(), PhotoSettings(), WeightsStore(Path(cache)))
        async with connected(url) as database:
            vault = CropVault(Path(cache) / "crops.key")
            home = await Collections(database, pipelines, vault).ensure_default()
            lines = [
                await _timed("ceiling", faces, _ceiling(url, vectors)),
                await _timed("one at a time", ONE_BY_ONE, _one_by_one(database, home)),
                await _timed("persons", faces, _persons(BulkRegistrar(database, pipelines), home, vectors)),
                await _timed("faces", faces, _faces(database, home, vectors)),
                await _timed("ceiling again", faces, _ceiling(url, vectors)),
            ]
    return lines


async def _timed(way: str, faces: int, work: Awaitable[float]) -> Line:
    print(f"ingest: {way}", flush=True)
    seconds = await work
    return {"way": way, "faces": faces, "seconds": round(seconds, 3), "per_s": round(faces / seconds, 1)}


async def _ceiling(url: str, vectors: FloatArray) -> float:
    """Copy numbers and vectors into a bare table, committed as often as the others."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute("CREATE TABLE bare (id bigint, embedding halfvec)")
    started = time.perf_counter()
    for start in range(0, len(vectors), BATCH):
        halves = vectors[start : start + BATCH].astype(">f2").view(np.uint8)
        head = np.broadcast_to(np.frombuffer(SIZE.to_bytes(2, "big") + bytes(2), np.uint8), (len(halves), 4))
        ids = np.arange(start, start + len(halves), dtype=">i8").view(np.uint8).reshape(-1, 8)
        rows = HEADER + level_rows([ids, np.concatenate([head, halves], axis=1)]) + END
        await connection.copy_to_table("bare", source=memoryview(rows), format="binary")
    seconds = time.perf_counter() - started
    await connection.execute("DROP TABLE bare")
    await connection.close()
    return seconds


async def _one_by_one(database: Database, home: Collection) -> float:
    vectors, sources = units(ONE_BY_ONE, SIZE, seed=1), digests(ONE_BY_ONE, seed=1)
    started = time.perf_counter()
    for row, vector in enumerate(vectors):
        async with database.work() as work:
            await work.lock_collection(home.id)
            person = await work.persons.add(home.id, f"alone {row}", None, {})
            consent = await work.consents.add(
                home.id,
                person.id,
                purpose="Benchmark",
                recorded_by="benchmark",
                evidence_ref=None,
                granted_at=GRANTED,
                expires_at=None,
            )
            face = NewFace(
                home.id,
                person.id,
                consent.id,
                None,
                home.contract_id,
                vector,
                Quality(120, 50, 0.5, 1, -2, 3),
                0.9,
                sources[row].tobytes().hex(),
            )
            await work.faces.add_many([face])
    return time.perf_counter() - started


async def _persons(bulk: BulkRegistrar, home: Collection, vectors: FloatArray) -> float:
    """Register a new person a vector, as the command line does: while one batch is written the next is made ready."""
    starts = iter(range(0, len(vectors), BATCH))

    async def writer() -> None:
        for start in starts:
            rows = range(start, start + BATCH)
            batch = VectorBatch(
                home.name,
                home.contract_id,
                [f"E-{row}" for row in rows],
                [f"Person {row}" for row in rows],
                vectors[start : start + BATCH],
                CONSENT,
            )
            await bulk.register(batch, actor=Actor("benchmark"))

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(writer())
    return time.perf_counter() - started


async def _faces(database: Database, home: Collection, vectors: FloatArray) -> float:
    """Add a further face to as many persons as a batch has, again and again."""
    async with database.work() as work:
        persons = await work.bulk.add_persons(home.id, [(f"again {row}", None) for row in range(BATCH)])
        consents = await work.bulk.add_consents(
            home.id,
            persons,
            purpose="Benchmark",
            recorded_by="benchmark",
            evidence_ref=None,
            granted_at=GRANTED,
            expires_at=None,
        )
    sources = digests(len(vectors), seed=2)
    started = time.perf_counter()
    for start in range(0, len(vectors), BATCH):
        rows = slice(start, start + BATCH)
        async with database.work() as work:
            await work.bulk.add_faces(
                home.id,
                home.contract_id,
                persons=persons,
                consents=consents,
                expires_at=None,
                vectors=vectors[rows],
                sources=sources[rows],
            )
    return time.perf_counter() - started


def render(lines: list[Line]) -> str:
    """Return the table."""
    by_way = {line["way"]: line for line in lines}
    ceiling = (by_way["ceiling"]["per_s"] + by_way["ceiling again"]["per_s"]) / 2
    named = {
        "persons": "new persons with consent and face, `vultus import-vectors`",
        "faces": "further faces of known persons",
        "one at a time": "a person, a consent, a face and a commit at a time",
    }
    rows = [
        [name, f"{by_way[way]['faces']:,}", f"{by_way[way]['per_s']:,.0f}", f"{by_way[way]['per_s'] / ceiling:.0%}"]
        for way, name in named.items()
    ]
    rows.append(["COPY into a table without constraints or indexes", f"{lines[0]['faces']:,}", f"{ceiling:,.0f}", ""])
    columns = ("durable", "faces", "a second", "of the ceiling")
    persons, faces = by_way["persons"]["per_s"], by_way["faces"]["per_s"]
    reached = "Reached" if min(3 * persons, faces) >= BAR else "Not reached"
    return (
        f"{table(columns, rows)}\n\nBar: {BAR:,} durable rows a second. {reached}: {faces:,.0f} for faces, and "
        f"{3 * persons:,.0f} where a new person is three, one of them a consent."
    )


def main() -> None:
    """Answer the question of the command line."""
    parser = record.arguments("ingest", __doc__)
    parser.add_argument("--faces", type=int, default=FACES)
    asked = parser.parse_args()
    record.answer(
        "ingest", None if asked.show else lambda: measure(asked.faces), render, lambda lines: lines[0]["faces"] >= FACES
    )


if __name__ == "__main__":
    main()
