"""A collection measured on its own faces: report, apply, decide by it, reset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.callers import CALLER
from tests.galleries import enrol, people

from vultus.domain import Permission, Role
from vultus.services.collections import get_calibration

if TYPE_CHECKING:
    from tests.api.conftest import Api

    from vultus.domain import Collection

URL = "/v1/collections/default/calibration"


async def calibrate(api: Api, status: int = 200, **body: Any) -> Any:
    answer = await api.client.post(URL, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def get_default_collection(api: Api) -> Collection:
    found, _, _ = await api.services.collections.get_collection_with_counts(CALLER, "default")
    return found


async def test_a_report_changes_nothing(api: Api) -> None:
    await enrol(api.services.database, people(80))

    report = await calibrate(api, target_fpir=0.05)

    measured = report["measured"]
    assert (report["applied"], report["persons"], report["faces"], report["gallery_size"]) == (False, 80, 160, 160)
    assert (measured["genuine"], measured["impostor"]) == (80, 160 * 158 // 2)
    assert [point["stated_fmr"] for point in measured["points"][:3]] == [0.1, 0.01, 0.001]
    assert [point["origin"] for point in measured["points"][:4]] == ["own", "own", "own", "pack"]
    assert measured["proposed"]["expected_fpir"] == pytest.approx(0.05, rel=1e-2)
    assert (await get_default_collection(api)).calibrations == {}
    assert "160 faces of 80 persons" in report["source"]


async def test_an_applied_calibration_decides_until_it_is_forgotten(api: Api) -> None:
    vectors = people(80)
    await enrol(api.services.database, vectors)
    await api.client.patch("/v1/collections/default", json={"policy": {"target_fpir": None}})
    probe = {"contract_id": (await get_default_collection(api)).space_id, "vector": vectors[3, 0].tolist()}
    before = (await api.client.post("/v1/search", json=probe)).json()

    report = await calibrate(api, target_fmr=0.001, apply=True)
    applied = (await api.client.post("/v1/search", json=probe)).json()
    collection = await get_default_collection(api)
    forgotten = await api.client.delete(URL)
    after = (await api.client.post("/v1/search", json=probe)).json()
    again = await api.client.delete(URL)

    assert report["applied"]
    assert report["policy"]["target_fmr"] == 0.001
    assert applied["threshold"] == report["measured"]["proposed"]["threshold"] != before["threshold"]
    assert applied["false_match_rate"] == 0.001
    own = collection.calibrations[collection.space_id]
    assert own.logistic is not None
    assert own.missed == api.services.spaces.default.calibration.missed
    assert own.points[0][1] == pytest.approx(report["measured"]["points"][0]["threshold"], abs=1e-4)
    pack = api.services.spaces.default.calibration
    assert all(cosine >= pack.get_threshold(rate) for rate, cosine in own.points if rate < 1e-3)
    assert applied["candidates"][0]["probability"] == round(own.compute_probability(1.0) or 0, 4)
    assert (forgotten.status_code, again.status_code) == (204, 404)
    assert after["threshold"] == pytest.approx(pack.get_threshold(0.001), abs=1e-4)
    actions = [one["action"] for one in (await api.client.get("/v1/audit")).json()["items"]]
    assert actions[-2:] == ["collection.calibrated", "collection.uncalibrated"]


async def test_a_fixed_threshold_is_replaced_by_an_applied_target_only(api: Api) -> None:
    await enrol(api.services.database, people(80))
    await api.client.patch("/v1/collections/default", json={"policy": {"threshold": 0.9}})

    kept = await calibrate(api, apply=True)
    aimed = await calibrate(api, apply=True, target_fpir=0.1)

    assert (kept["policy"]["threshold"], kept["measured"]["proposed"]["threshold"]) == (0.9, 0.9)
    assert (aimed["policy"]["threshold"], aimed["policy"]["target_fpir"]) == (None, 0.1)


async def test_what_a_threshold_means_is_told_before_anything_is_measured(api: Api) -> None:
    await enrol(api.services.database, people(20))
    pack = api.services.spaces.default.calibration

    state = (await api.client.get(URL)).json()
    await api.client.patch("/v1/collections/default", json={"policy": {"threshold": 0.95}})
    fixed = (await api.client.get(URL)).json()
    refused = await api.client.get(URL, headers=await api.key(Role.MANAGE))

    assert (state["own"], state["gallery_size"], state["source"]) == (False, 40, pack.source)
    thresholds = [point["threshold"] for point in state["curve"]]
    assert thresholds == sorted(thresholds)
    assert state["threshold"] in thresholds
    assert fixed["threshold"] == fixed["policy"]["threshold"] == 0.95
    (point,) = [one for one in fixed["curve"] if one["threshold"] == 0.95]
    assert point["stated_fmr"] == pytest.approx(pack.anybody_curve.get_fmr(0.95), rel=0.01)
    assert point["fpir"] == pytest.approx(1 - (1 - point["stated_fmr"]) ** 40, rel=0.02)
    assert 0.1882 < point["fnmr"] < 0.4172  # between two thresholds that were measured
    assert (point["fmr"], state["curve"][-1]["fnmr"], state["curve"][0]["fnmr"]) == (None, None, None)
    assert refused.status_code == 403


async def test_the_curve_and_the_bins_are_those_of_every_comparison(api: Api) -> None:
    vectors = people(40)
    await enrol(api.services.database, vectors)

    report = await calibrate(api)

    measured, bins = report["measured"], report["measured"]["bins"]
    faces = vectors.reshape(80, 128)
    scores, person = faces @ faces.T, np.repeat(np.arange(40), 2)
    strangers = scores[(person[:, None] < person)]
    assert sum(bins["impostor"]) == len(strangers) == measured["impostor"]
    assert sum(bins["genuine"]) == 40
    assert [
        measured[name]["threshold"] in [one["threshold"] for one in measured["curve"]]
        for name in ("current", "proposed")
    ]
    for point in measured["curve"]:
        assert point["fmr"] == pytest.approx((strangers >= point["threshold"]).mean(), abs=0.01)
    (now,) = [one for one in measured["curve"] if one["threshold"] == measured["current"]["threshold"]]
    assert now["fnmr"] == measured["current"]["fnmr"]["value"]
    assert now["fpir"] == measured["current"]["expected_fpir"]


async def test_the_most_similar_persons_are_named_and_their_score_to_who_may_see_it(api: Api) -> None:
    vectors = people(40)
    ids = await enrol(api.services.database, vectors)
    scores = np.einsum("afd,bgd->abfg", vectors, vectors).max(axis=(2, 3)) * (1 - np.eye(40))
    first, second = np.unravel_index(scores.argmax(), scores.shape)
    _, secret = await api.services.access.create_key(CALLER, "test", {Permission.CALIBRATE})

    closest = (await calibrate(api))["closest"]
    hidden = await api.client.post(URL, json={}, headers={"Authorization": f"Bearer {secret}"})

    assert {closest["first_person_id"], closest["second_person_id"]} == {ids[first], ids[second]}
    assert closest["similarity"] == pytest.approx(scores.max(), abs=1e-3)
    assert hidden.json()["closest"] == closest | {"similarity": None}


async def test_a_person_enrolled_twice_is_named_by_ids(api: Api) -> None:
    vectors = people(40)
    twin = vectors[5].copy()
    ids = await enrol(api.services.database, np.concatenate((vectors, twin[None])))

    report = await calibrate(api)

    first = report["suspicious"][0]
    assert {first["first_person_id"], first["second_person_id"]} == {ids[5], ids[40]}
    assert first["similarity"] == pytest.approx(1, abs=1e-3)


async def test_vectors_of_another_network_take_no_part(api: Api) -> None:
    await enrol(api.services.database, people(40))
    await enrol(api.services.database, people(10, seed=8)[:, :, :64], space_id="another network")

    report = await calibrate(api)

    assert (report["persons"], report["faces"]) == (40, 80)


async def test_one_face_per_person_still_gives_thresholds(api: Api) -> None:
    await enrol(api.services.database, people(60, faces=1))

    report = await calibrate(api, apply=True)

    assert report["measured"]["genuine"] == 0
    assert all(point["fnmr"] is None for point in report["measured"]["points"])
    collection = await get_default_collection(api)
    assert get_calibration(collection, api.services.spaces.default).logistic == (
        api.services.spaces.default.calibration.logistic
    )


async def test_a_larger_gallery_is_sampled_by_person(api: Api) -> None:
    await enrol(api.services.database, people(80))

    one, other = [await calibrate(api, sample=100, seed=seed) for seed in (1, 2)]

    assert (one["sampled"], one["persons"], one["faces"], one["gallery_size"]) == (True, 50, 100, 160)
    assert "seed 1" in one["source"]
    assert one["measured"]["points"][0]["threshold"] != other["measured"]["points"][0]["threshold"]


async def test_a_small_collection_reports_what_is_missing(api: Api) -> None:
    await enrol(api.services.database, people(6))

    refused = await calibrate(api, status=422)

    assert refused["code"] == "invalid_input"
    assert "12 faces of 6 persons" in refused["detail"]
    assert (refused["comparisons"], refused["needed"]) == (60, 100)


async def test_an_empty_collection_reports_the_same(api: Api) -> None:
    assert "0 faces of 0 persons" in (await calibrate(api, status=422))["detail"]


async def test_rates_by_a_metadata_key(api: Api) -> None:
    await enrol(api.services.database, people(60))

    report = await calibrate(api, group_by="site")
    refused = await calibrate(api, status=422, group_by="floor")

    assert [(group["name"], group["persons"]) for group in report["groups"]["groups"]] == [("north", 30), ("south", 30)]
    assert len(report["groups"]["differentials"]) == len(report["groups"]["groups"][0]["rates"])
    assert "'floor' divides" in refused["detail"]


async def test_two_targets_and_other_roles_are_refused(api: Api) -> None:
    both = await calibrate(api, status=422, target_fmr=0.01, target_fpir=0.01)
    forbidden = await api.client.post(URL, json={}, headers=await api.key(Role.ENROL))

    assert both["code"] == "invalid_request"
    assert forbidden.status_code == 403


async def test_an_erased_persons_faces_are_not_compared(api: Api) -> None:
    ids = await enrol(api.services.database, people(40))
    await api.client.delete(f"/v1/collections/default/persons/{ids[0]}")

    assert (await calibrate(api))["persons"] == 39


async def test_the_policy_says_how_several_faces_are_compared(api: Api) -> None:
    vectors = people(12, faces=5)
    await enrol(api.services.database, vectors[:, :4])
    probe = {"contract_id": (await get_default_collection(api)).space_id, "vector": vectors[3, 4].tolist()}

    best = (await api.client.post("/v1/search", json=probe)).json()["candidates"][0]
    changed = await api.client.patch("/v1/collections/default", json={"policy": {"fusion": "mean"}})
    mean = (await api.client.post("/v1/search", json=probe)).json()["candidates"][0]

    template = vectors[3, :4].astype(np.float64).mean(axis=0)
    assert changed.json()["policy"]["fusion"] == "mean"
    assert best["similarity"] == pytest.approx((vectors[3, :4] @ vectors[3, 4]).max(), abs=1e-3)
    assert mean["similarity"] == pytest.approx(template @ vectors[3, 4] / np.linalg.norm(template), abs=1e-3)
    assert (mean["person_id"], mean["face_id"]) == (best["person_id"], best["face_id"])
