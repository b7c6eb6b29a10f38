"""Whatever erases templates leaves their numbers, and nothing else, in the same transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from vultus.db.repositories.collections import get_partition_name

if TYPE_CHECKING:
    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import Collection, DecisionPolicy, FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
SECOND = "second"


async def list_erased(work: UnitOfWork, collection: Collection, space_id: str, after: int = 0) -> list[tuple[int, int]]:
    """Return number of the tombstone and of the template, for each."""
    tombstones, numbers = await work.codes.list_erased_numbers(collection.id, space_id, after)
    return list(zip(tombstones.tolist(), sorted(numbers.tolist()), strict=True))


async def list_numbers(work: UnitOfWork, collection: Collection, space_id: str) -> list[int]:
    return sorted((await work.codes.list_template_numbers(collection.id, space_id)).tolist())


async def test_every_way_to_erase_templates_leaves_their_numbers(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    """A face, the faces of a consent, a person, an embedding space, and SQL by hand, of the table or its partition."""
    ways: list[Callable[[UnitOfWork, Any], Awaitable[Any]]] = [
        lambda work, ada: work.faces.delete_face(collection.id, ada.person.id, ada.faces[0].id),
        lambda work, ada: work.faces.delete_faces_by_consent(collection.id, ada.consent.id),
        lambda work, ada: work.persons.delete_person(collection.id, ada.person.id),
        lambda work, ada: work.templates.delete_templates(collection.id, collection.space_id),
        lambda work, ada: work._session.execute(text("DELETE FROM persons")),
        lambda work, ada: work._session.execute(text("DELETE FROM faces")),
        lambda work, ada: work._session.execute(text(f"DELETE FROM {get_partition_name(collection.id)}")),
    ]
    for number, erase in enumerate(ways, start=1):
        async with database.transaction() as work:
            ada = await enrol(work, collection, f"ada {number}", towards(0))
        async with database.transaction() as work:
            before = await list_numbers(work, collection, collection.space_id)
            await erase(work, ada)
            left = await list_numbers(work, collection, collection.space_id)
            gone = [one for one in before if one not in left]
            assert len(gone) == 1, number
            assert await list_erased(work, collection, collection.space_id, number - 1) == [(number, gone[0])]


async def test_embedding_spaces_and_collections_are_numbered_separately(
    database: Database, collection: Collection, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        other = await work.collections.add_collection("other", "contract", policy)
        ada = await enrol(work, collection, "ada", towards(0), towards(1))
        eve = await enrol(work, collection, "eve", towards(2), space_id=SECOND)
        bob = await enrol(work, other, "bob", towards(3))
        numbers = await list_numbers(work, collection, "contract")
        for place, one in ((collection, ada), (collection, eve), (other, bob)):
            await work.persons.delete_person(place.id, one.person.id)

    async with database.transaction() as work:
        assert await list_erased(work, collection, "contract") == [(1, number) for number in numbers]
        assert [tombstone for tombstone, _ in await list_erased(work, collection, SECOND)] == [1]
        assert [tombstone for tombstone, _ in await list_erased(work, other, "contract")] == [1]


async def test_a_rolled_back_erasure_leaves_none_and_a_change_neither(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    try:
        async with database.transaction() as work:
            await work.persons.delete_person(collection.id, ada.person.id)
            raise ValueError
    except ValueError:
        pass
    async with database.transaction() as work:
        expires_at = datetime.now(UTC) + timedelta(days=1)
        await work.consents.update_consent(collection.id, ada.consent.id, expires_at=expires_at)

        assert await list_erased(work, collection, "contract") == []


async def test_numbers_follow_the_order_of_commits_whoever_erases(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    """An erasure by hand holds the collection's lock too: a writer waits for it, and gets the next number."""
    async with database.transaction() as work:
        ada, eve = [await enrol(work, collection, name, towards(0)) for name in ("ada", "eve")]

    async def erase_eve() -> None:
        async with database.transaction() as other:
            await other.lock_collection(collection.id)
            await other.persons.delete_person(collection.id, eve.person.id)

    async with database.transaction() as work:
        await work._session.execute(text("DELETE FROM persons WHERE id = :id"), {"id": ada.person.id})
        waiting = asyncio.create_task(erase_eve())
        await asyncio.sleep(0.3)
        assert not waiting.done()
    await waiting

    async with database.transaction() as work:
        assert [tombstone for tombstone, _ in await list_erased(work, collection, "contract")] == [1, 2]


async def test_old_tombstones_go_the_last_with_its_collection(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    """Without the last one the next erasure would be number 1 again."""
    async with database.transaction() as work:
        for name in ("ada", "eve", "bob"):
            one = await enrol(work, collection, name, towards(0))
            await work.persons.delete_person(collection.id, one.person.id)
        await work.codes.delete_old_tombstones(datetime.now(UTC) - timedelta(minutes=1))
        assert [number for number, _ in await list_erased(work, collection, "contract")] == [1, 2, 3]
        await work.codes.delete_old_tombstones(datetime.now(UTC) + timedelta(minutes=1))
        assert [number for number, _ in await list_erased(work, collection, "contract")] == [3]

    async with database.transaction() as work:
        await work.collections.delete_collection(collection.id)
        count = await work._session.execute(text("SELECT count(*) FROM tombstones"))
        assert count.scalar_one() == 0
