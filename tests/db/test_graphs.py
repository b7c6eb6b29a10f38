"""An HNSW graph: the planner uses it, nothing erased is found again, and dropping it leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import asyncpg
import numpy as np
import pytest
from sqlalchemy import text
from tests.db.test_indexing import SETTINGS, THRESHOLD
from tests.galleries import people

from vultus.db import migrate
from vultus.db.database import Database
from vultus.db.repositories.collections import get_partition_name
from vultus.db.templates import ranking
from vultus.domain import Collection, Fusion, HnswGraph, HnswRecallLoss, SearchMode
from vultus.errors import ConflictError
from vultus.services.search.index_sync import IndexRegistry
from vultus.services.search.local_engine import LocalCandidateEngine
from vultus.services.search.request import SearchQuery, get_search_method
from vultus.services.search.search import Searcher
from vultus.utils.ids import new_ids

PERSONS = 900  # below 100 pages of rows VACUUM would clean an index for a single dead row anyway
VECTORS = people(PERSONS)
LOSS = HnswRecallLoss("mates", 1000, 0, 0.0, 0.0038, 9.0, 1.0)
GRAPH = HnswGraph("contract", 16, 64, 100, datetime(2026, 1, 2, tzinfo=UTC), LOSS)


@pytest.fixture
async def connection(superuser_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(superuser_url.replace("+asyncpg", ""))
    yield connection
    await connection.close()


@pytest.fixture
async def hnsw_collection(database: Database, collection: Collection) -> Collection:
    """A collection that is searched by its HNSW index."""
    granted: dict[str, Any] = {
        "purpose": "tests",
        "recorded_by": "tests",
        "evidence_ref": None,
        "granted_at": datetime.now(UTC),
    }
    async with database.transaction() as work:
        persons = await work.bulk.add_persons(collection.id, [(f"p{at}", None) for at in range(PERSONS)])
        consents = await work.bulk.add_consents(collection.id, persons, **granted, expires_at=None)
        await work.templates.import_templates(
            collection.id,
            "contract",
            persons=np.repeat(persons, 2, axis=0),
            consents=np.repeat(consents, 2, axis=0),
            expires_at=None,
            vectors=VECTORS.reshape(2 * PERSONS, -1),
            sources=np.tile(new_ids(2 * PERSONS), 2),
        )
        # What PostgreSQL counts after its ANALYZE it would count twice.
        await work._session.execute(text("SELECT pg_stat_force_next_flush()"))
    async with database.open_hnsw_maintenance(collection.id) as graph:
        await graph.build_index("contract", 128, GRAPH.m, GRAPH.ef_construction)
    async with database.transaction() as work:
        await work.collections.set_hnsw_graph(collection.id, GRAPH)
        return await work.collections.get_collection(collection.id)


def query(collection: Collection, probes: Any, limit: int = 2) -> SearchQuery:
    return SearchQuery(
        collection.id,
        "contract",
        probes,
        limit,
        Fusion.BEST,
        lambda _: (THRESHOLD, 0.01),
        **get_search_method(collection, "contract"),
    )


def make_searcher(database: Database) -> Searcher:
    indexes = IndexRegistry(database, SETTINGS)
    return Searcher(database, LocalCandidateEngine(indexes), indexes.recall_monitor, SETTINGS)


async def search(database: Database, collection: Collection, probes: Any, limit: int = 2) -> list[list[str | None]]:
    found = await make_searcher(database).search(query(collection, probes, limit))
    return [[candidate.external_id for candidate in one.candidates] for one in found]


async def list_hnsw_indexes(connection: asyncpg.Connection, collection: Collection) -> list[str]:
    rows = await connection.fetch(
        "SELECT indexdef FROM pg_indexes WHERE tablename = $1 AND indexdef LIKE '%hnsw%'",
        get_partition_name(collection.id),
    )
    return [row["indexdef"] for row in rows]


async def test_the_planner_uses_the_index(database: Database, hnsw_collection: Collection) -> None:
    """Even among few faces; the exact search compares every one."""
    values = ranking.build_parameters(hnsw_collection.id, "contract", VECTORS[:2, 0], 2, Fusion.BEST)
    plans = []
    async with database.transaction(read_only=True) as work:
        await work._session.execute(ranking.SET_GRAPH_PARAMETERS, {"ef_search": "100"})
        for statement in (ranking.build_graph_statement(Fusion.BEST, 128), ranking.SEARCH_STATEMENTS[Fusion.BEST]):
            explained = statement.bindparams()
            explained.text = "EXPLAIN " + statement.text
            rows = await work._session.execute(
                explained, values | {"partition": get_partition_name(hnsw_collection.id)}
            )
            plans.append("\n".join(rows.scalars()))

    assert f"Index Scan using {get_partition_name(hnsw_collection.id)}_hnsw" in plans[0]
    assert "hnsw" not in plans[1]


async def test_a_search_by_the_graph_returns_the_faces_it_visits(
    database: Database, hnsw_collection: Collection
) -> None:
    assert (hnsw_collection.search, hnsw_collection.graph) == (SearchMode.HNSW, GRAPH)
    found = await search(database, hnsw_collection, VECTORS[:50, 0])
    async with database.transaction(read_only=True) as work:
        (mean,) = await work.templates.search_graph(hnsw_collection.id, GRAPH, VECTORS[7:8, 0], 1, Fusion.MEAN)

    assert [names[0] for names in found] == [f"p{at}" for at in range(50)]
    assert all(len(names) == 2 for names in found)
    assert (mean.candidates[0].external_id, mean.gallery_size) == ("p7", 2 * PERSONS)
    assert mean.candidates[0].similarity < 0.9999


async def test_new_faces_are_found_and_erased_and_expired_ones_are_not(
    database: Database, hnsw_collection: Collection, enrol: Callable[..., Awaitable[Any]]
) -> None:
    (newcomer, passing) = people(2, seed=5)[:, 0]
    soon = datetime.now(UTC) + timedelta(seconds=1)
    async with database.transaction() as work:
        await enrol(work, hnsw_collection, "new", newcomer)
        await enrol(work, hnsw_collection, "passing", passing, expires_at=soon)
        deleted_id = (await search_persons(work, hnsw_collection, VECTORS[3, 0]))[0]
        await work.persons.delete_person(hnsw_collection.id, deleted_id)
    before = await search(database, hnsw_collection, np.stack([newcomer, passing, VECTORS[3, 0]]))
    await asyncio.sleep(1.1)
    after = await search(database, hnsw_collection, np.stack([newcomer, passing, VECTORS[3, 0]]))

    assert [names[0] for names in before[:2]] == ["new", "passing"]
    assert after[0][0] == "new"
    assert "passing" not in after[1]
    assert "p3" not in before[2] + after[2]
    assert [len(names) for names in after] == [2, 2, 2]


async def search_persons(work: Any, collection: Collection, probe: Any) -> list[Any]:
    (found,) = await work.templates.search_exact(collection.id, "contract", probe[None], 1)
    return [candidate.person_id for candidate in found.candidates]


async def test_one_person_with_the_nearest_faces_does_not_hide_the_others(
    database: Database, hnsw_collection: Collection, enrol: Callable[..., Awaitable[Any]]
) -> None:
    """More faces of one person than a search visits: then every person is compared."""
    (vector,) = people(1, seed=21)[:, 0]
    async with database.transaction() as work:
        await enrol(work, hnsw_collection, "often", *(vector + 1e-3 * people(60, seed=8)[:, 0]))

    (names,) = await search(database, hnsw_collection, vector[None], limit=3)
    assert (names[0], len(names)) == ("often", 3)


async def test_other_modes_and_other_networks_do_not_use_it(database: Database, hnsw_collection: Collection) -> None:
    assert get_search_method(hnsw_collection, "another") == {"exact": False, "graph": None}
    exact = replace(hnsw_collection, search=SearchMode.EXACT, graph=None)
    assert get_search_method(exact, "contract") == {"exact": True, "graph": None}
    searcher = make_searcher(database)
    queries = partial(database.transaction, read_only=True)
    assert await searcher.search_index_or_none(queries, query(exact, VECTORS[:1, 0])) is None
    assert await searcher.search_index_or_none(queries, query(hnsw_collection, VECTORS[:1, 0])) is not None


async def test_only_collections_that_may_have_a_candidate_index_get_one(
    database: Database, hnsw_collection: Collection
) -> None:
    async with database.transaction() as work:
        assert await work.codes.list_space_statistics() == []
        await work.collections.update_collection(hnsw_collection.id, second_contract_id="another")
        assert [size.space_id for size in await work.codes.list_space_statistics()] == ["another"]
        await work.collections.update_collection(hnsw_collection.id, search=SearchMode.EXACT)
        assert await work.codes.list_space_statistics() == []
        await work.collections.update_collection(hnsw_collection.id, search=SearchMode.AUTO)
        assert {size.space_id for size in await work.codes.list_space_statistics()} == {"another", "contract"}


async def test_a_graph_that_loses_more_than_measured_is_degraded(
    database: Database, hnsw_collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    """An index without its rows, as after a defect: the recall check detects it, and SQL searches from then on."""
    searcher = make_searcher(database)
    search_query = query(hnsw_collection, VECTORS[:20, 0])
    await searcher.check_recall(search_query)
    statistics = searcher._recall_monitor.statistics[search_query.key]
    assert (statistics.probes, statistics.disagreed, statistics.degraded) == (20, 0, False)

    unindexed_query = replace(search_query, graph=replace(GRAPH, contract_id="nobody"))
    for degraded in (True, True):
        await searcher.check_recall(unindexed_query)
        assert searcher._recall_monitor.statistics[unindexed_query.key].degraded is degraded
    assert "an HNSW graph lost 20" in caplog.text
    assert await searcher.search_index_or_none(partial(database.transaction, read_only=True), unindexed_query) is None


async def test_random_variation_of_a_measured_loss_does_not_degrade(database: Database) -> None:
    recall_monitor = IndexRegistry(database, SETTINGS).recall_monitor
    lossy = replace(GRAPH, loss=replace(LOSS, lost=20, high=0.03))
    one = SearchQuery(uuid4(), "contract", VECTORS[:1, 0], 1, Fusion.BEST, lambda _: (THRESHOLD, 0.01), graph=lossy)

    assert recall_monitor._compute_allowed_losses(one, 1000) == pytest.approx(30 + 3 * 30**0.5)
    assert recall_monitor._compute_allowed_losses(replace(one, graph=None), 1000) == pytest.approx(1)


async def test_dropping_the_graph_leaves_nothing(
    database: Database, hnsw_collection: Collection, connection: Any
) -> None:
    (built,) = await list_hnsw_indexes(connection, hnsw_collection)
    kept_clean = "SELECT reloptions FROM pg_class WHERE relname = $1"
    before = await connection.fetchval(kept_clean, get_partition_name(hnsw_collection.id))
    async with database.open_hnsw_maintenance(hnsw_collection.id) as graph:
        await graph.drop_index()
        await graph.drop_index()

    assert "m='16', ef_construction='64'" in built
    assert "vacuum_index_cleanup=on" in before
    assert await list_hnsw_indexes(connection, hnsw_collection) == []
    assert await connection.fetchval(kept_clean, get_partition_name(hnsw_collection.id)) is None


async def test_an_unfinished_graph_is_rebuilt(database: Database, hnsw_collection: Collection, connection: Any) -> None:
    """After a killed build: an index that PostgreSQL does not search."""
    name = f"{get_partition_name(hnsw_collection.id)}_hnsw"
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = $1::text::regclass"
    await connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = $1::text::regclass", name)
    assert await connection.fetchval(valid, name) is False
    async with database.open_hnsw_maintenance(hnsw_collection.id) as graph:
        await graph.build_index("contract", 128, 16, 64)

    assert await connection.fetchval(valid, name) is True


async def test_vacuum_removes_erased_vectors_from_the_graph(
    database: Database, hnsw_collection: Collection, connection: Any
) -> None:
    """Even one among hundreds, which VACUUM would skip by default; autovacuum does the same."""
    sought = VECTORS[3, 0].astype("<f2").tobytes()

    async def pages() -> bytes:
        await connection.execute("CHECKPOINT")
        path = f"pg_read_binary_file(pg_relation_filepath('{get_partition_name(hnsw_collection.id)}_hnsw'))"
        return bytes(await connection.fetchval(f"SELECT {path}"))

    assert sought in await pages()
    async with database.transaction() as work:
        await work.persons.delete_person(
            hnsw_collection.id, (await search_persons(work, hnsw_collection, VECTORS[3, 0]))[0]
        )
    assert sought in await pages()
    await connection.execute(f"VACUUM {get_partition_name(hnsw_collection.id)}")
    assert sought not in await pages()


async def test_builds_exclude_each_other_and_a_killed_one_releases_its_lock(
    database: Database, collection: Collection
) -> None:
    async with database.open_hnsw_maintenance(collection.id):
        with pytest.raises(ConflictError, match="being built"):
            async with database.open_hnsw_maintenance(collection.id):
                raise AssertionError
    async with database.open_hnsw_maintenance(collection.id):
        pass


async def test_registrations_continue_while_a_graph_is_built(
    database: Database, hnsw_collection: Collection, enrol: Callable[..., Awaitable[Any]], connection: Any
) -> None:
    """The build waits for earlier readers; nothing waits for the build, and a cancelled one leaves nothing."""
    async with database.open_hnsw_maintenance(hnsw_collection.id) as graph:
        await graph.drop_index()
        async with database.transaction(read_only=True) as reader:
            await reader.collections.count_persons_and_faces(hnsw_collection.id)
            building = asyncio.create_task(graph.build_index("contract", 128, 16, 64))
            await asyncio.sleep(0.5)
            async with asyncio.timeout(5), database.transaction() as work:
                await enrol(work, hnsw_collection, "quick", VECTORS[1, 0])
            assert not building.done()
            building.cancel()
            with pytest.raises(asyncio.CancelledError):
                await building
        await graph.drop_index()
    assert await list_hnsw_indexes(connection, hnsw_collection) == []


async def test_a_downgraded_schema_has_no_graphs(bare_database_url: str) -> None:
    await migrate.upgrade_schema(bare_database_url)
    database_name = bare_database_url.replace("+asyncpg", "")
    connection = await asyncpg.connect(database_name)
    await connection.execute(
        "CREATE TABLE faces_0 (LIKE faces INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE);"
        "CREATE INDEX faces_0_hnsw ON faces_0 USING hnsw ((embedding::halfvec(8)) halfvec_cosine_ops);"
        "ALTER TABLE faces ATTACH PARTITION faces_0 FOR VALUES IN ('00000000-0000-0000-0000-000000000000')"
    )
    await migrate.downgrade_schema(bare_database_url, "0004")

    assert await connection.fetchval("SELECT count(*) FROM pg_indexes WHERE indexname = 'faces_0_hnsw'") == 0
    await connection.close()
