"""Erasure: what goes with a person or a consent, and what the sweep must leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from tests.callers import CALLER
from tests.conftest import run_as_owner
from tests.services.conftest import count_rows, expire, list_actions, wait_for_lock_waiter

from vultus.domain.events import CollectionChanged, ConsentWithdrawn
from vultus.errors import NotFoundError
from vultus.services.people import erasure
from vultus.services.people.erasure import Eraser, ErasureResult, withdraw_consent
from vultus.settings import JobSettings

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]


@pytest.fixture
def eraser(database: Database) -> Eraser:
    return Eraser(database, JobSettings())


async def test_a_person_goes_with_everything_but_the_record_of_it(
    database: Database, collection: Collection, eraser: Eraser, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), towards(1))
        await enrol(work, collection, "bob", towards(2))

    erased = await eraser.erase(CALLER, "home", ada.person.id)

    assert erased == ErasureResult(ada.person.id, True, 2, 1, erased.erasure_id)
    assert [await count_rows(database, name) for name in ("persons", "consents", "faces")] == [1, 1, 1]
    assert await list_actions(database, ada.person.id) == ["person.erased"]
    with pytest.raises(NotFoundError):
        await eraser.erase(CALLER, "home", ada.person.id)


async def test_the_sweep_ends_what_has_expired_and_nothing_else(
    database: Database, collection: Collection, eraser: Eraser, enrol: Enrol, towards: Towards
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), expires_at=later)
        await enrol(work, collection, "bob", towards(1), expires_at=later)
        await enrol(work, collection, "eve", towards(2))
    await expire(database, ada.consent)

    assert [await eraser.sweep_expired(), await eraser.sweep_expired()] == [1, 0]

    assert [await count_rows(database, name) for name in ("persons", "consents", "faces")] == [2, 2, 2]
    assert await list_actions(database, ada.person.id) == ["consent.expired", "person.erased"]


async def test_the_audit_record_is_kept_unless_a_setting_ends_it(
    database: Database, collection: Collection, eraser: Eraser
) -> None:
    await run_as_owner(database, "UPDATE audit SET at = now() - interval '400 days'")
    async with database.transaction() as work:
        await work.record(CALLER, CollectionChanged(collection_id=collection.id, fields=("name",)))

    await eraser.sweep_expired()
    assert await list_actions(database) == ["collection.created", "collection.changed"]
    await Eraser(database, JobSettings(audit_days=365)).sweep_expired()
    assert await list_actions(database) == ["collection.changed", "audit.trimmed"]


@pytest.mark.parametrize("extended_to", [timedelta(days=1), None], ids=["a later end", "no end"])
async def test_a_consent_that_is_extended_while_the_sweep_waits_is_kept(
    database: Database,
    collection: Collection,
    eraser: Eraser,
    enrol: Enrol,
    towards: Towards,
    extended_to: timedelta | None,
) -> None:
    ends_at = datetime.now(UTC) + timedelta(seconds=0.3)
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), expires_at=ends_at)

    async with database.transaction() as work:  # it begins before the consent ends
        await work.lock_collection(collection.id)
        await asyncio.sleep((ends_at - datetime.now(UTC)).total_seconds() + 0.01)
        sweep = asyncio.create_task(eraser.sweep_expired())
        await wait_for_lock_waiter(database)  # it has seen the consent as expired
        expires_at = datetime.now(UTC) + extended_to if extended_to else None
        await work.consents.update_consent(collection.id, ada.consent.id, expires_at=expires_at)

    assert await sweep == 0
    assert await count_rows(database, "faces") == 1
    assert await list_actions(database, ada.person.id) == []


async def test_a_consent_that_is_withdrawn_while_the_sweep_waits_is_not_ended_twice(
    database: Database, collection: Collection, eraser: Eraser, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), expires_at=datetime(2026, 1, 3, tzinfo=UTC))
        await work.consents.add_consent(
            collection.id,
            ada.person.id,
            purpose="another",
            recorded_by="reception",
            evidence_ref=None,
            granted_at=datetime.now(UTC),
            expires_at=None,
        )

    async with database.transaction() as work:
        await work.lock_collection(collection.id)
        sweep = asyncio.create_task(eraser.sweep_expired())
        await wait_for_lock_waiter(database)
        await withdraw_consent(work, ada.consent, ConsentWithdrawn, principal=CALLER)

    assert await sweep == 0
    assert await list_actions(database, ada.person.id) == ["consent.withdrawn"]


async def test_the_sweep_goes_on_after_a_full_batch(
    database: Database,
    collection: Collection,
    eraser: Eraser,
    enrol: Enrol,
    towards: Towards,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(erasure, "SWEEP_BATCH_SIZE", 2)
    async with database.transaction() as work:
        for number in range(5):
            await enrol(work, collection, f"p{number}", towards(0), expires_at=datetime(2026, 1, 3, tzinfo=UTC))

    assert await eraser.sweep_expired() == 5
    assert await count_rows(database, "persons") == 0


async def test_the_sweep_deletes_stored_responses_that_are_too_old(database: Database, eraser: Eraser) -> None:
    async with database.transaction() as work:
        for key in ("old", "new"):
            await work.idempotency.add_response(
                api_key_id=str(uuid4()), key=key, request_sha256=b"", status=201, body={}, person_id=None
            )
        await (await work._session.connection()).exec_driver_sql(
            "UPDATE idempotency SET created_at = now() - interval '25 hours' WHERE key_sha256 = sha256('old')"
        )

    await eraser.sweep_expired()

    assert await count_rows(database, "idempotency") == 1
    assert await count_rows(database, "idempotency WHERE key_sha256 = sha256('new')") == 1
