"""How many mates does an HNSW graph lose? `python -m benchmarks.graph`: one JSON line per setting, with the machine.

Synthetic persons with the statistics of the built-in network's vectors, two photos each, both enrolled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import text

from benchmarks.galleries import CALLER
from benchmarks.identities import load_real_people
from benchmarks.record import Origin
from vultus.db.database import Database
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.migrate import upgrade_schema
from vultus.domain import DecisionPolicy, SpaceRegistry
from vultus.models.pipeline import FacePipeline
from vultus.models.weights.store import WeightsStore
from vultus.services.collections import CollectionService
from vultus.services.search.hnsw import GraphRequest, HnswBuilder
from vultus.settings import DatabaseSettings, Settings
from vultus.utils.ids import new_ids

if TYPE_CHECKING:
    from vultus.domain import Collection

SEED = 20261124
SETTINGS = tuple((m, ef) for m in (16, 32) for ef in (40, 100, 200, 400, 1000))
ACTOR = CALLER


async def measure(persons: int, sample: int, folder: Path) -> None:
    """Print one line per setting."""
    settings = Settings(data_dir=folder, custody_dir=folder / "custody")
    pipeline = FacePipeline.load(settings.inference, settings.photos, WeightsStore())
    spaces = SpaceRegistry(pipeline.describe_space())
    with EmbeddedPostgres(folder) as server:
        server.start()
        url = server.superuser_url  # the collection is filled without checks
        await upgrade_schema(url)
        database = await Database.connect(url, DatabaseSettings())
        collections = CollectionService(database, spaces)
        collection = await fill_collection(database, pipeline, persons)
        origin = asdict(Origin.from_this_machine())
        job = HnswBuilder(database, spaces, collections)
        for m, ef_search in SETTINGS:
            request = GraphRequest(m, 64, ef_search, accept_loss=1, sample=sample)
            started = time.perf_counter()
            graph = (await job.enable(CALLER, collection.name, request)).graph
            took = time.perf_counter() - started
            assert graph is not None
            line = {
                "faces": 2 * persons,
                "m": m,
                "ef_search": ef_search,
                "took_s": round(took, 1),
                **asdict(graph.loss),
            }
            print(json.dumps({**line, "origin": origin}), flush=True)
            if ef_search == SETTINGS[-1][1]:
                await collections.update_collection(CALLER, collection.name, search="auto")
        await database.close()


async def fill_collection(database: Database, pipeline: FacePipeline, persons: int) -> Collection:
    """Return a collection with two faces per person; constraints are not checked: this is not measured."""
    rule = pipeline.recognize_rule
    async with database.transaction() as work:
        collection = await work.collections.add_collection(
            "home", pipeline.space.id, DecisionPolicy(rule, rule, target_fmr=1e-4)
        )
        await work._session.execute(text("SET LOCAL session_replication_role = replica"))
        for vectors in load_real_people().draw_vectors(persons, 2, SEED):
            faces = vectors.reshape(-1, vectors.shape[2])
            owners = np.repeat(new_ids(len(vectors)), 2, axis=0)
            await work.templates.import_templates(
                collection.id,
                collection.space_id,
                persons=owners,
                consents=owners,
                expires_at=None,
                vectors=faces,
                sources=np.concatenate([owners, new_ids(len(faces))], axis=1),
                codes=None,
            )
    return collection


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph", description=__doc__)
    parser.add_argument("--persons", type=int, default=25_000)
    parser.add_argument("--sample", type=int, default=2_000, help="persons searched for")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as data_dir:
        asyncio.run(measure(options.persons, options.sample, Path(data_dir)))
