"""How fast is a search of a large gallery, what does its index weigh, and whom does it lose that an exact one finds?

Made-up people (`identities.py`) with one enrolled photo each, searched by another photo of theirs: through the whole
of our search, PostgreSQL included, and in turns with it by pgvector alone, exactly and by HNSW. Everything, database
too, is bound to one core while it is timed. Losses are counted with the same search whose exact comparison is done in
NumPy instead of PostgreSQL, for it is a hundred thousand probes.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import psutil
from sqlalchemy import text

from benchmarks import identities, insightface
from benchmarks.crowds import CONTRACT, Crowd, one_core
from benchmarks.galleries import connected, run, scratch
from benchmarks.record import Line, milliseconds, percentiles, table
from vultus.db.types import encode_halfvec
from vultus.domain import Candidate, Fusion, SearchResult
from vultus.index.codes import one_thread
from vultus.services.search.index_sync import Indexes
from vultus.services.search.request import Query
from vultus.services.search.search import Searcher
from vultus.settings import DatabaseSettings, IndexSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from numpy.typing import NDArray

    from vultus.domain import FloatArray
    from vultus.index.candidates import CandidateIndex

SECONDS = 5.0
"""Of every kind of search and gallery."""

LIMIT = 5
MILLION = 1_000_000
PEER_FACES, PEER_BAR = 500_000, 20
PEER = "InsightFace Server, "
PEER_MS = 281.0
"""InsightFace Server 0.2.0's person search at 500,000 faces where its library is not at hand, from another machine."""

