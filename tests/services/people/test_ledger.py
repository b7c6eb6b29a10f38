"""The ledger of erasures: nothing that ended comes back with a database of an earlier time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import text
from tests.callers import CALLER
from tests.conftest import TEMPLATE, as_role, run_as_owner
from tests.services.conftest import count_rows, list_actions

from vultus.db.database import Database
from vultus.db.embedded.cluster import OWNER, SERVICE
from vultus.domain import Role, SpaceRegistry
from vultus.errors import LedgerError
from vultus.sealing.custody import Custody
from vultus.services.access import AccessService
from vultus.services.collections import CollectionService
from vultus.services.people.consents import ConsentService
from vultus.services.people.erasure import Eraser
from vultus.services.people.key_destruction import KeyDestroyer
from vultus.services.people.ledger import ErasureLedger
from vultus.services.people.persons import PersonService
from vultus.settings import DatabaseSettings, JobSettings

if TYPE_CHECKING:
    from vultus.domain import FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
SETTINGS = DatabaseSettings(pool_size=3)
_numbers = count(1)


async def connect(server_url: str, name: str) -> Database:
    url = as_role(server_url, SERVICE).replace("/vultus?", f"/{name}?")
    return await Database.connect(url, SETTINGS)


@pytest.fixture
async def copy(server_url: str, admin: asyncpg.Connection, custody: Custody) -> AsyncIterator[Callable[..., Any]]:
    """Return a context manager that opens a copy of a database by name, as a restored backup of it."""
    names: list[str] = []

    @asynccontextmanager
    async def open_copy(of: str) -> AsyncIterator[tuple[str, Database]]:
        name = f"ledger_{next(_numbers)}"
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {of} OWNER {OWNER}")
        names.append(name)
        database = await connect(server_url, name)
        database.use_keys(custody)
        try:
            yield name, database
        finally:
            await database.close()

    yield open_copy
    for name in names:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def open_ledger(database: Database, path: Path) -> ErasureLedger:
    """Open a ledger as a server or command does when it starts."""
    ledger = ErasureLedger.attach(database, path)
    await ledger.synchronize()
    return ledger


def list_entries(path: Path) -> list[str]:
    """Return the actions in a ledger, in order."""
    return [record["action"] for record in map(json.loads, path.read_text().splitlines()) if "action" in record]


async def test_what_ended_after_a_backup_ends_again_when_it_is_restored(
    copy: Callable[..., Any], spaces: SpaceRegistry, enrol: Enrol, towards: Towards, tmp_path: Path
) -> None:
    path = tmp_path / "custody" / "erasures.jsonl"
    async with copy(TEMPLATE) as (origin, database):
        await open_ledger(database, path)
        collections = CollectionService(database, spaces, has_liveness=True)
        staff, other = [await collections.create_collection(CALLER, name) for name in ("staff", "other")]
        async with database.transaction() as work:
            ada, bob, eve = [await enrol(work, staff, name, towards(at)) for at, name in enumerate("abe")]
            kim = await enrol(work, staff, "kim", towards(3), towards(4))
            await enrol(work, other, "guest", towards(5))
        access = AccessService(database)
        kept, revoked, rotated = [(await access.create_key(CALLER, name, Role.MANAGE))[0] for name in ("1", "2", "3")]
    async with copy(origin) as (_, database):  # which goes on, while the origin stands for a backup
        await open_ledger(database, path)
        await Eraser(database, JobSettings()).erase(CALLER, "staff", ada.person.id)
        await ConsentService(database).withdraw_consent(CALLER, "staff", bob.person.id, bob.consent.id)
        await PersonService(database).delete_face(CALLER, "staff", kim.person.id, kim.faces[0].id)
        await CollectionService(database, spaces, has_liveness=True).delete_collection(CALLER, "other")
        await AccessService(database).revoke_key(CALLER, revoked.id)
        await AccessService(database).rotate_key(CALLER, rotated.id, overlap_s=0)
    before = list_entries(path)

    async with copy(origin) as (_, database):
        assert await count_rows(database, "persons") == 5
        ledger = await open_ledger(database, path)

        async with database.transaction(read_only=True) as work:
            keys = {key.id: key.revoked_at for key in await work.keys.list_keys(after=None, limit=9)}
        assert [keys[one.id] is None for one in (kept, revoked, rotated)] == [True, False, False]
        assert [await count_rows(database, name) for name in ("persons", "faces", "collections")] == [2, 2, 1]
        assert await list_actions(database, ada.person.id) == ["person.erased"]
        assert (await PersonService(database).get_person(CALLER, "staff", eve.person.id)).name == eve.person.name
        assert await ledger.synchronize() == 0
    assert before == list_entries(path)
    assert sorted(before) == [
        "collection.deleted", "consent.withdrawn", "face.deleted", "key.revoked", "key.rotated",
        "person.erased", "person.erased",
    ]  # fmt: skip


@pytest.mark.parametrize("is_consent", [False, True], ids=["a face", "a consent"])
async def test_who_lost_a_face_after_the_backup_does_not_come_back_with_it_and_stops_nobody(
    copy: Callable[..., Any],
    spaces: SpaceRegistry,
    enrol: Enrol,
    towards: Towards,
    custody: Custody,
    tmp_path: Path,
    *,
    is_consent: bool,
) -> None:
    """The key that sealed both faces was destroyed: nobody opens the other in the backup, where it is deleted."""
    path = tmp_path / "custody" / "erasures.jsonl"
    async with copy(TEMPLATE) as (origin, database):
        await open_ledger(database, path)
        staff = await CollectionService(database, spaces, has_liveness=True).create_collection(CALLER, "staff")
        async with database.transaction() as work:
            ada, bob = [await enrol(work, staff, name, towards(at), towards(at + 1)) for at, name in enumerate("ab")]
            granted = {"purpose": "entry", "recorded_by": "x", "evidence_ref": None, "expires_at": None}
            second = await work.consents.add_consent(
                staff.id, ada.person.id, granted_at=ada.consent.granted_at, **granted
            )
            await work._session.execute(
                text("UPDATE faces SET consent_id = :consent WHERE id = :face"),
                {"consent": second.id, "face": ada.faces[1].id},
            )
    async with copy(origin) as (_, database):
        await open_ledger(database, path)
        KeyDestroyer.attach(database, custody.person_keys)
        if is_consent:
            await ConsentService(database).withdraw_consent(CALLER, "staff", ada.person.id, ada.consent.id)
        else:
            await PersonService(database).delete_face(CALLER, "staff", ada.person.id, ada.faces[0].id)
        await Eraser(database, JobSettings()).erase(CALLER, "staff", bob.person.id)
        assert await count_rows(database, "faces") == 1

    async with copy(origin) as (_, database):
        KeyDestroyer.attach(database, custody.person_keys)
        await open_ledger(database, path)
        assert [await count_rows(database, name) for name in ("persons", "faces", "spent_keys")] == [1, 0, 0]
        assert (await list_actions(database, ada.person.id)).count("face.deleted") == (1 if is_consent else 2)
        async with database.transaction() as work:  # who is enrolled again gets a key again
            await work.person_keys.ensure_keys([ada.person.id])


async def test_what_another_server_ended_or_a_crash_kept_from_the_ledger_is_entered(
    database: Database, spaces: SpaceRegistry, enrol: Enrol, towards: Towards, tmp_path: Path
) -> None:
    path = tmp_path / "erasures.jsonl"
    ledger = await open_ledger(database, path)
    collection = await CollectionService(database, spaces, has_liveness=True).create_collection(CALLER, "home")
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    ErasureLedger.attach(database, tmp_path / "other.jsonl")
    await Eraser(database, JobSettings()).erase(CALLER, "home", ada.person.id)

    assert list_entries(path) == []
    for _ in range(2):
        assert await ledger.synchronize() == 0
        assert list_entries(path) == ["person.erased"] == list_entries(tmp_path / "other.jsonl")
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_database_that_is_replaced_while_it_is_served_is_noticed(
    database: Database, collection: Any, enrol: Enrol, towards: Towards, tmp_path: Path
) -> None:
    ledger = await open_ledger(database, tmp_path / "erasures.jsonl")
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
        positions = (await work._session.execute(text("SELECT * FROM ledgers"))).mappings().all()
        rows = (await work._session.execute(text("SELECT * FROM persons"))).mappings().all()
    await Eraser(database, JobSettings()).erase(CALLER, "home", ada.person.id)
    await ledger.synchronize()
    async with database.transaction() as work:  # all of it that matters here
        await work._session.execute(text("UPDATE ledgers SET bytes = :bytes, digest = :digest"), dict(positions[0]))
        await work._session.execute(
            text("INSERT INTO persons (id, collection_id) VALUES (:id, :collection_id)"), dict(rows[0])
        )

    assert await ledger.synchronize() == 1
    assert await count_rows(database, "persons") == 0


async def test_what_a_copy_ends_for_a_trial_is_not_ended_in_the_database_it_was_copied_from(
    copy: Callable[..., Any], server_url: str, spaces: SpaceRegistry, enrol: Enrol, towards: Towards, tmp_path: Path
) -> None:
    path = tmp_path / "erasures.jsonl"
    async with copy(TEMPLATE) as (origin, database):
        await open_ledger(database, path)
        collections = CollectionService(database, spaces, has_liveness=True)
        staff = await collections.create_collection(CALLER, "staff")
        async with database.transaction() as work:
            ada = await enrol(work, staff, "ada", towards(0))
    async with copy(origin) as (_, trial):
        await open_ledger(trial, path)
        await Eraser(trial, JobSettings()).erase(CALLER, "staff", ada.person.id)

    database = await connect(server_url, origin)
    await open_ledger(database, path)
    assert await count_rows(database, "persons") == 1
    await database.close()


async def test_servers_whose_ledgers_were_copied_from_one_go_on(
    database: Database, collection: Any, enrol: Enrol, towards: Towards, tmp_path: Path, caplog: Any
) -> None:
    path, other = tmp_path / "erasures.jsonl", tmp_path / "copied.jsonl"
    await open_ledger(database, path)
    async with database.transaction() as work:
        persons = [(await enrol(work, collection, name, towards(at))).person.id for at, name in enumerate("ab")]
    await Eraser(database, JobSettings()).erase(CALLER, "home", persons[0])
    other.write_bytes(path.read_bytes())
    first, second = await open_ledger(database, path), await open_ledger(database, other)
    await Eraser(database, JobSettings()).erase(CALLER, "home", persons[1])

    for ledger in (first, second, first, second):
        assert await ledger.synchronize() == 0
    assert list_entries(path) == list_entries(other) == ["person.erased"] * 2
    assert "older than the database" not in caplog.text


async def test_a_changed_ledger_stops_the_start_and_a_shortened_one_is_completed(
    database: Database, collection: Any, enrol: Enrol, towards: Towards, tmp_path: Path
) -> None:
    path = tmp_path / "erasures.jsonl"
    await open_ledger(database, path)
    async with database.transaction() as work:
        erased = [(await enrol(work, collection, name, towards(at))).person.id for at, name in enumerate("abc")]
    for one in erased:
        await Eraser(database, JobSettings()).erase(CALLER, "home", one)
    await open_ledger(database, path)
    lines = path.read_bytes().splitlines(keepends=True)

    path.write_bytes(b"".join(lines[:2]))
    await open_ledger(database, path)
    assert list_entries(path) == ["person.erased"] * 3

    await run_as_owner(database, "DELETE FROM ledgers")
    path.write_bytes(b"".join(lines).replace(str(erased[0]).encode(), str(erased[1]).encode()))
    with pytest.raises(LedgerError, match=r"chain breaks at byte \d+.*Restore it from your copy"):
        await open_ledger(database, path)


async def test_an_ending_is_acknowledged_though_the_ledger_cannot_be_written(
    database: Database, collection: Any, enrol: Enrol, towards: Towards, tmp_path: Path, caplog: Any
) -> None:
    path = tmp_path / "custody" / "erasures.jsonl"
    ledger = await open_ledger(database, path)
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    path.rename(tmp_path / "kept")
    path.mkdir()
    await Eraser(database, JobSettings()).erase(CALLER, "home", ada.person.id)
    assert "not in the ledger yet" in caplog.text
    path.rmdir()
    (tmp_path / "kept").rename(path)

    await ledger.synchronize()
    assert list_entries(path) == ["person.erased"]
