"""A gallery changes its network while it is used: nobody is lost, nobody comes back, and there is a way back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from tests.faces import STRANGER, drawn, encoded, nobody, portrait
from tests.packs import zoomed

from vultus.domain import Liveness, LivenessReason, Role
from vultus.models.pipeline import FacePipeline
from vultus.services.crop_vault import CropVault
from vultus.services.migration.backfill import Carrier, settle

if TYPE_CHECKING:
    from tests.api.conftest import Api

    from vultus.domain import Analysis

HOME = "/v1/collections/default"
MOVE = f"{HOME}/transition"


@pytest.fixture(scope="session")
def second(pipeline: FacePipeline) -> FacePipeline:
    return zoomed(pipeline)


@pytest.fixture
def others(second: FacePipeline) -> tuple[FacePipeline, ...]:
    return (second,)


async def ask(api: Api, method: str, path: str = MOVE, status: int = 200, **options: Any) -> Any:
    answer = await api.client.request(method, path, **options)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


async def keep_crops(api: Api, *, on: bool = True, status: int = 200) -> Any:
    return await ask(api, "PATCH", HOME, status, json={"policy": {"keep_crops": on}})


async def begin(api: Api, **fields: Any) -> Any:
    return await ask(api, "POST", json={"pack": "zoomed", **fields})


async def supply(api: Api, *photos: bytes) -> list[str]:
    files = [("photo", (f"{at}.jpg", photo)) for at, photo in enumerate(photos)]
    return [one["outcome"] for one in (await ask(api, "POST", f"{MOVE}/photos", files=files))["photos"]]


async def best(api: Api, photo: bytes) -> tuple[str, str, str | None]:
    found = await api.recognize(photo)
    (face,) = found["faces"]
    return found["contract_id"], face["verdict"], face["candidates"][0]["name"] if face["candidates"] else None


def meddling(api: Api, monkeypatch: pytest.MonkeyPatch, pipeline: FacePipeline, act: Callable[[], Any]) -> None:
    """Do something once, after the next photo was described by a pipeline and before anybody learns of it."""
    pool = api.services.carrier._pool
    analyze = pool.analyze
    done: list[bool] = []

    async def slow(photo: bytes, by: FacePipeline, **options: Any) -> Analysis:
        analysis = await analyze(photo, by, **options)
        if by is pipeline and not done:
            done.append(True)
            await act()
        return analysis

    monkeypatch.setattr(pool, "analyze", slow)


async def stored(api: Api, sql: str) -> Any:
    async with api.services.database._engine.connect() as connection:
        return (await connection.exec_driver_sql(sql)).scalar_one()


async def test_there_and_back_again(api: Api, pipeline: FacePipeline, second: FacePipeline) -> None:
    old, new = pipeline.contract.id, second.contract.id
    await keep_crops(api)
    ada = await api.register(portrait(), portrait(mirror=True), name="Ada")
    await api.register(encoded(drawn(STRANGER)), name="Bob")

    started = await begin(api)
    assert (started["target_contract_id"], started["crops"]) == (new, 3)
    assert (started["active"]["faces"], started["second"]["pending"], started["second"]["faces"]) == (3, 3, 0)
    refused = await ask(api, "POST", f"{MOVE}/switch", 409)
    assert (refused["code"], refused["pending"]) == ("transition_incomplete", 3)
    assert await api.services.carrier.run() == 3
    assert (await ask(api, "GET"))["second"] == started["active"] | {"contract_id": new}
    assert await best(api, portrait(angle=5)) == (old, "match", "Ada")

    switched = await ask(api, "POST", f"{MOVE}/switch")
    assert (switched["previous_contract_id"], switched["collection"]["contract_id"]) == (old, new)
    assert switched["took_ms"] < 1000
    assert await best(api, portrait(angle=5)) == (new, "match", "Ada")
    faces = (await ask(api, "GET", f"{HOME}/persons/{ada['person']['id']}/faces"))["items"]
    assert [face["id"] for face in faces] == [one["face"]["id"] for one in ada["accepted"]]
    assert {tuple(face["contracts"]) for face in faces} == {tuple(sorted((old, new)))}
    assert (await ask(api, "GET", HOME))["faces"] == 3

    await ask(api, "POST", f"{MOVE}/switch")
    assert await best(api, portrait(angle=5)) == (old, "match", "Ada")
    await ask(api, "POST", f"{MOVE}/switch")
    finished = await ask(api, "DELETE")
    assert (finished["removed_contract_id"], finished["templates"]) == (old, 3)
    assert await best(api, portrait(angle=5)) == (new, "match", "Ada")
    assert await stored(api, "SELECT count(*) FROM faces") == 3
    await ask(api, "GET", status=404)
    actions = [entry["action"] for entry in (await ask(api, "GET", "/v1/audit"))["items"]]
    assert actions[-5:] == ["transition.begun", *["transition.switched"] * 3, "transition.finished"]


async def test_enrolment_writes_both_from_the_beginning_on(
    api: Api, pipeline: FacePipeline, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    meddling(api, monkeypatch, pipeline, lambda: begin(api))

    ada = await api.register(portrait(), name="Ada")  # under way when the transition begins
    both = tuple(sorted((pipeline.contract.id, second.contract.id)))
    assert [tuple(one["face"]["contracts"]) for one in ada["accepted"]] == [both]
    await ask(api, "POST", f"{MOVE}/switch")
    bob = await api.register(encoded(drawn(STRANGER)), name="Bob")
    assert bob["accepted"][0]["face"]["contract_id"] == second.contract.id
    await ask(api, "POST", f"{MOVE}/switch")

    assert await best(api, encoded(drawn(STRANGER))) == (pipeline.contract.id, "match", "Bob")


async def test_a_face_the_second_network_does_not_see_is_enrolled_and_listed(
    api: Api, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(api)
    blind = second.describe_all
    monkeypatch.setattr(second, "describe_all", lambda asked: blind([replace(one, photo=nobody()) for one in asked]))

    ada = await api.register(portrait(), name="Ada")

    (item,) = (await ask(api, "GET", f"{MOVE}/left-behind"))["items"]
    assert (item["person_id"], item["reasons"]) == (ada["person"]["id"], ["no_face"])
    assert (await best(api, portrait()))[1:] == ("match", "Ada")
    assert await supply(api, portrait()) == ["no_face"]


async def test_photos_supplied_again_carry_faces_without_a_crop(api: Api, second: FacePipeline) -> None:
    await api.register(portrait(), name="Ada")
    bob = await api.register(encoded(drawn(STRANGER)), name="Bob")
    await begin(api)
    assert await api.services.carrier.run() == 0
    side = (await ask(api, "GET"))["second"]
    assert (side["pending"], side["failed"], side["persons_missing"]) == (0, {"no_crop": 2}, 2)
    refused = await ask(api, "POST", f"{MOVE}/switch", 409)
    assert (refused["pending"], refused["persons"]) == (0, 2)

    assert await supply(api, portrait(), portrait(angle=9), b"no image") == ["carried", "unknown", "unknown"]
    assert await supply(api, portrait()) == ["already_carried"]

    listed = (await ask(api, "GET", f"{MOVE}/left-behind"))["items"]
    assert [(one["person_id"], one["faces"], one["reasons"]) for one in listed] == [
        (bob["person"]["id"], 1, ["no_crop"])
    ]
    switched = await ask(api, "POST", f"{MOVE}/switch", params={"leave_behind": True})
    assert switched["persons_left_behind"] == 1
    assert await best(api, portrait(angle=5)) == (second.contract.id, "match", "Ada")
    assert (await best(api, encoded(drawn(STRANGER))))[1] == "no_match"
    assert (await ask(api, "DELETE", status=409))["code"] == "transition_incomplete"
    assert await supply(api, encoded(drawn(STRANGER))) == ["carried"]  # after the switch, too
    assert (await best(api, encoded(drawn(STRANGER))))[1:] == ("match", "Bob")


async def test_who_is_left_behind_for_good_stays_as_a_person(api: Api) -> None:
    await api.register(portrait(), name="Ada")
    bob = await api.register(encoded(drawn(STRANGER)), name="Bob")
    await begin(api)
    await supply(api, portrait())
    await ask(api, "POST", f"{MOVE}/switch", params={"leave_behind": True})

    finished = await ask(api, "DELETE", params={"leave_behind": True})

    assert (finished["persons_left_behind"], finished["faces_lost"]) == (1, 1)
    (listed,) = (await ask(api, "GET", f"{MOVE}/left-behind"))["items"]
    assert (listed["person_id"], listed["name"], listed["faces"]) == (bob["person"]["id"], "Bob", 0)
    assert len((await ask(api, "GET", f"{HOME}/persons"))["items"]) == 2


async def test_the_end_asks_before_it_loses_a_face(api: Api) -> None:
    await keep_crops(api)
    await api.register(portrait(), portrait(mirror=True), name="Ada")
    await begin(api)
    await supply(api, portrait())
    await ask(api, "POST", f"{MOVE}/switch", params={"leave_behind": True})

    pending = await ask(api, "DELETE", status=409)
    async with api.services.database._engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM crops")
    await api.services.carrier.run()
    failed = await ask(api, "DELETE", status=409)
    finished = await ask(api, "DELETE", params={"leave_behind": True})

    assert [(one["code"], one["pending"]) for one in (pending, failed)] == [
        ("transition_incomplete", 1),
        ("transition_incomplete", 0),
    ]
    assert (finished["templates"], finished["faces_lost"], finished["persons_left_behind"]) == (2, 1, 0)
    (detail,) = [
        entry["detail"]
        for entry in (await ask(api, "GET", "/v1/audit"))["items"]
        if entry["action"] == "transition.finished"
    ]
    assert detail["faces_lost"] == 1


async def test_before_the_switch_the_end_takes_the_beginning_back(api: Api, pipeline: FacePipeline) -> None:
    await keep_crops(api)
    await api.register(portrait(), name="Ada")
    await begin(api)
    await api.services.carrier.run()

    await ask(api, "DELETE")

    assert await best(api, portrait()) == (pipeline.contract.id, "match", "Ada")
    assert await stored(api, "SELECT count(*) FROM faces") == 1
    assert await stored(api, "SELECT count(*) FROM crops") == 1  # the face and its policy stay


@pytest.mark.parametrize("what", ["face", "person", "consent", "collection"])
async def test_who_is_erased_while_being_carried_does_not_come_back(
    api: Api, second: FacePipeline, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep_crops(api)
    ada = await api.register(portrait(), portrait(mirror=True), name="Ada")
    await begin(api)
    person = f"{HOME}/persons/{ada['person']['id']}"
    path = {
        "face": f"{person}/faces/{ada['accepted'][0]['face']['id']}",
        "person": person,
        "consent": f"{person}/consents/{ada['consent']['id']}",
        "collection": HOME,
    }[what]
    meddling(api, monkeypatch, second, lambda: api.client.delete(path))

    carried = await api.services.carrier.run()

    assert carried == (1 if what == "face" else 0)
    assert await stored(api, "SELECT count(*) FROM faces") == 2 * carried
    assert await stored(api, "SELECT count(*) FROM crops") == carried
    assert await stored(api, "SELECT count(*) FROM carry_failures") == 0


async def test_an_erasure_that_is_not_committed_yet_wins_too(api: Api, second: FacePipeline) -> None:
    ada = await api.register(portrait(), name="Ada")
    await begin(api)
    face, person = UUID(ada["accepted"][0]["face"]["id"]), UUID(ada["person"]["id"])
    database = api.services.database
    async with database.work() as work:
        home = await work.collections.by_name("default")
        await work.lock_collection(home.id)
        await work.faces.delete(home.id, person, face)
        vector = np.eye(128, dtype=np.float32)[0]
        carried = asyncio.create_task(settle(database, home.id, face, second, vector))
        await asyncio.sleep(0.3)

    assert not await carried
    assert await stored(api, "SELECT count(*) FROM faces") == 0


async def test_a_request_under_way_during_the_switch_is_answered_by_the_other_network(
    api: Api, pipeline: FacePipeline, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(api)
    ada = await api.register(portrait(), name="Ada")

    def switch() -> Any:
        return ask(api, "POST", f"{MOVE}/switch")

    meddling(api, monkeypatch, pipeline, switch)
    assert await best(api, portrait(angle=5)) == (second.contract.id, "match", "Ada")
    meddling(api, monkeypatch, second, switch)
    verified = await ask(
        *(api, "POST", "/v1/verify"), data={"person_id": ada["person"]["id"]}, files={"photo": portrait(angle=5)}
    )
    assert verified["verdict"] == "match"
    meddling(api, monkeypatch, pipeline, switch)
    refused = await api.register(portrait(mirror=True), name="Eve", status=422)
    assert refused["rejected"][0]["reasons"] == ["enrolled_as_other_person"]


async def test_a_killed_job_goes_on_where_it_was(
    api: Api, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep_crops(api)
    await api.register(portrait(), portrait(mirror=True), portrait(angle=5), name="Ada")
    await begin(api)
    carrier = api.services.carrier

    async def die() -> None:
        job.cancel()
        await asyncio.sleep(0)

    meddling(api, monkeypatch, second, die)
    job = asyncio.create_task(carrier.run())
    with pytest.raises(asyncio.CancelledError):
        await job
    assert (await ask(api, "GET"))["second"]["pending"] == 3

    async with api.services.database.work() as work:
        (transition,) = await work.transitions.all()
        await work.transitions.lease(transition.collection_id, UUID(int=1), 60)  # one that was killed holds it
    assert await carrier.run() == 0
    async with api.services.database.work() as work:
        await work.transitions.lease(transition.collection_id, UUID(int=1), 0)
    next_process = Carrier(carrier._database, carrier._pool, carrier._pipelines, carrier._vault)
    assert await next_process.run() == 3
    assert (await ask(api, "GET"))["second"]["faces"] == 3


async def test_the_job_lets_requests_go_first(api: Api, second: FacePipeline) -> None:
    await keep_crops(api)
    await api.register(portrait(), name="Ada")
    await begin(api)
    pool = api.services.carrier._pool
    pool._line.running += pool._workers
    job = asyncio.create_task(api.services.carrier.run())
    await asyncio.sleep(0.5)
    assert not job.done()
    assert (await ask(api, "GET"))["second"]["pending"] == 1

    pool._line.running = 0
    assert await job == 1


async def test_another_key_is_named_and_a_missing_one_never_replaced(api: Api) -> None:
    await keep_crops(api)
    await api.register(portrait(), name="Ada")
    path = api.services.settings.crop_key_file
    right = path.read_bytes()
    assert (len(right), path.stat().st_mode & 0o777) == (32, 0o600)
    await begin(api)

    path.write_bytes(bytes(32))
    assert await api.services.carrier.run() == 0
    assert (await ask(api, "GET"))["second"]["failed"] == {"wrong_key": 1}
    other = await api.register(encoded(drawn(STRANGER)), name="Bob", status=503)
    assert other["code"] == "crop_key"
    path.unlink()
    missing = await api.register(encoded(drawn(STRANGER)), name="Bob", status=503)
    assert str(path) in missing["detail"]
    assert not path.exists()

    path.write_bytes(right)
    assert (await begin(api))["second"]["pending"] == 1  # again: what failed is tried anew
    assert await api.services.carrier.run() == 1


async def test_faces_wait_for_a_missing_key_and_without_a_crop_nobody_asks_for_it(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    await api.register(portrait(), name="Ada")
    await begin(api)
    assert await api.services.carrier.run() == 0
    assert "crops" not in caplog.text
    await ask(api, "DELETE")
    await keep_crops(api)
    await api.register(portrait(mirror=True), portrait(angle=5), person_id=await person_of(api))
    path = api.services.settings.crop_key_file
    right = path.read_bytes()
    await begin(api)

    path.unlink()
    assert await api.services.carrier.run() == 0
    assert [str(path) in record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [True]
    side = (await ask(api, "GET"))["second"]
    assert (side["pending"], side["failed"]) == (2, {"no_crop": 1})
    path.write_bytes(right)
    assert await api.services.carrier.run() == 2


async def person_of(api: Api) -> str:
    (person,) = (await ask(api, "GET", f"{HOME}/persons"))["items"]
    return str(person["id"])


async def test_a_face_and_a_collection_that_fail_do_not_stop_the_others(
    api: Api, second: FacePipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policy = {"policy": {"keep_crops": True}}
    first = (await ask(api, "POST", "/v1/collections", 201, json={"name": "first", **policy}))["id"]
    await ask(api, "POST", "/v1/collections/first/transition", json={"pack": "zoomed"})
    await keep_crops(api)
    ada = await api.register(portrait(), portrait(mirror=True), name="Ada")
    await begin(api)
    carrier = api.services.carrier
    toward = carrier._toward

    async def broken(home: Any, contract_id: str) -> int:
        if str(home.id) == first:
            raise RuntimeError
        return await toward(home, contract_id)

    async def fail() -> None:
        raise ValueError("a name")

    monkeypatch.setattr(carrier, "_toward", broken)
    meddling(api, monkeypatch, second, fail)

    assert await carrier.run() == 1
    assert (await ask(api, "GET"))["second"]["failed"] == {"error": 1}
    assert f"collection {first}" in caplog.text
    assert any(one["face"]["id"] in caplog.text for one in ada["accepted"])
    assert "a name" not in caplog.text
    assert (await begin(api))["second"]["pending"] == 1


async def test_a_crop_put_beside_another_face_is_damaged(api: Api) -> None:
    await keep_crops(api)
    await api.register(portrait(), portrait(mirror=True), name="Ada")
    await begin(api)
    async with api.services.database._engine.begin() as connection:
        await connection.exec_driver_sql(
            "UPDATE crops SET sealed = other.sealed FROM crops AS other WHERE other.face_id <> crops.face_id"
        )

    assert await api.services.carrier.run() == 0
    assert (await ask(api, "GET"))["second"]["failed"] == {"damaged": 2}


async def test_crops_are_ciphertext_and_go_when_the_policy_no_longer_keeps_them(api: Api) -> None:
    await api.register(portrait(), name="Ada")
    await keep_crops(api)
    await api.register(portrait(mirror=True), name="Ada", external_id="A", allow_lookalike="true")
    assert await stored(api, "SELECT count(*) FROM crops") == 1  # from then on
    sealed = await stored(api, "SELECT sealed FROM crops")
    assert b"JFIF" not in sealed
    (face,) = await ids(api, "SELECT face_id FROM crops")
    (home,) = await ids(api, "SELECT collection_id FROM crops")
    key = await CropVault(api.services.settings.crop_key_file).opening()
    assert key.open(sealed, collection_id=home, face_id=face).jpeg[:2] == b"\xff\xd8"

    await keep_crops(api, on=False)

    assert await stored(api, "SELECT count(*) FROM crops") == 0
    assert await stored(api, "SELECT count(*) FROM faces") == 2


@pytest.mark.parametrize("policy", [{"threshold": 0.95}, None])
async def test_a_policy_that_does_not_name_crops_and_liveness_leaves_them(api: Api, policy: Any) -> None:
    created = await ask(api, "POST", "/v1/collections", 201, json={"name": "new", "policy": {}})
    assert (created["policy"]["keep_crops"], created["policy"]["liveness"]) == (False, "off")
    await keep_crops(api)
    await api.register(portrait(), name="Ada")
    await ask(api, "PATCH", HOME, json={"policy": {"liveness": "required"}})

    changed = (await ask(api, "PATCH", HOME, json={"policy": policy}))["policy"]

    assert (changed["keep_crops"], changed["liveness"]) == (True, "required")
    assert changed["threshold"] == (policy or {}).get("threshold")
    assert await stored(api, "SELECT count(*) FROM crops") == 1
    named = (await ask(api, "PATCH", HOME, json={"policy": {"keep_crops": False, "liveness": "off"}}))["policy"]
    assert (named["keep_crops"], named["liveness"]) == (False, "off")
    assert await stored(api, "SELECT count(*) FROM crops") == 0


async def test_a_policy_that_becomes_stricter_holds_for_requests_under_way(
    api: Api, pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spoof:
        def assess(self, *_: Any) -> Liveness:
            return Liveness(0.1, LivenessReason.SPOOF)

    def during(act: Callable[[], Any]) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(pipeline, "liveness", Spoof())
        meddling(api, monkeypatch, pipeline, act)

    def policy(mode: str, *, crops: bool = False) -> Any:
        return ask(api, "PATCH", HOME, json={"policy": {"liveness": mode, "keep_crops": crops}})

    during(lambda: policy("off", crops=True))
    ada = await api.register(portrait(), name="Ada")
    assert await stored(api, "SELECT count(*) FROM crops") == 1
    during(lambda: policy("required"))
    assert (await best(api, portrait(angle=5)))[1] == "not_live"
    await policy("report")
    during(lambda: policy("required"))
    verified = await ask(
        *(api, "POST", "/v1/verify"), data={"person_id": ada["person"]["id"]}, files={"photo": portrait(angle=5)}
    )
    assert verified["verdict"] == "not_live"
    await policy("off")
    during(lambda: policy("required"))
    refused = await api.register(encoded(drawn(STRANGER)), name="Bob", status=422)
    assert refused["rejected"][0]["reasons"] == ["not_live", "spoof"]


async def ids(api: Api, sql: str) -> list[UUID]:
    async with api.services.database._engine.connect() as connection:
        return list((await connection.exec_driver_sql(sql)).scalars())


async def test_a_comparison_names_the_faces_about_which_the_networks_disagree(api: Api, second: FacePipeline) -> None:
    await begin(api)
    ada = await api.register(portrait(), portrait(mirror=True), portrait(angle=4), name="Ada")
    await api.register(encoded(drawn(STRANGER)), name="Bob")
    same = await ask(api, "GET", f"{MOVE}/comparison")
    assert (same["compared"], same["agreed"], same["disagreements"]) == (4, 4, [])
    assert (same["active_wrong"], same["second_wrong"]) == (0, 0)

    face = UUID(ada["accepted"][0]["face"]["id"])
    async with api.services.database.work() as work:
        home = await work.collections.by_name("default")
        await work.faces.delete(home.id, UUID(ada["person"]["id"]), face)
    mirrored = UUID(ada["accepted"][1]["face"]["id"])
    async with api.services.database._engine.begin() as connection:  # what a worse network would have written
        await connection.exec_driver_sql(
            "DELETE FROM faces WHERE id = $1 AND contract_id = $2", (mirrored, second.contract.id)
        )
    async with api.services.database.work() as work:
        vector = np.eye(128, dtype=np.float32)[0]
        assert await work.carrying.carry(home.id, mirrored, second.contract.id, vector)

    report = await ask(api, "GET", f"{MOVE}/comparison")
    assert (report["compared"], report["agreed"], report["second_wrong"]) == (3, 1, 2)
    assert report["kinds"] == {"match_no_match": 2}
    assert {one["face_id"] for one in report["disagreements"]} == {one["face"]["id"] for one in ada["accepted"][1:]}


async def test_a_share_of_recognitions_is_answered_by_both(
    api: Api, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(api, shadow_share=1)
    ada = await api.register(portrait(), name="Ada")
    worker = asyncio.create_task(api.services.shadow.forever())

    async def shadow(compared: int) -> Any:
        async with asyncio.timeout(20):
            while True:
                seen = (await ask(api, "GET", f"{MOVE}/comparison"))["shadow"]
                if seen["compared"] == compared:
                    return seen
                await asyncio.sleep(0.05)

    await api.recognize(portrait(angle=5))
    assert (await shadow(1))["agreed"] == 1
    blind = second.describe_all
    monkeypatch.setattr(second, "describe_all", lambda asked: blind([replace(one, photo=nobody()) for one in asked]))
    await api.recognize(portrait(angle=5))
    seen = await shadow(2)
    worker.cancel()

    assert (seen["agreed"], [one["kind"] for one in seen["disagreements"]]) == (1, ["match_no_face"])
    assert seen["disagreements"][0]["answers"][second.contract.id] is None
    await ask(api, "DELETE", f"{HOME}/persons/{ada['person']['id']}")
    assert (await ask(api, "GET", f"{MOVE}/comparison"))["shadow"]["disagreements"] == []


async def test_a_fixed_threshold_means_the_same_and_comes_back_as_it_was(
    api: Api, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = replace(second.calibration, points=tuple((rate, at - 0.5) for rate, at in second.calibration.points))
    monkeypatch.setattr(second, "calibration", lower)
    await ask(api, "PATCH", HOME, json={"policy": {"threshold": 0.9641, "margin": 0.03}})
    await begin(api)

    there = (await ask(api, "POST", f"{MOVE}/switch"))["collection"]["policy"]
    back = (await ask(api, "POST", f"{MOVE}/switch"))["collection"]["policy"]

    assert (there["threshold"], there["margin"]) == (pytest.approx(lower.points[-1][1]), pytest.approx(0.03))
    assert (back["threshold"], back["margin"]) == (0.9641, 0.03)


async def test_a_fixed_threshold_the_other_network_cannot_keep_is_refused(
    api: Api, second: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = replace(second.calibration, points=second.calibration.points[:3])
    await begin(api)

    await ask(api, "PATCH", HOME, json={"policy": {"threshold": 0.97}})  # beyond what the first was measured to
    assert (await ask(api, "POST", f"{MOVE}/switch", 422))["code"] == "invalid_input"
    monkeypatch.setattr(second, "calibration", coarse)
    await ask(api, "PATCH", HOME, json={"policy": {"threshold": 0.9437}})
    refused = await ask(api, "POST", f"{MOVE}/switch", 422, params={"leave_behind": True})
    assert ("1e-04" in refused["detail"], "1e-03" in refused["detail"]) == (True, True)

    await ask(api, "PATCH", HOME, json={"policy": {"threshold": 0.9293}})
    await ask(api, "POST", f"{MOVE}/switch")
    monkeypatch.setattr(second, "calibration", replace(coarse, points=coarse.points[:2]))
    back = await ask(api, "POST", f"{MOVE}/switch")  # restores what was left, whatever is resolved now
    assert back["collection"]["policy"]["threshold"] == 0.9293


async def test_what_cannot_begin_is_refused(api: Api) -> None:
    await ask(api, "POST", status=409, json={"pack": "builtin"})
    await ask(api, "POST", status=404, json={"pack": "unheard-of"})
    await ask(api, "POST", f"{MOVE}/switch", 404)
    await ask(api, "DELETE", status=404)
    await begin(api)
    await ask(api, "POST", status=409, json={"pack": "builtin"})
    for role in (Role.RECOGNIZE, Role.ENROL):
        await ask(api, "GET", status=403, headers=await api.key(role))