HNSW_EF = (40, 400)
EXACT_UP_TO = MILLION


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of people, the galleries made of them, and what decides among them.

    Attributes:
        losses: Probes whose loss is counted, by size of the gallery.
        hnsw: Sizes at which pgvector's graph is built too.
    """

    name: str
    people: identities.People
    threshold: float
    margin: float
    sizes: tuple[int, ...]
    losses: dict[int, int]
    hnsw: tuple[int, ...]


def kinds() -> tuple[Kind, ...]:
    """Return what is measured. The thresholds stand for one wrong match in ten thousand comparisons."""
    return (
        Kind(
            "128-d, built-in pack",
            identities.real(),
            0.9437,
            0.01,
            (10_000, 100_000, 500_000, MILLION, 10 * MILLION),
            {MILLION: 100_000, 10 * MILLION: 10_000},
            (100_000,),
        ),
        Kind("512-d", identities.spectrum(), 0.2, 0.04, (10_000, 100_000, PEER_FACES, MILLION), {MILLION: 10_000}, ()),
    )


def measure(seconds: float = SECONDS) -> list[Line]:
    """Return a line a gallery and kind of search, and one a count of losses; a shortened run stops at 100,000 faces."""
    return [line | {"seconds": seconds} for line in run(_measure(seconds))]


async def _measure(seconds: float) -> list[Line]:
    with scratch() as url:
        return await _of_server(url, seconds)


async def _of_server(url: str, seconds: float) -> list[Line]:
    lines: list[Line] = []
    async with connected(url, DatabaseSettings(statement_timeout_ms=0)) as opened:
        for at, kind in enumerate(kinds()):
            gallery = await Crowd.empty(opened, kind.people, f"kind {at}")
            indexes = Indexes(opened, IndexSettings(exact_limit=1_000, watch_share=0))
            for size in kind.sizes:
                if seconds < SECONDS and size > 100_000:
                    break
                print(f"search: {kind.name}, {size:,} faces", flush=True)
                await gallery.grow(size)
                lines += await _of_gallery(kind, gallery, indexes, seconds)
                print(json.dumps(lines), flush=True)  # an hour's work must not hang on the next gallery
    return lines


async def _of_gallery(kind: Kind, gallery: Crowd, indexes: Indexes, seconds: float) -> list[Line]:
    """Return all lines of a gallery as large as it is now."""
    size = len(gallery.enrolled)
    about = {"people": kind.name, "source": kind.people.source, "faces": size}
    memory, started = psutil.Process().memory_info().rss, time.perf_counter()
    await indexes.follow()
    loaded_s = time.perf_counter() - started
    index = indexes.of(gallery.home.id, CONTRACT)
    if index is None or len(index) != size:
        raise RuntimeError(f"The index has not all {size:,} faces.")
    about |= {
        "index_bytes": index.bytes,
        "follow_s": round(loaded_s, 2),
        "rss_growth": psutil.Process().memory_info().rss - memory,
    }
    searcher = Searcher(indexes, IndexSettings())
    persons, probes = gallery.probes(4_000)
    others, persons, probes = probes[1::2], persons[::2], probes[::2]
    lines = []
    async with one_core(gallery.database):
        # A gallery just filled is not in PostgreSQL's buffers, that of a service which answers all day is.
        first = await _timed(_ours(gallery, searcher, kind), others, 2 * seconds)
        lines.append(about | {"measure": "time", "way": "vultus, first searches"} | first)
        ways = {"vultus, enrolled": (persons, probes), "vultus, strangers": (None, gallery.strangers(2_000))}
        for way, (_, some) in ways.items():
            lines.append(
                about | {"measure": "time", "way": way} | await _timed(_ours(gallery, searcher, kind), some, seconds)
            )
        lines.append(
            about | {"measure": "time", "way": "vultus, scan alone"} | await _timed(_scan(index, kind), probes, seconds)
        )
        if size <= EXACT_UP_TO:
            lines.append(
                about | {"measure": "time", "way": "pgvector, exact"} | await _timed(_exact(gallery), probes, seconds)
            )
        if size == PEER_FACES and len(kind.people.mean) == insightface.DIMENSION:
            lines += [about | line for line in _of_insightface(gallery, persons, probes, seconds)]
    if size in kind.hnsw:
        lines += [about | line for line in await _of_hnsw(kind, gallery, persons, probes, seconds)]
    if size in kind.losses:
        lines.append(about | {"measure": "loss", "way": "vultus"} | _losses(kind, gallery, indexes, kind.losses[size]))
    return lines


async def _timed(search: Callable[[FloatArray], Awaitable[Any]], probes: FloatArray, seconds: float) -> Line:
    """Return the percentiles of searches one after the other, each probe at most once; the first ten are warm-up."""
    taken = []
    until = time.perf_counter() + seconds
    for at, probe in enumerate(probes):
        started = time.perf_counter()
        await search(probe[None])
        now = time.perf_counter()
        if at >= min(10, len(probes) // 2):
            taken.append((now - started) * 1e3)
        if now > until and len(taken) >= 5:
            break
    return percentiles(taken)


def _query(gallery: Crowd, kind: Kind, probes: FloatArray) -> Query:
    return Query(gallery.home.id, CONTRACT, probes, LIMIT, Fusion.BEST, lambda _: (kind.threshold, kind.margin))


def _ours(gallery: Crowd, searcher: Searcher, kind: Kind) -> Callable[[FloatArray], Awaitable[Any]]:
    async def search(probes: FloatArray) -> Any:
        async with gallery.database.look() as work:
            return await searcher.search(work, _query(gallery, kind, probes))

    return search


def _scan(index: CandidateIndex, kind: Kind) -> Callable[[FloatArray], Awaitable[Any]]:
    """Return the search of the index alone, as far as it goes at the threshold."""
    settings = IndexSettings()

    async def search(probes: FloatArray) -> Any:
        hunt = index.hunt(probes[0])
        return hunt.closest(settings.candidates), hunt.above((kind.threshold + kind.margin, settings.risk))

    return search


def _exact(gallery: Crowd) -> Callable[[FloatArray], Awaitable[Any]]:
    async def search(probes: FloatArray) -> Any:
        async with gallery.database.work(read_only=True) as work:
            return await work.faces.search(gallery.home.id, CONTRACT, probes, LIMIT)

    return search


def _of_insightface(gallery: Crowd, persons: NDArray[np.int64], probes: FloatArray, seconds: float) -> list[Line]:
    """Return the peer's times, on the cores this process is bound to."""
    told = insightface.timed(gallery.enrolled, probes, LIMIT, seconds) or {}
    return [
        {"measure": "time", "way": PEER + profile, **percentiles(taken)}
        | {"right": sum(a == b for a, b in zip(found, persons[insightface.WARM_UP :].tolist(), strict=False))}
        for profile, (taken, found) in told.items()
    ]


