"""What an index is made from: numbers in the order of commits, codes, and how a collection has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import text

from vultus.db import copying
from vultus.db.copying import read_columns
from vultus.domain import QuantizerParameters
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import CodeArray, Collection, DecisionPolicy, FloatArray, NumberArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
SECOND = "another network"


def codes_of(numbers: NumberArray, width: int = 16) -> CodeArray:
    """Return a code derived from each number."""
    return (numbers[:, None] * 7 + np.arange(width)).astype(np.uint8)


async def load_codes(work: UnitOfWork, collection: Collection, after: int = 0) -> dict[int, bytes]:
    found = dict[int, bytes]()
    async for block in work.codes.load_codes(collection.id, collection.space_id, after):
        found.update(zip(block.numbers.tolist(), (code.tobytes() for code in block.codes), strict=True))
    return found


async def test_codes_are_computed_stored_and_loaded(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "BLOCK_BYTES", 100)
    async with database.transaction() as work:
        await enrol(work, collection, "ada", *(towards(axis, tilt=0.1) for axis in range(5)))
        await enrol(work, collection, "bob", towards(0), space_id=SECOND)
        numbers, vectors = await work.templates.list_uncoded_templates(collection.id, collection.space_id, 0, 10)
        assert await load_codes(work, collection) == {}

        await work.codes.update_codes(collection.id, collection.space_id, numbers[1:], codes_of(numbers[1:]))

    np.testing.assert_allclose(vectors, np.stack([towards(axis, tilt=0.1) for axis in range(5)]), atol=1e-3)
    assert (np.diff(numbers) > 0).all()
    async with database.transaction(read_only=True) as work:
        expected = {int(number): codes_of(np.array([number])).tobytes() for number in numbers[1:]}
        assert await load_codes(work, collection) == expected
        assert (await load_codes(work, collection, after=int(numbers[2]))).keys() == set(numbers[3:].tolist())
        uncoded, _ = await work.templates.list_uncoded_templates(collection.id, collection.space_id, 0, 10)
        none, nothing = await work.templates.list_uncoded_templates(
            collection.id, collection.space_id, int(numbers[0]), 10
        )
        assert uncoded.tolist() == [numbers[0]]
        assert (none.shape, nothing.shape) == ((0,), (0, 0))
        assert (
            sorted((await work.codes.list_template_numbers(collection.id, collection.space_id)).tolist())
            == numbers.tolist()
        )
        assert await work.codes.get_last_template_number(collection.id) == numbers[-1] + 1
        assert len(await work.codes.list_template_numbers(collection.id, "no such")) == 0


async def test_numbers_rise_in_the_order_of_commits(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    """A writer waits for the one before it until its number is drawn, even if it did not take the lock itself."""
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    writing = asyncio.Event()

    async def add_second_template() -> int:
        async with database.transaction() as work:
            writing.set()
            await work.templates.add_second_template(collection.id, ada.faces[0].id, SECOND, towards(1))
            return await work.codes.get_last_template_number(collection.id)

    async with database.transaction() as work:
        await enrol(work, collection, "bob", towards(2))
        later = asyncio.create_task(add_second_template())
        await writing.wait()
        await asyncio.sleep(0.1)
        assert not later.done()
        await enrol(work, collection, "eve", towards(3))
        earlier = await work.codes.get_last_template_number(collection.id)

    assert await later > earlier


async def test_the_first_quantizer_is_kept(database: Database, collection: Collection, towards: Towards) -> None:
    first = QuantizerParameters(collection.id, collection.space_id, towards(0, tilt=0.3), 1024)
    async with database.transaction() as work:
        assert await work.codes.find_quantizer(collection.id, collection.space_id) is None
        added = await work.codes.add_quantizer(first)
    async with database.transaction() as work:
        kept = await work.codes.add_quantizer(QuantizerParameters(collection.id, collection.space_id, towards(1), 512))
        with pytest.raises(NotFoundError, match="no such collection"):
            await work.codes.add_quantizer(QuantizerParameters(uuid4(), collection.space_id, towards(1), 512))

    assert (kept.bits, kept.collection_id, kept.space_id) == (
        1024,
        collection.id,
        collection.space_id,
    )
    np.testing.assert_array_equal(kept.centre, first.centre.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(added.centre, kept.centre)


async def test_a_quantizer_is_deleted_with_its_space_and_with_its_collection(
    database: Database, collection: Collection, towards: Towards
) -> None:
    async with database.transaction() as work:
        await work.codes.add_quantizer(QuantizerParameters(collection.id, collection.space_id, towards(0), 512))
        await work.codes.add_quantizer(QuantizerParameters(collection.id, SECOND, towards(0), 512))
        await work.migrations.delete_migration(collection.id, SECOND)
        assert await work.codes.find_quantizer(collection.id, SECOND) is None
        assert await work.codes.find_quantizer(collection.id, collection.space_id) is not None

        await work.collections.delete_collection(collection.id)
        assert await work.codes.find_quantizer(collection.id, collection.space_id) is None


async def test_a_backfilled_template_has_its_own_number_and_code(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
        numbers = await work.codes.list_template_numbers(collection.id, collection.space_id)
        await work.codes.update_codes(collection.id, collection.space_id, numbers, codes_of(numbers))
        await work.templates.add_second_template(collection.id, ada.faces[0].id, SECOND, towards(1))
        backfilled, _ = await work.templates.list_uncoded_templates(collection.id, SECOND, 0, 10)

        assert backfilled.tolist() == [numbers[0] + 1]


async def test_a_sample_covers_all_templates(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        assert (await work.templates.sample_vectors(collection.id, collection.space_id, 4)).shape == (0, 0)
        await enrol(work, collection, "ada", *(towards(0, tilt=0.1 * at) for at in range(10)))
        await enrol(work, collection, "old", towards(1), space_id=SECOND)
        some = await work.templates.sample_vectors(collection.id, collection.space_id, 4)
        everything = await work.templates.sample_vectors(collection.id, collection.space_id, 100)

    assert some.shape == (4, 8)
    assert len(np.unique(some, axis=0)) == 4
    expected = np.stack([towards(0, tilt=0.1 * at) for at in range(10)])
    np.testing.assert_allclose(sorted(everything.tolist(), reverse=True), expected, atol=1e-3)


async def test_sizes_come_from_statistics(
    database: Database, collection: Collection, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        other = await work.collections.add_collection("other", "contract", policy)
        await work.collections.update_collection(other.id, second_contract_id=SECOND)
        ada = await enrol(work, collection, "ada", *(towards(axis) for axis in range(3)))

    async def sizes() -> dict[tuple[Any, str], tuple[int, int]]:
        async with database.transaction() as work:
            await work._session.execute(text("SELECT pg_stat_force_next_flush()"))
        async with database.transaction(read_only=True) as work:
            return {
                (size.collection_id, size.space_id): (size.rows, size.last_tombstone)
                for size in await work.codes.list_space_statistics()
            }

    assert await sizes() == {
        (collection.id, "contract"): (3, 0),
        (other.id, "contract"): (0, 0),
        (other.id, SECOND): (0, 0),
    }
    async with database.transaction() as work:
        await work.persons.delete_person(collection.id, ada.person.id)
    assert (await sizes())[collection.id, "contract"] == (0, 1)


async def test_a_deleted_collection_is_reported(database: Database, collection: Collection) -> None:
    async with database.transaction(read_only=True) as work:
        assert await work.codes.get_last_template_number(collection.id) == 0
    queries: list[Callable[[UnitOfWork], Awaitable[Any]]] = [
        lambda work: work.codes.get_last_template_number(uuid4()),
        lambda work: work.codes.list_template_numbers(uuid4(), "contract"),
        lambda work: work.templates.list_uncoded_templates(uuid4(), "contract", 0, 1),
    ]
    for run_query in queries:
        with pytest.raises(NotFoundError, match="The collection is gone"):
            async with database.transaction(read_only=True) as work:
                await run_query(work)


async def test_columns_of_values_of_several_lengths_are_refused(database: Database) -> None:
    async with database.transaction(read_only=True) as work:
        for query in ("SELECT 'a' UNION ALL SELECT 'bc'", "SELECT 'abcd', '1' UNION ALL SELECT '1', 'abcd'"):
            with pytest.raises(ValueError, match="differ in length"):
                await read_columns(work._session, query)


async def test_an_interrupted_load_leaves_a_usable_connection(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is stopped while it loads a large index must neither wait for the rest nor break its connection."""
    monkeypatch.setattr(copying, "BLOCK_BYTES", 40)
    async with database.transaction() as work:
        await enrol(work, collection, "ada", *(towards(axis % 7, tilt=axis / 99) for axis in range(60)))
        numbers, _ = await work.templates.list_uncoded_templates(collection.id, collection.space_id, 0, 99)
        await work.codes.update_codes(collection.id, collection.space_id, numbers, codes_of(numbers))
    for _ in range(12):  # more often than there are connections
        async with (
            database.transaction(read_only=True) as work,
            aclosing(work.codes.load_codes(collection.id, collection.space_id, 0)) as blocks,
        ):
            await anext(blocks)
    async with database.transaction(read_only=True) as work:
        assert len(await load_codes(work, collection)) == 60
