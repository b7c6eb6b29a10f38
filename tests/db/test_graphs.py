"""An HNSW graph: the planner goes along it, nothing erased comes back, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import numpy as np
import pytest
from tests.db.test_indexing import SETTINGS, THRESHOLD
from tests.galleries import people

from vultus.db import migrate
from vultus.db.database import Database
from vultus.db.repositories import ranking
from vultus.db.repositories.collections import partition_of
from vultus.domain import Collection, Fusion, Graph, GraphLoss, SearchMode
from vultus.errors import ConflictError
from vultus.services.search.index_sync import Indexes
from vultus.services.search.request import Query, ways
from vultus.services.search.search import Searcher
from vultus.utils.ids import new_ids

PERSONS = 900  # below 100 pages of rows VACUUM would clean an index for a single dead one anyway
VECTORS = people(PERSONS)
LOSS = GraphLoss("mates", 1000, 0, 0.0, 0.0038, 9.0, 1.0)
GRAPH = Graph("contract", 16, 64, 100, datetime(2026, 1, 2, tzinfo=UTC), LOSS)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    yield connection
    await connection.close()


@pytest.fixture
async def along(database: Database, home: Collection) -> Collection:
    """A collection that is searched along its graph."""
    granted: dict[str, Any] = {
        "purpose": "tests",
        "recorded_by": "tests",
        "evidence_ref": None,
        "granted_at": datetime.now(UTC),
    }
    async with database.work() as work:
        persons = await work.bulk.add_persons(home.id, [(f"p{at}", None) for at in range(PERSONS)])
        consents = await work.bulk.add_consents(home.id, persons, **granted, expires_at=None)
        await work.bulk.add_faces(
            home.id,
            "contract",
            persons=np.repeat(persons, 2, axis=0),
            consents=np.repeat(consents, 2, axis=0),
            expires_at=None,
            vectors=VECTORS.reshape(2 * PERSONS, -1),
            sources=np.tile(new_ids(2 * PERSONS), 2),
        )
    async with database.graph_work(home.id) as graph:
        await graph.build("contract", 128, GRAPH.m, GRAPH.ef_construction)
    async with database.work() as work:
        await work.collections.search_along(home.id, GRAPH)
        return await work.collections.get(home.id)


def query(home: Collection, probes: Any, limit: int = 2) -> Query:
    return Query(home.id, "contract", probes, limit, Fusion.BEST, lambda _: (THRESHOLD, 0.01), **ways(home, "contract"))


async def search(database: Database, home: Collection, probes: Any, limit: int = 2) -> list[list[str | None]]:
    searcher = Searcher(Indexes(database, SETTINGS), SETTINGS)
    async with database.work(read_only=True) as work:
        found = await searcher.search(work, query(home, probes, limit))
    return [[candidate.external_id for candidate in one.candidates] for one in found]


async def indexes(connection: asyncpg.Connection, home: Collection) -> list[str]:
    rows = await connection.fetch(
        "SELECT indexdef FROM pg_indexes WHERE tablename = $1 AND indexdef LIKE '%hnsw%'", partition_of(home.id)
    )
    return [row["indexdef"] for row in rows]


async def test_the_planner_goes_along_the_graph(database: Database, along: Collection) -> None:
    """Even among few faces; the exact search beside it compares every one."""
    values = ranking.values(along.id, "contract", VECTORS[:2, 0], 2, Fusion.BEST)
    plans = []
    async with database.work(read_only=True) as work:
        await work._session.execute(ranking.SET_UP, {"ef_search": "100"})
        for statement in (ranking.search_along(Fusion.BEST, 128), ranking.SEARCH[Fusion.BEST]):
            explained = statement.bindparams()
            explained.text = "EXPLAIN " + statement.text
            rows = await work._session.execute(explained, values | {"partition": partition_of(along.id)})
            plans.append("\n".join(rows.scalars()))

    assert f"Index Scan using {partition_of(along.id)}_hnsw" in plans[0]
    assert "hnsw" not in plans[1]


async def test_a_search_along_the_graph_says_what_it_meets(database: Database, along: Collection) -> None:
    assert (along.search, along.graph) == (SearchMode.HNSW, GRAPH)
    found = await search(database, along, VECTORS[:50, 0])
    async with database.work(read_only=True) as work:
        (mean,) = await work.faces.search_along(along.id, GRAPH, VECTORS[7:8, 0], 1, Fusion.MEAN)

    assert [names[0] for names in found] == [f"p{at}" for at in range(50)]
    assert all(len(names) == 2 for names in found)
    assert (mean.candidates[0].external_id, mean.gallery_size) == ("p7", 2 * PERSONS)
    assert mean.candidates[0].similarity < 0.9999


async def test_new_faces_are_met_and_erased_and_expired_ones_are_not(
    database: Database, along: Collection, enrol: Callable[..., Awaitable[Any]]
) -> None:
    (newcomer, passing) = people(2, seed=5)[:, 0]
    soon = datetime.now(UTC) + timedelta(seconds=1)
    async with database.work() as work:
        await enrol(work, along, "new", newcomer)
        await enrol(work, along, "passing", passing, expires_at=soon)
        gone = (await search_persons(work, along, VECTORS[3, 0]))[0]
        await work.persons.delete(along.id, gone)
    before = await search(database, along, np.stack([newcomer, passing, VECTORS[3, 0]]))
    await asyncio.sleep(1.1)
    after = await search(database, along, np.stack([newcomer, passing, VECTORS[3, 0]]))

    assert [names[0] for names in before[:2]] == ["new", "passing"]
    assert after[0][0] == "new"
    assert "passing" not in after[1]
    assert "p3" not in before[2] + after[2]
    assert [len(names) for names in after] == [2, 2, 2]


async def search_persons(work: Any, home: Collection, probe: Any) -> list[Any]:
    (found,) = await work.faces.search(home.id, "contract", probe[None], 1)
    return [candidate.person_id for candidate in found.candidates]


async def test_one_person_with_the_nearest_faces_does_not_hide_the_others(
    database: Database, along: Collection, enrol: Callable[..., Awaitable[Any]]
) -> None:
    """More faces of one person than a search looks at: then every person is compared."""
    (vector,) = people(1, seed=21)[:, 0]
    async with database.work() as work:
        await enrol(work, along, "often", *(vector + 1e-3 * people(60, seed=8)[:, 0]))

    (names,) = await search(database, along, vector[None], limit=3)
    assert (names[0], len(names)) == ("often", 3)


async def test_other_modes_and_other_networks_do_not_use_it(database: Database, along: Collection) -> None:
    assert ways(along, "another") == {"exact": False, "graph": None}
    exact = replace(along, search=SearchMode.EXACT, graph=None)
    assert ways(exact, "contract") == {"exact": True, "graph": None}
    searcher = Searcher(Indexes(database, SETTINGS), SETTINGS)
    async with database.work(read_only=True) as work:
        assert await searcher.inexactly_if_so(work, query(exact, VECTORS[:1, 0])) is None
        assert await searcher.inexactly_if_so(work, query(along, VECTORS[:1, 0])) is not None


async def test_only_collections_that_may_have_a_candidate_index_get_one(database: Database, along: Collection) -> None:
    async with database.work() as work:
        assert await work.codes.sizes() == []
        await work.collections.change(along.id, second_contract_id="another")
        assert [size.contract_id for size in await work.codes.sizes()] == ["another"]
        await work.collections.change(along.id, search=SearchMode.EXACT)
        assert await work.codes.sizes() == []
        await work.collections.change(along.id, search=SearchMode.AUTO)
        assert {size.contract_id for size in await work.codes.sizes()} == {"another", "contract"}


async def test_a_graph_that_loses_more_than_it_did_is_doubted(
    database: Database, along: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    """An index without its rows, as a defect would leave it: the repetition sees it, and SQL searches from then on."""
    searcher = Searcher(Indexes(database, SETTINGS), SETTINGS)
    asked = query(along, VECTORS[:20, 0])
    await searcher.repeat(asked, database)
    watched = searcher._indexes.watch.seen[asked.key]
    assert (watched.probes, watched.disagreed, watched.doubted) == (20, 0, False)

    lost = replace(asked, graph=replace(GRAPH, contract_id="nobody"))
    for doubted in (True, True):
        await searcher.repeat(lost, database)
        assert searcher._indexes.watch.seen[lost.key].doubted is doubted
    assert "an HNSW graph lost 20" in caplog.text
    async with database.work(read_only=True) as work:
        assert await searcher.inexactly_if_so(work, lost) is None


async def test_what_chance_adds_to_a_measured_loss_is_no_reason_to_doubt(database: Database) -> None:
    watch = Indexes(database, SETTINGS).watch
    lossy = replace(GRAPH, loss=replace(LOSS, lost=20, high=0.03))
    one = Query(uuid4(), "contract", VECTORS[:1, 0], 1, Fusion.BEST, lambda _: (THRESHOLD, 0.01), graph=lossy)

    assert watch._allowed(one, 1000) == pytest.approx(30 + 3 * 30**0.5)
    assert watch._allowed(replace(one, graph=None), 1000) == pytest.approx(1)


async def test_off_again_nothing_is_left(database: Database, along: Collection, connection: Any) -> None:
    (built,) = await indexes(connection, along)
    kept_clean = "SELECT reloptions FROM pg_class WHERE relname = $1"
    before = await connection.fetchval(kept_clean, partition_of(along.id))
    async with database.graph_work(along.id) as graph:
        await graph.drop()
        await graph.drop()

    assert "m='16', ef_construction='64'" in built
    assert "vacuum_index_cleanup=on" in before
    assert await indexes(connection, along) == []
    assert await connection.fetchval(kept_clean, partition_of(along.id)) is None


async def test_an_unfinished_graph_is_built_anew(database: Database, along: Collection, connection: Any) -> None:
    """What a killed build leaves: an index that PostgreSQL does not search."""
    name = f"{partition_of(along.id)}_hnsw"
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = $1::text::regclass"
    await connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = $1::text::regclass", name)
    assert await connection.fetchval(valid, name) is False
    async with database.graph_work(along.id) as graph:
        await graph.build("contract", 128, 16, 64)

    assert await connection.fetchval(valid, name) is True


async def test_vacuum_takes_erased_vectors_out_of_the_graph(
    database: Database, along: Collection, connection: Any
) -> None:
    """Even one among hundreds, which by default it would leave; autovacuum does the same."""
    sought = VECTORS[3, 0].astype("<f2").tobytes()

    async def pages() -> bytes:
        await connection.execute("CHECKPOINT")
        path = f"pg_read_binary_file(pg_relation_filepath('{partition_of(along.id)}_hnsw'))"
        return bytes(await connection.fetchval(f"SELECT {path}"))

    assert sought in await pages()
    async with database.work() as work:
        await work.persons.delete(along.id, (await search_persons(work, along, VECTORS[3, 0]))[0])
    assert sought in await pages()
    await connection.execute(f"VACUUM {partition_of(along.id)}")
    assert sought not in await pages()


async def test_two_do_not_build_at_once_and_the_killed_one_does_not_stay(database: Database, home: Collection) -> None:
    async with database.graph_work(home.id):
        with pytest.raises(ConflictError, match="being built"):
            async with database.graph_work(home.id):
                raise AssertionError
    async with database.graph_work(home.id):
        pass


async def test_registrations_go_on_while_a_graph_is_built(
    database: Database, along: Collection, enrol: Callable[..., Awaitable[Any]], connection: Any
) -> None:
    """The build waits for a reader that began before it; nobody waits for the build, and stopped it leaves nothing."""
    async with database.graph_work(along.id) as graph:
        await graph.drop()
        async with database.work(read_only=True) as reader:
            await reader.collections.counts(along.id)
            building = asyncio.create_task(graph.build("contract", 128, 16, 64))
            await asyncio.sleep(0.5)
            async with asyncio.timeout(5), database.work() as work:
                await enrol(work, along, "quick", VECTORS[1, 0])
            assert not building.done()
            building.cancel()
            with pytest.raises(asyncio.CancelledError):
                await building
        await graph.drop()
    assert await indexes(connection, along) == []


async def test_a_smaller_schema_has_no_graphs(bare_database_url: str) -> None:
    await migrate.upgrade(bare_database_url)
    database_name = bare_database_url.replace("+asyncpg", "")
    connection = await asyncpg.connect(database_name)
    await connection.execute(
        "CREATE TABLE faces_0 (LIKE faces INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE);"
        "CREATE INDEX faces_0_hnsw ON faces_0 USING hnsw ((embedding::halfvec(8)) halfvec_cosine_ops);"
        "ALTER TABLE faces ATTACH PARTITION faces_0 FOR VALUES IN ('00000000-0000-0000-0000-000000000000')"
    )
    await migrate.downgrade(bare_database_url, "0004")

    assert await connection.fetchval("SELECT count(*) FROM pg_indexes WHERE indexname = 'faces_0_hnsw'") == 0
    await connection.close()
