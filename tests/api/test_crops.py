"""Retained face crops: encryption, keys, and the policy that keeps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from tests.faces import STRANGER, drawn, encoded, portrait
from tests.migrations import (
    COLLECTION,
    call_api,
    fetch_ids,
    fetch_scalar,
    others,
    recognize_best,
    run_after_analysis,
    second,
    set_keep_crops,
    start_migration,
)

from vultus.domain import Liveness, LivenessReason, SealedCrop
from vultus.models.pipeline import FacePipeline
from vultus.services.crop_vault import CropVault
from vultus.services.jobs import PartialFailureError

if TYPE_CHECKING:
    from tests.api.conftest import Api

__all__ = ["others", "second"]


async def fetch_person_id(api: Api) -> str:
    (person,) = (await call_api(api, "GET", f"{COLLECTION}/persons"))["items"]
    return str(person["id"])


async def test_a_destroyed_key_is_named_and_missing_ones_are_never_replaced(api: Api) -> None:
    await set_keep_crops(api)
    await api.register(portrait(), name="Ada")
    persons, keys = api.services.custody.person_keys, api.services.custody.keys.path
    right = persons.path.read_bytes()
    assert persons.path.stat().st_mode & 0o777 == 0o600
    await start_migration(api)

    persons.destroy_keys(persons.list_keys())
    assert await api.services.backfill_worker.run() == 0
    assert (await call_api(api, "GET"))["second"]["failed"] == {"wrong_key": 1}
    keys.rename(hidden := keys.with_name("hidden"))
    missing = await api.register(encoded(drawn(STRANGER)), name="Bob", status=503)
    assert (missing["code"], str(keys) in missing["detail"]) == ("key_ring", True)
    assert not keys.exists()

    hidden.rename(keys)
    persons.path.write_bytes(right)
    assert (await start_migration(api))["second"]["pending"] == 1  # starting again retries failed faces
    assert await api.services.backfill_worker.run() == 1


async def test_faces_wait_for_a_missing_key_and_without_a_crop_none_is_required(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    await api.register(portrait(), name="Ada")
    await start_migration(api)
    assert await api.services.backfill_worker.run() == 0
    assert "crops" not in caplog.text
    await call_api(api, "DELETE")
    await set_keep_crops(api)
    await api.register(portrait(mirror=True), portrait(angle=5), person_id=await fetch_person_id(api))
    path = api.services.custody.keys.path
    await start_migration(api)

    path.rename(hidden := path.with_name("hidden"))
    with pytest.raises(PartialFailureError):
        await api.services.backfill_worker.run()
    assert [str(path) in record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [True]
    coverage = (await call_api(api, "GET"))["second"]
    assert (coverage["pending"], coverage["failed"]) == (2, {"no_crop": 1})
    hidden.rename(path)
    assert await api.services.backfill_worker.run() == 2


async def test_a_crop_moved_to_another_face_is_damaged(api: Api) -> None:
    await set_keep_crops(api)
    await api.register(portrait(), portrait(mirror=True), name="Ada")
    await start_migration(api)
    async with api.services.database._engine.begin() as connection:
        await connection.exec_driver_sql(
            "UPDATE crops SET sealed = other.sealed FROM crops AS other WHERE other.face_id <> crops.face_id"
        )

    assert await api.services.backfill_worker.run() == 0
    assert (await call_api(api, "GET"))["second"]["failed"] == {"damaged": 2}


async def test_crops_are_ciphertext_and_deleted_when_the_policy_no_longer_keeps_them(api: Api) -> None:
    await api.register(portrait(), name="Ada")
    await set_keep_crops(api)
    await api.register(portrait(mirror=True), name="Ada", external_id="A", allow_lookalike="true")
    assert await fetch_scalar(api, "SELECT count(*) FROM crops") == 1  # from the change of the policy on
    sealed = await fetch_scalar(api, "SELECT sealed FROM crops")
    assert b"JFIF" not in sealed
    (face,) = await fetch_ids(api, "SELECT face_id FROM crops")
    (collection,) = await fetch_ids(api, "SELECT collection_id FROM crops")
    (person,) = await fetch_ids(api, "SELECT person_id FROM crops")
    crop = await CropVault(api.services.custody).open_crop(
        SealedCrop(person, sealed), collection_id=collection, face_id=face
    )
    assert crop.jpeg[:2] == b"\xff\xd8"

    await set_keep_crops(api, enabled=False)

    assert await fetch_scalar(api, "SELECT count(*) FROM crops") == 0
    assert await fetch_scalar(api, "SELECT count(*) FROM faces") == 2


@pytest.mark.parametrize("policy", [{"threshold": 0.95}, {"threshold": None, "fusion": None}])
async def test_a_policy_that_does_not_name_crops_and_liveness_keeps_them(live_api: Api, policy: Any) -> None:
    created = await call_api(live_api, "POST", "/v1/collections", 201, json={"name": "new", "policy": {}})
    assert (created["policy"]["keep_crops"], created["policy"]["liveness"]) == (False, "off")
    await set_keep_crops(live_api)
    await live_api.register(portrait(), name="Ada")
    await call_api(live_api, "PATCH", COLLECTION, json={"policy": {"liveness": "required"}})

    changed = (await call_api(live_api, "PATCH", COLLECTION, json={"policy": policy}))["policy"]

    assert (changed["keep_crops"], changed["liveness"]) == (True, "required")
    assert changed["threshold"] == policy["threshold"]
    assert await fetch_scalar(live_api, "SELECT count(*) FROM crops") == 1
    named = (await call_api(live_api, "PATCH", COLLECTION, json={"policy": {"keep_crops": False, "liveness": "off"}}))[
        "policy"
    ]
    assert (named["keep_crops"], named["liveness"]) == (False, "off")
    assert await fetch_scalar(live_api, "SELECT count(*) FROM crops") == 0


async def test_a_policy_that_becomes_stricter_applies_to_requests_in_flight(
    live_api: Api, pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spoof:
        def assess_liveness(self, *_: Any) -> Liveness:
            return Liveness(0.1, LivenessReason.SPOOF)

    def change_during(act: Callable[[], Any]) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(pipeline, "liveness", Spoof())
        run_after_analysis(live_api, monkeypatch, pipeline, act)

    def policy(mode: str, *, crops: bool = False) -> Any:
        return call_api(live_api, "PATCH", COLLECTION, json={"policy": {"liveness": mode, "keep_crops": crops}})

    change_during(lambda: policy("off", crops=True))
    ada = await live_api.register(portrait(), name="Ada")
    assert await fetch_scalar(live_api, "SELECT count(*) FROM crops") == 1
    change_during(lambda: policy("required"))
    assert (await recognize_best(live_api, portrait(angle=5)))[1] == "not_live"
    await policy("report")
    change_during(lambda: policy("required"))
    verified = await call_api(
        *(live_api, "POST", "/v1/verify"), data={"person_id": ada["person"]["id"]}, files={"photo": portrait(angle=5)}
    )
    assert verified["verdict"] == "not_live"
    await policy("off")
    change_during(lambda: policy("required"))
    refused = await live_api.register(encoded(drawn(STRANGER)), name="Bob", status=422)
    assert refused["rejected"][0]["reasons"] == ["not_live", "spoof"]
