"""The chain of the audit record: whoever changes, deletes, moves or adds an entry afterwards is found out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.callers import CALLER
from tests.conftest import run_as_owner
from tests.services.conftest import GRANT, count_rows

from vultus.domain import Role
from vultus.errors import SignatureInvalidError
from vultus.sealing.key_store import InstallationKeys
from vultus.sealing.signatures import encode_public_key, verify_document
from vultus.services.access import AccessService
from vultus.services.audit_chain import CHECKPOINT, AuditChain
from vultus.services.people.erasure import Eraser
from vultus.services.people.persons import PersonService
from vultus.settings import JobSettings
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from vultus.db.database import Database

ENTRIES = 12


@pytest.fixture
async def chain(database: Database, tmp_path: Path) -> AuditChain:
    """A chain of twelve entries, whose end was noted."""
    access, chain = AccessService(database), AuditChain(database, tmp_path / "audit.jsonl")
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
    await AuditChain(database, tmp_path / "elsewhere.jsonl").extend()

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


async def test_entries_deleted_for_their_age_are_no_finding_and_others_are(database: Database, tmp_path: Path) -> None:
    """The rule by which they went is an entry of the record, whatever the setting is now."""
    chain = AuditChain(database, tmp_path / "aged.jsonl")
    for name in ("old", "kept"):
        await AccessService(database).create_key(CALLER, name, Role.RECOGNIZE)
    await run_as_owner(database, f"UPDATE audit SET at = at - interval '40 days' WHERE id = {NTH.format(0)}")
    await chain.extend()

    await Eraser(database, JobSettings(audit_days=30)).sweep_expired()
    await chain.extend()

    checked = await chain.verify(CALLER)
    assert checked.findings == ()
    assert checked.oldest_kept is not None
    assert timedelta(days=30) <= datetime.now(UTC) - checked.oldest_kept < timedelta(days=31, minutes=1)
    await run_as_owner(database, f"DELETE FROM audit WHERE id = {NTH.format(0)}")
    assert ["was deleted" in finding for finding in (await chain.verify(CALLER)).findings] == [True]


async def test_a_forged_rule_hides_no_deletion_of_what_is_young(database: Database, chain: AuditChain) -> None:
    forged = '\'{"before": "2999-01-01T00:00:00Z", "entries": 1}\''
    await run_as_owner(
        database,
        f"UPDATE audit SET action = 'audit.trimmed', detail = {forged} WHERE id = {NTH.format(11)}",
        f"DELETE FROM audit WHERE id = {NTH.format(3)}",
    )

    assert len((await chain.verify(CALLER)).findings) == 2


async def test_a_checkpoint_tells_a_chain_that_was_made_anew_with_its_notes(
    database: Database, chain: AuditChain, tmp_path: Path
) -> None:
    keys = InstallationKeys(new_id(), {}, bytes(32))
    key = encode_public_key(keys.signing_key.public_key())
    document = await chain.sign_checkpoint(CALLER, keys)
    signed = verify_document(CHECKPOINT, document, public_key=key)
    assert (await chain.verify(CALLER, [signed])).findings == ()

    await run_as_owner(
        database, f"UPDATE audit SET actor = 'somebody' WHERE id = {NTH.format(3)}", "DELETE FROM audit_links"
    )
    anew = AuditChain(database, tmp_path / "anew.jsonl")
    await anew.extend()

    assert (await anew.verify(CALLER)).findings == ()
    (finding,) = (await anew.verify(CALLER, [signed])).findings
    assert finding.startswith("link 12 is not the one")
    with pytest.raises(SignatureInvalidError):
        verify_document(CHECKPOINT, document.replace(b'"number":12', b'"number":11'), public_key=key)


async def test_values_of_persons_that_were_changed_are_found(
    database: Database, collection: Any, tmp_path: Path
) -> None:
    persons, chain = PersonService(database), AuditChain(database, tmp_path / "values.jsonl")
    made = [
        (await persons.create_person(CALLER, "home", external_id=name, name=name, metadata={}, consent=GRANT))[0]
        for name in ("ada", "bob")
    ]
    for person in made:
        await persons.update_person(CALLER, "home", person.id, name="Renamed")
    assert (await chain.verify(CALLER)).findings == ()

    await Eraser(database, JobSettings()).erase(CALLER, "home", made[0].id)
    assert (await chain.verify(CALLER)).findings == ()
    assert await count_rows(database, "audit_changes") == 1
    await run_as_owner(database, "UPDATE audit_changes SET changes = replace(changes, 'bob', 'rob')")
    assert ["values of entry" in one for one in (await chain.verify(CALLER)).findings] == [True]
    await run_as_owner(database, "DELETE FROM audit_changes")
    assert ["values of entry" in one for one in (await chain.verify(CALLER)).findings] == [True]


async def test_one_server_links_at_a_time_and_every_one_notes_the_end(
    database: Database, chain: AuditChain, tmp_path: Path
) -> None:
    second = AuditChain(database, tmp_path / "second.jsonl")
    await AccessService(database).create_key(CALLER, "late", Role.RECOGNIZE)
    async with database.transaction() as work:
        assert await work.audit.try_lock_chain()
        assert await second.extend() == 0

    assert await second.extend() == 1
    noted = [json.loads(line) for line in (tmp_path / "second.jsonl").read_text().splitlines()]
    assert [note["number"] for note in noted] == [ENTRIES]
