"""Two contracts in one collection: what the schema forbids, what erasing takes along, who is missing where."""

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
    from vultus.db.database import Work
    from vultus.domain import Collection, DecisionPolicy, FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
SECOND = "another"


def crop_of(face: Any, expires_at: datetime | None = None, **changes: Any) -> NewCrop:
    made = NewCrop(
        key_id="k1",
        sealed=b"sealed",
        collection_id=face.collection_id,
        face_id=face.id,
        person_id=face.person_id,
        consent_id=face.consent_id,
        consent_expires_at=expires_at,
    )
    return replace(made, **changes)


@pytest.fixture
async def moving(database: Database, home: Collection) -> Collection:
    """A collection on its way to a second contract."""
    async with database.work() as work:
        await work.transitions.add(home.id, SECOND, 0.0)
        return await work.collections.change(home.id, second_contract_id=SECOND)


async def left(database_url: str, *tables: str) -> dict[str, int]:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    counts = {name: await connection.fetchval(f"SELECT count(*) FROM {name}") for name in tables}
    await connection.close()
    return counts


async def carry(work: Work, home: Collection, face: Any, vector: FloatArray) -> bool:
    return await work.carrying.carry(home.id, face.id, SECOND, vector)


async def test_a_face_of_two_contracts_is_one_face(
    database: Database, moving: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        ada = await enrol(work, moving, "ada", towards(0), towards(1))
        first, other = ada.faces
        assert await carry(work, moving, first, towards(2, size=16))
        assert not await carry(work, moving, first, towards(2, size=16))  # it has one

    async with database.work(read_only=True) as work:
        assert await work.collections.counts(moving.id) == (1, 2)
        listed = await work.faces.page(moving.id, ada.person.id, moving.contract_id, after=None, limit=9)
        assert [(face.id, face.contract_id, face.contracts) for face in listed] == [
            (first.id, "contract", (SECOND, "contract")),
            (other.id, "contract", ("contract",)),
        ]
        seen = await work.faces.get(moving.id, ada.person.id, first.id, SECOND)
        assert seen == replace(listed[0], contract_id=SECOND)  # quality, source and moment are the first one's
        (found,) = await work.faces.search(moving.id, SECOND, towards(2, size=16)[None, :], 5)
        assert (found.gallery_size, [one.face_id for one in found.candidates]) == (1, [first.id])


async def test_erasing_takes_every_template_the_crop_and_the_failure(
    database_url: str, database: Database, moving: Collection, enrol: Enrol, towards: Towards
) -> None:
    async def kept() -> dict[str, int]:
        return await left(database_url, "faces", "crops", "carry_failures")

    async with database.work() as work:
        ada = await enrol(work, moving, "ada", towards(0), towards(1))
        bob = await enrol(work, moving, "bob", towards(2), towards(3))
        eve = await enrol(work, moving, "eve", towards(4))
        for face in (*ada.faces, *bob.faces, *eve.faces):
            await carry(work, moving, face, towards(5))
            await work.crops.add_many([crop_of(face)])
            await work.carrying.fail(moving.id, face.id, SECOND, "no_face")
    assert await kept() == {"faces": 10, "crops": 5, "carry_failures": 5}

    async with database.work() as work:
        await work.faces.delete(moving.id, ada.person.id, ada.faces[0].id)
    assert await kept() == {"faces": 8, "crops": 4, "carry_failures": 4}
    async with database.work() as work:
        assert await work.faces.delete_by_consent(moving.id, bob.consent.id) == 2
        await work.consents.mark_withdrawn(moving.id, bob.consent.id, datetime.now(UTC))
    assert await kept() == {"faces": 4, "crops": 2, "carry_failures": 2}
    async with database.work() as work:
        assert (await work.persons.delete(moving.id, ada.person.id)).faces == 1
    assert await kept() == {"faces": 2, "crops": 1, "carry_failures": 1}
    async with database.work() as work:
        await work.collections.delete(moving.id)
    assert await kept() == {"faces": 0, "crops": 0, "carry_failures": 0}


async def test_a_crop_stays_as_long_as_its_face_has_a_template(
    database_url: str, database: Database, moving: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        (face,) = (await enrol(work, moving, "ada", towards(0))).faces
        await carry(work, moving, face, towards(1))
        await work.crops.add_many([crop_of(face)])
        assert await work.transitions.end(moving.id, "contract") == 1
    assert await left(database_url, "faces", "crops", "transitions") == {"faces": 1, "crops": 1, "transitions": 0}


async def test_no_crop_and_no_failure_without_its_face(
    database: Database, moving: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        (face,) = (await enrol(work, moving, "ada", towards(0))).faces
        gone = await enrol(work, moving, "bob", towards(1))
        await work.faces.delete_by_consent(moving.id, gone.consent.id)

    for crop in (crop_of(gone.faces[0]), crop_of(face, consent_id=gone.consent.id)):
        with pytest.raises(NotFoundError):
            async with database.work() as work:
                await work.crops.add_many([crop])
    with pytest.raises(NotFoundError, match="no such face"):
        async with database.work() as work:
            await work.carrying.fail(moving.id, uuid4(), SECOND, "no_face")
    async with database.work() as work:
        assert not await carry(work, moving, gone.faces[0], towards(2))


async def test_the_same_photo_once_a_person_and_contract(
    database: Database, moving: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        ada = await enrol(work, moving, "ada", towards(0))
        face = ada.faces[0]
    twice = NewFace(
        *(moving.id, ada.person.id, ada.consent.id, None, "contract", towards(1), face.quality, 0.5),
        face.source_sha256,
    )

    with pytest.raises(AlreadyExistsError):
        async with database.work() as work:
            await work.faces.add_many([twice])
    async with database.work() as work:
        await work.faces.add_many([replace(twice, contract_id=SECOND, id=face.id)])


async def test_who_is_missing_where(database: Database, moving: Collection, enrol: Enrol, towards: Towards) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    async with database.work() as work:
        ada = await enrol(work, moving, "ada", towards(0), towards(1))
        bob = await enrol(work, moving, "bob", towards(2))
        eve = await enrol(work, moving, "eve", towards(3), towards(4), expires_at=soon)
        await enrol(work, moving, "old", towards(5), expires_at=datetime.now(UTC) - timedelta(hours=1))
        nobody = await enrol(work, moving, "nobody")
        await carry(work, moving, ada.faces[0], towards(0))
        await work.carrying.fail(moving.id, ada.faces[1].id, SECOND, "no_face")
        await work.crops.add_many([crop_of(eve.faces[0], soon)])
        assert await work.carrying.fail_without_crop(moving.id, SECOND) == 2

    async with database.work(read_only=True) as work:
        side = await work.transitions.side(moving.id, SECOND)
        whole = await work.transitions.side(moving.id, "contract")
        assert (side.faces, side.missing, side.failed, side.pending) == (1, 4, {"no_face": 1, "no_crop": 2}, 1)
        assert side.persons_missing == 2
        assert (whole.faces, whole.missing, whole.persons_missing) == (5, 0, 0)
        assert await work.carrying.pending(moving.id, SECOND, None, 9) == (eve.faces[0].id,)
        assert await work.carrying.pending(moving.id, SECOND, eve.faces[0].id, 9) == ()
        behind = await work.transitions.left_behind(moving.id, SECOND, None, 9)
        rest = await work.transitions.left_behind(moving.id, SECOND, bob.person.id, 1)
    assert [(one.id, one.faces, one.reasons) for one in behind if one.external_id != "old"] == [
        (bob.person.id, 1, ("no_crop",)),
        (eve.person.id, 2, ("no_crop",)),
        (nobody.person.id, 0, ()),
    ]
    assert [one.external_id for one in rest] == ["eve"]
    async with database.work() as work:
        assert await work.carrying.forget_failures(moving.id) == 3
        assert len(await work.carrying.pending(moving.id, SECOND, None, 9)) == 4


async def test_one_worker_a_collection_and_the_next_when_it_died(database: Database, moving: Collection) -> None:
    one, other = uuid4(), uuid4()

    async def lease(worker: UUID, seconds: float = 60) -> bool:
        async with database.work() as work:
            return await work.transitions.lease(moving.id, worker, seconds)

    assert [await lease(one), await lease(one, 0), await lease(other), await lease(one)] == [True, True, True, False]
    async with database.work() as work:
        await work.transitions.release(moving.id, other)
    assert await lease(one)


async def test_a_reading_transaction_sees_one_moment(database: Database, home: Collection) -> None:
    async with database.work(read_only=True) as reading:
        before = await reading.collections.get(home.id)
        async with database.work() as work:
            await work.collections.change(home.id, contract_id=SECOND)
        assert await reading.collections.get(home.id) == before


async def test_the_latest_disagreements_are_kept_until_their_persons_go(
    database: Database, moving: Collection, enrol: Enrol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vultus.db.repositories.comparisons.KEPT_DISAGREEMENTS", 2)
    async with database.work() as work:
        ada, bob = (await enrol(work, moving, "ada")).person, (await enrol(work, moving, "bob")).person
        await work.comparisons.count_shadow(moving.id, agreed=True)
        await work.comparisons.count_shadow(moving.id, agreed=False)
        for kind, persons in (("a", (None, None)), ("b", (ada.id, None)), ("c", (None, bob.id))):
            await work.comparisons.add_disagreement(moving.id, kind, persons, {"contract": {}})
        compared, agreed, latest = await work.comparisons.shadow(moving.id)
        assert (compared, agreed, [one.kind for one in latest]) == (2, 1, ["c", "b"])
        await work.persons.delete(moving.id, bob.id)
        assert [one.kind for one in (await work.comparisons.shadow(moving.id))[2]] == ["b"]


async def test_faces_survive_the_migration_both_ways(
    bare_database_url: str, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    await migrate.upgrade(bare_database_url, "0002")
    plain = bare_database_url.replace("+asyncpg", "")
    connection = await asyncpg.connect(plain)
    home, person, consent, face = (uuid4() for _ in range(4))
    await connection.execute("INSERT INTO collections VALUES ($1, 'old', 'contract', '{}')", home)
    await connection.execute(f"CREATE TABLE faces_{home.hex} PARTITION OF faces FOR VALUES IN ('{home}')")
    await connection.execute("INSERT INTO persons (id, collection_id) VALUES ($1, $2)", person, home)
    await connection.execute("INSERT INTO consents VALUES ($1, $2, $3, 'p', 'r', NULL, now())", consent, home, person)
    await connection.execute(
        "INSERT INTO faces VALUES ($1, $2, $3, $4, true, 'infinity', 'contract', '[1,0]', 1, 1, 1, 1, 1, 1, 1, 'x')",
        *(home, face, person, consent),
    )

    await migrate.upgrade(bare_database_url)
    database = await Database.connect(bare_database_url, DatabaseSettings())
    async with database.work() as work:
        await work.transitions.add(home, SECOND, 0.0)
        assert await work.carrying.carry(home, face, SECOND, towards(0))
        fresh = await work.collections.add("new", "contract", policy)
        (other,) = (await enrol(work, fresh, "ada", towards(0))).faces
        await work.crops.add_many([crop_of(other)])
        await work.faces.delete(fresh.id, other.person_id, other.id)
        assert not await work.crops.exist()  # the trigger is on partitions made before and after
    await database.close()
    await migrate.downgrade(bare_database_url, "0002")

    rows = await connection.fetch("SELECT id, contract_id FROM faces")
    await connection.close()
    assert [tuple(row) for row in rows] == [(face, "contract")]
