"""Thousands at once: the same rows, and the same refusals, as one at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from vultus.domain import Quality
from vultus.errors import AlreadyExistsError, NotFoundError, VultusError

if TYPE_CHECKING:
    from vultus.db.copying import Bytes
    from vultus.db.database import Database, Work
    from vultus.domain import Collection, FloatArray

Enrol = Callable[..., Awaitable[Any]]
GRANTED = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
LATER = datetime.now(UTC).replace(microsecond=123) + timedelta(days=9)
PEOPLE = [("ada", "Ada Ĺ"), ("bob", None), ("", "")]


def random_vectors(count: int, size: int = 8) -> FloatArray:
    vectors = np.random.default_rng(0).normal(size=(count, size)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def sources(count: int) -> Bytes:
    return np.arange(count * 32, dtype=np.uint8).reshape(count, 32)


async def add_consents(work: Work, home: Collection, persons: Bytes, **changes: Any) -> Bytes:
    told = {"purpose": "entry", "recorded_by": "reception", "evidence_ref": None, "granted_at": GRANTED}
    return await work.bulk.add_consents(home.id, persons, **{**told, "expires_at": LATER, **changes})


async def add_faces(work: Work, home: Collection, persons: Bytes, consents: Bytes, **changes: Any) -> None:
    count = len(persons)
    given = {"vectors": random_vectors(count), "sources": sources(count), "expires_at": LATER, **changes}
    await work.bulk.add_faces(home.id, home.contract_id, persons=persons, consents=consents, **given)


async def test_rows_are_those_one_at_a_time_would_have(database: Database, home: Collection) -> None:
    codes = np.arange(48, dtype=np.uint8).reshape(3, 16)
    async with database.work() as work:
        persons = await work.bulk.add_persons(home.id, PEOPLE)
        consents = await add_consents(work, home, persons, evidence_ref="form 7")
        await add_faces(work, home, persons, consents, codes=codes)

    async with database.work(read_only=True) as work:
        found = await work.persons.page(home.id, after=None, limit=9)
        (consent,) = await work.consents.live_for(home.id, found[0].id)
        (face,) = await work.faces.page(home.id, found[0].id, home.contract_id, after=None, limit=9)
        results = await work.faces.search(home.id, home.contract_id, random_vectors(3), 1)
        (block,) = [block async for block in work.codes.load(home.id, home.contract_id, 0)]
        taken = await work.bulk.taken(home.id, ["ada", "eve", ""])
        elsewhere = await work.bulk.taken(uuid4(), ["ada"])

    assert [(person.external_id, person.name) for person in found] == PEOPLE
    assert [person.id.bytes for person in found] == [row.tobytes() for row in persons]
    assert (consent.purpose, consent.recorded_by, consent.evidence_ref) == ("entry", "reception", "form 7")
    assert (consent.granted_at, consent.expires_at, consent.id.bytes) == (GRANTED, LATER, consents[0].tobytes())
    assert (face.quality, face.score) == (Quality(0, 0, 0, 0, 0, 0), 0)
    assert face.source_sha256 == sources(1).tobytes().hex()
    assert [result.candidates[0].external_id for result in results] == ["ada", "bob", ""]
    np.testing.assert_array_equal(block.codes, codes)
    assert (taken, elsewhere) == ({"ada", ""}, set())


async def test_a_consent_without_end(database: Database, home: Collection) -> None:
    async with database.work() as work:
        persons = await work.bulk.add_persons(home.id, PEOPLE)
        consents = await add_consents(work, home, persons, expires_at=None)
        await add_faces(work, home, persons, consents, expires_at=None)
        (consent,) = await work.consents.live_for(home.id, UUID(bytes=persons[0].tobytes()))

        assert consent.expires_at is None
        assert await work.faces.count(home.id, home.contract_id) == 3


async def test_what_one_at_a_time_would_refuse_is_refused(
    database: Database, home: Collection, enrol: Enrol, towards: Callable[..., FloatArray]
) -> None:
    async with database.work() as work:
        ada = await enrol(work, home, "ada", towards(0))
    known = np.frombuffer(ada.person.id.bytes + ada.consent.id.bytes, np.uint8).reshape(2, 1, 16)

    async def persons(work: Work) -> None:
        await work.bulk.add_persons(home.id, [("eve", None), ("ada", None)])

    async def nowhere(work: Work) -> None:
        await work.bulk.add_persons(uuid4(), [("eve", None)])

    async def consents(work: Work) -> None:
        await add_consents(work, home, known[1])

    async def faces(work: Work) -> None:
        await add_faces(work, home, *known)  # ada's consent has no end, these faces do

    async def twice(work: Work) -> None:
        both = np.repeat(known, 2, axis=1)
        await add_faces(work, home, *both, expires_at=None, sources=np.zeros((2, 32), np.uint8))

    refusals: list[tuple[Callable[[Work], Awaitable[None]], type[VultusError], str]] = [
        (persons, AlreadyExistsError, "external id"),
        (nowhere, NotFoundError, "collection"),
        (consents, NotFoundError, "person"),
        (faces, NotFoundError, "live consent"),
        (twice, AlreadyExistsError, "already enrolled"),
    ]
    for act, error, told in refusals:
        with pytest.raises(error, match=told):
            async with database.work() as work:
                await act(work)
