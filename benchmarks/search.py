"""How fast is a search of a large gallery, how large is its index, and which mates of an exact search does it lose?

Synthetic persons (`identities.py`) with one enrolled photo each, searched by another photo of theirs: with the whole
search of Vultus, PostgreSQL included, and interleaved with it by pgvector alone, exactly and by HNSW. Everything,
including the database, is bound to one core while it is timed. Losses are counted with the same search, its exact
comparison done in NumPy instead of PostgreSQL, because there are a hundred thousand probes.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import psutil
from sqlalchemy import text

from benchmarks import identities, insightface
from benchmarks.crowds import SPACE_ID, SyntheticGallery, bind_to_one_core
from benchmarks.galleries import connect_migrated_database, run_in_event_loop, start_scratch_database
from benchmarks.record import Measurement, compute_percentiles, format_milliseconds, render_table
from vultus.db.types import encode_halfvec
from vultus.domain import Candidate, Fusion, SearchResult
from vultus.index.codes import set_single_thread
from vultus.services.search.index_sync import IndexRegistry
from vultus.services.search.local_engine import LocalCandidateEngine
from vultus.services.search.request import SearchQuery
from vultus.services.search.search import Searcher
from vultus.settings import DatabaseSettings, IndexSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from numpy.typing import NDArray

    from vultus.db.database import Database
    from vultus.domain import FloatArray
    from vultus.index.candidates import CandidateIndex

SECONDS = 5.0
"""Per kind of search and gallery."""

LIMIT = 5
MILLION = 1_000_000
PEER_FACES, PEER_BAR = 500_000, 20
PEER = "InsightFace Server, "
PEER_MS = 281.0
"""InsightFace Server 0.2.0's person search at 500,000 faces, from another machine, where its library is missing."""

HNSW_EF = (40, 400)
EXACT_UP_TO = MILLION


@dataclass(frozen=True, slots=True)
class GallerySpec:
    """A distribution of persons, the sizes of their galleries, and the decision parameters.

    Attributes:
        losses: Number of probes for counting losses, by size of the gallery.
        hnsw: Sizes at which pgvector's HNSW index is built too.
    """

    name: str
    people: identities.People
    threshold: float
    margin: float
    sizes: tuple[int, ...]
    losses: dict[int, int]
    hnsw: tuple[int, ...]


def list_gallery_specs() -> tuple[GallerySpec, ...]:
    """Return the galleries to measure; the thresholds are those of a false match rate of 1e-4."""
    return (
        GallerySpec(
            "128-d, built-in pack",
            identities.load_real_people(),
            0.9437,
            0.01,
            (10_000, 100_000, 500_000, MILLION, 10 * MILLION),
            {MILLION: 100_000, 10 * MILLION: 10_000},
            (100_000,),
        ),
        GallerySpec(
            "512-d",
            identities.build_people_of_spectrum(),
            0.2,
            0.04,
            (10_000, 100_000, PEER_FACES, MILLION),
            {MILLION: 10_000},
            (),
        ),
    )


def measure(seconds: float = SECONDS) -> list[Measurement]:
    """Return one line per gallery and search and one per count of losses; a short run stops at 100,000 faces."""
    return [line | {"seconds": seconds} for line in run_in_event_loop(_measure(seconds))]


async def _measure(seconds: float) -> list[Measurement]:
    with start_scratch_database() as url:
        return await _measure_server(url, seconds)


async def _measure_server(url: str, seconds: float) -> list[Measurement]:
    lines: list[Measurement] = []
    async with connect_migrated_database(url, DatabaseSettings(statement_timeout_ms=0)) as opened:
        for at, kind in enumerate(list_gallery_specs()):
            gallery = await SyntheticGallery.create_empty(opened, kind.people, f"kind {at}")
            indexes = IndexRegistry(opened, IndexSettings(exact_limit=1_000, watch_share=0))
            for size in kind.sizes:
                if seconds < SECONDS and size > 100_000:
                    break
                print(f"search: {kind.name}, {size:,} faces", flush=True)
                await gallery.enrol_until(size)
                lines += await _measure_gallery(kind, gallery, indexes, seconds)
                print(json.dumps(lines), flush=True)  # an hour's work must not depend on the next gallery
    return lines


