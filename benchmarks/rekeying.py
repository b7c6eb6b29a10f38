"""Does a new key for every person change a decision, and how long does it take?

`python -m benchmarks.rekeying --faces 10000`: a sealed collection in the embedded PostgreSQL, one template per person,
vectors of 128 numbers. A tenth as many probes of enrolled persons (near their vector) and of strangers are searched for
before and after; every candidate and similarity is compared. As a control the probes are turned by a thousandth: the
comparison must see it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from operator import ne
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.galleries import (
    CALLER,
    connect_migrated_database,
    draw_unit_vectors,
    enrol_vectors,
    run_in_event_loop,
    start_scratch_database,
)
from vultus.models.pipelines import PipelineRegistry
from vultus.models.weights.store import WeightsStore
from vultus.sealing.custody import Custody
from vultus.sealing.key_ring import FileKeyRing
from vultus.services.collections import CollectionService
from vultus.services.key_rotation import KeyRotator
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from vultus.domain import Candidate, FloatArray

DIMENSION, LIMIT = 128, 5


async def _measure(url: str, faces: int, folder: Path) -> None:
    vectors = draw_unit_vectors(faces, DIMENSION, seed=0)
    near = _turn(vectors[: faces // 10], 0.5, seed=1)
    probes = np.concatenate([near, draw_unit_vectors(faces // 10, DIMENSION, seed=2)])
    spaces = PipelineRegistry.load(InferenceSettings(), PhotoSettings(), WeightsStore()).spaces
    async with connect_migrated_database(url) as database:
        custody = database.use_keys(Custody.open(folder / "custody", FileKeyRing(folder / "ring.json")))
        service = CollectionService(database, spaces)
        collection = await service.create_collection(CALLER, "sealed", policy={"storage": "sealed"})
        await enrol_vectors(database, collection, vectors, seed=3)
        rotator = KeyRotator(database, custody)

        async def search(vectors: FloatArray) -> list[tuple[Candidate, ...]]:
            async with database.transaction(read_only=True) as work:
                found = await work.templates.search_exact(collection.id, collection.space_id, vectors, LIMIT)
            return [one.candidates for one in found]

        before = await search(probes)
        started = time.perf_counter()
        wrapped = await rotator.rotate(CALLER)
        rotated = time.perf_counter()
        changed = await rotator.rekey_persons(CALLER)
        rekeyed = time.perf_counter()
        after = await search(probes)
        turned = await search(_turn(probes, 1e-3, seed=4))
    different, seen = (sum(map(ne, before, others)) for others in (after, turned))
    print(f"key-encryption key: {wrapped:,} keys of persons wrapped anew in {rotated - started:.1f} s")
    print(f"persons: {changed:,} with new keys and templates sealed anew in {rekeyed - rotated:.1f} s")
    print(f"decisions: {different} of {len(before):,} probes differ in any candidate or similarity")
    print(f"control: turned by a thousandth, {seen:,} differ")


def _turn(vectors: FloatArray, by: float, seed: int) -> FloatArray:
    turned = vectors + by * draw_unit_vectors(len(vectors), DIMENSION, seed)
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    return turned


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=10_000)
    faces = parser.parse_args().faces
    with start_scratch_database() as url, tempfile.TemporaryDirectory() as folder:
        run_in_event_loop(_measure(url, faces, Path(folder)))


if __name__ == "__main__":
    main()