async def _of_hnsw(
    kind: Kind, gallery: Crowd, persons: NDArray[np.int64], probes: FloatArray, seconds: float
) -> list[Line]:
    """Return times and losses of pgvector's graph, which is dropped again."""
    partition, size = f"faces_{gallery.home.id.hex}", len(kind.people.mean)
    expression = f"embedding::halfvec({size})"
    started = time.perf_counter()
    async with gallery.database.work() as work:
        for statement in (
            "SET LOCAL maintenance_work_mem = '4GB'",
            f"CREATE INDEX graph ON {partition} USING hnsw (({expression}) halfvec_cosine_ops)",
        ):
            await work._session.execute(text(statement))
    built_s = time.perf_counter() - started
    truth, cosines = gallery.closest(probes)
    told = (truth == persons) & (cosines >= kind.threshold)
    lines = []
    for ef in HNSW_EF:

        async def search(probes: FloatArray, ef: int = ef) -> Any:
            async with gallery.database.work(read_only=True) as work:
                await work._session.execute(text(f"SET LOCAL hnsw.ef_search = {ef}"))
                query = (
                    f"SELECT person_id FROM {partition} ORDER BY {expression} <=> CAST(:probe AS halfvec) LIMIT {LIMIT}"
                )
                return (await work._session.execute(text(query), {"probe": encode_halfvec(probes[0])})).scalars().all()

        found = []
        for at in np.flatnonzero(told):
            (best, *_) = await search(probes[at][None]) or [None]
            found.append(best == UUID(bytes=gallery.ids[persons[at]].tobytes()))
        async with one_core(gallery.database):
            timed = await _timed(search, probes, seconds)
        lost = {"probes": len(found), "lost": len(found) - sum(found)}
        way = {"way": f"pgvector, HNSW ef {ef}", "built_s": round(built_s, 1)}
        lines += [{"measure": "time", **way, **timed}, {"measure": "loss", **way, **lost}]
    async with gallery.database.work() as work:
        await work._session.execute(text("DROP INDEX graph"))
    return lines


class _InNumpy:
    """Stands in for a transaction: compares proposed faces in memory, as PostgreSQL would."""

    def __init__(self, enrolled: NDArray[np.float16], first: int) -> None:
        self.faces = self
        self._enrolled = enrolled
        self._first = first

    async def rescore(
        self,
        _home: UUID,
        _contract: str,
        probes: FloatArray,
        proposals: list[NDArray[np.int64]],
        _after: int,
        limit: int,
        _fusion: Fusion,
    ) -> tuple[SearchResult, ...]:
        return tuple(
            self._best(probe, numbers - self._first, limit) for probe, numbers in zip(probes, proposals, strict=True)
        )

    def _best(self, probe: FloatArray, rows: NDArray[np.int64], limit: int) -> SearchResult:
        faces = self._enrolled[rows].astype(np.float32)
        cosines = faces @ probe / np.linalg.norm(faces, axis=1) / np.linalg.norm(probe)
        best = np.argsort(-cosines, kind="stable")[:limit]
        candidates = [Candidate(UUID(int=int(rows[at])), None, None, UUID(int=0), float(cosines[at])) for at in best]
        return SearchResult(tuple(candidates), 0)


_shared: tuple[Kind, Crowd, Indexes] | None = None


def _losses(kind: Kind, gallery: Crowd, indexes: Indexes, count: int) -> Line:
    """Return how many mates our search loses that an exact one ranks first above the threshold, on all cores."""
    global _shared
    _shared = (kind, gallery, indexes)
    persons, probes = gallery.probes(count)
    parts = np.array_split(np.arange(len(persons)), 8 * (os.cpu_count() or 1))
    # The gallery and its index are shared with the children, who inherit them.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("fork")) as pool:
        told = list(pool.map(_lost, [persons[part] for part in parts], [probes[part] for part in parts]))
    mates, lost, strangers = np.sum(told, axis=0).tolist()
    return {"probes": len(persons), "mates": mates, "lost": lost, "strangers_first": strangers}


def _lost(persons: NDArray[np.int64], probes: FloatArray) -> tuple[int, int, int]:
    """Return how many mates an exact search finds, how many of them ours does not, and how many strangers are first."""
    assert _shared is not None
    kind, gallery, indexes = _shared
    one_thread()
    searcher = Searcher(indexes, IndexSettings())
    work: Any = _InNumpy(gallery.enrolled, gallery.first)
    truth, cosines = gallery.closest(probes)
    told = np.flatnonzero((truth == persons) & (cosines >= kind.threshold))

    async def search() -> int:
        lost = 0
        for at in told:
            (result,) = await searcher.search(work, _query(gallery, kind, probes[at][None]))
            lost += result.candidates[0].person_id.int != persons[at]
        return lost

    return len(told), asyncio.run(search()), int((truth != persons).sum())


