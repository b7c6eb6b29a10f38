"""The chain of the audit record: whoever changes, deletes, moves or adds an entry afterwards is found out."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.callers import CALLER
from tests.conftest import run_as_owner

from vultus.domain import Role
from vultus.services.access import AccessService
from vultus.services.audit_chain import AuditChain
from vultus.settings import JobSettings

if TYPE_CHECKING:
    from vultus.db.database import Database

ENTRIES = 12


@pytest.fixture
async def chain(database: Database, tmp_path: Path) -> AuditChain:
    """A chain of twelve entries, whose end was noted."""
    access, chain = AccessService(database), AuditChain(database, tmp_path / "audit.jsonl", JobSettings())
    for name in range(ENTRIES):
        await access.create_key(CALLER, f"key {name}", Role.RECOGNIZE)
        if name == ENTRIES // 2:
            await chain.extend()
    assert await chain.extend() == ENTRIES - ENTRIES // 2 - 1
    return chain


NTH = "(SELECT id FROM audit ORDER BY id OFFSET {} LIMIT 1)"
RELINK = (
    "UPDATE audit_links SET number = -number WHERE number IN (4, 5)",
    "UPDATE audit_links SET number = 9 + number WHERE number < 0",
)


@pytest.mark.parametrize(
    ("statements", "findings"),
    [
        ((f"UPDATE audit SET actor = 'somebody' WHERE id = {NTH.format(3)}",), ["was changed"]),
        ((f"UPDATE audit SET detail = '{{}}' WHERE id = {NTH.format(3)}",), ["was changed"]),
        ((f"UPDATE audit SET at = at - interval '1 minute' WHERE id = {NTH.format(3)}",), ["was changed"]),
        ((f"DELETE FROM audit WHERE id = {NTH.format(0)}",), ["was deleted"]),
        ((f"DELETE FROM audit WHERE id = {NTH.format(11)}",), ["was deleted"]),
        (RELINK, ["link 4 was changed", "link 5 was changed", "link 6 was changed"]),
        (("DELETE FROM audit_links WHERE number = 4",), ["links 4 to 4 are missing"]),
        (
            ("DELETE FROM audit WHERE id IN (SELECT entry_id FROM audit_links WHERE number > 5)",
             "DELETE FROM audit_links WHERE number > 5"),
            ["ends at link 5, and link 7 was noted"],
        ),
    ],
    ids=["actor", "detail", "time", "first deleted", "last deleted", "moved", "link deleted", "cut off"],
)  # fmt: skip
async def test_every_tampering_is_found(
    database: Database, chain: AuditChain, statements: tuple[str, ...], findings: list[str]
) -> None:
    assert (await chain.verify(CALLER)).findings == ()

    await run_as_owner(database, *statements)

    found = (await chain.verify(CALLER)).findings
    assert len(found) == len(findings)
    assert [part in one for part, one in zip(findings, found, strict=True)] == [True] * len(findings)


async def test_a_chain_that_was_made_anew_is_found_by_what_was_noted(
    database: Database, chain: AuditChain, tmp_path: Path
) -> None:
    await run_as_owner(
        database, f"UPDATE audit SET actor = 'somebody' WHERE id = {NTH.format(3)}", "DELETE FROM audit_links"
    )
    await AuditChain(database, tmp_path / "elsewhere.jsonl", JobSettings()).extend()

    assert (await chain.verify(CALLER)).findings == ("link 7 is not the one that was noted outside the database",)


@pytest.mark.parametrize(("first", "unlinked"), [("00000000", 1), ("ffffffff", 0)], ids=["old id", "new id"])
async def test_an_entry_that_is_added_with_a_time_of_the_past_is_found(
    database: Database, chain: AuditChain, first: str, unlinked: int
) -> None:
    await run_as_owner(
        database,
        f"INSERT INTO audit (id, at, actor, action) SELECT CAST('{first}' || substr(id::text, 9) AS uuid),"
        " at - interval '1 day', 'key:1', action FROM audit LIMIT 1",
    )
    await chain.extend()
    await AccessService(database).create_key(CALLER, "afterwards", Role.RECOGNIZE)
    assert await chain.extend() == 1

    found = await chain.verify(CALLER)
    assert found.unlinked == unlinked
    assert ["was added later" in finding for finding in found.findings] == [True]


async def test_entries_deleted_for_their_age_are_no_finding_and_others_are(
    database: Database, chain: AuditChain, tmp_path: Path
) -> None:
    a_second = JobSettings().model_copy(update={"audit_days": timedelta(seconds=1) / timedelta(days=1)})
    kept = AuditChain(database, tmp_path / "audit.jsonl", a_second)
    await run_as_owner(database, "SELECT pg_sleep(1.1)", f"DELETE FROM audit WHERE id = {NTH.format(3)}")

    assert (await kept.verify(CALLER)).findings == ()
    assert len((await chain.verify(CALLER)).findings) == 1


async def test_one_server_links_at_a_time_and_every_one_notes_the_end(
    database: Database, chain: AuditChain, tmp_path: Path
) -> None:
    second = AuditChain(database, tmp_path / "second.jsonl", JobSettings())
    await AccessService(database).create_key(CALLER, "late", Role.RECOGNIZE)
    async with database.transaction() as work:
        assert await work.audit.try_lock_chain()
        assert await second.extend() == 0

    assert await second.extend() == 1
    noted = [json.loads(line) for line in (tmp_path / "second.jsonl").read_text().splitlines()]
    assert [note["number"] for note in noted] == [ENTRIES]
