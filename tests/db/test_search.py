"""The exact search: right, isolated, and only in the collection's own partition."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from vultus.db.database import Database
from vultus.db.repositories import ranking
from vultus.db.repositories.collections import partition_of
from vultus.domain import Fusion
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from vultus.db.database import Look, Work
    from vultus.domain import Collection, DecisionPolicy, FloatArray, NumberArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
SOON = datetime.now(UTC) + timedelta(hours=1)


async def names(database: Database, home: Collection, probe: FloatArray, limit: int = 5) -> list[str | None]:
    async with database.work(read_only=True) as work:
        (found,) = await work.faces.search(home.id, home.contract_id, probe[None, :], limit)
    return [candidate.external_id for candidate in found.candidates]


async def test_each_person_once_best_first(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        await enrol(work, home, "bob", towards(0, tilt=0.9))
        ada = await enrol(work, home, "ada", towards(0, tilt=0.2), towards(0), towards(0, tilt=0.4))

    async with database.work(read_only=True) as work:
        (found,) = await work.faces.search(home.id, home.contract_id, towards(0)[None, :], 5)

    assert [candidate.external_id for candidate in found.candidates] == ["ada", "bob"]
    assert found.gallery_size == 4
    best = found.candidates[0]
    assert (best.person_id, best.name, best.face_id) == (ada.person.id, "Ada", ada.faces[1].id)
    assert best.similarity == pytest.approx(1, abs=1e-3)
    assert found.candidates[1].similarity == pytest.approx(np.cos(0.9), abs=1e-3)


async def test_one_person_may_own_all_the_nearest_faces(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        await enrol(work, home, "ada", *(towards(0, tilt=0.001 * at) for at in range(40)))
        await enrol(work, home, "bob", towards(0, tilt=0.5))
        await enrol(work, home, "eve", towards(0, tilt=0.7))

    assert await names(database, home, towards(0), limit=2) == ["ada", "bob"]


async def test_an_expired_consent_hides_its_faces_at_once(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        ada = await enrol(work, home, "ada", towards(0), expires_at=SOON)
        await enrol(work, home, "bob", towards(0, tilt=0.3))
    assert await names(database, home, towards(0)) == ["ada", "bob"]

    async with database.work() as work:
        await work.consents.change(home.id, ada.consent.id, expires_at=datetime(2026, 1, 3, tzinfo=UTC))

    assert await names(database, home, towards(0)) == ["bob"]
    async with database.work(read_only=True) as work:
        assert await work.faces.best_of_person(home.id, ada.person.id, home.contract_id, towards(0)) is None
        assert await work.faces.count(home.id, home.contract_id) == 1


async def test_collections_and_contracts_never_meet(
    database: Database, home: Collection, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        other = await work.collections.add("other", home.contract_id, policy)
        await enrol(work, home, "ada", towards(0))
        await enrol(work, other, "eve", towards(0))
        await enrol(work, home, "old", towards(0), contract_id="another network")

    assert await names(database, home, towards(0)) == ["ada"]
    assert await names(database, other, towards(0)) == ["eve"]
    async with database.work(read_only=True) as work:
        assert await work.faces.best_of_person(other.id, uuid4(), home.contract_id, towards(0)) is None


async def test_an_empty_gallery_answers_every_probe(database: Database, home: Collection, towards: Towards) -> None:
    async with database.work(read_only=True) as work:
        found = await work.faces.search(home.id, home.contract_id, np.stack([towards(0), towards(1)]), 3)
        none = await work.faces.search(home.id, home.contract_id, np.empty((0, 8), np.float32), 3)

    assert [(result.candidates, result.gallery_size) for result in found] == [((), 0), ((), 0)]
    assert none == ()


async def test_the_closest_face_of_one_person(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        ada = await enrol(work, home, "ada", towards(0), towards(1), towards(2))
        await enrol(work, home, "bob", towards(1, tilt=0.1))
        best = await work.faces.best_of_person(home.id, ada.person.id, home.contract_id, towards(1, tilt=0.1))

    assert best is not None
    assert best[0] == pytest.approx(np.cos(0.1), abs=1e-3)
    assert best[1] == ada.faces[1].id


async def test_the_mean_of_several_faces_may_beat_a_single_close_one(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    """Ada's faces lie on either side of the probe; Bob's one face is nearer than each, Ada's mean is nearer still."""
    probe = towards(0)
    sides = [towards(0, tilt=0.5), towards(0, tilt=-0.5)]
    async with database.work() as work:
        ada = await enrol(work, home, "ada", *sides, towards(1))
        await work.faces.delete(home.id, ada.person.id, ada.faces[2].id)
        await enrol(work, home, "old", towards(0), contract_id="another network")
        await enrol(work, home, "bob", towards(0, tilt=0.3))

    async with database.work(read_only=True) as work:
        order = {}
        for fusion in Fusion:
            (found,) = await work.faces.search(home.id, home.contract_id, probe[None, :], 5, fusion)
            order[fusion] = [(one.external_id, round(one.similarity, 2)) for one in found.candidates]
        verified = await work.faces.best_of_person(home.id, ada.person.id, home.contract_id, probe, Fusion.MEAN)

    assert order == {Fusion.BEST: [("bob", 0.96), ("ada", 0.88)], Fusion.MEAN: [("ada", 1.0), ("bob", 0.96)]}
    assert verified is not None
    assert verified[0] == pytest.approx(1, abs=1e-3)
    assert verified[1] in {face.id for face in ada.faces[:2]}


