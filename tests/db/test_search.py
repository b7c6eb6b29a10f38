"""The exact search: correct, isolated, and only in the collection's own partition."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vultus.db.database import Database
from vultus.db.templates import ranking
from vultus.domain import Fusion

if TYPE_CHECKING:
    from vultus.domain import Collection, DecisionPolicy, FloatArray, NumberArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
SOON = datetime.now(UTC) + timedelta(hours=1)


async def names(database: Database, collection: Collection, probe: FloatArray, limit: int = 5) -> list[str | None]:
    async with database.transaction(read_only=True) as work:
        (found,) = await work.templates.search_exact(collection.id, collection.space_id, probe[None, :], limit)
    return [candidate.external_id for candidate in found.candidates]


async def test_each_person_once_best_first(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        await enrol(work, collection, "bob", towards(0, tilt=0.9))
        ada = await enrol(work, collection, "ada", towards(0, tilt=0.2), towards(0), towards(0, tilt=0.4))

    async with database.transaction(read_only=True) as work:
        (found,) = await work.templates.search_exact(collection.id, collection.space_id, towards(0)[None, :], 5)

    assert [candidate.external_id for candidate in found.candidates] == ["ada", "bob"]
    assert found.gallery_size == 4
    best = found.candidates[0]
    assert (best.person_id, best.name, best.face_id) == (ada.person.id, "Ada", ada.faces[1].id)
    assert best.similarity == pytest.approx(1, abs=1e-3)
    assert found.candidates[1].similarity == pytest.approx(np.cos(0.9), abs=1e-3)


async def test_one_person_may_own_all_the_nearest_faces(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        await enrol(work, collection, "ada", *(towards(0, tilt=0.001 * at) for at in range(40)))
        await enrol(work, collection, "bob", towards(0, tilt=0.5))
        await enrol(work, collection, "eve", towards(0, tilt=0.7))

    assert await names(database, collection, towards(0), limit=2) == ["ada", "bob"]


async def test_an_expired_consent_hides_its_faces_immediately(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), expires_at=SOON)
        await enrol(work, collection, "bob", towards(0, tilt=0.3))
    assert await names(database, collection, towards(0)) == ["ada", "bob"]

    async with database.transaction() as work:
        await work.consents.update_consent(collection.id, ada.consent.id, expires_at=datetime(2026, 1, 3, tzinfo=UTC))

    assert await names(database, collection, towards(0)) == ["bob"]
    async with database.transaction(read_only=True) as work:
        assert (
            await work.templates.find_person_similarity(collection.id, ada.person.id, collection.space_id, towards(0))
            is None
        )
        assert await work.templates.count_templates(collection.id, collection.space_id) == 1


async def test_collections_and_spaces_are_isolated(
    database: Database, collection: Collection, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        other = await work.collections.add_collection("other", collection.space_id, policy)
        await enrol(work, collection, "ada", towards(0))
        await enrol(work, other, "eve", towards(0))
        await enrol(work, collection, "old", towards(0), space_id="another network")

    assert await names(database, collection, towards(0)) == ["ada"]
    assert await names(database, other, towards(0)) == ["eve"]
    async with database.transaction(read_only=True) as work:
        assert await work.templates.find_person_similarity(other.id, uuid4(), collection.space_id, towards(0)) is None


async def test_an_empty_gallery_returns_a_result_per_probe(
    database: Database, collection: Collection, towards: Towards
) -> None:
    async with database.transaction(read_only=True) as work:
        found = await work.templates.search_exact(
            collection.id, collection.space_id, np.stack([towards(0), towards(1)]), 3
        )
        none = await work.templates.search_exact(collection.id, collection.space_id, np.empty((0, 8), np.float32), 3)

    assert [(result.candidates, result.gallery_size) for result in found] == [((), 0), ((), 0)]
    assert none == ()


async def test_the_closest_face_of_one_person(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), towards(1), towards(2))
        await enrol(work, collection, "bob", towards(1, tilt=0.1))
        best = await work.templates.find_person_similarity(
            collection.id, ada.person.id, collection.space_id, towards(1, tilt=0.1)
        )

    assert best is not None
    assert best[0] == pytest.approx(np.cos(0.1), abs=1e-3)
    assert best[1] == ada.faces[1].id


async def test_the_mean_of_several_faces_may_beat_a_single_close_one(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    """Ada's faces lie on either side of the probe; Bob's one face is nearer than each, Ada's mean is nearer still."""
    probe = towards(0)
    sides = [towards(0, tilt=0.5), towards(0, tilt=-0.5)]
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", *sides, towards(1))
        await work.faces.delete_face(collection.id, ada.person.id, ada.faces[2].id)
        await enrol(work, collection, "old", towards(0), space_id="another network")
        await enrol(work, collection, "bob", towards(0, tilt=0.3))

    async with database.transaction(read_only=True) as work:
        order = {}
        for fusion in Fusion:
            (found,) = await work.templates.search_exact(collection.id, collection.space_id, probe[None, :], 5, fusion)
            order[fusion] = [(one.external_id, round(one.similarity, 2)) for one in found.candidates]
        verified = await work.templates.find_person_similarity(
            collection.id, ada.person.id, collection.space_id, probe, Fusion.MEAN
        )

    assert order == {Fusion.BEST: [("bob", 0.96), ("ada", 0.88)], Fusion.MEAN: [("ada", 1.0), ("bob", 0.96)]}
    assert verified is not None
    assert verified[0] == pytest.approx(1, abs=1e-3)
    assert verified[1] in {face.id for face in ada.faces[:2]}


