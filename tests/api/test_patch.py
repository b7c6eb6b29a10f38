"""PATCH is a JSON merge patch (RFC 7396): absent stays, null removes, objects are merged, arrays replaced."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.api.conftest import Api

COLLECTION = "/v1/collections/default"
PEOPLE = f"{COLLECTION}/persons"
CONSENT = {"purpose": "Tests", "recorded_by": "tests@example.org", "evidence_ref": "form 7"}


async def patch(api: Api, url: str, status: int = 200, **members: Any) -> Any:
    answer = await api.client.patch(url, json=members)
    assert answer.status_code == status, answer.text
    return answer.json()


async def create_person(api: Api, **members: Any) -> str:
    made = await api.client.post(PEOPLE, json={"name": "Ada", "consent": CONSENT, **members})
    return f"{PEOPLE}/{made.json()['id']}"


async def test_members_of_a_policy_that_a_patch_does_not_name_stay(live_api: Api) -> None:
    before = (await patch(live_api, COLLECTION, policy={"margin": 0.02, "fusion": "mean"}))["policy"]

    after = (await patch(live_api, COLLECTION, policy={"liveness": "report"}))["policy"]

    assert (after["margin"], after["fusion"]) == (0.02, "mean")
    assert after == before | {"liveness": "report"}


async def test_a_rule_is_merged_member_by_member(api: Api) -> None:
    before = (await api.client.get(COLLECTION)).json()["policy"]

    after = (await patch(api, COLLECTION, policy={"enrol": {"min_size_px": 77}}))["policy"]

    assert after == before | {"enrol": before["enrol"] | {"min_size_px": 77}}


async def test_what_a_name_needs_in_live_video_is_merged_member_by_member(api: Api) -> None:
    await patch(api, COLLECTION, policy={"tracks": {"agreeing_frames": 5, "cooldown_s": 600}})
    changed = await patch(api, COLLECTION, policy={"tracks": {"agreeing_frames": None, "absence_s": 10}})

    tracks = changed["policy"]["tracks"]
    assert (tracks["agreeing_frames"], tracks["cooldown_s"], tracks["absence_s"]) == (3, 600, 10)
    refused = await api.client.patch(COLLECTION, json={"policy": {"tracks": {"max_embeddings": 40}}})
    assert refused.status_code == 422
    assert "max_embeddings" in refused.text


async def test_null_restores_the_default_of_a_policys_member(live_api: Api) -> None:
    before = (await live_api.client.get(COLLECTION)).json()["policy"]
    changed = {
        "threshold": 0.97,
        "margin": 0.5,
        "fusion": "mean",
        "liveness": "report",
        "enrol": {"min_size_px": 99, "min_sharpness": 1},
        "recognize": {"min_size_px": 99},
    }
    await patch(live_api, COLLECTION, policy=changed)

    rule = (await patch(live_api, COLLECTION, policy={"enrol": {"min_size_px": None}}))["policy"]["enrol"]
    member = (await patch(live_api, COLLECTION, policy={"fusion": None, "threshold": None}))["policy"]
    whole = (
        await patch(live_api, COLLECTION, policy={"liveness": None, "margin": None, "enrol": None, "recognize": None})
    )["policy"]

    assert (rule["min_size_px"], rule["min_sharpness"]) == (before["enrol"]["min_size_px"], 1)
    assert (member["fusion"], member["margin"], member["liveness"]) == ("best", 0.5, "report")
    assert (member["threshold"], member["target_fmr"]) == (None, before["target_fmr"])
    assert whole == before


async def test_the_three_ways_to_set_a_threshold_replace_each_other(api: Api) -> None:
    def ways(policy: dict[str, Any]) -> list[Any]:
        return [policy[name] for name in ("threshold", "target_fmr", "target_fpir")]

    fixed = await patch(api, COLLECTION, policy={"threshold": 0.9})
    aimed = await patch(api, COLLECTION, policy={"target_fpir": 0.01})
    same = await patch(api, COLLECTION, policy={"margin": 0.1})
    back = await patch(api, COLLECTION, policy={"target_fpir": None, "target_fmr": 1e-3})
    refused = await patch(api, COLLECTION, 422, policy={"threshold": 0.9, "target_fmr": 1e-3})

    assert [ways(one["policy"]) for one in (fixed, aimed, same, back)] == [
        [0.9, None, None],
        [None, None, 0.01],
        [None, None, 0.01],
        [None, 1e-3, None],
    ]
    assert refused["errors"][0]["path"] == "body.policy"


@pytest.mark.parametrize(
    ("members", "path", "why"),
    [
        ({"name": None}, "body.name", "always has a name"),
        ({"search": None}, "body.search", "always searched somehow"),
        ({"policy": None}, "body.policy", "always has a policy"),
        ({"policy": {"keep_crops": None}}, "body.policy.keep_crops", "deleted by false only"),
    ],
)
async def test_what_null_must_not_remove_is_refused_with_the_reason_and_nothing_changes(
    live_api: Api, members: dict[str, Any], path: str, why: str
) -> None:
    before = await patch(live_api, COLLECTION, policy={"keep_crops": True, "liveness": "report"})

    refused = await patch(live_api, COLLECTION, 422, retention_days=3, **members)
    after = (await live_api.client.get(COLLECTION)).json()

    assert (refused["code"], [error["path"] for error in refused["errors"]]) == ("invalid_request", [path])
    assert why in refused["detail"]
    assert (after["policy"], after["retention_days"]) == (before["policy"], None)


async def test_null_ends_the_retention_of_a_collection(api: Api) -> None:
    kept = await patch(api, COLLECTION, retention_days=7)
    ended = await patch(api, COLLECTION, retention_days=None)

    assert (kept["retention_days"], ended["retention_days"]) == (7, None)


@pytest.mark.parametrize(
    "policies",
    [
        pytest.param([{"margin": 0.2}, {"fusion": "mean"}], id="members"),
        pytest.param([{"enrol": {"min_size_px": 77}}, {"enrol": {"max_yaw_deg": 12}}], id="of one rule"),
    ],
)
async def test_patches_sent_together_all_survive(api: Api, policies: list[dict[str, Any]]) -> None:
    before = (await api.client.get(COLLECTION)).json()["policy"]

    await asyncio.gather(*(patch(api, COLLECTION, policy=policy) for policy in policies * 3))
    after = (await api.client.get(COLLECTION)).json()["policy"]

    expected = before
    for policy in policies:
        merged = {name: before[name] | value for name, value in policy.items() if isinstance(value, dict)}
        expected = expected | policy | {name: expected[name] | policy[name] for name in merged}
    assert after == expected


async def test_metadata_of_a_person_are_merged(api: Api) -> None:
    url = await create_person(api, metadata={"floor": 2, "badge": {"number": 7, "color": "red"}, "doors": ["A", "B"]})

    changed = await patch(api, url, metadata={"floor": None, "badge": {"color": "blue"}, "doors": ["C"], "new": 1})
    removed = await patch(api, url, metadata=None)

    assert changed["metadata"] == {"badge": {"number": 7, "color": "blue"}, "doors": ["C"], "new": 1}
    assert (removed["metadata"], removed["name"]) == ({}, "Ada")


async def test_metadata_patched_together_all_survive(api: Api) -> None:
    url = await create_person(api, metadata={"kept": True})

    await asyncio.gather(*(patch(api, url, metadata={str(number): {"at": number}}) for number in range(6)))

    merged = (await api.client.get(url)).json()["metadata"]
    assert merged == {"kept": True, **{str(number): {"at": number} for number in range(6)}}


async def test_metadata_do_not_grow_beyond_their_limit_by_patches(api: Api) -> None:
    url = await create_person(api, metadata={f"a{number}": 0 for number in range(200)})

    refused = await patch(api, url, 422, metadata={f"b{number}": 0 for number in range(200)})

    assert (refused["code"], "more than 500 values" in refused["detail"]) == ("invalid_input", True)
    assert len((await api.client.get(url)).json()["metadata"]) == 200


async def test_null_removes_a_persons_name_if_they_keep_an_external_id(api: Api) -> None:
    url = await create_person(api, external_id="E-1")

    nameless = await patch(api, url, name=None)
    refused = await patch(api, url, 422, external_id=None)

    assert (nameless["name"], nameless["external_id"]) == (None, "E-1")
    assert refused["code"] == "invalid_input"


async def test_null_removes_a_consents_evidence_and_the_rest_stays(api: Api) -> None:
    url = await create_person(api)
    (consent,) = (await api.client.get(f"{url}/consents")).json()["items"]

    ends = await patch(api, f"{url}/consents/{consent['id']}", expires_at="2099-01-01T00:00:00Z")
    bare = await patch(api, f"{url}/consents/{consent['id']}", evidence_ref=None)

    assert (ends["evidence_ref"], bare["evidence_ref"], bare["expires_at"]) == ("form 7", None, ends["expires_at"])


@pytest.mark.parametrize("media_type", ["application/json", "application/merge-patch+json"])
async def test_both_media_types_are_accepted(api: Api, media_type: str) -> None:
    answer = await api.client.patch(COLLECTION, content=b'{"retention_days": 9}', headers={"Content-Type": media_type})

    assert (answer.status_code, answer.json()["retention_days"]) == (200, 9)


@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"x"'])
async def test_a_patch_that_is_no_object_is_refused(api: Api, body: bytes) -> None:
    answer = await api.client.patch(COLLECTION, content=body, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
