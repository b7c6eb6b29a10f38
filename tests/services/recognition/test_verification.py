"""One person compared while their key is replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.callers import CALLER

from vultus.db.templates.store import TemplateStore
from vultus.domain import LivenessMode
from vultus.errors import KeyRingError
from vultus.services.people.key_destruction import KeyDestroyer
from vultus.services.people.rekeying import rekey_persons
from vultus.services.recognition.verification import Verifier

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection
    from vultus.sealing.custody import Custody


async def test_a_key_that_is_replaced_under_a_verification_is_no_error_and_a_lost_one_is(
    database: Database,
    collection: Collection,
    enrol: Any,
    towards: Any,
    custody: Custody,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), towards(1))
    find, calls = TemplateStore.find_person_similarity, []

    async def replace_first(self: TemplateStore, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            async with database.transaction() as work:
                await work.lock_collection(collection.id)
                await rekey_persons(work, collection.id, [ada.person.id])
            await KeyDestroyer(database, custody.person_keys).destroy_spent_keys()
        return await find(self, *arguments)

    monkeypatch.setattr(TemplateStore, "find_person_similarity", replace_first)
    verifier = Verifier(database, *[cast("Any", None)] * 4)

    async def compare() -> Any:
        return await verifier._compare_again(CALLER, collection, ada.person.id, LivenessMode.OFF, towards(0))

    _, person, best = await compare()
    assert (person.id, best[1], len(calls)) == (ada.person.id, ada.faces[0].id, 2)

    custody.person_keys.destroy_keys(custody.person_keys.list_keys())
    with pytest.raises(KeyRingError):
        await compare()
    for read in (read_all, search_all):
        with pytest.raises(KeyRingError):
            await read(database, collection, ada)


async def read_all(database: Database, collection: Collection, enrolled: Any) -> Any:
    async with database.transaction(read_only=True) as work:
        streamed = work.templates.stream_templates(collection.id, collection.space_id, [enrolled.person.id])
        return [one async for one in streamed]


async def search_all(database: Database, collection: Collection, enrolled: Any) -> Any:
    async with database.transaction(read_only=True) as work:
        faces = [face.id for face in enrolled.faces]
        return await work.templates.search_leave_one_out(collection.id, collection.space_id, faces)
