"""A search reads its collection's partition and no other, by a plan of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import event, text
from tests.db.test_search import Towards

from vultus.db.database import Database
from vultus.db.repositories.collections import get_partition_name
from vultus.domain import Fusion
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from vultus.db.database import HotQueries, UnitOfWork
    from vultus.domain import Collection, DecisionPolicy


async def plan_of(database: Database, run_query: Callable[[UnitOfWork], Awaitable[Any]]) -> str:
    """Return PostgreSQL's plan of the last statement of a query."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    event.listen(database._engine.sync_engine, "before_cursor_execute", note)
    async with database.transaction(read_only=True) as work:
        await run_query(work)
        event.remove(database._engine.sync_engine, "before_cursor_execute", note)
        connection = await work._session.connection()
        rows = await connection.exec_driver_sql(f"EXPLAIN {statements[-1][0]}", statements[-1][1])
        return "\n".join(row[0] for row in rows)


@pytest.fixture(params=[True, False], ids=["with statistics", "without"])
async def large_collection_person(database: Database, collection: Collection, request: pytest.FixtureRequest) -> UUID:
    """A collection with enough faces for an index to be worth reading; returns one of its persons."""
    async with database.transaction() as work:
        execute = work._session.execute
        await execute(
            text(
                "INSERT INTO persons (id, collection_id) SELECT gen_random_uuid(), :home FROM generate_series(1, 5000)"
            ),
            {"home": collection.id},
        )
        await execute(
            text(
                "INSERT INTO consents (id, collection_id, person_id, purpose, recorded_by, granted_at)"
                " SELECT id, collection_id, id, '', '', now() FROM persons"
            )
        )
        await execute(
            text(
                "INSERT INTO faces (collection_id, id, person_id, consent_id, consent_expires_at, contract_id,"
                " embedding, size_px, sharpness, brightness, yaw_deg, pitch_deg, roll_deg, score, source_sha256)"
                " SELECT collection_id, id, person_id, id, expires_at, :contract, '[1,0,0,0,0,0,0,0]',"
                " 0, 0, 0, 0, 0, 0, 0, '' FROM consents"
            ),
            {"contract": collection.space_id},
        )
        if request.param:
            await execute(text(f"ANALYZE {get_partition_name(collection.id)}"))
        (first,) = await work.persons.list_persons(collection.id, after=None, limit=1)
        return first.id


@pytest.mark.parametrize("fusion", Fusion)
async def test_a_search_reads_its_collections_partition_and_no_other(
    database: Database,
    collection: Collection,
    policy: DecisionPolicy,
    large_collection_person: UUID,
    towards: Towards,
    fusion: Fusion,
) -> None:
    async with database.transaction() as work:
        other = await work.collections.add_collection("other", "contract", policy)
    probe, space_id = towards(0), collection.space_id
    number = f" {get_partition_name(collection.id)}_number_idx"
    async with database.transaction(read_only=True) as work:
        newest = await work.codes.get_last_template_number(collection.id)
    proposals = [np.arange(newest - 400, newest)]

    exact = await plan_of(
        database, lambda work: work.templates.search_exact(collection.id, space_id, probe[None], 3, fusion)
    )
    rescored = await plan_of(
        database,
        lambda work: work.templates.rescore_proposals(
            collection.id, space_id, probe[None], proposals, newest - 5, 3, fusion
        ),
    )
    alone = await plan_of(
        database,
        lambda work: work.templates.find_person_similarity(
            collection.id, large_collection_person, space_id, probe, fusion
        ),
    )
    last = await plan_of(database, lambda work: work.codes.get_last_template_number(collection.id))

    for plan in (exact, rescored, alone, last):
        assert get_partition_name(other.id) not in plan
    assert get_partition_name(collection.id) in exact
    assert rescored.count(number) == 3  # the proposals, and the newer ones counted and compared
    assert number in last
    for plan in (rescored, alone, last):
        assert "Seq Scan on faces" not in plan


async def test_only_a_statement_that_names_its_partition_keeps_its_plan(
    database_url: str, collection: Collection, large_collection_person: UUID, towards: Towards
) -> None:
    database = await Database.connect(database_url, DatabaseSettings().model_copy(update={"pool_size": 1}))
    probe, space_id = towards(0)[None], collection.space_id
    async with database.transaction(read_only=True) as work:
        newest = await work.codes.get_last_template_number(collection.id)
    proposals = [np.arange(newest - 400, newest)]

    async def rescore(work: HotQueries, fusion: Fusion) -> None:
        await work.templates.rescore_proposals(collection.id, space_id, probe, proposals, newest - 5, 3, fusion)

    async def search_both_ways(work: HotQueries, fusion: Fusion) -> None:
        await work.templates.search_exact(collection.id, space_id, probe, 3, fusion)
        await rescore(work, fusion)

    for _ in range(3):
        for fusion in (Fusion.MEAN, Fusion.BEST):
            async with database.hot_queries() as queries:
                await search_both_ways(queries, fusion)
        async with database.transaction() as work:
            await search_both_ways(work, Fusion.BEST)

    async with database.hot_queries() as queries:
        await rescore(queries, Fusion.BEST)
        execute = queries.templates._session.execute
        statements = await execute(
            text("SELECT name, parameter_types AS types FROM pg_prepared_statements WHERE generic_plans = 4"), {}
        )
        ((name, types),) = statements
        explained = await execute(text(f'EXPLAIN EXECUTE "{name}" ({", ".join(["NULL"] * len(types))})'), {})
        plan = "\n".join(row[0] for row in explained)
        custom_plans = await execute(text("SELECT statement FROM pg_prepared_statements WHERE generic_plans = 0"), {})
        custom_planned = "\n".join(row.statement for row in custom_plans)
    await database.close()

    assert plan.count(f" {get_partition_name(collection.id)}_number_idx") == 3
    assert "Seq Scan on faces" not in plan
    assert custom_planned.count("FROM unnest") == 5  # three of the hot queries, two of the transaction
