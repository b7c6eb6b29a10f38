"""Large galleries of made-up people, and what an exact search of them says."""

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

from benchmarks.identities import DRAWN_AT_ONCE, People
from benchmarks.server import postgres_of
from vultus.db.database import Database
from vultus.db.repositories.collections import partition_of
from vultus.domain import Coding, Collection, DecisionPolicy, QualityRule
from vultus.errors import NotFoundError
from vultus.index.coding import BITS, Coder
from vultus.utils.ids import new_ids

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vultus.domain import FloatArray

CONTRACT = "made-up"
SEED = 20261124
RULE = QualityRule(min_score=0, min_size_px=0, min_sharpness=0, max_yaw_deg=90, max_pitch_deg=90)
PROBES_AT_ONCE, FACES_AT_ONCE = 4_000, 20_000


@asynccontextmanager
async def one_core(database: Database) -> AsyncIterator[None]:
    """Bind this process and the database's processes to one core for the block."""
    async with database.work() as work:
        server = Path((await work._session.execute(text("SHOW data_directory"))).scalar_one())
    cores = psutil.Process().cpu_affinity() or []
    _bind(server, cores[-1:])
    try:
        yield
    finally:
        _bind(server, cores)


def _bind(server: Path, cores: list[int]) -> None:
    for process in [psutil.Process(), *postgres_of(server)]:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            for thread in process.threads():
                os.sched_setaffinity(thread.id, cores)


@dataclass(eq=False)
class Crowd:
    """Persons with one enrolled photo each, the case where an index loses most; it grows.

    Attributes:
        people: What they are like.
        home: The collection.
        enrolled: (n, d) float16, as stored; row i is of person i.
        ids: (n, 16) persons' ids.
        first: Number of the first one's face.
    """

    database: Database
    people: People
    home: Collection
    enrolled: NDArray[np.float16]
    ids: NDArray[np.uint8]
    first: int = 0

    @classmethod
    async def empty(cls, database: Database, people: People, name: str) -> Crowd:
        """Return one without anybody; its collection is made unless there is one with that name."""
        async with database.work() as work:
            try:
                home = await work.collections.by_name(name)
            except NotFoundError:
                home = await work.collections.add(name, CONTRACT, DecisionPolicy(enrol=RULE, recognize=RULE))
        size = len(people.mean)
        return cls(database, people, home, np.empty((0, size), np.float16), np.empty((0, 16), np.uint8))

    async def grow(self, persons: int) -> None:
        """Enrol persons until there are so many; with their codes, as a bulk import does.

        Constraints are not checked: this prepares a measurement, it is none.
        """
        coder: Coder | None = None
        parts, ids = [self.enrolled], [self.ids]
        first = len(self.enrolled)
        for start, drawn in zip(range(0, persons, DRAWN_AT_ONCE), self.people.draw(persons, 2, SEED), strict=True):
            new = drawn[max(0, first - start) :, 0]
            if start + len(drawn) <= first:
                continue
            async with self.database.work() as work:
                if coder is None:
                    wanted = Coding(self.home.id, self.home.contract_id, self.people.mean.astype(np.float32), BITS)
                    coding = await work.codes.add_coding(wanted)
                    coder = Coder(coding.centre, coding.bits)
                await work._session.execute(text("SET LOCAL session_replication_role = replica"))
                mine = new_ids(len(new))
                await work.bulk.add_faces(
                    self.home.id,
                    self.home.contract_id,
                    persons=mine,
                    consents=mine,
                    expires_at=None,
                    vectors=new,
                    sources=np.concatenate([mine, mine], axis=1),
                    codes=coder.encode(new),
                )
            parts.append(new.astype(np.float16))
            ids.append(mine)
        self.enrolled, self.ids = np.concatenate(parts), np.concatenate(ids)
        async with self.database.work() as work:
            self.first = int((await work.codes.numbers(self.home.id, self.home.contract_id)).min())
            await work._session.execute(text("SELECT pg_stat_force_next_flush()"))
        async with self.database.look() as work:  # at rest: else PostgreSQL would do this while searches are timed
            for statement in (f"VACUUM (ANALYZE) {partition_of(self.home.id)}", "CHECKPOINT"):
                await work._session.execute(text(statement), {})

    def probes(self, count: int) -> tuple[NDArray[np.int64], FloatArray]:
        """Return (count,) persons from all over the gallery and another photo of each, (count, d) as stored."""
        persons = np.unique(np.linspace(0, len(self.enrolled) - 1, count).astype(np.int64))
        blocks = self.people.draw(len(self.enrolled), 2, SEED)
        found = [
            drawn[persons[(persons >= start) & (persons < start + len(drawn))] - start, 1]
            for start, drawn in zip(range(0, len(self.enrolled), DRAWN_AT_ONCE), blocks, strict=True)
        ]
        return persons, np.concatenate(found).astype(np.float16).astype(np.float32)

    def strangers(self, count: int) -> FloatArray:
        """Return (count, d) photos of persons who are not enrolled."""
        drawn = np.concatenate(list(self.people.draw(count, 1, SEED + 1)))[:, 0]
        return drawn.astype(np.float16).astype(np.float32)

    def closest(self, probes: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        """Return the (k,) persons closest to (k, d) probes, compared with everybody, and their (k,) cosines."""
        person, cosine = np.zeros(len(probes), np.int64), np.full(len(probes), -1, np.float32)
        probes = probes / np.linalg.norm(probes, axis=1, keepdims=True)
        for start in range(0, len(self.enrolled), FACES_AT_ONCE):
            faces = self.enrolled[start : start + FACES_AT_ONCE].astype(np.float32)
            faces /= np.linalg.norm(faces, axis=1, keepdims=True)
            for at in range(0, len(probes), PROBES_AT_ONCE):
                some = slice(at, at + PROBES_AT_ONCE)
                cosines = probes[some] @ faces.T
                best = cosines.argmax(axis=1)
                value = cosines[np.arange(len(best)), best]
                better = value > cosine[some]
                person[some][better] = best[better] + start
                cosine[some][better] = value[better]
        return person, cosine
