"""Collections: what a change keeps, what it deletes, and changes at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from tests.callers import CALLER
from tests.packs import FIRST, PACKS, SECOND
from tests.services.conftest import count_rows, list_actions, wait_for_lock_waiter

from vultus.domain import AuditFilter, Calibration, LivenessMode, NewCrop, Principal, Role
from vultus.errors import AlreadyExistsError, ForbiddenError, InvalidInputError, NotFoundError, OverloadedError
from vultus.services.audit import AuditService
from vultus.services.collections import (
    MAX_ATTEMPTS,
    CollectionChangedError,
    ensure_same_search_space,
    ensure_same_write_spaces,
    retry_if_collection_changed,
)

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray
    from vultus.services.collections import CollectionService

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
CALIBRATION = Calibration(((1e-2, 0.5), (1e-4, 0.7)), margin=0.05, source="made up")


async def test_a_collection_is_created_with_the_rules_of_its_pack(collections: CollectionService) -> None:
    created = await collections.create_collection(CALLER, "gate", pack=PACKS[SECOND], policy={"target_fpir": 0.01})
    space = await collections.get_space(CALLER, "gate")

    assert (created.space_id, space.id) == (SECOND, SECOND)
    assert (created.policy.enrol, created.policy.recognize) == (space.enrol_rule, space.recognize_rule)
    assert (created.policy.threshold, created.policy.target_fmr, created.policy.target_fpir) == (None, 1e-4, 0.01)
    for name, error in (("gate", AlreadyExistsError), (str(created.id), InvalidInputError)):
        with pytest.raises(error):
            await collections.create_collection(CALLER, name)


async def test_of_changes_at_once_none_undoes_another(
    database: Database, collections: CollectionService, collection: Collection
) -> None:
    async with database.transaction() as work:
        await work.lock_collection(collection.id)
        changes = [
            asyncio.create_task(collections.update_collection(CALLER, "home", policy=policy))
            for policy in ({"margin": 0.2}, {"liveness": "report"}, {"threshold": 0.9})
        ]
        await wait_for_lock_waiter(database)
        await asyncio.sleep(0.2)  # so that the others have read the collection too
    await asyncio.gather(*changes)

    changed, _, _ = await collections.get_collection_with_counts(CALLER, "home")

    assert changed.policy == replace(
        collection.policy,
        margin=0.2,
        liveness=LivenessMode.REPORT,
        threshold=0.9,
        target_fmr=None,
        target_fpir=None,
    )


@pytest.mark.parametrize(
    ("changes", "decides"),
    [
        ([], (None, 1e-2, 1e-2)),
        ([{"target_fmr": 1e-5}], (None, 1e-5, 1e-2)),
        ([{"target_fpir": None}, {"margin": 0.1}], (None, 1e-2, None)),
        ([{"threshold": 0.9}, {"margin": 0.1}], (0.9, None, None)),
        ([{"threshold": 0.9}, {"target_fpir": 0.05}], (None, None, 0.05)),
        ([{"threshold": 0.9}, {"target_fpir": 0.05}, {"target_fpir": None}], (None, 1e-2, None)),
        ([{"threshold": 0.9}, {"threshold": None}], (None, 1e-2, 1e-2)),
    ],
)
async def test_what_decides_is_a_threshold_or_targets(
    collections: CollectionService, changes: list[dict[str, float | None]], decides: tuple[float | None, ...]
) -> None:
    """A new collection has both targets; without a target for searches they follow that for comparisons."""
    policy = (await collections.create_collection(CALLER, "gate")).policy
    for change in changes:
        policy = (await collections.update_collection(CALLER, "gate", policy=change)).policy

    assert (policy.threshold, policy.target_fmr, policy.target_fpir) == decides


async def test_a_change_is_recorded_with_the_values_before_and_now_but_for_the_name(
    database: Database, collections: CollectionService, collection: Collection
) -> None:
    policy = {"threshold": 0.9, "enrol": {"min_size_px": 50, "max_yaw_deg": collection.policy.enrol.max_yaw_deg}}
    await collections.update_collection(CALLER, "home", name="house", retention_days=30, policy=policy)
    only = AuditFilter(action="collection.changed", collection_id=collection.id)
    found = await AuditService(database).list_entries(CALLER, after=None, limit=9, only=only)

    (detail,) = [entry.detail for entry in found]
    assert detail["changes"] == {
        "retention_days": {"from": None, "to": 30},
        "policy.enrol.min_size_px": {"from": collection.policy.enrol.min_size_px, "to": 50},
        "policy.target_fmr": {"from": 1e-2, "to": None},
        "policy.target_fpir": {"from": 1e-2, "to": None},
        "policy.threshold": {"from": None, "to": 0.9},
    }
    assert detail["fields"] == sorted(["name", *detail["changes"]])


async def test_crops_are_deleted_with_the_policy_that_kept_them_and_by_no_other_change(
    database: Database, collections: CollectionService, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    await collections.update_collection(CALLER, "home", policy={"keep_crops": True})
    async with database.transaction() as work:
        (face,) = (await enrol(work, collection, "ada", towards(0))).faces
        crop = NewCrop(
            sealed=b"sealed",
            collection_id=collection.id,
            face_id=face.id,
            person_id=face.person_id,
            consent_id=face.consent_id,
            consent_expires_at=None,
        )
        await work.crops.add_crops([crop])

    await collections.update_collection(CALLER, "home", name="house", policy={"margin": 0.2})
    kept = await count_rows(database, "crops")
    await collections.update_collection(CALLER, "house", policy={"keep_crops": False})

    assert (kept, await count_rows(database, "crops"), await count_rows(database, "faces")) == (1, 0, 1)


async def test_a_calibration_is_kept_per_embedding_space_and_its_removal_restores_the_packs(
    database: Database, collections: CollectionService, collection: Collection
) -> None:
    async with database.transaction() as work:
        for space_id in (FIRST, SECOND):
            changed = await collections.set_calibration(
                work, CALLER, collection.id, space_id, CALIBRATION, target_fpir=0.02
            )
    assert changed.calibrations == {FIRST: CALIBRATION, SECOND: CALIBRATION}
    assert (changed.policy.target_fmr, changed.policy.target_fpir) == (1e-2, 0.02)

    await collections.remove_calibration(CALLER, "home")

    left, _, _ = await collections.get_collection_with_counts(CALLER, "home")
    assert (left.calibrations, left.policy.target_fpir) == ({SECOND: CALIBRATION}, 0.02)
    with pytest.raises(NotFoundError, match="no calibration of its own"):
        await collections.remove_calibration(CALLER, "home")


async def test_a_deleted_collection_takes_its_persons_along_and_no_others(
    database: Database, collections: CollectionService, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    other = await collections.create_collection(CALLER, "other")
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0), towards(1))
        await enrol(work, other, "bob", towards(2))

    await collections.delete_collection(CALLER, "home")

    assert [await count_rows(database, table) for table in ("persons", "consents", "faces")] == [1, 1, 1]
    assert (await collections.get_collection_with_counts(CALLER, "other"))[1:] == (1, 1)


async def test_a_principal_reaches_only_its_collections_and_only_with_its_permissions(
    collections: CollectionService, collection: Collection
) -> None:
    other = await collections.create_collection(CALLER, "other")
    confined = Principal("test", Role.ADMIN.permissions, collections=frozenset({other.id}))
    enrolling = Principal("test", Role.ENROL.permissions)

    assert await collections.list_collections(confined, after=None, limit=9) == (other,)
    for reference in ("home", str(collection.id)):
        with pytest.raises(NotFoundError):
            await collections.update_collection(confined, reference, retention_days=1)
        with pytest.raises(ForbiddenError):
            await collections.delete_collection(enrolling, reference)
    with pytest.raises(ForbiddenError, match="create others"):  # it could not reach it
        await collections.create_collection(confined, "mine")
    for name in ("home", "free"):  # whether a name is taken is nothing it may learn
        with pytest.raises(ForbiddenError, match="rename"):
            await collections.update_collection(confined, "other", name=name)


def changed_since(collection: Collection, **changes: Any) -> Collection:
    return replace(collection, updated_at=datetime.now(UTC), **changes)


async def test_a_photo_is_analyzed_again_only_for_a_change_that_concerns_it(collection: Collection) -> None:
    def with_policy(**changes: Any) -> Collection:
        return changed_since(collection, policy=replace(collection.policy, **changes))

    for current in (changed_since(collection, name="house"), with_policy(margin=0.3)):
        ensure_same_write_spaces(collection, current, LivenessMode.OFF)
    ensure_same_search_space(collection, changed_since(collection, second_space_id=SECOND), LivenessMode.OFF)
    ensure_same_search_space(collection, with_policy(liveness=LivenessMode.REPORT), LivenessMode.REQUIRED)

    for current in (
        changed_since(collection, space_id=SECOND),
        changed_since(collection, second_space_id=SECOND),
        with_policy(keep_crops=True),
        with_policy(liveness=LivenessMode.REPORT),
    ):
        with pytest.raises(CollectionChangedError) as caught:
            ensure_same_write_spaces(collection, current, LivenessMode.OFF)
        assert caught.value.current is current


async def test_a_request_gives_up_where_the_collection_keeps_changing(collection: Collection) -> None:
    attempts = []

    async def run_attempt(current: Collection) -> str:
        attempts.append(current.name)
        if len(attempts) < succeeds_at:
            raise CollectionChangedError(changed_since(collection, name=f"name {len(attempts)}"))
        return "done"

    succeeds_at = MAX_ATTEMPTS
    assert await retry_if_collection_changed(collection, run_attempt) == "done"
    assert attempts == ["home", *(f"name {number}" for number in range(1, MAX_ATTEMPTS))]

    attempts.clear()
    succeeds_at = MAX_ATTEMPTS + 1
    with pytest.raises(OverloadedError, match="keeps changing"):
        await retry_if_collection_changed(collection, run_attempt)
    assert len(attempts) == MAX_ATTEMPTS


async def test_the_default_collection_is_recorded_by_the_process_that_creates_it(
    collections: CollectionService, database: Database
) -> None:
    for _ in range(2):
        await collections.ensure_default_collection()

    assert await list_actions(database) == ["collection.created"]