async def _measure_gallery(
    kind: GallerySpec, gallery: SyntheticGallery, indexes: IndexRegistry, seconds: float
) -> list[Measurement]:
    """Return all lines of a gallery at its current size."""
    size = len(gallery.enrolled)
    about = {"people": kind.name, "source": kind.people.source, "faces": size}
    memory, started = psutil.Process().memory_info().rss, time.perf_counter()
    await indexes.update_indexes()
    loaded_s = time.perf_counter() - started
    index = indexes.find_index(gallery.collection.id, SPACE_ID)
    if index is None or len(index) != size:
        raise RuntimeError(f"The index has not all {size:,} faces.")
    about |= {
        "index_bytes": index.size_bytes,
        "follow_s": round(loaded_s, 2),
        "rss_growth": psutil.Process().memory_info().rss - memory,
    }
    searcher = _make_searcher(gallery.database, indexes)
    persons, probes = gallery.draw_probes(4_000)
    others, persons, probes = probes[1::2], persons[::2], probes[::2]
    lines = []
    async with bind_to_one_core(gallery.database):
        # A gallery just filled is not in PostgreSQL's buffers; that of a running service is.
        first = await _time_searches(_make_vultus_search(gallery, searcher, kind), others, 2 * seconds)
        lines.append(about | {"measure": "time", "way": "vultus, first searches"} | first)
        ways = {"vultus, enrolled": (persons, probes), "vultus, strangers": (None, gallery.draw_strangers(2_000))}
        for way, (_, some) in ways.items():
            lines.append(
                about
                | {"measure": "time", "way": way}
                | await _time_searches(_make_vultus_search(gallery, searcher, kind), some, seconds)
            )
        lines.append(
            about
            | {"measure": "time", "way": "vultus, scan alone"}
            | await _time_searches(_make_scan_search(index, kind), probes, seconds)
        )
        if size <= EXACT_UP_TO:
            lines.append(
                about
                | {"measure": "time", "way": "pgvector, exact"}
                | await _time_searches(_make_exact_search(gallery), probes, seconds)
            )
        if size == PEER_FACES and len(kind.people.mean) == insightface.DIMENSION:
            lines += [about | line for line in _measure_insightface(gallery, persons, probes, seconds)]
    if size in kind.hnsw:
        lines += [about | line for line in await _measure_hnsw(kind, gallery, persons, probes, seconds)]
    if size in kind.losses:
        lines.append(
            about | {"measure": "loss", "way": "vultus"} | _count_losses(kind, gallery, indexes, kind.losses[size])
        )
    return lines


async def _time_searches(
    search: Callable[[FloatArray], Awaitable[Any]], probes: FloatArray, seconds: float
) -> Measurement:
    """Return the percentiles of sequential searches, each probe at most once; the first ten are warm-up."""
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
    return compute_percentiles(taken)


def _build_query(gallery: SyntheticGallery, kind: GallerySpec, probes: FloatArray) -> SearchQuery:
    return SearchQuery(
        gallery.collection.id, SPACE_ID, probes, LIMIT, Fusion.BEST, lambda _: (kind.threshold, kind.margin)
    )


def _make_searcher(database: Database, indexes: IndexRegistry) -> Searcher:
    return Searcher(database, LocalCandidateEngine(indexes), indexes.recall_monitor, IndexSettings())


def _make_vultus_search(
    gallery: SyntheticGallery, searcher: Searcher, kind: GallerySpec
) -> Callable[[FloatArray], Awaitable[Any]]:
    async def search(probes: FloatArray) -> Any:
        return await searcher.search(_build_query(gallery, kind, probes))

    return search


def _make_scan_search(index: CandidateIndex, kind: GallerySpec) -> Callable[[FloatArray], Awaitable[Any]]:
    """Return the search of the index alone, down to the threshold."""
    settings = IndexSettings()

    async def search(probes: FloatArray) -> Any:
        probe_search = index.start_search(probes[0])
        nearest = probe_search.nearest(settings.candidates)
        return nearest, probe_search.above_similarity((kind.threshold + kind.margin, settings.risk))

    return search


def _make_exact_search(gallery: SyntheticGallery) -> Callable[[FloatArray], Awaitable[Any]]:
    async def search(probes: FloatArray) -> Any:
        async with gallery.database.transaction(read_only=True) as work:
            return await work.templates.search_exact(gallery.collection.id, SPACE_ID, probes, LIMIT)

    return search


def _measure_insightface(
    gallery: SyntheticGallery, persons: NDArray[np.int64], probes: FloatArray, seconds: float
) -> list[Measurement]:
    """Return the peer's times on the cores that this process is bound to."""
    results = insightface.time_searches(gallery.enrolled, probes, LIMIT, seconds) or {}
    return [
        {"measure": "time", "way": PEER + profile, **compute_percentiles(taken)}
        | {"right": sum(a == b for a, b in zip(found, persons[insightface.WARM_UP_SEARCHES :].tolist(), strict=False))}
        for profile, (taken, found) in results.items()
    ]