def brute_force(
    vectors: FloatArray, owners: list[UUID], probe: FloatArray, limit: int, fusion: Fusion, shortlist: int
) -> tuple[list[float], dict[UUID, float]]:
    """Return the best similarities and the shortlisted persons', in float64 of the stored float16."""
    stored, asked = vectors.astype(np.float16).astype(np.float64), probe.astype(np.float16).astype(np.float64)
    cosines = stored @ asked / (np.linalg.norm(stored, axis=1) * np.linalg.norm(asked))
    best: dict[UUID, float] = {}
    for owner, cosine in zip(owners, cosines, strict=True):
        best[owner] = max(best.get(owner, -2), float(cosine))
    if fusion is Fusion.MEAN:
        closest = sorted(best, key=lambda owner: -best[owner])[: limit + shortlist]
        means = {owner: stored[[one == owner for one in owners]].mean(axis=0) for owner in closest}
        lengths = np.linalg.norm(asked)
        best = {owner: float(mean @ asked / np.linalg.norm(mean) / lengths) for owner, mean in means.items()}
    return sorted(best.values(), reverse=True)[:limit], best


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    owned=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    probes=st.integers(1, 4),
    limit=st.integers(1, 10),
    fusion=st.sampled_from(Fusion),
    shortlist=st.integers(0, 3),
)
async def test_search_equals_brute_force(
    database: Database,
    policy: DecisionPolicy,
    enrol: Enrol,
    seed: int,
    owned: list[int],
    probes: int,
    limit: int,
    fusion: Fusion,
    shortlist: int,
) -> None:
    random = np.random.default_rng(seed)

    def units(count: int) -> FloatArray:
        vectors = random.normal(size=(count, 16)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    vectors, asked = units(sum(owned)), units(probes)
    owners: list[UUID] = []
    async with database.work() as work:
        home = await work.collections.add(str(uuid4()), "contract", policy)
        for at, count in enumerate(owned):
            mine = vectors[len(owners) : len(owners) + count]
            person = (await enrol(work, home, str(at), *mine)).person
            owners += [person.id] * count
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranking, "SHORTLIST", shortlist)
            found = await work.faces.search(home.id, "contract", asked, limit, fusion)
        alone = [
            await work.faces.best_of_person(home.id, owner, "contract", asked[0], fusion)
            for owner in dict.fromkeys(owners)
        ]

    _, everybody = brute_force(vectors, owners, asked[0], len(owners), fusion, 0)
    rounding = 1e-6 if fusion is Fusion.BEST else 3e-4  # PostgreSQL rounds a mean to float16 once more
    for owner, one in zip(dict.fromkeys(owners), alone, strict=True):
        assert one is not None
        assert one[0] == pytest.approx(everybody[owner], abs=rounding)
    for probe, result in zip(asked, found, strict=True):
        expected, best = brute_force(vectors, owners, probe, limit, fusion, shortlist)
        cosines = [candidate.similarity for candidate in result.candidates]
        np.testing.assert_allclose(cosines, expected, atol=rounding)
        assert cosines == sorted(cosines, reverse=True)
        assert len({candidate.person_id for candidate in result.candidates}) == len(cosines)
        for candidate in result.candidates:
            assert candidate.similarity == pytest.approx(best[candidate.person_id], abs=rounding)
        assert result.gallery_size == len(owners)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    owned=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    newer=st.integers(0, 40),
    limit=st.integers(1, 10),
    fusion=st.sampled_from(Fusion),
)
async def test_an_index_that_proposes_the_closest_changes_nothing(
    database: Database,
    policy: DecisionPolicy,
    enrol: Enrol,
    seed: int,
    owned: list[int],
    newer: int,
    limit: int,
    fusion: Fusion,
) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(sum(owned) + 2, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked, vectors = vectors[:2], vectors[2:]
    async with database.work() as work:
        home = await work.collections.add(str(uuid4()), "contract", policy)
        for at, mine in enumerate(np.split(vectors, np.cumsum(owned)[:-1])):
            await enrol(work, home, str(at), *mine)

    async with database.work(read_only=True) as work:
        numbers = np.sort(await work.codes.numbers(home.id, "contract"))
        seen = numbers[: max(0, len(numbers) - newer)]
        after = int(seen[-1]) if len(seen) else 0
        proposals = [random.permutation(seen), np.concatenate([seen, seen, numbers])]
        expected = await work.faces.search(home.id, "contract", asked, limit, fusion)
        found = await work.faces.rescore(home.id, "contract", asked, proposals, after, limit, fusion)
        none = await work.faces.rescore(home.id, "contract", asked[:0], [], after, limit, fusion)

    assert [result.candidates for result in found] == [result.candidates for result in expected]
    assert {result.gallery_size for result in found} == {min(newer, len(numbers))}
    assert none == ()


async def test_an_index_proposes_and_the_database_disposes(
    database: Database, home: Collection, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        other = await work.collections.add("other", home.contract_id, policy)
        ada = await enrol(work, home, "ada", towards(0), towards(1))
        await enrol(work, home, "bob", towards(0, tilt=0.3))
        late = await enrol(work, home, "late", towards(0), expires_at=SOON)
        await enrol(work, home, "old", towards(0), contract_id="another network")
        await enrol(work, other, "far", towards(0))
        after = max(await work.codes.last_number(home.id), await work.codes.last_number(other.id))
        await enrol(work, home, "new", towards(0, tilt=0.6))
    everything = np.arange(after + 100, dtype=np.int64)

    async def found(*proposals: NumberArray) -> list[list[str | None]]:
        probes = np.stack([towards(0)] * len(proposals))
        async with database.work(read_only=True) as work:
            results = await work.faces.rescore(home.id, home.contract_id, probes, proposals, after, 5)
        assert {result.gallery_size for result in results} <= {1}
        return [[candidate.external_id for candidate in result.candidates] for result in results]

    assert await found(everything, everything[:0]) == [["ada", "late", "bob", "new"], ["new"]]
    async with database.work() as work:
        await work.consents.change(home.id, late.consent.id, expires_at=datetime(2026, 1, 3, tzinfo=UTC))
        await work.faces.delete(home.id, ada.person.id, ada.faces[0].id)
    assert await found(everything) == [["bob", "new", "ada"]]
    async with database.work() as work:
        await work.persons.delete(home.id, ada.person.id)
    assert await found(everything) == [["bob", "new"]]


async def plan_of(database: Database, ask: Callable[[Work], Awaitable[Any]]) -> str:
    """Return how PostgreSQL answers the last statement of a question."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    event.listen(database._engine.sync_engine, "before_cursor_execute", note)
    async with database.work(read_only=True) as work:
        await ask(work)
        event.remove(database._engine.sync_engine, "before_cursor_execute", note)
        connection = await work._session.connection()
        rows = await connection.exec_driver_sql(f"EXPLAIN {asked[-1][0]}", asked[-1][1])
        return "\n".join(row[0] for row in rows)


@pytest.fixture(params=[True, False], ids=["with statistics", "without"])
async def crowd(database: Database, home: Collection, request: pytest.FixtureRequest) -> UUID:
    """A collection with enough faces for an index to be worth reading; returns one of its persons."""
    async with database.work() as work:
        execute = work._session.execute
        await execute(
            text(
                "INSERT INTO persons (id, collection_id) SELECT gen_random_uuid(), :home FROM generate_series(1, 5000)"
            ),
            {"home": home.id},
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
            {"contract": home.contract_id},
        )
        if request.param:
            await execute(text(f"ANALYZE {partition_of(home.id)}"))
        (first,) = await work.persons.page(home.id, after=None, limit=1)
        return first.id


@pytest.mark.parametrize("fusion", Fusion)
async def test_a_search_reads_its_collections_partition_and_no_other(
    database: Database, home: Collection, policy: DecisionPolicy, crowd: UUID, towards: Towards, fusion: Fusion
) -> None:
    async with database.work() as work:
        other = await work.collections.add("other", "contract", policy)
    probe, contract = towards(0), home.contract_id
    number = f" {partition_of(home.id)}_number_idx"
    async with database.work(read_only=True) as work:
        newest = await work.codes.last_number(home.id)
    proposals = [np.arange(newest - 400, newest)]

    exact = await plan_of(database, lambda work: work.faces.search(home.id, contract, probe[None], 3, fusion))
    rescored = await plan_of(
        database, lambda work: work.faces.rescore(home.id, contract, probe[None], proposals, newest - 5, 3, fusion)
    )
    alone = await plan_of(database, lambda work: work.faces.best_of_person(home.id, crowd, contract, probe, fusion))
    last = await plan_of(database, lambda work: work.codes.last_number(home.id))

    for plan in (exact, rescored, alone, last):
        assert partition_of(other.id) not in plan
    assert partition_of(home.id) in exact
    assert rescored.count(number) == 3  # the proposals, and the newer ones counted and compared
    assert number in last
    for plan in (rescored, alone, last):
        assert "Seq Scan on faces" not in plan


async def test_only_a_statement_that_names_its_partition_keeps_its_plan(
    database_url: str, home: Collection, crowd: UUID, towards: Towards
) -> None:
    database = await Database.connect(database_url, DatabaseSettings(pool_size=1))
    probe, contract = towards(0)[None], home.contract_id
    async with database.work(read_only=True) as work:
        newest = await work.codes.last_number(home.id)
    proposals = [np.arange(newest - 400, newest)]

    async def rescore(work: Look, fusion: Fusion) -> None:
        await work.faces.rescore(home.id, contract, probe, proposals, newest - 5, 3, fusion)

    async def search_both_ways(work: Look, fusion: Fusion) -> None:
        await work.faces.search(home.id, contract, probe, 3, fusion)
        await rescore(work, fusion)

    for _ in range(3):
        for fusion in (Fusion.MEAN, Fusion.BEST):
            async with database.look() as look:
                await search_both_ways(look, fusion)
        async with database.work() as work:
            await search_both_ways(work, Fusion.BEST)

    async with database.look() as look:
        await rescore(look, Fusion.BEST)
        ask = look.faces._session.execute
        statements = await ask(
            text("SELECT name, parameter_types AS types FROM pg_prepared_statements WHERE generic_plans = 4"), {}
        )
        ((name, types),) = statements
        explained = await ask(text(f'EXPLAIN EXECUTE "{name}" ({", ".join(["NULL"] * len(types))})'), {})
        plan = "\n".join(row[0] for row in explained)
        anew = await ask(text("SELECT statement FROM pg_prepared_statements WHERE generic_plans = 0"), {})
        planned_anew = "\n".join(row.statement for row in anew)
    await database.close()

    assert plan.count(f" {partition_of(home.id)}_number_idx") == 3
    assert "Seq Scan on faces" not in plan
    assert planned_anew.count("FROM unnest") == 5  # three of the look, two of the transaction
