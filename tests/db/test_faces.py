"""What can never be stored, and where no copy of a template remains."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import numpy as np
import pytest

from vultus.db.repositories.collections import get_partition_name
from vultus.db.tables import UNSAMPLED_COLUMNS
from vultus.domain import NewFace
from vultus.errors import AlreadyExistsError, ConflictError, NotFoundError

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, DecisionPolicy, FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
NOW = datetime.now(UTC)


def another(ada: Any, vector: FloatArray, **changes: Any) -> NewFace:
    face = ada.faces[0]
    made = NewFace(
        face.collection_id,
        face.person_id,
        face.consent_id,
        ada.consent.expires_at,
        face.contract_id,
        vector,
        face.quality,
        face.score,
        "ab" * 32,
    )
    return replace(made, **changes)


async def test_a_face_comes_back_as_it_was_given(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", *(towards(axis) for axis in range(5)))

    async with database.transaction(read_only=True) as work:
        first = await work.faces.list_faces(collection.id, ada.person.id, collection.space_id, after=None, limit=2)
        rest = await work.faces.list_faces(
            collection.id, ada.person.id, collection.space_id, after=first[-1].id, limit=9
        )
        single = await work.faces.get_face(collection.id, ada.person.id, ada.faces[3].id, collection.space_id)
        sources = await work.faces.list_photo_digests(collection.id, ada.person.id)

    assert first + rest == ada.faces
    assert single == ada.faces[3]
    assert sources == {face.source_sha256 for face in ada.faces}
    assert (single.quality.pitch_deg, single.score) == (-2, 0.75)


async def test_no_face_without_a_live_consent(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
        bob = await enrol(work, collection, "bob", towards(1))
        withdrawn = await enrol(work, collection, "eve")
        await work.consents.withdraw_consent(collection.id, withdrawn.consent.id, NOW)

    wrong = [
        {"consent_id": uuid4()},
        {"consent_id": bob.consent.id},  # another person's
        {"person_id": withdrawn.person.id, "consent_id": withdrawn.consent.id},
        {"consent_expires_at": NOW + timedelta(days=1)},  # not the consent's own end
    ]
    for changes in wrong:
        with pytest.raises(NotFoundError, match="no such live consent"):
            async with database.transaction() as work:
                await work.templates.add_templates([another(ada, towards(2), **changes)])


async def test_a_consent_with_faces_cannot_be_withdrawn(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), towards(1))

    with pytest.raises(ConflictError, match="Faces still rest on this consent"):
        async with database.transaction() as work:
            await work.consents.withdraw_consent(collection.id, ada.consent.id, NOW)

    async with database.transaction() as work:
        assert await work.faces.delete_faces_by_consent(collection.id, ada.consent.id) == 2
        ended = await work.consents.withdraw_consent(collection.id, ada.consent.id, NOW)
        again = await work.consents.withdraw_consent(collection.id, ada.consent.id, NOW + timedelta(days=1))
    assert ended.withdrawn_at == again.withdrawn_at == NOW


async def test_the_program_cannot_mark_a_face_as_consented(
    database_url: str, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0))
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))

    with pytest.raises(asyncpg.CheckViolationError, match="ck_faces_consent_live"):
        await connection.execute("UPDATE faces SET consent_live = false")
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await connection.execute("UPDATE consents SET live = true")

    await connection.close()


async def test_the_same_photo_once_per_person(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))

    with pytest.raises(AlreadyExistsError, match="already enrolled"):
        async with database.transaction() as work:
            await work.templates.add_templates([another(ada, towards(1)), another(ada, towards(2))])

    async with database.transaction(read_only=True) as work:
        assert await work.templates.count_templates(collection.id, collection.space_id) == 1


async def test_a_removed_face_is_deleted(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), towards(1))
        await work.faces.delete_face(collection.id, ada.person.id, ada.faces[0].id)

    async with database.transaction() as work:
        assert (
            await work.faces.list_faces(collection.id, ada.person.id, collection.space_id, after=None, limit=9)
            == ada.faces[1:]
        )
        with pytest.raises(NotFoundError):
            await work.faces.get_face(collection.id, ada.person.id, ada.faces[0].id, collection.space_id)
        with pytest.raises(NotFoundError):
            await work.faces.delete_face(collection.id, ada.person.id, ada.faces[0].id)


async def test_templates_lie_in_their_partition_alone(
    owner_url: str, database: Database, collection: Collection, enrol: Enrol
) -> None:
    """No TOAST table holds a second copy, and ANALYZE copies neither templates nor names."""
    random = np.random.default_rng(0)
    async with database.transaction() as work:
        for at in range(30):
            await enrol(work, collection, f"person {at}", *random.normal(size=(10, 512)).astype(np.float32))
    connection = await asyncpg.connect(owner_url.replace("+asyncpg", ""))
    await connection.execute("ANALYZE")

    toast = await connection.fetchval(
        "SELECT reltoastrelid FROM pg_class WHERE relname = $1", get_partition_name(collection.id)
    )
    sampled = await connection.fetch(
        "SELECT DISTINCT CASE WHEN tablename LIKE 'faces%' THEN 'faces' ELSE tablename END, attname FROM pg_stats"
    )
    await connection.close()

    assert toast == 0
    found = {tuple(row) for row in sampled}
    assert {("faces", "score"), ("persons", "id"), ("consents", "id")} <= found  # the scan sees what is sampled
    assert not found & {(table, column) for table, columns in UNSAMPLED_COLUMNS.items() for column in columns}


async def test_templates_are_those_a_search_compares_by_person(
    database: Database, collection: Collection, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        other = await work.collections.add_collection("other", collection.space_id, policy)
        ada = await enrol(work, collection, "ada", towards(0), towards(1))
        bob = await enrol(work, collection, "bob", towards(2))
        await enrol(work, other, "eve", towards(0))
        await enrol(work, collection, "old", towards(0), space_id="another network")
        expired = await enrol(work, collection, "gone", towards(3), expires_at=datetime.now(UTC) + timedelta(hours=1))
        await work.consents.update_consent(
            collection.id, expired.consent.id, expires_at=datetime(2026, 1, 3, tzinfo=UTC)
        )

    async with database.transaction(read_only=True) as work:
        counts = await work.templates.count_templates_by_person(collection.id, collection.space_id)
        everybody = [ada.person.id, bob.person.id, expired.person.id]
        found = [one async for one in work.templates.stream_templates(collection.id, collection.space_id, everybody)]
        some = [
            one async for one in work.templates.stream_templates(collection.id, collection.space_id, [bob.person.id])
        ]

    assert counts == {ada.person.id: 2, bob.person.id: 1}
    assert sorted(owner for owner, _ in found) == sorted([ada.person.id, ada.person.id, bob.person.id])
    assert [(owner, vector.tolist()) for owner, vector in some] == [(bob.person.id, towards(2).tolist())]
