"""Two embedding spaces in one collection: constraints, erasure, coverage and unmigrated persons."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from vultus.db import migrate
from vultus.db.database import Database
from vultus.domain import NewCrop, NewFace
from vultus.errors import AlreadyExistsError, NotFoundError
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from vultus.db.database import UnitOfWork
    from vultus.domain import Collection, DecisionPolicy, FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
SECOND = "another"


def crop_of(face: Any, expires_at: datetime | None = None, **changes: Any) -> NewCrop:
    made = NewCrop(
        sealed=b"sealed",
        collection_id=face.collection_id,
        face_id=face.id,
        person_id=face.person_id,
        consent_id=face.consent_id,
        consent_expires_at=expires_at,
    )
    return replace(made, **changes)


@pytest.fixture
async def migrating(database: Database, collection: Collection) -> Collection:
    """A collection being migrated to a second embedding space."""
    async with database.transaction() as work:
        await work.migrations.add_migration(collection.id, SECOND, 0.0)
        return await work.collections.update_collection(collection.id, second_contract_id=SECOND)


async def count_rows(database_url: str, *tables: str) -> dict[str, int]:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    counts = {name: await connection.fetchval(f"SELECT count(*) FROM {name}") for name in tables}
    await connection.close()
    return counts


async def backfill_face(work: UnitOfWork, collection: Collection, face: Any, vector: FloatArray) -> bool:
    return await work.templates.add_second_template(collection.id, face.id, SECOND, vector)


async def test_a_face_in_two_spaces_is_one_face(
    database: Database, migrating: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, migrating, "ada", towards(0), towards(1))
        first, other = ada.faces
        assert await backfill_face(work, migrating, first, towards(2, size=16))
        assert not await backfill_face(work, migrating, first, towards(2, size=16))  # it has one already

    async with database.transaction(read_only=True) as work:
        assert await work.collections.count_persons_and_faces(migrating.id) == (1, 2)
        listed = await work.faces.list_faces(migrating.id, ada.person.id, migrating.space_id, after=None, limit=9)
        assert [(face.id, face.contract_id, face.contracts) for face in listed] == [
            (first.id, "contract", (SECOND, "contract")),
            (other.id, "contract", ("contract",)),
        ]
        fetched = await work.faces.get_face(migrating.id, ada.person.id, first.id, SECOND)
        assert fetched == replace(
            listed[0], contract_id=SECOND
        )  # quality, source and timestamp are those of the first template
        (found,) = await work.templates.search_exact(migrating.id, SECOND, towards(2, size=16)[None, :], 5)
        assert (found.gallery_size, [one.face_id for one in found.candidates]) == (1, [first.id])


async def test_erasing_deletes_every_template_the_crop_and_the_failure(
    database_url: str, database: Database, migrating: Collection, enrol: Enrol, towards: Towards
) -> None:
    async def count_remaining() -> dict[str, int]:
        return await count_rows(database_url, "faces", "crops", "carry_failures")

    async with database.transaction() as work:
        ada = await enrol(work, migrating, "ada", towards(0), towards(1))
        bob = await enrol(work, migrating, "bob", towards(2), towards(3))
        eve = await enrol(work, migrating, "eve", towards(4))
        for face in (*ada.faces, *bob.faces, *eve.faces):
            await backfill_face(work, migrating, face, towards(5))
            await work.crops.add_crops([crop_of(face)])
            await work.backfill.add_failure(migrating.id, face.id, SECOND, "no_face")
    assert await count_remaining() == {"faces": 10, "crops": 5, "carry_failures": 5}

    async with database.transaction() as work:
        await work.faces.delete_face(migrating.id, ada.person.id, ada.faces[0].id)
    assert await count_remaining() == {"faces": 8, "crops": 4, "carry_failures": 4}
    async with database.transaction() as work:
        assert await work.faces.delete_faces_by_consent(migrating.id, bob.consent.id) == 2
        await work.consents.withdraw_consent(migrating.id, bob.consent.id, datetime.now(UTC))
    assert await count_remaining() == {"faces": 4, "crops": 2, "carry_failures": 2}
    async with database.transaction() as work:
        assert (await work.persons.delete_person(migrating.id, ada.person.id)).faces == 1
    assert await count_remaining() == {"faces": 2, "crops": 1, "carry_failures": 1}
    async with database.transaction() as work:
        await work.collections.delete_collection(migrating.id)
    assert await count_remaining() == {"faces": 0, "crops": 0, "carry_failures": 0}


async def test_a_crop_stays_as_long_as_its_face_has_a_template(
    database_url: str, database: Database, migrating: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        (face,) = (await enrol(work, migrating, "ada", towards(0))).faces
        await backfill_face(work, migrating, face, towards(1))
        await work.crops.add_crops([crop_of(face)])
        await work.migrations.delete_migration(migrating.id, "contract")
        assert await work.templates.delete_templates(migrating.id, "contract") == 1
    assert await count_rows(database_url, "faces", "crops", "transitions") == {"faces": 1, "crops": 1, "transitions": 0}


async def test_no_crop_and_no_failure_without_its_face(
    database: Database, migrating: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        (face,) = (await enrol(work, migrating, "ada", towards(0))).faces
        gone = await enrol(work, migrating, "bob", towards(1))
        await work.faces.delete_faces_by_consent(migrating.id, gone.consent.id)

    for crop in (crop_of(gone.faces[0]), crop_of(face, consent_id=gone.consent.id)):
        with pytest.raises(NotFoundError):
            async with database.transaction() as work:
                await work.crops.add_crops([crop])
    with pytest.raises(NotFoundError, match="no such face"):
        async with database.transaction() as work:
            await work.backfill.add_failure(migrating.id, uuid4(), SECOND, "no_face")
    async with database.transaction() as work:
        assert not await backfill_face(work, migrating, gone.faces[0], towards(2))


async def test_the_same_photo_once_per_person_and_space(
    database: Database, migrating: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, migrating, "ada", towards(0))
        face = ada.faces[0]
    twice = NewFace(
        *(migrating.id, ada.person.id, ada.consent.id, None, "contract", towards(1), face.quality, 0.5),
        face.source_sha256,
    )

    with pytest.raises(AlreadyExistsError):
        async with database.transaction() as work:
            await work.templates.add_templates([twice])
    async with database.transaction() as work:
        await work.templates.add_templates([replace(twice, space_id=SECOND, id=face.id)])


async def test_coverage_and_unmigrated_persons(
    database: Database, migrating: Collection, enrol: Enrol, towards: Towards
) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    async with database.transaction() as work:
        ada = await enrol(work, migrating, "ada", towards(0), towards(1))
        bob = await enrol(work, migrating, "bob", towards(2))
        eve = await enrol(work, migrating, "eve", towards(3), towards(4), expires_at=soon)
        await enrol(work, migrating, "old", towards(5), expires_at=datetime.now(UTC) - timedelta(hours=1))
        nobody = await enrol(work, migrating, "nobody")
        await backfill_face(work, migrating, ada.faces[0], towards(0))
        await work.backfill.add_failure(migrating.id, ada.faces[1].id, SECOND, "no_face")
        await work.crops.add_crops([crop_of(eve.faces[0], soon)])
        assert await work.backfill.add_missing_crop_failures(migrating.id, SECOND) == 2

    async with database.transaction(read_only=True) as work:
        coverage = await work.migrations.compute_coverage(migrating.id, SECOND)
        full_coverage = await work.migrations.compute_coverage(migrating.id, "contract")
        assert (coverage.faces, coverage.missing, coverage.failed, coverage.pending) == (
            1,
            4,
            {"no_face": 1, "no_crop": 2},
            1,
        )
        assert coverage.persons_missing == 2
        assert (full_coverage.faces, full_coverage.missing, full_coverage.persons_missing) == (5, 0, 0)
        assert await work.backfill.list_pending_faces(migrating.id, SECOND, None, 9) == (eve.faces[0].id,)
        assert await work.backfill.list_pending_faces(migrating.id, SECOND, eve.faces[0].id, 9) == ()
        unmigrated = await work.migrations.list_unmigrated_persons(migrating.id, SECOND, None, 9)
        rest = await work.migrations.list_unmigrated_persons(migrating.id, SECOND, bob.person.id, 1)
    assert [(one.id, one.faces, one.reasons) for one in unmigrated if one.external_id != "old"] == [
        (bob.person.id, 1, ("no_crop",)),
        (eve.person.id, 2, ("no_crop",)),
        (nobody.person.id, 0, ()),
    ]
    assert [one.external_id for one in rest] == ["eve"]
    async with database.transaction() as work:
        assert await work.backfill.delete_failures(migrating.id) == 3
        assert len(await work.backfill.list_pending_faces(migrating.id, SECOND, None, 9)) == 4


async def test_one_worker_per_collection_and_another_after_its_lease_expired(
    database: Database, migrating: Collection
) -> None:
    one, other = uuid4(), uuid4()

    async def lease(worker: UUID, seconds: float = 60) -> bool:
        async with database.transaction() as work:
            return await work.migrations.acquire_lease(migrating.id, worker, seconds)

    assert [await lease(one), await lease(one, 0), await lease(other), await lease(one)] == [True, True, True, False]
    async with database.transaction() as work:
        await work.migrations.release_lease(migrating.id, other)
    assert await lease(one)


async def test_a_read_only_transaction_sees_one_snapshot(database: Database, collection: Collection) -> None:
    async with database.transaction(read_only=True) as reading:
        before = await reading.collections.get_collection(collection.id)
        async with database.transaction() as work:
            await work.collections.update_collection(collection.id, contract_id=SECOND)
        assert await reading.collections.get_collection(collection.id) == before


async def test_the_latest_disagreements_are_kept_until_their_persons_are_deleted(
    database: Database, migrating: Collection, enrol: Enrol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vultus.db.repositories.comparisons.MAX_SHADOW_DISAGREEMENTS", 2)
    async with database.transaction() as work:
        ada, bob = (await enrol(work, migrating, "ada")).person, (await enrol(work, migrating, "bob")).person
        await work.comparisons.add_shadow_comparison(migrating.id, agreed=True)
        await work.comparisons.add_shadow_comparison(migrating.id, agreed=False)
        for kind, persons in (("a", (None, None)), ("b", (ada.id, None)), ("c", (None, bob.id))):
            await work.comparisons.add_shadow_disagreement(migrating.id, kind, persons, {"contract": {}})
        compared, agreed, latest = await work.comparisons.get_shadow_statistics(migrating.id)
        assert (compared, agreed, [one.kind for one in latest]) == (2, 1, ["c", "b"])
        await work.persons.delete_person(migrating.id, bob.id)
        assert [one.kind for one in (await work.comparisons.get_shadow_statistics(migrating.id))[2]] == ["b"]


async def test_faces_survive_the_schema_migration_both_ways(
    bare_database_url: str, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    await migrate.upgrade_schema(bare_database_url, "0002")
    plain = bare_database_url.replace("+asyncpg", "")
    connection = await asyncpg.connect(plain)
    collection, person, consent, face = (uuid4() for _ in range(4))
    await connection.execute("INSERT INTO collections VALUES ($1, 'old', 'contract', '{}')", collection)
    await connection.execute(f"CREATE TABLE faces_{collection.hex} PARTITION OF faces FOR VALUES IN ('{collection}')")
    await connection.execute("INSERT INTO persons (id, collection_id) VALUES ($1, $2)", person, collection)
    await connection.execute(
        "INSERT INTO consents VALUES ($1, $2, $3, 'p', 'r', NULL, now())", consent, collection, person
    )
    await connection.execute(
        "INSERT INTO faces VALUES ($1, $2, $3, $4, true, 'infinity', 'contract', '[1,0]', 1, 1, 1, 1, 1, 1, 1, 'x')",
        *(collection, face, person, consent),
    )

    await migrate.upgrade_schema(bare_database_url)
    database = await Database.connect(bare_database_url, DatabaseSettings())
    async with database.transaction() as work:
        await work.migrations.add_migration(collection, SECOND, 0.0)
        assert await work.templates.add_second_template(collection, face, SECOND, towards(0))
        fresh = await work.collections.add_collection("new", "contract", policy)
        (other,) = (await enrol(work, fresh, "ada", towards(0))).faces
        await work.crops.add_crops([crop_of(other)])
        await work.faces.delete_face(fresh.id, other.person_id, other.id)
        assert not await work.sealed_values.has_any()  # the trigger is on partitions made before and after
    await database.close()
    await migrate.downgrade_schema(bare_database_url, "0002")

    rows = await connection.fetch("SELECT id, contract_id FROM faces")
    await connection.close()
    assert [tuple(row) for row in rows] == [(face, "contract")]
