"""What can never be stored, and where a template is not left behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import numpy as np
import pytest

from vultus.db.repositories.collections import partition_of
from vultus.db.tables import UNSAMPLED
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
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        ada = await enrol(work, home, "ada", *(towards(axis) for axis in range(5)))

    async with database.work(read_only=True) as work:
        first = await work.faces.page(home.id, ada.person.id, home.contract_id, after=None, limit=2)
        rest = await work.faces.page(home.id, ada.person.id, home.contract_id, after=first[-1].id, limit=9)
        single = await work.faces.get(home.id, ada.person.id, ada.faces[3].id, home.contract_id)
        sources = await work.faces.sources_of(home.id, ada.person.id)

    assert first + rest == ada.faces
    assert single == ada.faces[3]
    assert sources == {face.source_sha256 for face in ada.faces}
    assert (single.quality.pitch_deg, single.score) == (-2, 0.75)


async def test_no_face_without_a_live_consent(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        ada = await enrol(work, home, "ada", towards(0))
        bob = await enrol(work, home, "bob", towards(1))
        withdrawn = await enrol(work, home, "eve")
        await work.consents.mark_withdrawn(home.id, withdrawn.consent.id, NOW)

    wrong = [
        {"consent_id": uuid4()},
        {"consent_id": bob.consent.id},  # another person's
        {"person_id": withdrawn.person.id, "consent_id": withdrawn.consent.id},
        {"consent_expires_at": NOW + timedelta(days=1)},  # not the consent's own end
    ]
    for changes in wrong:
        with pytest.raises(NotFoundError, match="no such live consent"):
            async with database.work() as work:
                await work.faces.add_many([another(ada, towards(2), **changes)])


async def test_a_consent_with_faces_cannot_be_withdrawn(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        ada = await enrol(work, home, "ada", towards(0), towards(1))

    with pytest.raises(ConflictError, match="Faces still rest on this consent"):
        async with database.work() as work:
            await work.consents.mark_withdrawn(home.id, ada.consent.id, NOW)

    async with database.work() as work:
        assert await work.faces.delete_by_consent(home.id, ada.consent.id) == 2
        ended = await work.consents.mark_withdrawn(home.id, ada.consent.id, NOW)
        again = await work.consents.mark_withdrawn(home.id, ada.consent.id, NOW + timedelta(days=1))
    assert ended.withdrawn_at == again.withdrawn_at == NOW


async def test_the_program_cannot_mark_a_face_as_consented(
    database_url: str, database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        await enrol(work, home, "ada", towards(0))
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))

    with pytest.raises(asyncpg.CheckViolationError, match="ck_faces_consent_live"):
        await connection.execute("UPDATE faces SET consent_live = false")
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await connection.execute("UPDATE consents SET live = true")

    await connection.close()


async def test_the_same_photo_once_a_person(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        ada = await enrol(work, home, "ada", towards(0))

    with pytest.raises(AlreadyExistsError, match="already enrolled"):
        async with database.work() as work:
            await work.faces.add_many([another(ada, towards(1)), another(ada, towards(2))])

    async with database.work(read_only=True) as work:
        assert await work.faces.count(home.id, home.contract_id) == 1


async def test_a_removed_face_is_gone(database: Database, home: Collection, enrol: Enrol, towards: Towards) -> None:
    async with database.work() as work:
        ada = await enrol(work, home, "ada", towards(0), towards(1))
        await work.faces.delete(home.id, ada.person.id, ada.faces[0].id)

    async with database.work() as work:
        assert await work.faces.page(home.id, ada.person.id, home.contract_id, after=None, limit=9) == ada.faces[1:]
        with pytest.raises(NotFoundError):
            await work.faces.get(home.id, ada.person.id, ada.faces[0].id, home.contract_id)
        with pytest.raises(NotFoundError):
            await work.faces.delete(home.id, ada.person.id, ada.faces[0].id)


async def test_templates_lie_in_their_partition_alone(
    database_url: str, database: Database, home: Collection, enrol: Enrol
) -> None:
    """No TOAST table holds a second copy, and ANALYZE copies neither templates nor names."""
    random = np.random.default_rng(0)
    async with database.work() as work:
        for at in range(30):
            await enrol(work, home, f"person {at}", *random.normal(size=(10, 512)).astype(np.float32))
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    await connection.execute("ANALYZE")

    toast = await connection.fetchval("SELECT reltoastrelid FROM pg_class WHERE relname = $1", partition_of(home.id))
    sampled = await connection.fetch(
        "SELECT DISTINCT CASE WHEN tablename LIKE 'faces%' THEN 'faces' ELSE tablename END, attname FROM pg_stats"
    )
    await connection.close()

    assert toast == 0
    found = {tuple(row) for row in sampled}
    assert {("faces", "score"), ("persons", "id"), ("consents", "id")} <= found  # the scan sees what is sampled
    assert not found & {(table, column) for table, columns in UNSAMPLED.items() for column in columns}


async def test_templates_are_those_a_search_compares_by_person(
    database: Database, home: Collection, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        other = await work.collections.add("other", home.contract_id, policy)
        ada = await enrol(work, home, "ada", towards(0), towards(1))
        bob = await enrol(work, home, "bob", towards(2))
        await enrol(work, other, "eve", towards(0))
        await enrol(work, home, "old", towards(0), contract_id="another network")
        gone = await enrol(work, home, "gone", towards(3), expires_at=datetime.now(UTC) + timedelta(hours=1))
        await work.consents.change(home.id, gone.consent.id, expires_at=datetime(2026, 1, 3, tzinfo=UTC))

    async with database.work(read_only=True) as work:
        counts = await work.faces.per_person(home.id, home.contract_id)
        everybody = [ada.person.id, bob.person.id, gone.person.id]
        found = [one async for one in work.faces.templates(home.id, home.contract_id, everybody)]
        some = [one async for one in work.faces.templates(home.id, home.contract_id, [bob.person.id])]

    assert counts == {ada.person.id: 2, bob.person.id: 1}
    assert sorted(owner for owner, _ in found) == sorted([ada.person.id, ada.person.id, bob.person.id])
    assert [(owner, vector.tolist()) for owner, vector in some] == [(bob.person.id, towards(2).tolist())]
