"""What an index is made from: numbers that rise with the commits, codes, and how a collection has changed."""

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
from vultus.db.copying import copy_out
from vultus.domain import Coding
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from vultus.db.database import Database, Work
    from vultus.domain import CodeArray, Collection, DecisionPolicy, FloatArray, NumberArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
SECOND = "another network"


def codes_of(numbers: NumberArray, width: int = 16) -> CodeArray:
    """Make a code a number that tells it."""
    return (numbers[:, None] * 7 + np.arange(width)).astype(np.uint8)


async def loaded(work: Work, home: Collection, after: int = 0) -> dict[int, bytes]:
    found = dict[int, bytes]()
    async for block in work.codes.load(home.id, home.contract_id, after):
        found.update(zip(block.numbers.tolist(), (code.tobytes() for code in block.codes), strict=True))
    return found


async def test_codes_are_made_set_and_loaded(
    database: Database, home: Collection, enrol: Enrol, towards: Towards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "BLOCK_BYTES", 100)
    async with database.work() as work:
        await enrol(work, home, "ada", *(towards(axis, tilt=0.1) for axis in range(5)))
        await enrol(work, home, "bob", towards(0), contract_id=SECOND)
        numbers, vectors = await work.codes.uncoded(home.id, home.contract_id, 0, 10)
        assert await loaded(work, home) == {}

        await work.codes.set_codes(home.id, home.contract_id, numbers[1:], codes_of(numbers[1:]))

    np.testing.assert_allclose(vectors, np.stack([towards(axis, tilt=0.1) for axis in range(5)]), atol=1e-3)
    assert (np.diff(numbers) > 0).all()
    async with database.work(read_only=True) as work:
        expected = {int(number): codes_of(np.array([number])).tobytes() for number in numbers[1:]}
        assert await loaded(work, home) == expected
        assert (await loaded(work, home, after=int(numbers[2]))).keys() == set(numbers[3:].tolist())
        left, _ = await work.codes.uncoded(home.id, home.contract_id, 0, 10)
        none, nothing = await work.codes.uncoded(home.id, home.contract_id, int(numbers[0]), 10)
        assert left.tolist() == [numbers[0]]
        assert (none.shape, nothing.shape) == ((0,), (0, 0))
        assert sorted((await work.codes.numbers(home.id, home.contract_id)).tolist()) == numbers.tolist()
        assert await work.codes.last_number(home.id) == numbers[-1] + 1
        assert len(await work.codes.numbers(home.id, "no such")) == 0


