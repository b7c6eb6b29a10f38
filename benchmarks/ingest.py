"""How many faces a second become durable, and what do the guarantees cost?

`python -m benchmarks.ingest --faces 200000`: the embedded PostgreSQL as the service configures it (fsync and
synchronous commit on), vectors of 128 numbers. Persons with consent and face through the service that
`vultus import-vectors` uses; further faces of known persons through the repository; one registration's rows at a time
as `/v1/register` writes them; and, as the ceiling, a binary COPY of numbers and vectors into a table without any
constraint or index. Drawing the vectors is not timed; encoding them for the database is. The ceiling is measured
first and last.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import asyncpg
import numpy as np

from benchmarks import record
from benchmarks.galleries import (
    BATCH,
    CALLER,
    GRANTED,
    connect_migrated_database,
    draw_digests,
    draw_unit_vectors,
    run_in_event_loop,
    start_scratch_database,
)
from benchmarks.record import Measurement, render_table
from vultus.db.copying import HEADER, TRAILER, build_fixed_length_rows
from vultus.domain import NewFace, Quality
from vultus.models.pipelines import PipelineRegistry
from vultus.models.weights.store import WeightsStore
from vultus.services.collections import CollectionService
from vultus.services.enrolment.bulk import BulkRegistrar, VectorBatch
from vultus.services.people.consents import ConsentGrant
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray

FACES = 200_000
SINGLE_FACES = 1_000
TARGET_ROWS_PER_S = 20_000
WRITERS = 2  # as in `vultus import-vectors`
DIMENSION = 128
CONSENT = ConsentGrant("Benchmark", "benchmark")


def measure(faces: int) -> list[Measurement]:
    """Return one line per way of writing."""
    with start_scratch_database() as url:
        return run_in_event_loop(_measure(url, faces))


async def _measure(url: str, faces: int) -> list[Measurement]:
    faces = max(faces // BATCH, 1) * BATCH
    vectors = draw_unit_vectors(faces, DIMENSION, seed=0)
    spaces = PipelineRegistry.load(InferenceSettings(), PhotoSettings(), WeightsStore()).spaces
    async with connect_migrated_database(url) as database:
        collection = await CollectionService(database, spaces).ensure_default_collection()
        return [
            await _time_ingest("ceiling", faces, _copy_bare_vectors(url, vectors)),
            await _time_ingest("one at a time", SINGLE_FACES, _register_one_by_one(database, collection)),
            await _time_ingest(
                "persons", faces, _register_persons(BulkRegistrar(database, spaces), collection, vectors)
            ),
            await _time_ingest("faces", faces, _add_faces(database, collection, vectors)),
            await _time_ingest("ceiling again", faces, _copy_bare_vectors(url, vectors)),
        ]


async def _time_ingest(way: str, faces: int, work: Awaitable[float]) -> Measurement:
    print(f"ingest: {way}", flush=True)
    seconds = await work
    return {"way": way, "faces": faces, "seconds": round(seconds, 3), "per_s": round(faces / seconds, 1)}


async def _copy_bare_vectors(url: str, vectors: FloatArray) -> float:
    """Copy numbers and vectors into a bare table, with as many commits as the others."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute("CREATE TABLE bare (id bigint, embedding halfvec)")
    started = time.perf_counter()
    for start in range(0, len(vectors), BATCH):
        halves = vectors[start : start + BATCH].astype(">f2").view(np.uint8)
        head = np.broadcast_to(np.frombuffer(DIMENSION.to_bytes(2, "big") + bytes(2), np.uint8), (len(halves), 4))
        ids = np.arange(start, start + len(halves), dtype=">i8").view(np.uint8).reshape(-1, 8)
        rows = HEADER + build_fixed_length_rows([ids, np.concatenate([head, halves], axis=1)]) + TRAILER
        await connection.copy_to_table("bare", source=memoryview(rows), format="binary")
    seconds = time.perf_counter() - started
    await connection.execute("DROP TABLE bare")
    await connection.close()
    return seconds


async def _register_one_by_one(database: Database, collection: Collection) -> float:
    vectors, sources = draw_unit_vectors(SINGLE_FACES, DIMENSION, seed=1), draw_digests(SINGLE_FACES, seed=1)
    started = time.perf_counter()
    for row, vector in enumerate(vectors):
        async with database.transaction() as work:
            await work.lock_collection(collection.id)
            person = await work.persons.add_person(collection.id, f"alone {row}", None, {})
            consent = await work.consents.add_consent(
                collection.id,
                person.id,
                purpose="Benchmark",
                recorded_by="benchmark",
                evidence_ref=None,
                granted_at=GRANTED,
                expires_at=None,
            )
            face = NewFace(
                collection.id,
                person.id,
                consent.id,
                None,
                collection.space_id,
                vector,
                Quality(120, 50, 0.5, 1, -2, 3),
                0.9,
                sources[row].tobytes().hex(),
            )
            await work.templates.add_templates([face])
    return time.perf_counter() - started


async def _register_persons(bulk: BulkRegistrar, collection: Collection, vectors: FloatArray) -> float:
    """Register a new person per vector, as the command line does: one batch is encoded while another is written."""
    starts = iter(range(0, len(vectors), BATCH))

    async def write_batches() -> None:
        for start in starts:
            rows = range(start, start + BATCH)
            batch = VectorBatch(
                collection.name,
                collection.space_id,
                [f"E-{row}" for row in rows],
                [f"Person {row}" for row in rows],
                vectors[start : start + BATCH],
                CONSENT,
            )
            await bulk.register(CALLER, batch)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(write_batches())
    return time.perf_counter() - started


async def _add_faces(database: Database, collection: Collection, vectors: FloatArray) -> float:
    """Add a further face per batch to each of `BATCH` persons."""
    async with database.transaction() as work:
        persons = await work.bulk.add_persons(collection.id, [(f"again {row}", None) for row in range(BATCH)])
        consents = await work.bulk.add_consents(
            collection.id,
            persons,
            purpose="Benchmark",
            recorded_by="benchmark",
            evidence_ref=None,
            granted_at=GRANTED,
            expires_at=None,
        )
    sources = draw_digests(len(vectors), seed=2)
    started = time.perf_counter()
    for start in range(0, len(vectors), BATCH):
        rows = slice(start, start + BATCH)
        async with database.transaction() as work:
            await work.templates.import_templates(
                collection.id,
                collection.space_id,
                persons=persons,
                consents=consents,
                expires_at=None,
                vectors=vectors[rows],
                sources=sources[rows],
            )
    return time.perf_counter() - started


def render(lines: list[Measurement]) -> str:
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
    reached = "Reached" if min(3 * persons, faces) >= TARGET_ROWS_PER_S else "Not reached"
    return (
        f"{render_table(columns, rows)}\n\n"
        f"Bar: {TARGET_ROWS_PER_S:,} durable rows a second. {reached}: {faces:,.0f} for faces, and "
        f"{3 * persons:,.0f} where a new person is three, one of them a consent."
    )


def main() -> None:
    """Run the benchmark of the command line."""
    parser = record.build_argument_parser("ingest", __doc__)
    parser.add_argument("--faces", type=int, default=FACES)
    options = parser.parse_args()
    record.run_benchmark(
        "ingest",
        None if options.show else lambda: measure(options.faces),
        render,
        lambda lines: lines[0]["faces"] >= FACES,
    )


if __name__ == "__main__":
    main()
