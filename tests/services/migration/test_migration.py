"""Migration: what a cutover requires and changes, and what a rollback restores."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.callers import CALLER
from tests.packs import FIRST, PACKS, SECOND
from tests.services.conftest import count_rows, list_actions

from vultus.domain import QualityRule
from vultus.errors import ConflictError, MigrationIncompleteError, NotFoundError
from vultus.models.catalog.measured import CALIBRATIONS
from vultus.services.migration.migration import MigrationService

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray, SpaceRegistry
    from vultus.services.collections import CollectionService

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
THRESHOLDS = {space_id: dict(CALIBRATIONS[space_id].points)[1e-4] for space_id in PACKS}


@pytest.fixture
def migrations(database: Database, spaces: SpaceRegistry) -> MigrationService:
    return MigrationService(database, spaces)


async def start(migrations: MigrationService) -> None:
    await migrations.start(CALLER, "home", pack=PACKS[SECOND], shadow_share=0.0)


async def cut_over(migrations: MigrationService) -> Collection:
    return (await migrations.cut_over(CALLER, "home", allow_unmigrated=False)).collection


async def set_policy(collections: CollectionService, **changes: Any) -> None:
    patch = {name: asdict(value) if isinstance(value, QualityRule) else value for name, value in changes.items()}
    await collections.update_collection(CALLER, "home", policy=patch)


async def test_a_cutover_converts_what_the_policy_fixes(
    migrations: MigrationService, collections: CollectionService, collection: Collection, spaces: SpaceRegistry
) -> None:
    assert (CALIBRATIONS[FIRST].margin, CALIBRATIONS[SECOND].margin) == (0.01, 0.04)
    await set_policy(collections, target_fmr=None, threshold=THRESHOLDS[FIRST], margin=0.025)
    await start(migrations)

    there = await cut_over(migrations)
    back = await cut_over(migrations)

    other = spaces.get_space(SECOND)
    assert (there.space_id, there.second_space_id) == (SECOND, FIRST)
    matched = CALIBRATIONS[SECOND].get_threshold(CALIBRATIONS[FIRST].get_fmr(THRESHOLDS[FIRST]))
    anybody, before = CALIBRATIONS[SECOND].anybody_curve, CALIBRATIONS[FIRST].anybody_curve
    assert there.policy.threshold == pytest.approx(
        max(matched, anybody.get_threshold(before.get_fmr(THRESHOLDS[FIRST])))
    )
    assert there.policy.margin == pytest.approx(0.1)  # two and a half times the measured one, as before
    assert (there.policy.enrol, there.policy.recognize) == (other.enrol_rule, other.recognize_rule)
    assert (back.space_id, back.policy.threshold, back.policy.margin) == (FIRST, THRESHOLDS[FIRST], 0.025)
    assert back.policy.enrol == collection.policy.enrol


async def test_a_cutover_leaves_what_the_calibration_decides(
    migrations: MigrationService, collections: CollectionService, collection: Collection
) -> None:
    stricter = replace(collection.policy.recognize, min_size_px=77)
    await set_policy(collections, recognize=stricter)
    await start(migrations)

    policy = (await cut_over(migrations)).policy

    assert (policy.threshold, policy.margin) == (None, None)
    assert collection.policy.target_fmr == CALIBRATIONS[FIRST].default_fmr != CALIBRATIONS[SECOND].default_fmr
    assert policy.target_fmr == CALIBRATIONS[SECOND].default_fmr  # a default stays one
    assert policy.recognize == stricter


async def test_a_cutover_replaces_the_default_rules_of_an_earlier_version(
    migrations: MigrationService, collections: CollectionService, collection: Collection, spaces: SpaceRegistry
) -> None:
    enrol, recognize = spaces.get_space(FIRST).earlier_rules
    await set_policy(collections, enrol=enrol, recognize=recognize)
    await start(migrations)

    policy = (await cut_over(migrations)).policy

    other = spaces.get_space(SECOND)
    assert (policy.enrol, policy.recognize) == (other.enrol_rule, other.recognize_rule)


async def test_a_rollback_keeps_a_policy_that_was_changed_since_the_cutover(
    migrations: MigrationService, collections: CollectionService, collection: Collection
) -> None:
    await set_policy(collections, margin=0.025)
    await start(migrations)
    await cut_over(migrations)
    await set_policy(collections, margin=0.2)

    assert (await cut_over(migrations)).policy.margin == pytest.approx(0.05)


async def test_a_cutover_waits_for_every_person_unless_told_not_to(
    database: Database, migrations: MigrationService, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), towards(1))
        bob = await enrol(work, collection, "bob", towards(2))
    await start(migrations)
    async with database.transaction() as work:
        await work.templates.add_second_template(collection.id, ada.faces[0].id, SECOND, towards(3))
        for face in (ada.faces[1], bob.faces[0]):
            await work.backfill.add_failure(collection.id, face.id, SECOND, "no_face")

    with pytest.raises(MigrationIncompleteError, match="1 persons"):
        await cut_over(migrations)
    (listed,) = await migrations.list_unmigrated_persons(CALLER, "home", after=None, limit=9)
    done = await migrations.cut_over(CALLER, "home", allow_unmigrated=True)

    assert listed.id == bob.person.id
    assert (done.before.space_id, done.collection.space_id, done.unmigrated_persons) == (FIRST, SECOND, 1)


async def test_the_end_of_a_migration_loses_no_face_unless_told_to(
    database: Database, migrations: MigrationService, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), towards(1))
    await start(migrations)
    async with database.transaction() as work:
        await work.templates.add_second_template(collection.id, ada.faces[0].id, SECOND, towards(3))
        await work.backfill.add_failure(collection.id, ada.faces[1].id, SECOND, "no_face")
    await cut_over(migrations)

    with pytest.raises(MigrationIncompleteError, match="1 faces"):
        await migrations.finish(CALLER, "home", allow_unmigrated=False)
    finished = await migrations.finish(CALLER, "home", allow_unmigrated=True)

    assert (finished.removed_space_id, finished.templates, finished.faces_lost) == (FIRST, 2, 1)
    assert (await count_rows(database, "faces"), await count_rows(database, "transitions")) == (1, 0)
    with pytest.raises(NotFoundError):
        await migrations.get_state(CALLER, "home")


async def test_a_repeated_start_retries_what_failed_and_another_target_is_refused(
    database: Database, migrations: MigrationService, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    with pytest.raises(ConflictError, match="already"):
        await migrations.start(CALLER, "home", pack=PACKS[FIRST], shadow_share=0.0)
    await start(migrations)
    async with database.transaction() as work:
        await work.backfill.add_failure(collection.id, ada.faces[0].id, SECOND, "no_face")

    await start(migrations)

    assert await count_rows(database, "carry_failures") == 0
    assert (await list_actions(database))[-2:] == ["transition.begun", "transition.retried"]
    with pytest.raises(ConflictError, match="finish that first"):
        await migrations.start(CALLER, "home", pack=PACKS[FIRST], shadow_share=0.0)
