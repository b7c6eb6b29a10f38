"""Decision records: as the policy says, durable before the answer, and without whoever is erased."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from tests.callers import CALLER
from tests.services.conftest import count_rows

from vultus.domain import Calibration
from vultus.domain.decision import decide_verdict
from vultus.domain.decision_records import Answer, DecisionFilter
from vultus.errors import OverloadedError
from vultus.services.people.erasure import Eraser
from vultus.services.people.last_seen import LastSeenLog
from vultus.services.recognition.decision_log import DecisionLog
from vultus.settings import JobSettings

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray, LoadedSpace, SpaceRegistry
    from vultus.services.collections import CollectionService

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
CALIBRATION = Calibration(((1e-2, 0.5), (1e-4, 0.7)), margin=0.05, source="made up")


@pytest.fixture
def log(database: Database) -> DecisionLog:
    return DecisionLog(database, LastSeenLog(database))


@pytest.fixture
def space(spaces: SpaceRegistry, collection: Collection) -> LoadedSpace:
    return spaces.get_space(collection.space_id)


def decide(collection: Collection, similarity: float, ada: Any = None) -> Answer:
    decision = decide_verdict([similarity], policy=collection.policy, calibration=CALIBRATION, gallery_size=9)
    if ada is None:
        return Answer(decision=decision)
    return Answer(decision=decision, person_id=ada.person.id, face_id=ada.faces[0].id, similarity=similarity)


@pytest.mark.parametrize(
    ("recording", "verdicts"), [("none", []), ("matches", ["match"]), ("all", ["match", "no_match"])]
)
async def test_what_the_policy_says_is_recorded(
    database: Database,
    collections: CollectionService,
    collection: Collection,
    space: LoadedSpace,
    log: DecisionLog,
    enrol: Enrol,
    towards: Towards,
    recording: str,
    verdicts: list[str],
) -> None:
    collection = await collections.update_collection(
        CALLER, "home", policy={"record_searches": recording, "threshold": 0.8}
    )
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))

    answers = [decide(collection, 0.9, ada), decide(collection, 0.1)]
    await log.record(CALLER, collection, space, "recognize", answers)

    async with database.transaction(read_only=True) as work:
        found = await work.decisions.list_decisions(None, 9, DecisionFilter())
    assert [one.verdict for one in found] == verdicts
    for one in found[:1]:
        assert (one.person_id, one.consent_id, one.band) == (ada.person.id, ada.consent.id, "clear")
        assert (one.actor, one.kind, round(one.threshold, 6)) == (CALLER.id, "recognize", 0.8)
        assert one.detail["calibration"] == space.calibration.source
        assert one.detail["policy"]["threshold"] == 0.8
        assert one.detail["gallery_size"] == 9


async def test_a_record_stays_without_the_person_who_is_erased_and_goes_with_the_collection(
    database: Database,
    collections: CollectionService,
    collection: Collection,
    space: LoadedSpace,
    log: DecisionLog,
    enrol: Enrol,
    towards: Towards,
) -> None:
    collection = await collections.update_collection(
        CALLER, "home", policy={"record_searches": "all", "threshold": 0.8}
    )
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    await log.record(CALLER, collection, space, "recognize", [decide(collection, 0.9, ada)])

    await Eraser(database, JobSettings()).erase(CALLER, "home", ada.person.id)
    await log.record(CALLER, collection, space, "verify", [decide(collection, 0.9, ada)])  # answered meanwhile

    assert await count_rows(database, "decisions WHERE person_id IS NULL AND consent_id IS NULL") == 2
    assert await count_rows(database, f"decisions WHERE decisions::text LIKE '%{ada.person.id}%'") == 0
    await Eraser(database, JobSettings(decision_days=1e-9)).sweep_expired()
    assert await count_rows(database, "decisions") == 0
    await log.record(CALLER, collection, space, "search", [decide(collection, 0.1)])
    await collections.delete_collection(CALLER, "home")
    await log.record(CALLER, collection, space, "search", [decide(collection, 0.1)])
    assert await count_rows(database, "decisions") == 0


async def test_what_cannot_be_recorded_is_not_answered(
    collections: CollectionService,
    collection: Collection,
    space: LoadedSpace,
    log: DecisionLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*_: object) -> None:
        raise OverloadedError("busy")

    collection = await collections.update_collection(CALLER, "home", policy={"record_searches": "all"})
    monkeypatch.setattr("vultus.db.repositories.decisions.DecisionRepository.add_decision", refuse)

    with pytest.raises(OverloadedError):
        await log.record(CALLER, collection, space, "search", [decide(collection, 0.1)])
