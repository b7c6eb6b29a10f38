"""Limits of keys, counted in PostgreSQL: two servers share what a key may do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import text
from tests.callers import CALLER

from vultus.domain import Collection, Principal, Role
from vultus.errors import SearchLimitError, VerificationLimitError
from vultus.services.access import AccessService
from vultus.services.limits import UsageLimiter
from vultus.settings import LimitSettings
from vultus.utils.request_scope import RequestLimits, RequestScope

if TYPE_CHECKING:
    from vultus.db.database import Database


class CountingDatabase:
    """A database that counts how often it is asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.queries = 0

    def hot_queries(self) -> object:
        self.queries += 1
        return self._database.hot_queries()


async def make_caller(database: Database, searches_per_hour: int | None = None) -> Principal:
    key, _ = await AccessService(database).create_key(
        CALLER, "door", Role.RECOGNIZE, searches_per_hour=searches_per_hour
    )
    return Principal.from_key(key)


async def run_sql(database: Database, statement: str) -> None:
    async with database.transaction() as work:
        await work._session.execute(text(statement))


@pytest.fixture
def servers(database: Database) -> tuple[UsageLimiter, UsageLimiter]:
    settings = LimitSettings(searches_per_hour=10, verification_failures=3)
    return UsageLimiter(database, settings), UsageLimiter(database, settings)


@pytest.fixture
async def persons(database: Database, collection: Collection, enrol: Any, towards: Any) -> list[UUID]:
    async with database.transaction() as work:
        return [(await enrol(work, collection, name, towards(at))).person.id for at, name in enumerate(("a", "b"))]


async def test_all_servers_together_make_no_more_searches_than_the_key_may(
    database: Database, servers: tuple[UsageLimiter, UsageLimiter]
) -> None:
    caller, other = await make_caller(database), await make_caller(database)

    results = await asyncio.gather(
        *(servers[at % 2].charge_searches(caller, 1) for at in range(16)), return_exceptions=True
    )

    assert [isinstance(one, SearchLimitError) for one in results].count(True) == 6
    for server in servers:
        with pytest.raises(SearchLimitError):
            await server.charge_searches(caller, 1)
        with pytest.raises(SearchLimitError, match="10 an hour, and has 0 left") as refused:
            server.ensure_searches_left(caller)
        assert 1 <= refused.value.facts["retry_after_s"] <= 3600
        server.ensure_searches_left(other)
    await servers[0].charge_searches(other, 10)
    await servers[0].charge_searches(CALLER, 10**6)  # a command


async def test_a_photo_of_more_faces_than_are_left_is_refused_and_a_smaller_one_is_not(
    database: Database, servers: tuple[UsageLimiter, UsageLimiter]
) -> None:
    caller = await make_caller(database)
    await servers[0].charge_searches(caller, 7)

    with pytest.raises(SearchLimitError, match="This would be 4 searches"):
        await servers[1].charge_searches(caller, 4)
    await servers[1].charge_searches(caller, 3)
    with pytest.raises(SearchLimitError):
        await servers[0].charge_searches(caller, 1)


async def test_a_new_hour_begins_with_all_searches(
    database: Database, servers: tuple[UsageLimiter, UsageLimiter]
) -> None:
    caller = await make_caller(database)
    await servers[0].charge_searches(caller, 10)
    await run_sql(database, "UPDATE key_usage SET hour = hour - interval '1 hour'")
    for account in servers[0]._accounts.values():
        account.ends_at = 0.0

    await servers[0].charge_searches(caller, 10)

    with pytest.raises(SearchLimitError):
        await servers[0].charge_searches(caller, 1)
    await run_sql(database, "UPDATE key_usage SET hour = hour - interval '1 hour'")
    await AccessService(database).record_uses()  # drops old counts
    async with database.transaction(read_only=True) as work:
        assert (await work._session.execute(text("SELECT count(*) FROM key_usage"))).scalar_one() == 0


