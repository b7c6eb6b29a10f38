"""The one door to collections: finds, checks the principal, and locks for writing."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from tests.db.conftest import RULE

from vultus.db.database import Database
from vultus.domain import Collection, DecisionPolicy, Permission, Principal
from vultus.errors import ForbiddenError, NotFoundError

ANYBODY = Principal.from_process("test")


@pytest.fixture
async def staff(database: Database) -> Collection:
    async with database.transaction() as work:
        return await work.collections.add_collection("staff", "space", DecisionPolicy(RULE, RULE, threshold=0.5))


def bound_to(*collections: UUID) -> Principal:
    return Principal("key:1", frozenset(Permission), collections=frozenset(collections))


async def test_a_collection_is_found_by_id_and_by_name(database: Database, staff: Collection) -> None:
    async with database.hot_queries() as queries:
        found = [await queries.open(reference, ANYBODY, Permission.READ) for reference in (str(staff.id), "staff")]

    assert found == [staff, staff]


@pytest.mark.parametrize("permission", Permission)
async def test_without_the_permission_nobody_learns_whether_it_exists(
    database: Database, staff: Collection, permission: Permission
) -> None:
    powerless = Principal("key:1", frozenset(Permission) - {permission})

    for reference in ("staff", "nobody", str(uuid4())):
        async with database.transaction() as work:
            with pytest.raises(ForbiddenError):
                await work.open(reference, powerless, permission)


async def test_a_collection_beyond_the_principals_reach_does_not_exist(database: Database, staff: Collection) -> None:
    stranger = bound_to(uuid4())

    for reference, absent in (("staff", "nobody"), (str(staff.id), str(uuid4()))):
        async with database.transaction(read_only=True) as work:
            with pytest.raises(NotFoundError) as hidden:
                await work.open(reference, stranger, Permission.READ)
            with pytest.raises(NotFoundError) as missing:
                await work.open(absent, stranger, Permission.READ)
        assert hidden.value.detail.replace(reference, "") == missing.value.detail.replace(absent, "")


async def test_a_list_shows_what_can_be_reached(database: Database, staff: Collection) -> None:
    async with database.transaction() as work:
        other = await work.collections.add_collection("other", "space", staff.policy)
        listed = [
            await work.collections.list_collections(None, 10, among)
            for among in (None, frozenset({other.id}), frozenset[UUID]())
        ]

    assert [[collection.name for collection in found] for found in listed] == [["staff", "other"], ["other"], []]


@pytest.mark.parametrize("permission", Permission)
@pytest.mark.parametrize("read_only", [False, True])
async def test_only_writers_wait_for_each_other(
    database: Database, staff: Collection, permission: Permission, read_only: bool
) -> None:
    async def open_second() -> None:
        async with database.transaction(read_only=read_only) as second:
            await second.open("staff", ANYBODY, permission)

    must_wait = permission.is_writing and not read_only
    async with database.transaction() as writer:
        await writer.open("staff", ANYBODY, Permission.ENROL)
        opening = asyncio.create_task(open_second())
        done, _ = await asyncio.wait({opening}, timeout=0.2 if must_wait else 20)
    await opening

    assert (not done) is must_wait


async def test_a_writer_sees_the_collection_as_the_one_before_it_left_it(database: Database, staff: Collection) -> None:
    async with database.transaction() as first:
        await first.open("staff", ANYBODY, Permission.CONFIGURE)

        async def open_second() -> Collection:
            async with database.transaction() as second:
                return await second.open(str(staff.id), ANYBODY, Permission.CONFIGURE)

        waiting = asyncio.create_task(open_second())
        await asyncio.sleep(0.1)
        await first.collections.update_collection(staff.id, name="renamed")

    assert (await waiting).name == "renamed"