def render(lines: list[Line]) -> str:
    """Return the tables."""
    return "\n\n".join([_render_times(lines), _render_losses(lines)])


def _render_times(lines: list[Line]) -> str:
    rows = [
        [
            f"{line['people']}, {line['faces']:,}",
            line["way"],
            *(milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
            line["n"],
            f"{line['index_bytes'] / 1e6:,.0f}" if line["way"].startswith("vultus") else "",
        ]
        for line in lines
        if line["measure"] == "time"
    ]
    return (
        "**A search**, milliseconds, one after the other, on one core with the database; `index` in megabytes.\n\n"
        f"{table(('gallery', 'way', 'p50', 'p95', 'p99', 'searches', 'index'), rows)}\n\n" + _bars(lines)
    )


def _bars(lines: list[Line]) -> str:
    """Say which bars the times reach."""
    times = {
        (line["faces"], line["way"]): line
        for line in lines
        if line["measure"] == "time" and line["people"].startswith("128")
    }
    said = []
    for faces, bar_ms, bar_bytes in ((MILLION, 8, 140e6), (10 * MILLION, 60, 1.4e9)):
        if line := times.get((faces, "vultus, enrolled")):
            scan = times[faces, "vultus, scan alone"]
            said.append(
                f"Bar at {faces:,} faces: p50 ≤ {bar_ms} ms on one core and ≤ {bar_bytes / 1e6:,.0f} MB. With the "
                f"database {_verdict(line['p50_ms'] <= bar_ms)}, {milliseconds(line['p50_ms'])} ms; the scan alone "
                f"{_verdict(scan['p50_ms'] <= bar_ms)}, {milliseconds(scan['p50_ms'])} ms; memory "
                f"{_verdict(line['index_bytes'] <= bar_bytes)}, {line['index_bytes'] / 1e6:,.0f} MB."
            )
    return "\n\n".join([*said, *_beside_peer(lines)])


def _beside_peer(lines: list[Line]) -> list[str]:
    """Say how much faster ours is than InsightFace Server's person search, in the same run if that was at hand."""
    there = [line for line in lines if line["measure"] == "time" and line["faces"] == PEER_FACES]
    ours = {(line["people"], line["way"]): line["p50_ms"] for line in there if line["way"].startswith("vultus")}
    peers = {line["way"].removeprefix(PEER): line["p50_ms"] for line in there if line["way"].startswith(PEER)}
    source = "its library ran on the same core, on the 512-d gallery, without a database"
    if not peers:
        peers = {"quoted": PEER_MS}
        source = "version 0.2.0, quoted from a measurement on another machine: its library was not at hand"
    quickest = min(peers.values())
    ratios = {f"{people}, {way.removeprefix('vultus, ')}": quickest / ms for (people, way), ms in ours.items()}
    said = ", ".join(
        f"{name} {ratio:.0f}×" for name, ratio in ratios.items() if name.endswith(("enrolled", "strangers"))
    )
    reached = [name for name, ratio in ratios.items() if ratio >= PEER_BAR and name.endswith("enrolled")]
    if not said:
        return []
    verdict = _verdict(len(reached) == sum(name.endswith("enrolled") for name in ratios)).capitalize()
    return [
        f"Bar: at least {PEER_BAR}× faster than InsightFace Server's person search at {PEER_FACES:,} faces "
        f"({', '.join(f'{name} {milliseconds(ms)} ms' for name, ms in peers.items())}; {source}). {verdict} for "
        f"persons who are enrolled: {said}."
    ]


def _render_losses(lines: list[Line]) -> str:
    rows = [
        [f"{line['people']}, {line['faces']:,}", line["way"], f"{line.get('mates', line['probes']):,}", line["lost"]]
        for line in lines
        if line["measure"] == "loss"
    ]
    if not rows:
        return ""
    ours = [line["lost"] for line in lines if line["measure"] == "loss" and line["way"] == "vultus"]
    return (
        "**Mates lost**: of the probes whose mate an exact search ranks first and above the threshold, those for whom "
        f"the search says somebody else.\n\n{table(('gallery', 'way', 'mates', 'lost'), rows)}"
        + (f"\n\nBar: none. {_verdict(not sum(ours)).capitalize()}, {sum(ours)} lost." if ours else "")
    )


def _verdict(reached: bool) -> str:
    return "reached" if reached else "not reached"
