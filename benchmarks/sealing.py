"""What does sealing cost? One gallery open and one sealed, of the same vectors, in one run and by turns.

Filling as `vultus import-vectors` writes, the start of the index, a search by index as a server does it, a registration
of one person with consent and face, and an erasure. Searches are bound to one core together with the database, and
every probe is searched in both galleries, one after the other, so that what disturbs one disturbs the other.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from sqlalchemy import text

from benchmarks.crowds import RULE, SPACE_ID, bind_to_one_core
from benchmarks.galleries import (
    CALLER,
    GRANTED,
    connect_migrated_database,
    enrol_vectors,
    run_in_event_loop,
    start_scratch_database,
)
from benchmarks.identities import DRAW_BATCH, build_people_of_spectrum, load_real_people
from benchmarks.record import Measurement, compute_percentiles, format_milliseconds, render_table
from vultus.db.repositories.collections import get_partition_name
from vultus.domain import DecisionPolicy, Fusion, NewFace, Quality, Storage
from vultus.sealing.custody import Custody
from vultus.sealing.key_ring import FileKeyRing
from vultus.services.people.erasure import Eraser
from vultus.services.people.key_destruction import KeyDestroyer
from vultus.services.people.ledger import ErasureLedger
from vultus.services.search.index_sync import IndexRegistry
from vultus.services.search.local_engine import LocalCandidateEngine
from vultus.services.search.request import SearchQuery
from vultus.services.search.search import Searcher
from vultus.settings import DatabaseSettings, IndexSettings, JobSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from benchmarks.identities import People
    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray

SECONDS = 10.0
"""Of searches, per gallery size and kind of probe."""

FACES, SHORT_FACES = 1_000_000, 20_000
LIMIT, THRESHOLD, MARGIN = 5, 0.9437, 0.01
ENROLMENTS, WARM_UP = 300, 10
SEED = 20261129
MAX_RATIO, BAR_PEOPLE = 2.0, "128-d"
QUALITY = Quality(120, 50, 0.5, 1, -2, 3)


def measure(seconds: float = SECONDS) -> list[Measurement]:
    """Return one line per gallery and what was timed; a short run has fewer faces."""
    faces = FACES if seconds >= SECONDS else SHORT_FACES
    return run_in_event_loop(_measure(faces, seconds))


async def _measure(faces: int, seconds: float) -> list[Measurement]:
    lines = []
    for name, people, threshold, margin in (
        ("128-d", load_real_people(), THRESHOLD, MARGIN),
        ("512-d", build_people_of_spectrum(), 0.2, 0.04),
    ):
        size = faces if name == "128-d" else max(faces // 10, SHORT_FACES)
        with start_scratch_database() as url, tempfile.TemporaryDirectory(prefix="vultus-bench-") as folder:
            async with _open_database(url, Path(folder)) as database:
                for line in await _Comparison(database, people, threshold, margin).measure(size, seconds):
                    lines.append({"people": name, "faces": size, "seconds": seconds, **line})
    return lines


@asynccontextmanager
async def _open_database(url: str, folder: Path) -> AsyncIterator[Database]:
    """Open a database with keys, a ledger and a destroyer of keys, as a server does."""
    custody = Custody.open(folder, FileKeyRing(folder / "key-ring.json"))
    async with connect_migrated_database(url, DatabaseSettings(statement_timeout_ms=0)) as database:
        database.use_keys(custody)
        KeyDestroyer.attach(database, custody.person_keys)
        await ErasureLedger.attach(database, folder / "erasures.jsonl").synchronize()
        yield database


class _Comparison:
    """The same people in an open and in a sealed collection."""

    def __init__(self, database: Database, people: People, threshold: float, margin: float) -> None:
        self._database = database
        self._people = people
        self._floor = threshold, margin
        settings = IndexSettings(exact_limit=1_000, watch_share=0)
        self._indexes = IndexRegistry(database, settings)
        self._searcher = Searcher(database, LocalCandidateEngine(self._indexes), self._indexes.recall_monitor, settings)
        self._collections: dict[Storage, Collection] = {}

    async def measure(self, faces: int, seconds: float) -> list[Measurement]:
        """Return the lines of a gallery size."""
        lines = [await self._fill(storage, faces) for storage in Storage]
        for kind in ("enrolled", "strangers"):
            probes = self._draw_probes(faces, kind)
            async with bind_to_one_core(self._database):
                lines += await self._time_searches(kind, probes, seconds)
        for _ in range(2):  # the first round warms statements up
            enrolments = await self._time_enrolments()
        return [*lines, *enrolments]

    async def _fill(self, storage: Storage, faces: int) -> Measurement:
        """Return how fast a gallery was written, and its index built as at the start of a server."""
        policy = DecisionPolicy(enrol=RULE, recognize=RULE, storage=storage)
        async with self._database.transaction() as work:
            collection = await work.collections.add_collection(storage.value, SPACE_ID, policy)
        self._collections[storage] = collection
        taken = 0.0
        for start, drawn in zip(range(0, faces, DRAW_BATCH), self._people.draw_vectors(faces, 2, SEED), strict=True):
            print(f"sealing: {storage.value}, {start:,} of {faces:,} faces", flush=True)
            started = time.perf_counter()
            await enrol_vectors(self._database, collection, drawn[:, 0], start, first=start)
            taken += time.perf_counter() - started
        partition = get_partition_name(collection.id)
        async with self._database.transaction() as work:
            await work._session.execute(text("SELECT pg_stat_force_next_flush()"))
            size = text("SELECT pg_relation_size(to_regclass(:partition))")
            stored = (await work._session.execute(size, {"partition": partition})).scalar_one()
        async with self._database.hot_queries() as queries:
            for statement in (f"VACUUM (ANALYZE) {partition}", "CHECKPOINT"):
                await queries.keys._session.execute(text(statement), {})
        memory, started = psutil.Process().memory_info().rss, time.perf_counter()
        await self._indexes.update_indexes()
        start_s = time.perf_counter() - started
        index = self._indexes.find_index(collection.id, SPACE_ID)
        if index is None or len(index) != faces:
            raise RuntimeError(f"The index has not all {faces:,} faces.")
        return {
            "measure": "gallery",
            "storage": storage.value,
            "per_s": round(faces / taken),
            "stored": stored,
            "start_s": round(start_s, 2),
            "index_bytes": index.size_bytes,
            "rss_growth": psutil.Process().memory_info().rss - memory,
        }

    def _draw_probes(self, faces: int, kind: str) -> FloatArray:
        """Return other photos of persons who are enrolled, spread over the gallery, or photos of strangers."""
        if kind == "strangers":
            return next(self._people.draw_vectors(2_000, 1, SEED + 1))[:, 0]
        blocks = list(self._people.draw_vectors(faces, 2, SEED))
        return np.concatenate([block[:: max(1, len(block) * len(blocks) // 4_000), 1] for block in blocks])

    async def _time_searches(self, kind: str, probes: FloatArray, seconds: float) -> list[Measurement]:
        """Search for every probe in both galleries, in changing order, and compare whom they name."""
        taken: dict[Storage, list[float]] = {storage: [] for storage in Storage}
        different, until = 0, time.perf_counter() + 2 * seconds
        for at, probe in enumerate(probes):
            found = {}
            for storage in sorted(Storage, reverse=bool(at % 2)):
                query = SearchQuery(
                    self._collections[storage].id, SPACE_ID, probe[None], LIMIT, Fusion.BEST, lambda _: self._floor
                )
                started = time.perf_counter()
                (result,) = await self._searcher.search(query)
                taken[storage].append((time.perf_counter() - started) * 1e3)
                matched = [one for one in result.candidates[:1] if one.similarity >= self._floor[0]]
                found[storage] = [one.external_id for one in matched]
            different += found[Storage.OPEN] != found[Storage.SEALED]
            if time.perf_counter() > until and at > 2 * WARM_UP:
                break
        return [
            {"measure": "search", "storage": storage.value, "kind": kind, "different": different}
            | compute_percentiles(times[WARM_UP:])
            for storage, times in taken.items()
        ]

    async def _time_enrolments(self) -> list[Measurement]:
        """Register persons one at a time, by turns, and erase them again."""
        enrolled: dict[Storage, list[float]] = {storage: [] for storage in Storage}
        erased: dict[Storage, list[float]] = {storage: [] for storage in Storage}
        (vectors,) = self._people.draw_vectors(ENROLMENTS, 1, SEED + 2)
        eraser = Eraser(self._database, JobSettings())
        for vector in vectors[:, 0]:
            for storage, collection in self._collections.items():
                started = time.perf_counter()
                person_id = await _enrol_one(self._database, collection, vector)
                enrolled[storage].append((time.perf_counter() - started) * 1e3)
                started = time.perf_counter()
                await eraser.erase(CALLER, collection.name, person_id)
                erased[storage].append((time.perf_counter() - started) * 1e3)
        return [
            {"measure": measure, "storage": storage.value, **compute_percentiles(times)}
            for measure, taken in (("registration", enrolled), ("erasure", erased))
            for storage, times in taken.items()
        ]


async def _enrol_one(database: Database, collection: Collection, vector: FloatArray) -> UUID:
    async with database.transaction(writes_to=collection.name) as work:
        await work.lock_collection(collection.id)
        person = await work.persons.add_person(collection.id, None, None, {})
        consent = await work.consents.add_consent(
            collection.id,
            person.id,
            purpose="Benchmark",
            recorded_by="benchmark",
            evidence_ref=None,
            granted_at=GRANTED,
            expires_at=None,
        )
        digest = hashlib.sha256(vector.tobytes()).hexdigest()
        face = NewFace(collection.id, person.id, consent.id, None, collection.space_id, vector, QUALITY, 0.9, digest)
        await work.templates.add_templates([face])
    return person.id


def render(lines: list[Measurement]) -> str:
    """Return the tables."""
    found = {(line["people"], line["measure"], line.get("kind"), line["storage"]): line for line in lines}
    galleries = [
        [
            f"{line['people']}, {line['faces']:,}",
            line["storage"],
            f"{line['per_s']:,}",
            f"{line['stored'] / 1e6:,.0f}",
            line["start_s"],
            f"{line['index_bytes'] / 1e6:,.0f}",
            f"{line['rss_growth'] / 1e6:,.0f}",
        ]
        for line in lines
        if line["measure"] == "gallery"
    ]
    timed = [
        [
            f"{line['people']}, {line['faces']:,}",
            f"{line['measure']} {line.get('kind', '')}".strip(),
            line["storage"],
            *(format_milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
            line["n"],
            f"{line['p50_ms'] / found[line['people'], line['measure'], line.get('kind'), 'open']['p50_ms']:.2f}",
        ]
        for line in lines
        if "p50_ms" in line
    ]
    worst = max(
        line["p50_ms"] / found[line["people"], "search", line["kind"], "open"]["p50_ms"]
        for line in lines
        if line["measure"] == "search" and line["storage"] == "sealed" and line["people"] == BAR_PEOPLE
    )
    different = sum(line["different"] for line in lines if line["measure"] == "search") // 2
    verdict = "reached" if worst <= MAX_RATIO else "not reached"
    return (
        "**A gallery**: faces written a second, megabytes of the partition, seconds until an index holds it for the "
        "first time, megabytes of the index, and by how much the process grew. An open gallery's codes are computed "
        "then and stored, so that a later start only reads them; a sealed one's are computed at every start.\n\n"
        f"{render_table(('gallery', 'storage', 'written/s', 'stored', 'indexed', 'index', 'grown'), galleries)}\n\n"
        "**Each request**, milliseconds, one after the other, by turns; searches on one core with the database. The "
        "last column is the ratio of the medians to the open gallery's.\n\n"
        f"{render_table(('gallery', 'what', 'storage', 'p50', 'p95', 'p99', 'n', 'ratio'), timed)}\n\n"
        f"Bar: a sealed search costs at most {MAX_RATIO:g} times an open one at a million faces, at the median. "
        f"{verdict.capitalize()}: at most {worst:.2f}. {different} searches named somebody else. Strangers of the "
        "drawn 512-d gallery have about a thousand candidates above its low threshold; each is fetched and opened."
    )
