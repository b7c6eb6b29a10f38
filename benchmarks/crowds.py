"""Large galleries of synthetic persons, and their exact search."""

from __future__ import annotations

import contextlib
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from numpy.typing import NDArray
from sqlalchemy import text

from benchmarks.identities import DRAW_BATCH, People
from benchmarks.server import find_postgres_processes
from vultus.db.database import Database
from vultus.db.repositories.collections import get_partition_name
from vultus.domain import Collection, DecisionPolicy, QualityRule, QuantizerParameters
from vultus.errors import NotFoundError
from vultus.index.coding import CODE_BITS, Quantizer
from vultus.utils.ids import new_ids

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vultus.domain import FloatArray

SPACE_ID = "made-up"
SEED = 20261124
RULE = QualityRule(min_score=0, min_size_px=0, min_sharpness=0, max_yaw_deg=90, max_pitch_deg=90)
PROBE_BATCH, FACE_BATCH = 4_000, 20_000


@asynccontextmanager
async def bind_to_one_core(database: Database) -> AsyncIterator[None]:
    """Bind this process and the database's processes to one core for the block."""
    async with database.transaction() as work:
        server = Path((await work._session.execute(text("SHOW data_directory"))).scalar_one())
    cores = psutil.Process().cpu_affinity() or []
    _set_cpu_affinity(server, cores[-1:])
    try:
        yield
    finally:
        _set_cpu_affinity(server, cores)


def _set_cpu_affinity(server: Path, cores: list[int]) -> None:
    for process in [psutil.Process(), *find_postgres_processes(server)]:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            for thread in process.threads():
                os.sched_setaffinity(thread.id, cores)


@dataclass(eq=False)
class SyntheticGallery:
    """A growing gallery of persons with one enrolled photo each, the case where an index loses most.

    Attributes:
        people: Their distribution.
        collection: The collection.
        enrolled: (n, d) float16, as stored; row i is of person i.
        ids: (n, 16) uint8, persons' ids.
        first_face_number: Number of the first person's face.
    """

    database: Database
    people: People
    collection: Collection
    enrolled: NDArray[np.float16]
    ids: NDArray[np.uint8]
    first_face_number: int = 0

    @classmethod
    async def create_empty(cls, database: Database, people: People, name: str) -> SyntheticGallery:
        """Return an empty gallery; its collection is created unless one of that name exists."""
        async with database.transaction() as work:
            try:
                collection = await work.collections.get_collection_by_name(name)
            except NotFoundError:
                collection = await work.collections.add_collection(
                    name, SPACE_ID, DecisionPolicy(enrol=RULE, recognize=RULE)
                )
        size = len(people.mean)
        return cls(database, people, collection, np.empty((0, size), np.float16), np.empty((0, 16), np.uint8))

    async def enrol_until(self, persons: int) -> None:
        """Enrol persons, with their codes as a bulk import does, until there are `persons`.

        Constraints are not checked: this prepares a measurement and is not measured.
        """
        quantizer: Quantizer | None = None
        parts, ids = [self.enrolled], [self.ids]
        first = len(self.enrolled)
        for start, drawn in zip(range(0, persons, DRAW_BATCH), self.people.draw_vectors(persons, 2, SEED), strict=True):
            new = drawn[max(0, first - start) :, 0]
            if start + len(drawn) <= first:
                continue
            async with self.database.transaction() as work:
                if quantizer is None:
                    quantizer_record = QuantizerParameters(
                        self.collection.id, self.collection.space_id, self.people.mean.astype(np.float32), CODE_BITS
                    )
                    stored = await work.codes.add_quantizer(quantizer_record)
                    quantizer = Quantizer(stored.centre, stored.bits)
                await work._session.execute(text("SET LOCAL session_replication_role = replica"))
                new_person_ids = new_ids(len(new))
                await work.templates.import_templates(
                    self.collection.id,
                    self.collection.space_id,
                    persons=new_person_ids,
                    consents=new_person_ids,
                    expires_at=None,
                    vectors=new,
                    sources=np.concatenate([new_person_ids, new_person_ids], axis=1),
                    codes=quantizer.encode_vectors(new),
                )
            parts.append(new.astype(np.float16))
            ids.append(new_person_ids)
        self.enrolled, self.ids = np.concatenate(parts), np.concatenate(ids)
        async with self.database.transaction() as work:
            self.first_face_number = int(
                (await work.codes.list_template_numbers(self.collection.id, self.collection.space_id)).min()
            )
            await work._session.execute(text("SELECT pg_stat_force_next_flush()"))
        # Done here, because otherwise PostgreSQL does it while searches are timed.
        async with self.database.hot_queries() as work:
            for statement in (f"VACUUM (ANALYZE) {get_partition_name(self.collection.id)}", "CHECKPOINT"):
                await work.keys._session.execute(text(statement), {})

    def draw_probes(self, count: int) -> tuple[NDArray[np.int64], FloatArray]:
        """Return (count,) persons spread over the gallery and another photo of each, (count, d), rounded to float16."""
        persons = np.unique(np.linspace(0, len(self.enrolled) - 1, count).astype(np.int64))
        blocks = self.people.draw_vectors(len(self.enrolled), 2, SEED)
        found = [
            drawn[persons[(persons >= start) & (persons < start + len(drawn))] - start, 1]
            for start, drawn in zip(range(0, len(self.enrolled), DRAW_BATCH), blocks, strict=True)
        ]
        return persons, np.concatenate(found).astype(np.float16).astype(np.float32)

    def draw_strangers(self, count: int) -> FloatArray:
        """Return (count, d) photos of persons who are not enrolled."""
        drawn = np.concatenate(list(self.people.draw_vectors(count, 1, SEED + 1)))[:, 0]
        return drawn.astype(np.float16).astype(np.float32)

    def find_closest(self, probes: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        """Return the (k,) persons closest to (k, d) probes by exact comparison, and their (k,) cosines."""
        person, cosine = np.zeros(len(probes), np.int64), np.full(len(probes), -1, np.float32)
        probes = probes / np.linalg.norm(probes, axis=1, keepdims=True)
        for start in range(0, len(self.enrolled), FACE_BATCH):
            faces = self.enrolled[start : start + FACE_BATCH].astype(np.float32)
            faces /= np.linalg.norm(faces, axis=1, keepdims=True)
            for at in range(0, len(probes), PROBE_BATCH):
                some = slice(at, at + PROBE_BATCH)
                cosines = probes[some] @ faces.T
                best = cosines.argmax(axis=1)
                value = cosines[np.arange(len(best)), best]
                better = value > cosine[some]
                person[some][better] = best[better] + start
                cosine[some][better] = value[better]
        return person, cosine