async def _measure_hnsw(
    kind: GallerySpec, gallery: SyntheticGallery, persons: NDArray[np.int64], probes: FloatArray, seconds: float
) -> list[Measurement]:
    """Return times and losses of pgvector's HNSW index, which is dropped again."""
    partition, size = f"faces_{gallery.collection.id.hex}", len(kind.people.mean)
    expression = f"embedding::halfvec({size})"
    started = time.perf_counter()
    async with gallery.database.transaction() as work:
        for statement in (
            "SET LOCAL maintenance_work_mem = '4GB'",
            f"CREATE INDEX graph ON {partition} USING hnsw (({expression}) halfvec_cosine_ops)",
        ):
            await work._session.execute(text(statement))
    built_s = time.perf_counter() - started
    nearest, cosines = gallery.find_closest(probes)
    is_expected = (nearest == persons) & (cosines >= kind.threshold)
    lines = []
    for ef in HNSW_EF:

        async def search(probes: FloatArray, ef: int = ef) -> Any:
            async with gallery.database.transaction(read_only=True) as work:
                await work._session.execute(text(f"SET LOCAL hnsw.ef_search = {ef}"))
                query = (
                    f"SELECT person_id FROM {partition} ORDER BY {expression} <=> CAST(:probe AS halfvec) LIMIT {LIMIT}"
                )
                return (await work._session.execute(text(query), {"probe": encode_halfvec(probes[0])})).scalars().all()

        found = []
        for at in np.flatnonzero(is_expected):
            (best, *_) = await search(probes[at][None]) or [None]
            found.append(best == UUID(bytes=gallery.ids[persons[at]].tobytes()))
        async with bind_to_one_core(gallery.database):
            timed = await _time_searches(search, probes, seconds)
        lost = {"probes": len(found), "lost": len(found) - sum(found)}
        way = {"way": f"pgvector, HNSW ef {ef}", "built_s": round(built_s, 1)}
        lines += [{"measure": "time", **way, **timed}, {"measure": "loss", **way, **lost}]
    async with gallery.database.transaction() as work:
        await work._session.execute(text("DROP INDEX graph"))
    return lines


class _NumpyRescorer:
    """Replaces the database: compares proposed faces in memory, as PostgreSQL does."""

    def __init__(self, enrolled: NDArray[np.float16], first: int) -> None:
        self.faces = self
        self._enrolled = enrolled
        self._first = first

    def hot_queries(self) -> Any:
        return nullcontext(self)

    async def rescore_proposals(
        self,
        _collection_id: UUID,
        _space_id: str,
        probes: FloatArray,
        proposals: list[NDArray[np.int64]],
        _after: int,
        limit: int,
        _fusion: Fusion,
    ) -> tuple[SearchResult, ...]:
        return tuple(
            self._rank_candidates(probe, numbers - self._first, limit)
            for probe, numbers in zip(probes, proposals, strict=True)
        )

    def _rank_candidates(self, probe: FloatArray, rows: NDArray[np.int64], limit: int) -> SearchResult:
        faces = self._enrolled[rows].astype(np.float32)
        cosines = faces @ probe / np.linalg.norm(faces, axis=1) / np.linalg.norm(probe)
        best = np.argsort(-cosines, kind="stable")[:limit]
        candidates = [Candidate(UUID(int=int(rows[at])), None, None, UUID(int=0), float(cosines[at])) for at in best]
        return SearchResult(tuple(candidates), 0)


_shared: tuple[GallerySpec, SyntheticGallery, IndexRegistry] | None = None


def _count_losses(kind: GallerySpec, gallery: SyntheticGallery, indexes: IndexRegistry, count: int) -> Measurement:
    """Count the mates that Vultus loses and an exact search ranks first above the threshold, on all cores."""
    global _shared
    _shared = (kind, gallery, indexes)
    persons, probes = gallery.draw_probes(count)
    parts = np.array_split(np.arange(len(persons)), 8 * (os.cpu_count() or 1))
    # Forked children inherit the gallery and its index.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("fork")) as pool:
        counts = list(pool.map(_count_lost_mates, [persons[part] for part in parts], [probes[part] for part in parts]))
    mates, lost, strangers = np.sum(counts, axis=0).tolist()
    return {"probes": len(persons), "mates": mates, "lost": lost, "strangers_first": strangers}


def _count_lost_mates(persons: NDArray[np.int64], probes: FloatArray) -> tuple[int, int, int]:
    """Return how many mates an exact search finds, how many of them Vultus loses, and how many non-mates are first."""
    assert _shared is not None
    kind, gallery, indexes = _shared
    set_single_thread()
    rescorer: Any = _NumpyRescorer(gallery.enrolled, gallery.first_face_number)
    searcher = _make_searcher(rescorer, indexes)
    nearest, cosines = gallery.find_closest(probes)
    expected = np.flatnonzero((nearest == persons) & (cosines >= kind.threshold))

    async def search() -> int:
        lost = 0
        for at in expected:
            (result,) = await searcher.search(_build_query(gallery, kind, probes[at][None]))
            lost += result.candidates[0].person_id.int != persons[at]
        return lost

    return len(expected), asyncio.run(search()), int((nearest != persons).sum())