async def test_a_key_has_its_own_limit_and_searches_cost_few_queries(database: Database) -> None:
    caller = await make_caller(database, searches_per_hour=1000)
    counting = CountingDatabase(database)
    limiter = UsageLimiter(counting, LimitSettings(searches_per_hour=1))  # type: ignore[arg-type]

    with RequestScope(RequestLimits(max_requests=1, max_bodies_bytes=1)) as scope:
        for _ in range(100):
            await limiter.charge_searches(caller, 1)

    assert counting.queries == 10
    assert scope.quota is not None
    assert (scope.quota.limit, scope.quota.left) == (1000, 900)
    assert 0 < scope.quota.ends_in_s <= 3600


async def fail(limiter: UsageLimiter, caller: Principal, person_id: UUID) -> None:
    async with limiter.attempt_verification(caller, person_id) as attempt:
        attempt.has_failed = True


async def get_wait(limiter: UsageLimiter, caller: Principal, person_id: UUID) -> int:
    try:
        async with limiter.attempt_verification(caller, person_id):
            return 0
    except VerificationLimitError as error:
        return int(error.facts["retry_after_s"])


async def test_failed_verifications_of_a_person_wait_ever_longer_on_all_servers(
    database: Database, servers: tuple[UsageLimiter, UsageLimiter], persons: list[UUID]
) -> None:
    caller, other = await make_caller(database), await make_caller(database)
    for at in range(3):
        assert await get_wait(servers[at % 2], caller, persons[0]) == 0
        await fail(servers[at % 2], caller, persons[0])

    waits = [await get_wait(servers[1], caller, persons[0])]
    for _ in range(3):
        await run_sql(database, "UPDATE verification_failures SET blocked_until = now()")
        await fail(servers[0], caller, persons[0])
        waits.append(await get_wait(servers[1], caller, persons[0]))

    assert [round(wait, -1) for wait in waits] == [30, 60, 120, 240]
    assert await get_wait(servers[0], caller, persons[1]) == 0
    assert await get_wait(servers[0], other, persons[0]) == 0
    await fail(servers[0], CALLER, persons[0])  # a command


async def test_failures_are_forgotten_one_an_hour_and_not_by_a_success(
    database: Database, servers: tuple[UsageLimiter, UsageLimiter], persons: list[UUID]
) -> None:
    caller = await make_caller(database)
    for _ in range(2):
        await fail(servers[0], caller, persons[0])
    for _ in range(9):
        assert await get_wait(servers[0], caller, persons[0]) == 0  # succeeds

    await fail(servers[0], caller, persons[0])
    assert await get_wait(servers[0], caller, persons[0]) > 0

    await run_sql(
        database,
        "UPDATE verification_failures SET blocked_until = now(), forgotten_at = forgotten_at - interval '2 hours'",
    )
    await fail(servers[0], caller, persons[0])
    assert await get_wait(servers[0], caller, persons[0]) == 0


async def test_parallel_verifications_are_counted_before_they_fail(
    database: Database, servers: tuple[UsageLimiter, UsageLimiter], persons: list[UUID]
) -> None:
    caller = await make_caller(database)

    results = await asyncio.gather(
        *(fail(servers[at % 2], caller, persons[0]) for at in range(12)), return_exceptions=True
    )

    assert [isinstance(one, VerificationLimitError) for one in results].count(False) == 3


async def test_failures_go_with_the_person(
    database: Database, servers: tuple[UsageLimiter, UsageLimiter], persons: list[UUID]
) -> None:
    caller = await make_caller(database)
    await fail(servers[0], caller, persons[0])

    await run_sql(database, f"DELETE FROM persons WHERE id = '{persons[0]}'")

    await fail(servers[0], caller, persons[0])  # who may have been erased meanwhile
    async with database.transaction(read_only=True) as work:
        assert (await work._session.execute(text("SELECT count(*) FROM verification_failures"))).scalar_one() == 0
