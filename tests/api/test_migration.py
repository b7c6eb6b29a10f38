"""Online model migration: dual write, shadow comparison, cutover, rollback and completion."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from tests.faces import STRANGER, drawn, encoded, nobody, portrait
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
    set_calibration,
    set_keep_crops,
    start_migration,
)

from vultus.domain import Role
from vultus.models.pipeline import FacePipeline

if TYPE_CHECKING:
    from tests.api.conftest import Api

__all__ = ["others", "second"]


async def test_cutover_rollback_and_completion(api: Api, pipeline: FacePipeline, second: FacePipeline) -> None:
    old, new = pipeline.space.id, second.space.id
    await set_keep_crops(api)
    ada = await api.register(portrait(), portrait(mirror=True), name="Ada")
    await api.register(encoded(drawn(STRANGER)), name="Bob")

    started = await start_migration(api)
    assert (started["target_contract_id"], started["crops"]) == (new, 3)
    assert (started["active"]["faces"], started["second"]["pending"], started["second"]["faces"]) == (3, 3, 0)
    refused = await call_api(api, "POST", f"{MIGRATION}/switch", 409)
    assert (refused["code"], refused["pending"]) == ("transition_incomplete", 3)
    assert await api.services.backfill_worker.run() == 3
    assert (await call_api(api, "GET"))["second"] == started["active"] | {"contract_id": new}
    assert await recognize_best(api, portrait(angle=5)) == (old, "match", "Ada")

    switched = await call_api(api, "POST", f"{MIGRATION}/switch")
    assert (switched["previous_contract_id"], switched["collection"]["contract_id"]) == (old, new)
    assert switched["took_ms"] < 1000
    assert await recognize_best(api, portrait(angle=5)) == (new, "match", "Ada")
    faces = (await call_api(api, "GET", f"{COLLECTION}/persons/{ada['person']['id']}/faces"))["items"]
    assert [face["id"] for face in faces] == [one["face"]["id"] for one in ada["accepted"]]
    assert {tuple(face["contracts"]) for face in faces} == {tuple(sorted((old, new)))}
    assert (await call_api(api, "GET", COLLECTION))["faces"] == 3

    await call_api(api, "POST", f"{MIGRATION}/switch")
    assert await recognize_best(api, portrait(angle=5)) == (old, "match", "Ada")
    await call_api(api, "POST", f"{MIGRATION}/switch")
    finished = await call_api(api, "DELETE")
    assert (finished["removed_contract_id"], finished["templates"]) == (old, 3)
    assert await recognize_best(api, portrait(angle=5)) == (new, "match", "Ada")
    assert await fetch_scalar(api, "SELECT count(*) FROM faces") == 3
    await call_api(api, "GET", status=404)
    actions = [entry["action"] for entry in (await call_api(api, "GET", "/v1/audit"))["items"]]
    assert actions[-5:] == ["transition.begun", *["transition.switched"] * 3, "transition.finished"]


async def test_enrolment_writes_to_both_spaces_from_the_start_on(
    api: Api, pipeline: FacePipeline, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_after_analysis(api, monkeypatch, pipeline, lambda: start_migration(api))

    ada = await api.register(portrait(), name="Ada")  # in flight when the migration starts
    both = tuple(sorted((pipeline.space.id, second.space.id)))
    assert [tuple(one["face"]["contracts"]) for one in ada["accepted"]] == [both]
    await call_api(api, "POST", f"{MIGRATION}/switch")
    bob = await api.register(encoded(drawn(STRANGER)), name="Bob")
    assert bob["accepted"][0]["face"]["contract_id"] == second.space.id
    await call_api(api, "POST", f"{MIGRATION}/switch")

    assert await recognize_best(api, encoded(drawn(STRANGER))) == (pipeline.space.id, "match", "Bob")


async def test_a_face_the_second_network_does_not_detect_is_enrolled_and_listed(
    api: Api, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start_migration(api)
    blind = second.analyze_photos
    monkeypatch.setattr(
        second, "analyze_photos", lambda requests: blind([replace(one, photo=nobody()) for one in requests])
    )

    ada = await api.register(portrait(), name="Ada")

    (item,) = (await call_api(api, "GET", f"{MIGRATION}/left-behind"))["items"]
    assert (item["person_id"], item["reasons"]) == (ada["person"]["id"], ["no_face"])
    assert (await recognize_best(api, portrait()))[1:] == ("match", "Ada")
    assert await resubmit_photos(api, portrait()) == ["no_face"]


async def test_an_unmigrated_person_stays_after_completion(api: Api) -> None:
    await api.register(portrait(), name="Ada")
    bob = await api.register(encoded(drawn(STRANGER)), name="Bob")
    await start_migration(api)
    await resubmit_photos(api, portrait())
    await call_api(api, "POST", f"{MIGRATION}/switch", params={"leave_behind": True})

    finished = await call_api(api, "DELETE", params={"leave_behind": True})

    assert (finished["persons_left_behind"], finished["faces_lost"]) == (1, 1)
    (listed,) = (await call_api(api, "GET", f"{MIGRATION}/left-behind"))["items"]
    assert (listed["person_id"], listed["name"], listed["faces"]) == (bob["person"]["id"], "Bob", 0)
    assert len((await call_api(api, "GET", f"{COLLECTION}/persons"))["items"]) == 2


async def test_completion_is_refused_before_it_loses_a_face(api: Api) -> None:
    await set_keep_crops(api)
    await api.register(portrait(), portrait(mirror=True), name="Ada")
    await start_migration(api)
    await resubmit_photos(api, portrait())
    await call_api(api, "POST", f"{MIGRATION}/switch", params={"leave_behind": True})

    pending = await call_api(api, "DELETE", status=409)
    async with api.services.database._engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM crops")
    await api.services.backfill_worker.run()
    failed = await call_api(api, "DELETE", status=409)
    finished = await call_api(api, "DELETE", params={"leave_behind": True})

    assert [(one["code"], one["pending"]) for one in (pending, failed)] == [
        ("transition_incomplete", 1),
        ("transition_incomplete", 0),
    ]
    assert (finished["templates"], finished["faces_lost"], finished["persons_left_behind"]) == (2, 1, 0)
    (detail,) = [
        entry["detail"]
        for entry in (await call_api(api, "GET", "/v1/audit"))["items"]
        if entry["action"] == "transition.finished"
    ]
    assert detail["faces_lost"] == 1


async def test_finishing_before_the_cutover_cancels_the_migration(api: Api, pipeline: FacePipeline) -> None:
    await set_keep_crops(api)
    await api.register(portrait(), name="Ada")
    await start_migration(api)
    await api.services.backfill_worker.run()

    await call_api(api, "DELETE")

    assert await recognize_best(api, portrait()) == (pipeline.space.id, "match", "Ada")
    assert await fetch_scalar(api, "SELECT count(*) FROM faces") == 1
    assert await fetch_scalar(api, "SELECT count(*) FROM crops") == 1  # the face and its policy stay


async def test_a_request_in_flight_during_the_cutover_is_answered_by_the_other_network(
    api: Api, pipeline: FacePipeline, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start_migration(api)
    ada = await api.register(portrait(), name="Ada")

    def switch() -> Any:
        return call_api(api, "POST", f"{MIGRATION}/switch")

    run_after_analysis(api, monkeypatch, pipeline, switch)
    assert await recognize_best(api, portrait(angle=5)) == (second.space.id, "match", "Ada")
    run_after_analysis(api, monkeypatch, second, switch)
    verified = await call_api(
        *(api, "POST", "/v1/verify"), data={"person_id": ada["person"]["id"]}, files={"photo": portrait(angle=5)}
    )
    assert verified["verdict"] == "match"
    run_after_analysis(api, monkeypatch, pipeline, switch)
    refused = await api.register(portrait(mirror=True), name="Eve", status=422)
    assert refused["rejected"][0]["reasons"] == ["enrolled_as_other_person"]


async def test_a_comparison_names_the_faces_about_which_the_networks_disagree(api: Api, second: FacePipeline) -> None:
    await start_migration(api)
    ada = await api.register(portrait(), portrait(mirror=True), portrait(angle=4), name="Ada")
    await api.register(encoded(drawn(STRANGER)), name="Bob")
    same = await call_api(api, "GET", f"{MIGRATION}/comparison")
    assert (same["compared"], same["agreed"], same["disagreements"]) == (4, 4, [])
    assert (same["active_wrong"], same["second_wrong"]) == (0, 0)

    face = UUID(ada["accepted"][0]["face"]["id"])
    async with api.services.database.transaction() as work:
        collection = await work.collections.get_collection_by_name("default")
        await work.faces.delete_face(collection.id, UUID(ada["person"]["id"]), face)
    mirrored = UUID(ada["accepted"][1]["face"]["id"])
    async with api.services.database._engine.begin() as connection:  # as a worse network would have stored it
        await connection.exec_driver_sql(
            "DELETE FROM faces WHERE id = $1 AND contract_id = $2", (mirrored, second.space.id)
        )
    async with api.services.database.transaction() as work:
        vector = np.eye(128, dtype=np.float32)[0]
        assert await work.templates.add_second_template(collection.id, mirrored, second.space.id, vector)

    report = await call_api(api, "GET", f"{MIGRATION}/comparison")
    assert (report["compared"], report["agreed"], report["second_wrong"]) == (3, 1, 2)
    assert report["kinds"] == {"match_no_match": 2}
    assert {one["face_id"] for one in report["disagreements"]} == {one["face"]["id"] for one in ada["accepted"][1:]}


async def test_a_share_of_recognitions_is_compared_in_both_spaces(
    api: Api, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start_migration(api, shadow_share=1)
    ada = await api.register(portrait(), name="Ada")

    async def compare_all() -> None:
        while True:
            await api.services.shadow_comparer.compare_next()

    worker = asyncio.create_task(compare_all())

    async def shadow(compared: int) -> Any:
        async with asyncio.timeout(20):
            while True:
                shadow_statistics = (await call_api(api, "GET", f"{MIGRATION}/comparison"))["shadow"]
                if shadow_statistics["compared"] == compared:
                    return shadow_statistics
                await asyncio.sleep(0.05)

    await api.recognize(portrait(angle=5))
    assert (await shadow(1))["agreed"] == 1
    blind = second.analyze_photos
    monkeypatch.setattr(
        second, "analyze_photos", lambda requests: blind([replace(one, photo=nobody()) for one in requests])
    )
    await api.recognize(portrait(angle=5))
    shadow_statistics = await shadow(2)
    worker.cancel()

    assert (shadow_statistics["agreed"], [one["kind"] for one in shadow_statistics["disagreements"]]) == (
        1,
        ["match_no_face"],
    )
    assert shadow_statistics["disagreements"][0]["answers"][second.space.id] is None
    await call_api(api, "DELETE", f"{COLLECTION}/persons/{ada['person']['id']}")
    assert (await call_api(api, "GET", f"{MIGRATION}/comparison"))["shadow"]["disagreements"] == []


async def test_a_fixed_threshold_keeps_its_error_rate_and_is_restored_by_a_rollback(
    api: Api, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, anybody = (
        tuple((rate, at - 0.5) for rate, at in curve)
        for curve in (second.calibration.points, second.calibration.anybody)
    )
    lower = replace(second.calibration, points=points, anybody=anybody)
    set_calibration(api, monkeypatch, second, lower)
    await call_api(api, "PATCH", COLLECTION, json={"policy": {"threshold": 0.9810, "margin": 0.03}})
    await start_migration(api)

    switched = (await call_api(api, "POST", f"{MIGRATION}/switch"))["collection"]["policy"]
    rolled_back = (await call_api(api, "POST", f"{MIGRATION}/switch"))["collection"]["policy"]

    assert (switched["threshold"], switched["margin"]) == (pytest.approx(lower.points[-1][1]), pytest.approx(0.03))
    assert (rolled_back["threshold"], rolled_back["margin"]) == (0.9810, 0.03)


async def test_a_fixed_threshold_the_other_network_cannot_keep_is_refused(
    api: Api, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = replace(second.calibration, points=second.calibration.points[:3])
    await start_migration(api)

    await call_api(
        api, "PATCH", COLLECTION, json={"policy": {"threshold": 0.99}}
    )  # beyond the measured range of the first network
    assert (await call_api(api, "POST", f"{MIGRATION}/switch", 422))["code"] == "invalid_input"
    set_calibration(api, monkeypatch, second, coarse)
    await call_api(api, "PATCH", COLLECTION, json={"policy": {"threshold": 0.9623}})
    refused = await call_api(api, "POST", f"{MIGRATION}/switch", 422, params={"leave_behind": True})
    assert ("1e-04" in refused["detail"], "1e-03" in refused["detail"]) == (True, True)

    await call_api(api, "PATCH", COLLECTION, json={"policy": {"threshold": 0.9601}})
    await call_api(api, "POST", f"{MIGRATION}/switch")
    set_calibration(api, monkeypatch, second, replace(coarse, points=coarse.points[:2]))
    rolled_back = await call_api(
        api, "POST", f"{MIGRATION}/switch"
    )  # restores the previous threshold, whatever is resolved now
    assert rolled_back["collection"]["policy"]["threshold"] == 0.9601


async def test_a_migration_that_cannot_start_is_refused(api: Api) -> None:
    await call_api(api, "POST", status=409, json={"pack": "builtin"})
    await call_api(api, "POST", status=404, json={"pack": "unheard-of"})
    await call_api(api, "POST", f"{MIGRATION}/switch", 404)
    await call_api(api, "DELETE", status=404)
    await start_migration(api)
    await call_api(api, "POST", status=409, json={"pack": "builtin"})
    for role in (Role.RECOGNIZE, Role.ENROL):
        await call_api(api, "GET", status=403, headers=await api.key(role))
