"""How many mates does an HNSW graph lose? `python -m benchmarks.graph`: one JSON line a setting, with the machine.

Made-up people with the statistics of the built-in network's vectors, two photos each, both enrolled.
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

from benchmarks.identities import real
from benchmarks.record import Origin
from vultus.db.database import Database
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.migrate import upgrade
from vultus.domain import Actor, DecisionPolicy
from vultus.models.pipeline import FacePipeline
from vultus.models.pipelines import Pipelines
from vultus.models.weights.store import WeightsStore
from vultus.services.collections import Collections
from vultus.services.crop_vault import CropVault
from vultus.services.search.hnsw import GraphWanted, OwnGraph
from vultus.settings import DatabaseSettings, Settings
from vultus.utils.ids import new_ids

if TYPE_CHECKING:
    from vultus.domain import Collection

SEED = 20261124
SETTINGS = tuple((m, ef) for m in (16, 32) for ef in (40, 100, 200, 400, 1000))
ACTOR = Actor("benchmark")


async def measure(persons: int, sample: int, folder: Path) -> None:
    """Print a line a setting."""
    settings = Settings(data_dir=folder)
    pipeline = FacePipeline.load(settings.inference, settings.photos, WeightsStore(folder / "cache"))
    pipelines = Pipelines(pipeline)
    with EmbeddedPostgres(folder) as server:
        url = server.start()
        await upgrade(url)
        database = await Database.connect(url, DatabaseSettings())
        collections = Collections(database, pipelines, CropVault(settings.crop_key_file))
        home = await fill(database, pipeline, persons)
        origin = asdict(Origin.here())
        job = OwnGraph(database, pipelines, collections)
        for m, ef_search in SETTINGS:
            wanted = GraphWanted(m, 64, ef_search, accept_loss=1, sample=sample)
            started = time.perf_counter()
            graph = (await job.turn_on(home.name, wanted, actor=ACTOR)).graph
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
                await collections.change(home.name, search="auto", actor=ACTOR)
        await database.close()


async def fill(database: Database, pipeline: FacePipeline, persons: int) -> Collection:
    """Return a collection with two faces a person; constraints are not checked, this prepares a measurement."""
    rule = pipeline.recognize_rule
    async with database.work() as work:
        home = await work.collections.add("home", pipeline.contract.id, DecisionPolicy(rule, rule, target_fmr=1e-4))
        await work._session.execute(text("SET LOCAL session_replication_role = replica"))
        for vectors in real().draw(persons, 2, SEED):
            faces = vectors.reshape(-1, vectors.shape[2])
            owners = np.repeat(new_ids(len(vectors)), 2, axis=0)
            await work.bulk.add_faces(
                home.id,
                home.contract_id,
                persons=owners,
                consents=owners,
                expires_at=None,
                vectors=faces,
                sources=np.concatenate([owners, new_ids(len(faces))], axis=1),
                codes=None,
            )
    return home


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph", description=__doc__)
    parser.add_argument("--persons", type=int, default=25_000)
    parser.add_argument("--sample", type=int, default=2_000, help="persons searched for")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as place:
        asyncio.run(measure(asked.persons, asked.sample, Path(place)))
