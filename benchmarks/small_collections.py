"""Does a search of each of a thousand small collections find everybody immediately, next to a large collection?

`python -m benchmarks.small_collections`: 1,000 collections of 1,000 faces and one of 500,000 in one embedded
PostgreSQL; vectors of 128 numbers, uniformly distributed in direction; probes are enrolled vectors plus noise. The
timed part is `search` of `Server-Timing`: the exact search for five persons, with a connection of the pool, after the
collection was found by its name. A result is right if the persons and their order are those of NumPy's float64 cosines
of the same vectors.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import record
from benchmarks.galleries import (
    connect_migrated_database,
    draw_unit_vectors,
    enrol_vectors,
    run_in_event_loop,
    start_scratch_database,
)
from benchmarks.record import Measurement, compute_percentiles, format_milliseconds, render_table
from vultus.domain import DecisionPolicy, QualityRule

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import FloatArray, SearchResult

COLLECTIONS = 1_000
FACES = 1_000
LARGE = 500_000
PROBES = 5
"""Probes per small collection."""

LARGE_PROBES = 20
LIMIT = 5
DIMENSION = 128
NOISE = 0.5
BAR_MS = 5.0
SPACE_ID = "made-up"
COSINE_TOLERANCE = 1e-6
"""Cosines closer than this count as equal: the two sum in another order."""

RULE = QualityRule(min_score=0, min_size_px=0, min_sharpness=0, max_yaw_deg=90, max_pitch_deg=90)
POLICY = DecisionPolicy(enrol=RULE, recognize=RULE, target_fmr=1e-4)


def measure(collections: int, large: int) -> list[Measurement]:
    """Return one line for the small collections and one for the large one."""
    with start_scratch_database() as url:
        return run_in_event_loop(_measure(url, collections, large))


async def _measure(url: str, collections: int, large: int) -> list[Measurement]:
    random = np.random.default_rng(collections)
    async with connect_migrated_database(url) as database:
        print(f"small_collections: one of {large:,} faces", flush=True)
        await _fill_collection(database, "large", large, seed=collections)
        print(f"small_collections: {collections:,} of {FACES:,} faces", flush=True)
        for seed in range(collections):
            await _fill_collection(database, f"small {seed}", FACES, seed)
        order = np.tile(np.arange(collections), PROBES)[random.permutation(collections * PROBES)]
        probes = [_draw_probe(draw_unit_vectors(FACES, DIMENSION, int(seed)), random) for seed in order]
        vectors = draw_unit_vectors(large, DIMENSION, seed=collections)
        large_probes = [_draw_probe(vectors, random) for _ in range(LARGE_PROBES)]
        for seed in range(collections):  # once each: PostgreSQL loads a partition's metadata on first use
            await _time_search(database, f"small {seed}", probes[0])
        # Nothing is computed between the searches, as in a server.
        small_answers = [
            await _time_search(database, f"small {seed}", probe) for seed, probe in zip(order, probes, strict=True)
        ]
        answers = [await _time_search(database, "large", probe) for probe in large_probes]
    right = np.zeros(collections, int)
    for seed, probe, (_, found) in zip(order, probes, small_answers, strict=True):
        right[seed] += _is_right(draw_unit_vectors(FACES, DIMENSION, int(seed)), probe, found)
    large_right = [_is_right(vectors, probe, found) for probe, (_, found) in zip(large_probes, answers, strict=True)]
    share = right / PROBES
    return [
        {
            "collections": collections,
            "faces": FACES,
            "complete": int((share == 1).sum()),
            "recall_least": float(share.min()),
            **compute_percentiles([ms for ms, _ in small_answers]),
        },
        {
            "collections": 1,
            "faces": large,
            "complete": int(all(large_right)),
            "recall_least": float(np.mean(large_right)),
            **compute_percentiles([ms for ms, _ in answers]),
        },
    ]


async def _fill_collection(database: Database, name: str, faces: int, seed: int) -> None:
    async with database.transaction() as work:
        collection = await work.collections.add_collection(name, SPACE_ID, POLICY)
    await enrol_vectors(database, collection, draw_unit_vectors(faces, DIMENSION, seed), seed)


def _draw_probe(vectors: FloatArray, random: np.random.Generator) -> FloatArray:
    """Return a vector of the collection plus noise, (d,) of length 1."""
    probe = vectors[random.integers(len(vectors))] + NOISE / DIMENSION**0.5 * random.standard_normal(DIMENSION)
    return np.asarray(probe / np.linalg.norm(probe), np.float32)


async def _time_search(database: Database, name: str, probe: FloatArray) -> tuple[float, SearchResult]:
    """Return the milliseconds of a search, and its result."""
    async with database.hot_queries() as work:
        collection = await work.collections.get_collection_by_name(name)
    started = time.perf_counter()
    async with database.hot_queries() as work:
        (found,) = await work.templates.search_exact(collection.id, collection.space_id, probe[None], LIMIT)
    return (time.perf_counter() - started) * 1e3, found


def _is_right(vectors: FloatArray, probe: FloatArray, found: SearchResult) -> bool:
    """Return whether the persons and their order are NumPy's."""
    stored, stored_probe = vectors.astype(np.float16).astype(np.float64), probe.astype(np.float16).astype(np.float64)
    cosines = stored @ stored_probe / np.linalg.norm(stored, axis=1) / np.linalg.norm(stored_probe)
    best = np.sort(cosines)[::-1][:LIMIT]
    named = cosines[[int(candidate.external_id or -1) for candidate in found.candidates]]
    return (
        found.gallery_size == len(vectors)
        and len(named) == LIMIT
        and np.allclose(named, best, rtol=0, atol=COSINE_TOLERANCE)
    )


def render(lines: list[Measurement]) -> str:
    """Return the table."""
    rows = [
        [
            f"{line['collections']:,} × {line['faces']:,} faces",
            f"{line['n']:,}",
            f"{line['complete']:,} of {line['collections']:,}",
            f"{line['recall_least']:.3f}",
            *(format_milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
        ]
        for line in lines
    ]
    columns = ("collections", "searches", "without a miss", "least recall", "p50 ms", "p95 ms", "p99 ms")
    small = lines[0]
    reached = "Reached" if small["recall_least"] == 1 and small["p99_ms"] <= BAR_MS else "Not reached"
    return (
        f"{render_table(columns, rows)}\n\n"
        f"Bar: recall 1.000 in every small collection, and 99 of 100 answers within {BAR_MS:g} ms. {reached}."
    )


def main() -> None:
    """Run the benchmark of the command line."""
    parser = record.build_argument_parser("small_collections", __doc__)
    parser.add_argument("--collections", type=int, default=COLLECTIONS)
    parser.add_argument("--large", type=int, default=LARGE, help="faces of the large collection")
    options = parser.parse_args()
    record.run_benchmark(
        "small_collections",
        None if options.show else lambda: measure(options.collections, options.large),
        render,
        lambda lines: lines[0]["collections"] >= COLLECTIONS and lines[1]["faces"] >= LARGE,
    )


if __name__ == "__main__":
    main()
