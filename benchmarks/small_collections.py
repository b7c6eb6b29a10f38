"""Does each of a thousand small collections find everybody at once, beside a large one?

`python -m benchmarks.small_collections`: 1,000 collections of 1,000 faces and one of 500,000 in one embedded
PostgreSQL; vectors of 128 numbers from all directions alike, probes made of enrolled ones by adding noise. What is
timed is what `Server-Timing` calls `search`: the exact search for five persons, with a connection of the pool, once the
collection was found by its name. An answer is right if the persons and their order are those of NumPy's float64 cosines
of the same vectors.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import record
from benchmarks.galleries import connected, enrol, run, scratch, units
from benchmarks.record import Line, milliseconds, percentiles, table
from vultus.domain import DecisionPolicy, QualityRule

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import FloatArray, SearchResult

COLLECTIONS = 1_000
FACES = 1_000
LARGE = 500_000
PROBES = 5
"""Questions to each small collection."""

LARGE_PROBES = 20
LIMIT = 5
SIZE = 128
NOISE = 0.5
BAR_MS = 5.0
CONTRACT = "made-up"
TIE = 1e-6
"""Cosines closer than this are as good as equal: the two sum in another order."""

RULE = QualityRule(min_score=0, min_size_px=0, min_sharpness=0, max_yaw_deg=90, max_pitch_deg=90)
POLICY = DecisionPolicy(enrol=RULE, recognize=RULE, target_fmr=1e-4)


def measure(collections: int, large: int) -> list[Line]:
    """Return a line about the small collections, and one about the large one."""
    with scratch() as url:
        return run(_measure(url, collections, large))


async def _measure(url: str, collections: int, large: int) -> list[Line]:
    random = np.random.default_rng(collections)
    async with connected(url) as database:
        print(f"small_collections: one of {large:,} faces", flush=True)
        await _fill(database, "large", large, seed=collections)
        print(f"small_collections: {collections:,} of {FACES:,} faces", flush=True)
        for seed in range(collections):
            await _fill(database, f"small {seed}", FACES, seed)
        order = np.tile(np.arange(collections), PROBES)[random.permutation(collections * PROBES)]
        probes = [_probe(units(FACES, SIZE, int(seed)), random) for seed in order]
        vectors = units(large, SIZE, seed=collections)
        large_probes = [_probe(vectors, random) for _ in range(LARGE_PROBES)]
        for seed in range(collections):  # once each: the server learns what a partition is when it first meets it
            await _asked(database, f"small {seed}", probes[0])
        # Nothing is worked out between the questions: a server does not either.
        asked = [await _asked(database, f"small {seed}", probe) for seed, probe in zip(order, probes, strict=True)]
        answers = [await _asked(database, "large", probe) for probe in large_probes]
    right = np.zeros(collections, int)
    for seed, probe, (_, found) in zip(order, probes, asked, strict=True):
        right[seed] += _right(units(FACES, SIZE, int(seed)), probe, found)
    large_right = [_right(vectors, probe, found) for probe, (_, found) in zip(large_probes, answers, strict=True)]
    share = right / PROBES
    return [
        {
            "collections": collections,
            "faces": FACES,
            "complete": int((share == 1).sum()),
            "recall_least": float(share.min()),
            **percentiles([ms for ms, _ in asked]),
        },
        {
            "collections": 1,
            "faces": large,
            "complete": int(all(large_right)),
            "recall_least": float(np.mean(large_right)),
            **percentiles([ms for ms, _ in answers]),
        },
    ]


async def _fill(database: Database, name: str, faces: int, seed: int) -> None:
    async with database.work() as work:
        home = await work.collections.add(name, CONTRACT, POLICY)
    await enrol(database, home, units(faces, SIZE, seed), seed)


def _probe(vectors: FloatArray, random: np.random.Generator) -> FloatArray:
    """Return a vector like one of a collection's."""
    probe = vectors[random.integers(len(vectors))] + NOISE / SIZE**0.5 * random.standard_normal(SIZE)
    return np.asarray(probe / np.linalg.norm(probe), np.float32)


async def _asked(database: Database, name: str, probe: FloatArray) -> tuple[float, SearchResult]:
    """Return the milliseconds that a search takes, and what it finds."""
    async with database.look() as work:
        home = await work.collections.by_name(name)
    started = time.perf_counter()
    async with database.look() as work:
        (found,) = await work.faces.search(home.id, home.contract_id, probe[None], LIMIT)
    return (time.perf_counter() - started) * 1e3, found


def _right(vectors: FloatArray, probe: FloatArray, found: SearchResult) -> bool:
    """Say whether the persons and their order are NumPy's."""
    stored, asked = vectors.astype(np.float16).astype(np.float64), probe.astype(np.float16).astype(np.float64)
    cosines = stored @ asked / np.linalg.norm(stored, axis=1) / np.linalg.norm(asked)
    best = np.sort(cosines)[::-1][:LIMIT]
    named = cosines[[int(candidate.external_id or -1) for candidate in found.candidates]]
    return found.gallery_size == len(vectors) and len(named) == LIMIT and np.allclose(named, best, rtol=0, atol=TIE)


def render(lines: list[Line]) -> str:
    """Return the table."""
    rows = [
        [
            f"{line['collections']:,} × {line['faces']:,} faces",
            f"{line['n']:,}",
            f"{line['complete']:,} of {line['collections']:,}",
            f"{line['recall_least']:.3f}",
            *(milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
        ]
        for line in lines
    ]
    columns = ("collections", "searches", "without a miss", "least recall", "p50 ms", "p95 ms", "p99 ms")
    small = lines[0]
    reached = "Reached" if small["recall_least"] == 1 and small["p99_ms"] <= BAR_MS else "Not reached"
    return (
        f"{table(columns, rows)}\n\n"
        f"Bar: recall 1.000 in every small collection, and 99 of 100 answers within {BAR_MS:g} ms. {reached}."
    )


def main() -> None:
    """Answer the question of the command line."""
    parser = record.arguments("small_collections", __doc__)
    parser.add_argument("--collections", type=int, default=COLLECTIONS)
    parser.add_argument("--large", type=int, default=LARGE, help="faces of the large collection")
    asked = parser.parse_args()
    record.answer(
        "small_collections",
        None if asked.show else lambda: measure(asked.collections, asked.large),
        render,
        lambda lines: lines[0]["collections"] >= COLLECTIONS and lines[1]["faces"] >= LARGE,
    )


if __name__ == "__main__":
    main()
