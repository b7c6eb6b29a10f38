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
    from vultus.db.copying import ColumnBytes
    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import Collection, FloatArray

Enrol = Callable[..., Awaitable[Any]]
GRANTED = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
LATER = datetime.now(UTC).replace(microsecond=123) + timedelta(days=9)
PEOPLE = [("ada", "Ada Ĺ"), ("bob", None), ("", "")]


def random_vectors(count: int, size: int = 8) -> FloatArray:
    vectors = np.random.default_rng(0).normal(size=(count, size)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def sources(count: int) -> ColumnBytes:
    return np.arange(count * 32, dtype=np.uint8).reshape(count, 32)


async def add_consents(work: UnitOfWork, collection: Collection, persons: ColumnBytes, **changes: Any) -> ColumnBytes:
    fields = {"purpose": "entry", "recorded_by": "reception", "evidence_ref": None, "granted_at": GRANTED}
    return await work.bulk.add_consents(collection.id, persons, **{**fields, "expires_at": LATER, **changes})


async def add_faces(
    work: UnitOfWork, collection: Collection, persons: ColumnBytes, consents: ColumnBytes, **changes: Any
) -> None:
    count = len(persons)
    given: dict[str, Any] = {"persons": persons, "consents": consents, "expires_at": LATER}
    given |= {"vectors": random_vectors(count), "sources": sources(count), **changes}
    await work.templates.import_templates(collection.id, collection.space_id, **given)


async def test_rows_equal_those_added_one_at_a_time(database: Database, collection: Collection) -> None:
    codes = np.arange(48, dtype=np.uint8).reshape(3, 16)
    async with database.transaction() as work:
        persons = await work.bulk.add_persons(collection.id, PEOPLE)
        consents = await add_consents(work, collection, persons, evidence_ref="form 7")
        await add_faces(work, collection, persons, consents, codes=codes)

    async with database.transaction(read_only=True) as work:
        found = await work.persons.list_persons(collection.id, after=None, limit=9)
        (consent,) = await work.consents.list_live_consents(collection.id, found[0].id)
        (face,) = await work.faces.list_faces(collection.id, found[0].id, collection.space_id, after=None, limit=9)
        results = await work.templates.search_exact(collection.id, collection.space_id, random_vectors(3), 1)
        (block,) = [block async for block in work.codes.load_codes(collection.id, collection.space_id, 0)]
        taken = await work.bulk.find_taken_external_ids(collection.id, ["ada", "eve", ""])
        elsewhere = await work.bulk.find_taken_external_ids(uuid4(), ["ada"])

    assert [(person.external_id, person.name) for person in found] == PEOPLE
    assert [person.id.bytes for person in found] == [row.tobytes() for row in persons]
    assert (consent.purpose, consent.recorded_by, consent.evidence_ref) == ("entry", "reception", "form 7")
    assert (consent.granted_at, consent.expires_at, consent.id.bytes) == (GRANTED, LATER, consents[0].tobytes())
    assert (face.quality, face.score) == (Quality(0, 0, 0, 0, 0, 0), 0)
    assert face.source_sha256 == sources(1).tobytes().hex()
    assert [result.candidates[0].external_id for result in results] == ["ada", "bob", ""]
    np.testing.assert_array_equal(block.codes, codes)
    assert (taken, elsewhere) == ({"ada", ""}, set())


async def test_a_consent_without_end(database: Database, collection: Collection) -> None:
    async with database.transaction() as work:
        persons = await work.bulk.add_persons(collection.id, PEOPLE)
        consents = await add_consents(work, collection, persons, expires_at=None)
        await add_faces(work, collection, persons, consents, expires_at=None)
        (consent,) = await work.consents.list_live_consents(collection.id, UUID(bytes=persons[0].tobytes()))

        assert consent.expires_at is None
        assert await work.templates.count_templates(collection.id, collection.space_id) == 3


async def test_what_is_refused_one_at_a_time_is_refused_in_bulk(
    database: Database, collection: Collection, enrol: Enrol, towards: Callable[..., FloatArray]
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    known = np.frombuffer(ada.person.id.bytes + ada.consent.id.bytes, np.uint8).reshape(2, 1, 16)

    async def persons(work: UnitOfWork) -> None:
        await work.bulk.add_persons(collection.id, [("eve", None), ("ada", None)])

    async def nowhere(work: UnitOfWork) -> None:
        await work.bulk.add_persons(uuid4(), [("eve", None)])

    async def consents(work: UnitOfWork) -> None:
        await add_consents(work, collection, known[1])

    async def faces(work: UnitOfWork) -> None:
        await add_faces(work, collection, *known)  # ada's consent has no end, these faces do

    async def twice(work: UnitOfWork) -> None:
        both = np.repeat(known, 2, axis=1)
        await add_faces(work, collection, *both, expires_at=None, sources=np.zeros((2, 32), np.uint8))

    refusals: list[tuple[Callable[[UnitOfWork], Awaitable[None]], type[VultusError], str]] = [
        (persons, AlreadyExistsError, "external id"),
        (nowhere, NotFoundError, "collection"),
        (consents, NotFoundError, "person"),
        (faces, NotFoundError, "live consent"),
        (twice, AlreadyExistsError, "already enrolled"),
    ]
    for act, error, detail in refusals:
        with pytest.raises(error, match=detail):
            async with database.transaction() as work:
                await act(work)
