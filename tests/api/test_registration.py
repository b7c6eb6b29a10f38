"""Registration: consent first, every photo on its own, no person twice, and idempotent."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageFilter
from tests.faces import STRANGER, astronaut, drawn, encoded, nobody, portrait

from vultus.domain import Role

if TYPE_CHECKING:
    from tests.api.conftest import Api

    from vultus.models.pipeline import FacePipeline


async def persons(api: Api) -> list[Any]:
    answer = await api.client.get("/v1/collections/default/persons")
    people: list[Any] = answer.json()["items"]
    return people


@pytest.mark.parametrize("missing", ["consent_purpose", "consent_recorded_by"])
async def test_nothing_is_stored_without_consent(api: Api, missing: str) -> None:
    refused = await api.register(portrait(), name="Ada", status=422, **{missing: None})

    assert refused["code"] == "consent_required"
    assert await persons(api) == []


async def test_one_bad_photo_does_not_undo_the_good_ones(api: Api) -> None:
    blurred = encoded(Image.fromarray(astronaut()).filter(ImageFilter.GaussianBlur(6)))
    canvas = Image.new("RGB", (1024, 512))
    canvas.paste(Image.fromarray(astronaut()), (0, 0))
    canvas.paste(Image.fromarray(astronaut()), (512, 0))
    two_people = encoded(canvas)

    done = await api.register(
        portrait(),
        nobody(),
        blurred,
        two_people,
        portrait(scale=0.2),
        b"no image",
        portrait(mirror=True),
        encoded(Image.new("P", (64, 64)), "GIF"),
        name="Ada",
    )

    assert [face["photo"] for face in done["accepted"]] == [0, 6]
    assert {photo["photo"]: photo["reasons"] for photo in done["rejected"]} == {
        1: ["no_face"],
        2: ["too_blurred"],
        3: ["several_faces"],
        4: ["no_face"],
        5: ["not_an_image"],
        7: ["unsupported_image"],
    }


async def test_a_registration_without_a_usable_photo_stores_nothing(api: Api) -> None:
    refused = await api.register(nobody(), b"", name="Ada", status=422)

    assert refused["code"] == "no_photo_accepted"
    assert [photo["reasons"] for photo in refused["rejected"]] == [["no_face"], ["not_an_image"]]
    assert await persons(api) == []


async def test_what_a_second_network_does_not_call_a_face_is_not_enrolled(
    api: Api, pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline._face_classifier, "score_chips", lambda chips, _: [0.3] * len(chips))

    refused = await api.register(portrait(), name="Ada", status=422)
    (face,) = (await api.recognize(portrait()))["faces"]

    (photo,) = refused["rejected"]
    assert photo["reasons"] == ["not_a_face"]
    assert "second network" in photo["detail"]
    assert (face["quality"]["face_score"], face["verdict"]) == (0.3, "no_match")


async def test_an_external_id_finds_the_person_again(api: Api) -> None:
    first = await api.register(portrait(), external_id="E-1", name="Ada", metadata='{"level": 3}')
    second = await api.register(portrait(mirror=True), external_id="E-1", metadata='{"level": 4}')

    assert (first["created"], second["created"]) == (True, False)
    assert second["person"]["id"] == first["person"]["id"]
    assert (second["person"]["name"], second["person"]["metadata"]) == ("Ada", {"level": 4})
    audit = (await api.client.get("/v1/audit")).json()["items"]
    assert [(one["action"], one["detail"].get("fields")) for one in audit[-2:]] == [
        ("person.changed", ["metadata"]),
        ("faces.added", None),
    ]


async def test_ids_of_two_persons_or_another_name_are_refused(api: Api) -> None:
    ada = (await api.register(portrait(), external_id="E-1", name="Ada"))["person"]
    await api.register(encoded(drawn(STRANGER)), external_id="E-2")

    renamed = await api.register(portrait(angle=4), status=422, external_id="E-1", name="Someone Else")
    two = await api.register(portrait(angle=4), status=422, person_id=ada["id"], external_id="E-2")
    verify = {"person_id": ada["id"], "external_id": "E-2"}
    verified = await api.client.post("/v1/verify", data=verify, files={"photo": portrait()})
    named = await api.register(encoded(drawn(STRANGER), "PNG"), external_id="E-2", name="Bob")

    assert {renamed["code"], two["code"], verified.json()["code"]} == {"person_mismatch"}
    assert "PATCH" in renamed["detail"]
    assert (await api.client.get(f"/v1/collections/default/persons/{ada['id']}")).json() == ada
    assert named["person"]["name"] == "Bob"


async def test_the_same_photo_is_enrolled_once(api: Api) -> None:
    await api.register(portrait(), external_id="E-1")

    again = await api.register(portrait(), portrait(scale=0.8), portrait(scale=0.8), external_id="E-1")

    assert [photo["photo"] for photo in again["accepted"]] == [1]
    assert [photo["reasons"] for photo in again["rejected"]] == [["duplicate_photo"], ["duplicate_photo"]]


async def test_a_live_consent_can_be_reused(api: Api) -> None:
    first = await api.register(portrait(), external_id="E-1")
    consent = first["consent"]["id"]

    second = await api.register(
        portrait(mirror=True), external_id="E-1", consent_id=consent, consent_purpose=None, consent_recorded_by=None
    )

    assert second["consent"]["id"] == consent
    assert second["accepted"][0]["face"]["consent_id"] == consent


async def test_a_consent_that_has_expired_already_is_refused(api: Api) -> None:
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()

    refused = await api.register(portrait(), name="Ada", consent_expires_at=past, status=422)

    assert refused["code"] == "invalid_input"
    assert await persons(api) == []


async def test_retention_shortens_a_consent(api: Api) -> None:
    await api.client.post("/v1/collections", json={"name": "guests", "retention_days": 30})

    done = await api.register(portrait(), name="Ada", collection="guests")

    granted = datetime.fromisoformat(done["consent"]["granted_at"])
    assert datetime.fromisoformat(done["consent"]["expires_at"]) - granted == timedelta(days=30)


async def test_a_repeated_request_gets_the_first_response(api: Api) -> None:
    once = {"Idempotency-Key": "k-1"}
    first = await api.register(portrait(), name="Ada", headers=once)
    second = await api.register(portrait(), name="Ada", headers=once)

    assert second == first
    assert len(await persons(api)) == 1


async def test_a_key_used_for_another_request_is_refused(api: Api) -> None:
    once = {"Idempotency-Key": "k-1"}
    await api.register(portrait(), name="Ada", headers=once)

    other = await api.register(encoded(drawn(STRANGER)), name="Ada", headers=once, status=422)

    assert other["code"] == "idempotency_mismatch"


async def test_two_callers_may_use_the_same_key(api: Api) -> None:
    once = {"Idempotency-Key": "k-1"}
    await api.register(portrait(), name="Ada", headers=once)

    other = await api.register(encoded(drawn(STRANGER)), name="Bob", headers={**once, **await api.key(Role.ENROL)})

    assert other["created"] is True


async def test_requests_with_one_key_at_the_same_time_register_once(api: Api) -> None:
    async def send() -> int:
        data = {"name": "Ada", "consent_purpose": "x", "consent_recorded_by": "y"}
        answer = await api.client.post(
            "/v1/register", data=data, files={"photo": portrait()}, headers={"Idempotency-Key": "k-1"}
        )
        return answer.status_code

    statuses = await asyncio.gather(*(send() for _ in range(6)))

    assert set(statuses) <= {201, 409}
    assert statuses.count(201) >= 1
    assert len(await persons(api)) == 1


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"nonsense": "1"}, "body.nonsense"),
        ({"metadata": "{not json"}, "body.metadata"),
        ({"metadata": '{"a": NaN}'}, "body.metadata"),
        ({"metadata": '{"a": "\\u0000"}'}, "body.metadata"),
        ({"metadata": '{"a": "\\ud800"}'}, "body.metadata"),
        ({"metadata": '{"a": 1' + "0" * 400 + "}"}, "body.metadata"),
        ({"metadata": "[1]"}, "body.metadata"),
        ({"metadata": '{"a":' * 100_000}, "body.metadata"),
        ({"name": "a\x00b"}, "body.name"),
        ({"name": "a" * 201}, "body.name"),
        ({"person_id": "7"}, "body.person_id"),
        ({"consent_expires_at": "tomorrow"}, "body.consent_expires_at"),
        ({"consent_expires_at": "2030-01-01T00:00:00"}, "body.consent_expires_at"),
        ({"consent_expires_at": "9999-12-31T23:59:59Z"}, "body.consent_expires_at"),
        ({"largest_face": "perhaps"}, "body.largest_face"),
    ],
)
async def test_every_wrong_field_is_named_and_nothing_stored(api: Api, fields: dict[str, str], path: str) -> None:
    refused = await api.register(portrait(), status=422, **dict[str, Any](name="Ada") | fields)

    assert [error["path"] for error in refused["errors"]] == [path]
    assert await persons(api) == []


async def test_several_wrong_fields_are_named_together(api: Api) -> None:
    answer = await api.client.post("/v1/register", data={"person_id": "7", "extra": "1"}, files={"file": b"x"})

    assert {error["path"] for error in answer.json()["errors"]} == {
        "body.photo",
        "body.person_id",
        "body.extra",
        "body.file",
    }


async def test_a_new_consent_together_with_the_id_of_another_is_refused(api: Api) -> None:
    first = await api.register(portrait(), external_id="E-1")

    refused = await api.register(
        portrait(mirror=True), external_id="E-1", consent_id=first["consent"]["id"], status=422
    )

    assert "consent_id" in refused["errors"][0]["message"]


async def test_a_hostile_file_name_cannot_break_the_answer(api: Api) -> None:
    head = b'--B\r\nContent-Disposition: form-data; name="photo"; filename="+2AA-\x00.jpg"\r\n\r\n'
    fields = b"".join(
        b'\r\n--B\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\nx'
        for name in (b"name", b"consent_purpose", b"consent_recorded_by")
    )

    answer = await api.client.post(
        "/v1/register",
        content=head + portrait() + fields + b"\r\n--B--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=B; charset=utf-7"},
    )

    assert answer.status_code == 201
    assert "\ufffd" in answer.json()["accepted"][0]["filename"]