def brute_force(
    vectors: FloatArray, owners: list[UUID], probe: FloatArray, limit: int, fusion: Fusion, shortlist: int
) -> tuple[list[float], dict[UUID, float]]:
    """Return the best similarities and those of the shortlisted persons, in float64 of the stored float16."""
    stored, stored_probe = vectors.astype(np.float16).astype(np.float64), probe.astype(np.float16).astype(np.float64)
    cosines = stored @ stored_probe / (np.linalg.norm(stored, axis=1) * np.linalg.norm(stored_probe))
    best: dict[UUID, float] = {}
    for owner, cosine in zip(owners, cosines, strict=True):
        best[owner] = max(best.get(owner, -2), float(cosine))
    if fusion is Fusion.MEAN:
        closest = sorted(best, key=lambda owner: -best[owner])[: limit + shortlist]
        means = {owner: stored[[one == owner for one in owners]].mean(axis=0) for owner in closest}
        lengths = np.linalg.norm(stored_probe)
        best = {owner: float(mean @ stored_probe / np.linalg.norm(mean) / lengths) for owner, mean in means.items()}
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

    vectors, probe_vectors = units(sum(owned)), units(probes)
    owners: list[UUID] = []
    async with database.transaction() as work:
        collection = await work.collections.add_collection(str(uuid4()), "contract", policy)
        for at, count in enumerate(owned):
            person_vectors = vectors[len(owners) : len(owners) + count]
            person = (await enrol(work, collection, str(at), *person_vectors)).person
            owners += [person.id] * count
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranking, "MEAN_SHORTLIST_SIZE", shortlist)
            found = await work.templates.search_exact(collection.id, "contract", probe_vectors, limit, fusion)
        alone = [
            await work.templates.find_person_similarity(collection.id, owner, "contract", probe_vectors[0], fusion)
            for owner in dict.fromkeys(owners)
        ]

    _, everybody = brute_force(vectors, owners, probe_vectors[0], len(owners), fusion, 0)
    rounding = 1e-6 if fusion is Fusion.BEST else 3e-4  # PostgreSQL rounds a mean to float16 once more
    for owner, one in zip(dict.fromkeys(owners), alone, strict=True):
        assert one is not None
        assert one[0] == pytest.approx(everybody[owner], abs=rounding)
    for probe, result in zip(probe_vectors, found, strict=True):
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
    probe_vectors, vectors = vectors[:2], vectors[2:]
    async with database.transaction() as work:
        collection = await work.collections.add_collection(str(uuid4()), "contract", policy)
        for at, person_vectors in enumerate(np.split(vectors, np.cumsum(owned)[:-1])):
            await enrol(work, collection, str(at), *person_vectors)

    async with database.transaction(read_only=True) as work:
        numbers = np.sort(await work.codes.list_template_numbers(collection.id, "contract"))
        indexed_numbers = numbers[: max(0, len(numbers) - newer)]
        after = int(indexed_numbers[-1]) if len(indexed_numbers) else 0
        proposals = [random.permutation(indexed_numbers), np.concatenate([indexed_numbers, indexed_numbers, numbers])]
        expected = await work.templates.search_exact(collection.id, "contract", probe_vectors, limit, fusion)
        found = await work.templates.rescore_proposals(
            collection.id, "contract", probe_vectors, proposals, after, limit, fusion
        )
        none = await work.templates.rescore_proposals(
            collection.id, "contract", probe_vectors[:0], [], after, limit, fusion
        )

    assert [result.candidates for result in found] == [result.candidates for result in expected]
    assert {result.gallery_size for result in found} == {min(newer, len(numbers))}
    assert none == ()


async def test_proposals_are_checked_against_the_database(
    database: Database, collection: Collection, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        other = await work.collections.add_collection("other", collection.space_id, policy)
        ada = await enrol(work, collection, "ada", towards(0), towards(1))
        await enrol(work, collection, "bob", towards(0, tilt=0.3))
        late = await enrol(work, collection, "late", towards(0), expires_at=SOON)
        await enrol(work, collection, "old", towards(0), space_id="another network")
        await enrol(work, other, "far", towards(0))
        after = max(
            await work.codes.get_last_template_number(collection.id),
            await work.codes.get_last_template_number(other.id),
        )
        await enrol(work, collection, "new", towards(0, tilt=0.6))
    everything = np.arange(after + 100, dtype=np.int64)

    async def found(*proposals: NumberArray) -> list[list[str | None]]:
        probes = np.stack([towards(0)] * len(proposals))
        async with database.transaction(read_only=True) as work:
            results = await work.templates.rescore_proposals(
                collection.id, collection.space_id, probes, proposals, after, 5
            )
        assert {result.gallery_size for result in results} <= {1}
        return [[candidate.external_id for candidate in result.candidates] for result in results]

    assert await found(everything, everything[:0]) == [["ada", "late", "bob", "new"], ["new"]]
    async with database.transaction() as work:
        await work.consents.update_consent(collection.id, late.consent.id, expires_at=datetime(2026, 1, 3, tzinfo=UTC))
        await work.faces.delete_face(collection.id, ada.person.id, ada.faces[0].id)
    assert await found(everything) == [["bob", "new", "ada"]]
    async with database.transaction() as work:
        await work.persons.delete_person(collection.id, ada.person.id)
    assert await found(everything) == [["bob", "new"]]
