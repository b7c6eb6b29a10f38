"""A receipt says what is true when it is issued, and stands without the server."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.callers import CALLER

from vultus.domain.erasures import DestroyedCounts
from vultus.errors import ForbiddenError, NotFoundError
from vultus.sealing.signatures import verify_document
from vultus.services.people.erasure import Eraser
from vultus.services.people.ledger import ErasureLedger
from vultus.services.people.receipts import BACKUPS, FILES, RECEIPT, ReceiptService
from vultus.settings import JobSettings

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray
    from vultus.sealing.custody import Custody

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]


async def test_a_receipt_says_who_was_erased_by_whom_and_what_remains(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards, custody: Custody, tmp_path: Path
) -> None:
    custody.keys.create()
    ledger = ErasureLedger.attach(database, tmp_path / "erasures.jsonl")
    receipts = ReceiptService(database, custody.keys, tmp_path / "erasures.jsonl")
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), towards(1))
    await ledger.synchronize()
    erased = await Eraser(database, JobSettings()).erase(CALLER, "home", ada.person.id)

    first = await receipts.issue_receipt(CALLER, erased.erasure_id)
    async with database.transaction() as work:
        scrub_id, _ = await work.scrubs.begin_scrub()
        report = {"unproven": ["the files"], "remaining": ["backups"]}
        assert await work.scrubs.finish_scrub(scrub_id, report, backups_days=30) == 1
    second = await receipts.issue_receipt(CALLER, erased.erasure_id)
    public_key = await receipts.get_public_key(CALLER)
    before, after = (verify_document(RECEIPT, one, public_key=public_key).content for one in (first, second))

    assert (before["person"], before["actor"], before["state"]) == (str(ada.person.id), CALLER.id, "unfindable")
    assert DestroyedCounts(**before["destroyed"]) == DestroyedCounts(persons=1, faces=2, consents=1)
    assert (before["remaining"], before["backups_expire_at"]) == ([FILES, BACKUPS], None)
    assert (after["state"], after["unproven"], after["remaining"]) == ("scrubbed", ["the files"], ["backups"])
    assert after["scrubbed_at"] < after["backups_expire_at"]
    lines = (tmp_path / "erasures.jsonl").read_bytes().splitlines(keepends=True)
    assert after["ledger"]["bytes"] == sum(map(len, lines))
    assert json.loads(lines[-1])["person"] == str(ada.person.id)
    assert b"Ada" not in second


async def test_a_receipt_is_for_those_who_may_erase_there(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards, custody: Custody, tmp_path: Path
) -> None:
    custody.keys.create()
    receipts = ReceiptService(database, custody.keys, tmp_path / "erasures.jsonl")
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    erased = await Eraser(database, JobSettings()).erase(CALLER, "home", ada.person.id)

    with pytest.raises(NotFoundError):
        await receipts.issue_receipt(replace(CALLER, collections=frozenset()), erased.erasure_id)
    with pytest.raises(ForbiddenError):
        await receipts.issue_receipt(replace(CALLER, permissions=frozenset()), erased.erasure_id)
