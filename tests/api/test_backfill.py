"""Backfill of templates, from retained crops and from resubmitted photos."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from tests.faces import STRANGER, drawn, encoded, portrait
from tests.migrations import (
    COLLECTION,
    MIGRATION,
    call_api,
    fetch_scalar,
    others,
    recognize_best,
    resubmit_photos,
    run_after_analysis,
    second,
    set_keep_crops,
    start_migration,
)

from vultus.models.pipeline import FacePipeline
from vultus.services.jobs import PartialFailureError
from vultus.services.migration.backfill import BackfillWorker, record_outcome

if TYPE_CHECKING:
    from tests.api.conftest import Api

__all__ = ["others", "second"]


async def test_resubmitted_photos_backfill_faces_without_a_crop(api: Api, second: FacePipeline) -> None:
    await api.register(portrait(), name="Ada")
    bob = await api.register(encoded(drawn(STRANGER)), name="Bob")
    await start_migration(api)
    assert await api.services.backfill_worker.run() == 0
    coverage = (await call_api(api, "GET"))["second"]
    assert (coverage["pending"], coverage["failed"], coverage["persons_missing"]) == (0, {"no_crop": 2}, 2)
    refused = await call_api(api, "POST", f"{MIGRATION}/switch", 409)
    assert (refused["pending"], refused["persons"]) == (0, 2)

    assert await resubmit_photos(api, portrait(), portrait(angle=9), b"no image") == ["carried", "unknown", "unknown"]
    assert await resubmit_photos(api, portrait()) == ["already_carried"]

    listed = (await call_api(api, "GET", f"{MIGRATION}/left-behind"))["items"]
    assert [(one["person_id"], one["faces"], one["reasons"]) for one in listed] == [
        (bob["person"]["id"], 1, ["no_crop"])
    ]
    switched = await call_api(api, "POST", f"{MIGRATION}/switch", params={"leave_behind": True})
    assert switched["persons_left_behind"] == 1
    assert await recognize_best(api, portrait(angle=5)) == (second.space.id, "match", "Ada")
    assert (await recognize_best(api, encoded(drawn(STRANGER))))[1] == "no_match"
    assert (await call_api(api, "DELETE", status=409))["code"] == "transition_incomplete"
    assert await resubmit_photos(api, encoded(drawn(STRANGER))) == ["carried"]  # also after the cutover
    assert (await recognize_best(api, encoded(drawn(STRANGER))))[1:] == ("match", "Bob")


@pytest.mark.parametrize("what", ["face", "person", "consent", "collection"])
async def test_what_is_erased_during_its_backfill_is_not_restored(
    api: Api, second: FacePipeline, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_keep_crops(api)
    ada = await api.register(portrait(), portrait(mirror=True), name="Ada")
    await start_migration(api)
    person = f"{COLLECTION}/persons/{ada['person']['id']}"
    path = {
        "face": f"{person}/faces/{ada['accepted'][0]['face']['id']}",
        "person": person,
        "consent": f"{person}/consents/{ada['consent']['id']}",
        "collection": COLLECTION,
    }[what]
    run_after_analysis(api, monkeypatch, second, lambda: api.client.delete(path))

    backfilled = await api.services.backfill_worker.run()

    assert backfilled == (1 if what == "face" else 0)
    assert await fetch_scalar(api, "SELECT count(*) FROM faces") == 2 * backfilled
    assert await fetch_scalar(api, "SELECT count(*) FROM crops") == backfilled
    assert await fetch_scalar(api, "SELECT count(*) FROM carry_failures") == 0


async def test_an_erasure_that_is_not_committed_yet_takes_precedence_too(api: Api, second: FacePipeline) -> None:
    ada = await api.register(portrait(), name="Ada")
    await start_migration(api)
    face, person = UUID(ada["accepted"][0]["face"]["id"]), UUID(ada["person"]["id"])
    database = api.services.database
    async with database.transaction() as work:
        collection = await work.collections.get_collection_by_name("default")
        await work.lock_collection(collection.id)
        await work.faces.delete_face(collection.id, person, face)
        vector = np.eye(128, dtype=np.float32)[0]
        recorded = asyncio.create_task(record_outcome(database, collection.id, face, second.space.id, vector))
        await asyncio.sleep(0.3)

    assert not await recorded
    assert await fetch_scalar(api, "SELECT count(*) FROM faces") == 0


async def test_a_killed_job_resumes_where_it_was(
    api: Api, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_keep_crops(api)
    await api.register(portrait(), portrait(mirror=True), portrait(angle=5), name="Ada")
    await start_migration(api)
    worker = api.services.backfill_worker

    async def die() -> None:
        job.cancel()
        await asyncio.sleep(0)

    run_after_analysis(api, monkeypatch, second, die)
    job = asyncio.create_task(worker.run())
    with pytest.raises(asyncio.CancelledError):
        await job
    assert (await call_api(api, "GET"))["second"]["pending"] == 3

    async with api.services.database.transaction() as work:
        (migration,) = await work.migrations.list_migrations()
        await work.migrations.acquire_lease(migration.collection_id, UUID(int=1), 60)  # held by a killed process
    assert await worker.run() == 0
    async with api.services.database.transaction() as work:
        await work.migrations.acquire_lease(migration.collection_id, UUID(int=1), 0)
    next_process = BackfillWorker(worker._database, worker._engine, worker._spaces, worker._vault)
    assert await next_process.run() == 3
    assert (await call_api(api, "GET"))["second"]["faces"] == 3


async def test_the_job_yields_to_requests(api: Api, second: FacePipeline) -> None:
    await set_keep_crops(api)
    await api.register(portrait(), name="Ada")
    await start_migration(api)
    pool = api.pool
    pool._free_workers, workers = [], pool._free_workers
    job = asyncio.create_task(api.services.backfill_worker.run())
    await asyncio.sleep(0.5)
    assert not job.done()
    assert (await call_api(api, "GET"))["second"]["pending"] == 1

    pool._free_workers = workers
    pool._start_batches()
    assert await job == 1


async def test_a_face_and_a_collection_that_fail_do_not_stop_the_others(
    api: Api, second: FacePipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policy = {"policy": {"keep_crops": True}}
    first = (await call_api(api, "POST", "/v1/collections", 201, json={"name": "first", **policy}))["id"]
    await call_api(api, "POST", "/v1/collections/first/transition", json={"pack": "zoomed"})
    await set_keep_crops(api)
    ada = await api.register(portrait(), portrait(mirror=True), name="Ada")
    await start_migration(api)
    worker = api.services.backfill_worker
    backfill_space = worker._backfill_space

    async def fail_for_first(collection: Any, space_id: str) -> int:
        if str(collection.id) == first:
            raise RuntimeError
        return await backfill_space(collection, space_id)

    async def fail_analysis() -> None:
        raise ValueError("a name")

    monkeypatch.setattr(worker, "_backfill_space", fail_for_first)
    run_after_analysis(api, monkeypatch, second, fail_analysis)

    with pytest.raises(PartialFailureError):
        await worker.run()
    coverage = (await call_api(api, "GET"))["second"]
    assert (coverage["faces"], coverage["failed"]) == (1, {"error": 1})
    assert f"collection {first}" in caplog.text
    assert any(one["face"]["id"] in caplog.text for one in ada["accepted"])
    assert "a name" not in caplog.text
    assert (await start_migration(api))["second"]["pending"] == 1