def render(lines: list[Measurement]) -> str:
    """Return the tables."""
    return "\n\n".join([_render_times(lines), _render_losses(lines)])


def _render_times(lines: list[Measurement]) -> str:
    rows = [
        [
            f"{line['people']}, {line['faces']:,}",
            line["way"],
            *(format_milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
            line["n"],
            f"{line['index_bytes'] / 1e6:,.0f}" if line["way"].startswith("vultus") else "",
        ]
        for line in lines
        if line["measure"] == "time"
    ]
    return (
        "**A search**, milliseconds, one after the other, on one core with the database; `index` in megabytes.\n\n"
        f"{render_table(('gallery', 'way', 'p50', 'p95', 'p99', 'searches', 'index'), rows)}\n\n" + _render_bars(lines)
    )


def _render_bars(lines: list[Measurement]) -> str:
    """Return which targets the times reach."""
    times = {
        (line["faces"], line["way"]): line
        for line in lines
        if line["measure"] == "time" and line["people"].startswith("128")
    }
    sentences = []
    for faces, bar_ms, bar_bytes in ((MILLION, 8, 140e6), (10 * MILLION, 60, 1.4e9)):
        if line := times.get((faces, "vultus, enrolled")):
            scan = times[faces, "vultus, scan alone"]
            sentences.append(
                f"Bar at {faces:,} faces: p50 ≤ {bar_ms} ms on one core and ≤ {bar_bytes / 1e6:,.0f} MB. With the "
                f"database {_format_verdict(line['p50_ms'] <= bar_ms)}, {format_milliseconds(line['p50_ms'])} ms; "
                "the scan alone "
                f"{_format_verdict(scan['p50_ms'] <= bar_ms)}, {format_milliseconds(scan['p50_ms'])} ms; "
                f"memory {_format_verdict(line['index_bytes'] <= bar_bytes)}, {line['index_bytes'] / 1e6:,.0f} MB."
            )
    return "\n\n".join([*sentences, *_render_peer_comparison(lines)])


def _render_peer_comparison(lines: list[Measurement]) -> list[str]:
    """Return how much faster Vultus is than InsightFace Server's person search, in the same run if it was installed."""
    timed = [line for line in lines if line["measure"] == "time" and line["faces"] == PEER_FACES]
    vultus_ms = {(line["people"], line["way"]): line["p50_ms"] for line in timed if line["way"].startswith("vultus")}
    peers = {line["way"].removeprefix(PEER): line["p50_ms"] for line in timed if line["way"].startswith(PEER)}
    source = "its library ran on the same core, on the 512-d gallery, without a database"
    if not peers:
        peers = {"quoted": PEER_MS}
        source = "version 0.2.0, quoted from a measurement on another machine: its library was not at hand"
    quickest = min(peers.values())
    ratios = {f"{people}, {way.removeprefix('vultus, ')}": quickest / ms for (people, way), ms in vultus_ms.items()}
    sentences = ", ".join(
        f"{name} {ratio:.0f}×" for name, ratio in ratios.items() if name.endswith(("enrolled", "strangers"))
    )
    reached = [name for name, ratio in ratios.items() if ratio >= PEER_BAR and name.endswith("enrolled")]
    if not sentences:
        return []
    verdict = _format_verdict(len(reached) == sum(name.endswith("enrolled") for name in ratios)).capitalize()
    return [
        f"Bar: at least {PEER_BAR}× faster than InsightFace Server's person search at {PEER_FACES:,} faces "
        f"({', '.join(f'{name} {format_milliseconds(ms)} ms' for name, ms in peers.items())}; {source}). {verdict} for "
        f"persons who are enrolled: {sentences}."
    ]


def _render_losses(lines: list[Measurement]) -> str:
    rows = [
        [f"{line['people']}, {line['faces']:,}", line["way"], f"{line.get('mates', line['probes']):,}", line["lost"]]
        for line in lines
        if line["measure"] == "loss"
    ]
    if not rows:
        return ""
    vultus_losses = [line["lost"] for line in lines if line["measure"] == "loss" and line["way"] == "vultus"]
    return (
        "**Mates lost**: of the probes whose mate an exact search ranks first and above the threshold, those for whom "
        f"the search says somebody else.\n\n{render_table(('gallery', 'way', 'mates', 'lost'), rows)}"
        + (
            f"\n\nBar: none. {_format_verdict(not sum(vultus_losses)).capitalize()}, {sum(vultus_losses)} lost."
            if vultus_losses
            else ""
        )
    )


def _format_verdict(reached: bool) -> str:
    return "reached" if reached else "not reached"