async def test_numbers_rise_in_the_order_of_commits(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    """A writer waits for the one before it ere its number is drawn, whether or not it asked for the lock itself."""
    async with database.work() as work:
        ada = await enrol(work, home, "ada", towards(0))
    writing = asyncio.Event()

    async def second() -> int:
        async with database.work() as work:
            writing.set()
            await work.carrying.carry(home.id, ada.faces[0].id, SECOND, towards(1))
            return await work.codes.last_number(home.id)

    async with database.work() as work:
        await enrol(work, home, "bob", towards(2))
        later = asyncio.create_task(second())
        await writing.wait()
        await asyncio.sleep(0.1)
        assert not later.done()
        await enrol(work, home, "eve", towards(3))
        earlier = await work.codes.last_number(home.id)

    assert await later > earlier


async def test_the_first_coding_holds(database: Database, home: Collection, towards: Towards) -> None:
    first = Coding(home.id, home.contract_id, towards(0, tilt=0.3), 1024)
    async with database.work() as work:
        assert await work.codes.coding(home.id, home.contract_id) is None
        added = await work.codes.add_coding(first)
    async with database.work() as work:
        second = await work.codes.add_coding(Coding(home.id, home.contract_id, towards(1), 512))
        with pytest.raises(NotFoundError, match="no such collection"):
            await work.codes.add_coding(Coding(uuid4(), home.contract_id, towards(1), 512))

    assert (second.bits, second.collection_id, second.contract_id) == (1024, home.id, home.contract_id)
    np.testing.assert_array_equal(second.centre, first.centre.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(added.centre, second.centre)


async def test_a_coding_goes_with_its_contract_and_with_its_collection(
    database: Database, home: Collection, towards: Towards
) -> None:
    async with database.work() as work:
        await work.codes.add_coding(Coding(home.id, home.contract_id, towards(0), 512))
        await work.codes.add_coding(Coding(home.id, SECOND, towards(0), 512))
        await work.transitions.end(home.id, SECOND)
        assert await work.codes.coding(home.id, SECOND) is None
        assert await work.codes.coding(home.id, home.contract_id) is not None

        await work.collections.delete(home.id)
        assert await work.codes.coding(home.id, home.contract_id) is None


async def test_a_carried_template_has_a_number_and_a_code_of_its_own(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        ada = await enrol(work, home, "ada", towards(0))
        numbers = await work.codes.numbers(home.id, home.contract_id)
        await work.codes.set_codes(home.id, home.contract_id, numbers, codes_of(numbers))
        await work.carrying.carry(home.id, ada.faces[0].id, SECOND, towards(1))
        carried, _ = await work.codes.uncoded(home.id, SECOND, 0, 10)

        assert carried.tolist() == [numbers[0] + 1]


async def test_a_sample_is_drawn_from_all_over(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        assert (await work.codes.sample(home.id, home.contract_id, 4)).shape == (0, 0)
        await enrol(work, home, "ada", *(towards(0, tilt=0.1 * at) for at in range(10)))
        await enrol(work, home, "old", towards(1), contract_id=SECOND)
        some = await work.codes.sample(home.id, home.contract_id, 4)
        everything = await work.codes.sample(home.id, home.contract_id, 100)

    assert some.shape == (4, 8)
    assert len(np.unique(some, axis=0)) == 4
    expected = np.stack([towards(0, tilt=0.1 * at) for at in range(10)])
    np.testing.assert_allclose(sorted(everything.tolist(), reverse=True), expected, atol=1e-3)


async def test_sizes_come_from_statistics(
    database: Database, home: Collection, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        other = await work.collections.add("other", "contract", policy)
        await work.collections.change(other.id, second_contract_id=SECOND)
        ada = await enrol(work, home, "ada", *(towards(axis) for axis in range(3)))

    async def sizes() -> dict[tuple[Any, str], tuple[int, int]]:
        async with database.work() as work:
            await work._session.execute(text("SELECT pg_stat_force_next_flush()"))
        async with database.work(read_only=True) as work:
            return {
                (size.collection_id, size.contract_id): (size.rows, size.deleted) for size in await work.codes.sizes()
            }

    assert await sizes() == {(home.id, "contract"): (3, 0), (other.id, "contract"): (0, 0), (other.id, SECOND): (0, 0)}
    async with database.work() as work:
        await work.persons.delete(home.id, ada.person.id)
    assert (await sizes())[home.id, "contract"] == (0, 3)


async def test_a_collection_that_is_gone_is_told(database: Database, home: Collection) -> None:
    async with database.work(read_only=True) as work:
        assert await work.codes.last_number(home.id) == 0
    asking: list[Callable[[Work], Awaitable[Any]]] = [
        lambda work: work.codes.last_number(uuid4()),
        lambda work: work.codes.numbers(uuid4(), "contract"),
        lambda work: work.codes.uncoded(uuid4(), "contract", 0, 1),
    ]
    for ask in asking:
        with pytest.raises(NotFoundError, match="The collection is gone"):
            async with database.work(read_only=True) as work:
                await ask(work)


async def test_columns_of_values_of_several_lengths_are_refused(database: Database) -> None:
    async with database.work(read_only=True) as work:
        for query in ("SELECT 'a' UNION ALL SELECT 'bc'", "SELECT 'abcd', '1' UNION ALL SELECT '1', 'abcd'"):
            with pytest.raises(ValueError, match="differ in length"):
                await copy_out(work._session, query)


async def test_who_stops_loading_leaves_a_connection_that_others_can_use(
    database: Database, home: Collection, enrol: Enrol, towards: Towards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is stopped while it loads a large index must not wait for the rest, nor break its connection."""
    monkeypatch.setattr(copying, "BLOCK_BYTES", 40)
    async with database.work() as work:
        await enrol(work, home, "ada", *(towards(axis % 7, tilt=axis / 99) for axis in range(60)))
        numbers, _ = await work.codes.uncoded(home.id, home.contract_id, 0, 99)
        await work.codes.set_codes(home.id, home.contract_id, numbers, codes_of(numbers))
    for _ in range(12):  # more often than there are connections
        async with (
            database.work(read_only=True) as work,
            aclosing(work.codes.load(home.id, home.contract_id, 0)) as blocks,
        ):
            await anext(blocks)
    async with database.work(read_only=True) as work:
        assert len(await loaded(work, home)) == 60
